"""Nothing that others wrote steers a terminal, forges a line or hides from whoever reads a log or approves a tool."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from praxis_mcp.support.text import unseen
from tests.serving.sample_tools import python, write_tool

EVIL = "Adds.\x1b[8m HIDDEN\x1b[0m \x9b2J\u202egnp\u200b\U000e0041\nFORGED line"
SERVER = """
import json, sys
SCHEMA = {"type": "object", "title": EVIL, "properties": {"text": {"description": "Which\\u202e text."}}}
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    tools = [
        {"name": "bad\\nFORGED 12:00 INFO all is well\\x1b[2K", "inputSchema": {"type": "object"}},
        {"name": "ok", "title": EVIL, "description": EVIL, "inputSchema": SCHEMA},
        {"name": "odd", "inputSchema": {"type": "object", "properties": {EVIL: {}}}},
    ]
    info = {"name": EVIL, "version": EVIL}
    answers = {
        "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info},
        "tools/list": {"tools": tools},
    }
    known = answers.get(message["method"])
    answer = {"result": known} if known else {"error": {"code": -1, "message": EVIL}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRAXIS_CONFIG", str(tmp_path / "praxis.yaml"))
    server = tmp_path / "server.py"
    server.write_text(SERVER.replace("EVIL", repr(EVIL)))
    tools = tmp_path / "tools"
    tools.mkdir()
    write_tool(tools, "own", python(f"print({EVIL!r}, end='')"), description=EVIL, env={"A": EVIL})
    write_tool(tools, "broken", ["true"], parameters={EVIL: {"type": EVIL}})
    upstreams = {"up": {"address": [sys.executable, str(server)], "pin": True}}
    settings = {"upstreams": upstreams, "engines": {"local": {"sandbox": "off"}}}
    (tmp_path / "praxis.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def praxis(project: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "praxis_mcp", *words],
        cwd=project,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "upstreams list",
        "upstreams list --json",
        "upstreams approve up",
        "list",
        "list --json",
        "explain own",
        "explain own --json",
        "doctor",
        "doctor --json",
        "validate",
        "validate --json",
        "call up_ok --log-level DEBUG",
        "call own --json",
    ],
)
def test_no_command_prints_a_character_that_steers_or_hides(project: Path, command: str) -> None:
    if command.startswith("call up"):
        assert praxis(project, "upstreams", "approve", "up").returncode == 0
    done = praxis(project, *command.split())
    for text in (done.stdout.decode(), done.stderr.decode()):
        assert unseen(text) == ()
        assert not [line for line in text.splitlines() if line.startswith("FORGED")]
    assert done.stdout + done.stderr


def test_a_person_who_approves_a_tool_reads_the_whole_of_its_description(project: Path) -> None:
    held = praxis(project, "upstreams", "list").stdout.decode()
    assert "      Adds.\\x1b[8m HIDDEN\\x1b[0m" in held
    assert "      FORGED line" in held
    assert "      properties.text.description: Which\\u202e text." in held
    shown = praxis(project, "upstreams", "approve", "up").stdout.decode()
    assert "  properties.text.description: Which\\u202e text." in shown
    assert "ok: Adds.\\x1b[8m HIDDEN\\x1b[0m" in shown
    assert "  FORGED line" in shown
    assert "\n  title: Adds.\\x1b[8m HIDDEN" in shown
    listed = json.loads(praxis(project, "list", "--json").stdout)
    assert next(tool for tool in listed["tools"] if tool["name"] == "up_ok")


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_entry_of_the_log_is_one_line_whatever_an_upstream_calls_its_tools(project: Path, form: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "praxis_mcp", "serve", "--log-level", "DEBUG"],
        cwd=project,
        env={**os.environ, "PRAXIS_LOG_FORMAT": form},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(HELLO)
    process.stdin.flush()
    while json.loads(process.stdout.readline()).get("id") != 2:
        pass
    log = process.communicate(timeout=60)[1].decode()
    assert "FORGED" in log, "the tool that cannot be served is named"
    assert unseen(log) == ()
    for line in log.splitlines():
        if form == "json":
            assert {"time", "level", "message"} <= json.loads(line).keys()
        else:
            assert line[2] == line[5] == ":"
        assert not line.startswith("FORGED")


HELLO = b"".join(
    json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
    for message in (
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": EVIL, "version": "1"},
            },
        },
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
    )
)


def read(descriptor: int) -> Iterator[bytes]:
    try:
        while data := os.read(descriptor, 4096):
            yield data
    except OSError:  # the other end is closed
        pass


def test_what_a_tool_writes_reaches_a_pipe_as_it_is_and_a_terminal_in_numbers(project: Path) -> None:
    assert praxis(project, "call", "own").stdout == EVIL.encode()
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "praxis_mcp", "call", "own"], cwd=project, stdout=terminal, stderr=subprocess.PIPE
    )
    os.close(terminal)
    shown = b"".join(read(controller)).decode()
    os.close(controller)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(60) == 0
    assert "Adds.\\x1b[8m HIDDEN" in shown
    assert "\x1b" not in shown
