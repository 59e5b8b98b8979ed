"""`praxis-mcp trust`, and what a server says of settings files that it found, as their users meet them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.kit import command_line
from tests.serving.clients import LIMIT

ROOT = Path(__file__).resolve().parents[2]
WHERE = "name: where\ndescription: Says where it runs.\nengine: local\ncommand: [pwd]\ncwd: '.'\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "clone" / "tools").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "clone" / "tools" / "where.contract.yaml").write_text(WHERE)
    upstream = ["sh", "-c", "touch pwned; exec cat"]
    settings = {"upstreams": {"x": {"address": upstream}}, "policy": {"privileged": True}}
    (tmp_path / "clone" / "praxis.yaml").write_text(json.dumps(settings))
    return tmp_path / "clone"


def environment(clone: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PRAXIS_", "XDG_"))}
    return {**kept, "HOME": str(clone.parent / "home"), "COLUMNS": "200"}


def praxis(clone: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return command_line.praxis(*words, cwd=cwd or clone, env=environment(clone))


async def served(clone: Path) -> tuple[list[str], str]:
    """The tools that a server lists which a client started in the clone, and its log."""
    with (clone.parent / "log").open("w+") as log:
        command = {"command": sys.executable, "args": ["-m", "praxis_mcp", "serve"], "cwd": clone}
        server = StdioServerParameters.model_validate({**command, "env": environment(clone)})
        async with Client(stdio_client(server, errlog=log), read_timeout_seconds=LIMIT) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
        log.seek(0)
        return names, log.read()


@pytest.mark.anyio
async def test_a_server_that_starts_in_a_cloned_repository_starts_none_of_its_commands_until_they_are_trusted(
    clone: Path,
) -> None:
    file = clone / "praxis.yaml"
    names, log = await served(clone)
    assert names == ["where"]
    assert not (clone / "pwned").exists()
    assert f"{file} was left aside: nobody has approved it" in log
    assert f"settings: none; root: {clone}" in log
    (command,) = re.findall(r"praxis-mcp (trust .*)", log)

    trusted = praxis(clone, *shlex.split(command), cwd=Path("/"))
    assert trusted.returncode == 0
    assert "starts the upstream x: sh -c 'touch pwned; exec cat'" in trusted.stdout
    assert "privileged" in trusted.stdout
    assert not (clone / "pwned").exists()

    _, log = await served(clone)
    assert f"settings: {file} (approved by praxis-mcp trust); root: {clone}" in log
    assert "left aside" not in log
    assert (clone / "pwned").exists()


def test_doctor_shows_the_settings_file_and_the_root_and_what_was_left_aside(clone: Path) -> None:
    report = json.loads(praxis(clone, "doctor", "--json").stdout)
    assert (report["root"], report["settings"]["file"]) == (str(clone), None)
    assert report["settings"]["left_aside"][0]["file"] == str(clone / "praxis.yaml")
    assert report["upstreams"] == []
    shown = praxis(clone, "doctor", "--config", "praxis.yaml").stdout.splitlines()
    assert f"settings {clone / 'praxis.yaml'} (named by --config)" in shown
    assert f"root     {clone} (the directory of the settings file)" in shown
    assert "settings none" in praxis(clone, "doctor", cwd=Path("/")).stdout.splitlines()


def test_commands_warn_of_a_file_that_was_left_aside_and_go_on(clone: Path) -> None:
    done = praxis(clone, "list", "--json")
    assert [tool["name"] for tool in json.loads(done.stdout)["tools"]] == ["where"]
    assert done.stderr.startswith(f"warning: The settings file {clone / 'praxis.yaml'} was left aside")
    assert not (clone / "pwned").exists()


def test_an_approval_can_be_listed_and_taken_back(clone: Path) -> None:
    file = clone / "praxis.yaml"
    assert "nothing" not in praxis(clone, "trust").stdout
    assert praxis(clone, "trust", "--list").stdout == f"{file}: approved\n"
    file.write_text("{}")
    assert praxis(clone, "trust", "--list").stdout == f"{file}: changed since it was approved\n"
    file.unlink()
    assert praxis(clone, "trust", "--revoke", "praxis.yaml").stdout == f"{file} is no longer approved.\n"
    assert praxis(clone, "trust", "--list").stdout == "No settings file is approved.\n"


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        (("trust", "other.yaml"), "Name it with --config"),
        (("trust", "tools"), "There is no praxis.yaml in"),
        (("trust", "nowhere"), "praxis-mcp trust DIRECTORY"),
        (("trust", "nowhere/praxis.yaml"), "cannot be read"),
    ],
)
def test_what_cannot_be_approved_is_said(clone: Path, words: tuple[str, ...], saying: str) -> None:
    done = praxis(clone, *words)
    assert (saying in done.stderr, done.stdout, done.returncode) == (True, "", 2)


def test_all_that_a_file_sets_is_named_when_it_is_approved_whatever_the_environment_sets(
    clone: Path,
) -> None:
    local = {"sandbox": "off", "visible": ["~/.cache/models"]}
    settings = {"engines": {"local": local}, "records": {"directory": "runs"}, "policy": {"privileged": True}}
    (clone / "praxis.yaml").write_text(json.dumps(settings))
    words = [sys.executable, "-m", "praxis_mcp", "trust", "--json"]
    hiding = {**environment(clone), "PRAXIS_ENGINES__LOCAL__SANDBOX": "require", "PRAXIS_POLICY__HOST_NETWORK": "true"}
    done = subprocess.run(words, cwd=clone, env=hiding, capture_output=True, text=True, timeout=60, check=True)
    lines = json.loads(done.stdout)["allows"]
    assert "runs commands on the host without a sandbox" in lines
    assert any(line.startswith("lets commands on the host read /") for line in lines)
    assert "lets contracts have the host's network" not in lines
    assert lines[-1] == "sets engines.local.sandbox, engines.local.visible, records.directory, policy.privileged"


def test_a_broken_file_is_not_approved(clone: Path) -> None:
    (clone / "praxis.yaml").write_text("polcy: {}\n")
    done = praxis(clone, "trust")
    assert (f"{clone / 'praxis.yaml'}:1: polcy is no" in done.stderr, done.returncode) == (True, 2)
    assert praxis(clone, "trust", "--list").stdout == "No settings file is approved.\n"


def snippets() -> list[list[str]]:
    """The commands that docs/start.md gives for clients, as words."""
    text = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    return [shlex.split(line.partition(" -- ")[2]) for line in re.findall(r"claude mcp add [^`\n]* -- [^`\n]*", text)]


@pytest.mark.anyio
async def test_the_snippets_for_clients_work_from_any_directory(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    commands = snippets()
    assert commands
    distinct = {tuple(words[1:]) for words in commands}
    for words in distinct:
        words = [word.replace("/path/to/praxis-mcp", str(ROOT)) for word in words]
        for start in (Path("/"), tmp_path / "home"):
            server = StdioServerParameters(
                command=sys.executable,
                args=["-m", "praxis_mcp", *words],
                env={**environment(tmp_path / "x"), "PRAXIS_PREFETCH": "false"},
                cwd=start,
            )
            async with Client(stdio_client(server), read_timeout_seconds=LIMIT) as client:
                result = await client.call_tool("file_tree", {"depth": 1})
            assert "pyproject.toml" in str(result.content), f"started in {start}"
