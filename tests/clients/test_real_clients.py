"""The clients themselves, from npm, read what `praxis-mcp install` writes for them."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from praxis_mcp.clients import jsonc
from praxis_mcp.serving.access import hash_token
from tests.kit import command_line, node
from tests.serving.http_server import running_http

pytestmark = [pytest.mark.node, pytest.mark.timeout(1200)]

Programs = Callable[[Callable[[], node.NodeProgram]], node.NodeProgram]

TOOL = "name: hello\ndescription: Greets.\nengine: local\ncommand: [echo, hello]\n"
PATIENCE = 300.0
"""Seconds for one command of a client, which starts our server meanwhile."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("home", "own", "work/tools"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "work/tools/hello.contract.yaml").write_text(TOOL)
    return tmp_path / "work"


def environment(home: Path) -> dict[str, str]:
    """Of a user with that home directory."""
    moved = ("PRAXIS_", "XDG_", "CLAUDE", "CODEX_", "ANTHROPIC_")
    cleared = {name: "" for name in os.environ if name.startswith(moved)}
    return {**cleared, "HOME": str(home), "CODEX_HOME": str(home / ".codex"), "NO_COLOR": "1"}


def install(project: Path, *words: str, command: str = "install") -> None:
    env = {**os.environ, **environment(project.parent / "home")}
    done = command_line.praxis(command, *words, cwd=project, env={k: v for k, v in env.items() if v})
    assert done.returncode == 0, done.stderr


def ask(program: node.NodeProgram, home: Path, *words: str, **variables: str) -> str:
    (home / ".codex").mkdir(exist_ok=True)
    with_home = node.NodeProgram(program.command, {**program.env, **environment(home), **variables})
    done: subprocess.CompletedProcess[str] = with_home.run(*words, timeout=PATIENCE, cwd=home.parent / "work")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def entries(file: Path) -> dict[str, Any]:
    text = file.read_text()
    return tomllib.loads(text)["mcp_servers"] if file.suffix == ".toml" else json.loads(text)["mcpServers"]


def test_claude_code_starts_the_server_that_it_was_given_and_no_longer_when_that_is_taken_back(
    project: Path, node_programs: Programs
) -> None:
    claude, home = node_programs(node.claude_code), project.parent / "home"
    install(project, "claude-code")
    assert "✔ Connected" in ask(claude, home, "mcp", "list")
    install(project, "claude-code", command="uninstall")
    assert "praxis-mcp" not in ask(claude, home, "mcp", "list")


@pytest.mark.anyio
async def test_claude_code_reaches_a_server_over_http_with_the_token_of_the_variable_that_is_named(
    project: Path, node_programs: Programs
) -> None:
    claude, home = node_programs(node.claude_code), project.parent / "home"
    token = "a-token-of-this-test-0123456789"
    auth = {"tokens": {"claude": {"sha256": hash_token(token), "scopes": ["tools:*"]}}}
    async with running_http(project / "tools", "--http", http={"auth": auth}) as server:
        words = ("claude-code", "--url", server.mcp, "--token-variable", "MINE")
        await anyio.to_thread.run_sync(lambda: install(project, *words))
        seen = await anyio.to_thread.run_sync(lambda: ask(claude, home, "mcp", "list", MINE=token))
        assert "✔ Connected" in seen
    assert token not in (home / ".claude.json").read_text()


def test_what_is_written_is_what_the_clients_own_commands_write(project: Path, node_programs: Programs) -> None:
    claude, codex = node_programs(node.claude_code), node_programs(node.codex)
    home, own = project.parent / "home", project.parent / "own"
    url, variable = "http://127.0.0.1:9/mcp", "MINE"
    install(project, "claude-code", "codex")
    install(project, "claude-code", "codex", "--name", "remote", "--url", url, "--token-variable", variable)
    files = [home / ".claude.json", home / ".codex/config.toml"]
    ours = [entries(file) for file in files]
    start = [ours[1]["praxis-mcp"]["command"], *ours[1]["praxis-mcp"]["args"]]
    ask(claude, own, "mcp", "add", "--scope", "user", "praxis-mcp", "--", *start)
    header = f"Authorization: Bearer ${{{variable}}}"
    ask(claude, own, "mcp", "add", "--scope", "user", "--transport", "http", "remote", url, "--header", header)
    ask(codex, own, "mcp", "add", "praxis-mcp", "--", *start)
    ask(codex, own, "mcp", "add", "remote", "--url", url, "--bearer-token-env-var", variable)
    theirs = [entries(own / file.relative_to(home)) for file in files]
    for entry in theirs[0].values():
        if not entry.get("env", True):
            del entry["env"]  # an empty one, which means the same
    assert ours == theirs
    listed = {item["name"]: item["transport"] for item in json.loads(ask(codex, home, "mcp", "list", "--json"))}
    assert [listed["praxis-mcp"]["command"], *listed["praxis-mcp"]["args"]] == start
    assert (listed["remote"]["url"], listed["remote"]["bearer_token_env_var"]) == (url, variable)


def test_vs_codes_own_parser_reads_in_edited_texts_what_ours_does(node_programs: Programs) -> None:
    golden = Path(__file__).parent / "golden"
    texts = [file.read_text(encoding="utf-8") for file in sorted(golden.rglob("*.json"))]
    texts += [jsonc.put(text, ("added", "deep"), {"a": [1, {}]}) for text in texts]
    texts += [jsonc.remove(text, (name,)) for text in texts for name in jsonc.parse_object(text)]
    done = node_programs(node.jsonc_parse).run(text=json.dumps(texts), timeout=PATIENCE)
    read = json.loads(done.stdout)
    assert len(read) == len(texts) > 100
    for text, found in zip(texts, read, strict=True):
        assert found == {"value": jsonc.parse(text).value, "errors": []}, text
