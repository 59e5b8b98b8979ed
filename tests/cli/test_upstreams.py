"""`praxis-mcp upstreams`, as its users type it."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from praxis_mcp.settings.model import Settings
from tests.kit import command_line
from tests.kit.ports import NOWHERE
from tests.kit.upstreams import ROOT, words


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    here = {"address": words("stdio", "--lie"), "pin": True, "env": {"PYTHONPATH": str(ROOT)}}
    settings = {"tools": [], "upstreams": {"here": here, "gone": {"address": NOWHERE}}}
    (tmp_path / "praxis.yaml").write_text(yaml.safe_dump(settings))
    assert praxis(tmp_path, "trust").returncode == 0
    return tmp_path


def praxis(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command_line.praxis(*arguments, cwd=project)


def test_approved_tools_are_served_and_the_rest_is_held_back(project: Path) -> None:
    approved = praxis(project, "upstreams", "approve", "here", "echo", "sum")
    assert (approved.returncode, approved.stdout.splitlines()[0]) == (0, "echo: Says what it was told.")
    listed = praxis(project, "upstreams", "list", "--json")
    assert listed.returncode == 1, "something is held back, and one upstream is down"
    gone, here = json.loads(listed.stdout)["upstreams"]
    assert "cannot be reached" in gone["trouble"]
    assert [tool["name"] for tool in here["tools"]] == ["here_echo", "here_sum"]
    assert {"there": "slow", "why": "never approved"}.items() <= next(
        tool for tool in here["held"] if tool["there"] == "slow"
    ).items()
    assert [tool["there"] for tool in here["left_out"]] == ["7", "(no name)", "not a name!"]


def test_the_list_of_tools_says_that_some_are_held_back_and_where_to_see_them(project: Path) -> None:
    assert "of the upstream here held back: praxis-mcp upstreams list" in praxis(project, "list").stderr


def test_the_doctor_counts_tools_of_upstreams_where_there_are_no_contracts(project: Path) -> None:
    assert praxis(project, "upstreams", "approve", "here", "echo", "sum").returncode == 0
    last = praxis(project, "doctor").stdout.splitlines()[-1]
    assert last.startswith("There are no contracts here; 2 tools of upstreams")


def test_what_is_left_out_is_named_with_its_reason_by_list_and_doctor(project: Path) -> None:
    listed = praxis(project, "upstreams", "list").stdout
    doctor = praxis(project, "doctor").stdout
    for shown in (listed, doctor):
        text = " ".join(shown.split())  # whatever the terminal's width has broken
        assert "7: its name is missing, or not text" in text
        assert "not a name!: 'here_not a name!'" in text
    about = json.loads(praxis(project, "doctor", "--json").stdout)["upstreams"]
    assert [tool["there"] for tool in about[1]["left_out_tools"]] == ["7", "(no name)", "not a name!"]


def test_somebody_without_upstreams_learns_how_to_name_one(tmp_path: Path) -> None:
    done = praxis(tmp_path, "upstreams", "list")
    assert done.returncode == 0
    assert "upstreams: {NAME: {address: URL}}" in " ".join(done.stdout.split())


def test_mistakes_get_a_sentence(project: Path) -> None:
    for arguments, sentence in ((("nobody",), "no upstream nobody"), (("here", "nothing"), "nothing held back")):
        done = praxis(project, "upstreams", "approve", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence in done.stderr


def test_a_tool_that_an_upstream_may_have_is_unknown_with_what_is_wrong_with_that_upstream(project: Path) -> None:
    done = praxis(project, "call", "gone_x")
    assert done.returncode == 2
    assert 'There is no tool "gone_x". It may be one of the upstream gone, which has no list of tools: ' in done.stderr
    assert "cannot be reached" in done.stderr
    assert "upstream gone" not in praxis(project, "call", "nowhere_x").stderr


def test_nothing_is_approved_of_an_upstream_that_cannot_be_reached(project: Path) -> None:
    done = praxis(project, "upstreams", "approve", "gone")
    assert done.returncode not in (0, 2)
    assert done.stdout == ""
    assert "Nothing was approved" in done.stderr
    assert "cannot be reached" in done.stderr
    assert not (project / "praxis-upstreams.json").exists()


def test_a_tool_is_approved_as_it_was_looked_at_or_not_at_all(project: Path) -> None:
    shown = praxis(project, "upstreams", "list")
    held = json.loads(praxis(project, "upstreams", "list", "--json").stdout)["upstreams"][1]["held"]
    echo = next(tool for tool in held if tool["there"] == "echo")
    assert echo["input_schema"]["required"] == ["text"]
    seen = f"echo@{echo['fingerprint']}"
    assert f"praxis-mcp upstreams approve here {seen}\n" in shown.stdout
    changed = praxis(project, "upstreams", "approve", "here", "sum", f"echo@{'0' * 64}")
    assert (changed.returncode, changed.stdout) == (2, "")
    assert "is not what you looked at" in changed.stderr
    assert not (project / "praxis-upstreams.json").exists()
    assert praxis(project, "upstreams", "approve", "here", seen).returncode == 0
    assert praxis(project, "upstreams", "approve", "here").returncode == 0
    assert praxis(project, "upstreams", "approve", "here").stdout == "Nothing is held back of here.\n"


def test_the_command_that_is_shown_for_a_tool_approves_it_also_where_the_settings_are_named(project: Path) -> None:
    named = project / "my settings.yaml"
    (project / "praxis.yaml").rename(named)
    shown = praxis(project, "upstreams", "list", "--config", named.name).stdout
    command = next(line for line in shown.splitlines() if "approve here echo@" in line)
    assert praxis(project, *shlex.split(command)[1:]).stdout.startswith("echo: Says what it was told.\n1 approved")
    changed = praxis(project, "upstreams", "approve", "here", f"sum@{'0' * 64}", "-c", named.name)
    assert "with the same --config" in " ".join(changed.stderr.split())


def test_tools_of_upstreams_are_listed_called_and_explained_like_others(project: Path) -> None:
    praxis(project, "upstreams", "approve", "here", "echo", "fail")
    listed = json.loads(praxis(project, "list", "--json").stdout)
    tools = {tool["name"]: tool["engine"] for tool in listed["tools"]}
    assert tools == {"here_echo": "upstream:here", "here_fail": "upstream:here"}
    assert "cannot be reached" in listed["upstreams"]["gone"]
    called = praxis(project, "call", "here_echo", "text=hello")
    assert (called.returncode, called.stdout) == (0, "hello")
    failed = praxis(project, "call", "here_fail", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["engine"] == "upstream:here"
    explained = json.loads(praxis(project, "explain", "here_echo", "text=hello", "--json").stdout)
    assert {"upstream": "here", "tool_there": "echo", "engine": "upstream:here"}.items() <= explained.items()
    assert explained["limits"]["inline_output_bytes"] == Settings().calls.max_output, "as for every other tool"
    unknown = praxis(project, "call", "nothing")
    assert unknown.returncode == 2
    assert "nothing" in unknown.stderr
