"""`praxis-mcp contracts`, and what the other commands say under `reload: approved`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.kit import command_line

HELLO = "name: hello\ndescription: Greets.\nengine: local\nnetwork: host\ncommand: [/bin/echo, hello]\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "hello.contract.yaml").write_text(HELLO)
    return tmp_path


def praxis(project: Path, *words: str, reload: str = "approved") -> subprocess.CompletedProcess[str]:
    more = {"XDG_CONFIG_HOME": str(project / "config"), "PRAXIS_RELOAD": reload, "COLUMNS": "200"}
    return command_line.praxis(*words, cwd=project, env={**os.environ, **more})


def test_a_contract_is_called_only_once_it_is_approved_as_it_was_looked_at(project: Path) -> None:
    held = praxis(project, "call", "hello")
    assert (held.stdout, held.returncode) == ("", 2)
    assert "hello is held back (reload: approved): nobody has approved it" in held.stderr
    listed = praxis(project, "contracts", "list", "--json")
    assert listed.returncode == 1
    (item,) = json.loads(listed.stdout)["contracts"]
    assert item["may"] == ["engine: local", "network: host"]
    wrong = praxis(project, "contracts", "approve", f"hello@{'0' * 64}")
    assert ("not what you looked at" in wrong.stderr, wrong.returncode) == (True, 2)
    command = f"praxis-mcp contracts approve hello@{item['fingerprint']}"
    assert command in held.stderr
    assert command in praxis(project, "contracts", "list").stdout
    approved = praxis(project, *command.split()[1:])
    assert "1 approved" in approved.stdout
    assert praxis(project, "call", "hello").stdout == "hello\n"
    assert praxis(project, "contracts", "revoke", "hello").stdout == "hello is no longer approved.\n"
    assert praxis(project, "call", "hello").returncode == 2


def test_an_approval_can_be_taken_back_of_a_contract_that_is_broken_or_gone(project: Path) -> None:
    file = project / "tools" / "hello.contract.yaml"
    for change in (lambda: file.write_text("name: hello\ncommand: 1\n"), file.unlink):
        file.write_text(HELLO)
        assert praxis(project, "contracts", "approve", "hello").returncode == 0
        change()
        done = praxis(project, "contracts", "revoke", "hello")
        assert (done.stdout, done.returncode) == ("hello is no longer approved.\n", 0), done.stderr
        file.write_text(HELLO)
        assert praxis(project, "call", "hello").returncode == 2, "it is approved still"
    unknown = praxis(project, "contracts", "revoke", "helo")
    assert ('no contract "helo" (did you mean "hello"?)' in unknown.stderr, unknown.returncode) == (True, 2)


def test_doctor_and_list_show_what_is_held_back(project: Path) -> None:
    # A contract whose finding only sounds like that of one that waits.
    (project / "tools" / "odd.contract.yaml").write_text("name: odd\ncommand: [x]\nhello is held back: 1\n")
    report = json.loads(praxis(project, "doctor", "--json").stdout)
    assert (report["settings"]["reload"], report["tools"], report["held_back"]) == ("approved", [], ["hello"])
    (project / "tools" / "odd.contract.yaml").unlink()
    assert "reload   approved: 1 contract held back" in praxis(project, "doctor").stdout
    assert "hello is held back" in praxis(project, "list").stderr
    assert praxis(project, "validate", "--strict").returncode == 0, "it is right, approved or not"
    assert "Nothing waits" not in praxis(project, "contracts", "approve").stdout
    assert praxis(project, "contracts", "approve").stdout == "Nothing waits for approval.\n"
    assert json.loads(praxis(project, "contracts", "approve", "--json").stdout)["approved"] == []
    revoked = praxis(project, "contracts", "revoke", "hello", "--json")
    assert json.loads(revoked.stdout) == {"revoked": {"hello": True}}
    (approved,) = json.loads(praxis(project, "contracts", "approve", "--json").stdout)["approved"]
    assert (approved["name"], approved["held"]) == ("hello", [])
    assert "held back" not in praxis(project, "list").stderr


@pytest.mark.parametrize("reload", ["true", "false"])
def test_without_the_setting_everything_is_served(project: Path, reload: str) -> None:
    assert praxis(project, "call", "hello", reload=reload).stdout == "hello\n"
    listed = praxis(project, "contracts", "list", reload=reload)
    assert (f"reload: {reload} in the settings" in listed.stdout, listed.returncode) == (True, 0)
