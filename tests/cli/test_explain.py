"""`praxis-mcp explain` shows a tool to somebody who has no arguments at hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.kit import command_line

TOOL = """
name: draw
description: Draw.
image: busybox:1.36
command: [draw]
memory_limit: 64Mi
artifacts: [/out/*.png]
parameters:
  picture: {type: object, bind: stdin}
  width: {type: integer, minimum: 1, bind: {flag: --width=}}
  loud: {type: boolean, bind: {flag: --loud}}
  icon: {type: string, contentEncoding: base64, bind: {file: /in/icon}}
"""


def explain(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (directory / "draw.contract.yaml").write_text(TOOL)
    return command_line.praxis("explain", "draw", *words, "--tools", str(directory), cwd=directory)


def test_a_placeholder_stands_for_what_is_required_and_not_given(tmp_path: Path) -> None:
    facts = json.loads(explain(tmp_path, "--json").stdout)
    assert facts["placeholders"] == ["picture", "width", "loud", "icon"]
    assert facts["command"] == ["draw", "--width=<width>", "--loud"]
    assert (facts["stdin_bytes"], facts["files"]) == (None, {"/in/icon": None})
    assert json.loads(explain(tmp_path, "width=3", "--json").stdout)["command"] == ["draw", "--width=3", "--loud"]


def test_an_argument_that_is_given_must_fit_all_the_same(tmp_path: Path) -> None:
    done = explain(tmp_path, "width=0")
    assert done.returncode == 2
    assert "at least 1" in done.stderr


IMAGE = """
name: inside
description: Runs in an image.
image: localhost/explained
engine: sandbox
command: ["true"]
"""


@pytest.mark.native
@pytest.mark.sandbox
def test_explain_and_doctor_say_that_the_image_is_missing(tmp_path: Path) -> None:
    tools = ("--tools", str(tmp_path))

    def praxis(*words: str, pull: str = "missing", tools: tuple[str, ...] = tools) -> str:
        environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "PRAXIS_PULL": pull}
        return command_line.praxis(*words, *tools, cwd=tmp_path, env=environment).stdout

    (tmp_path / "inside.contract.yaml").write_text(IMAGE)
    assert "localhost/explained (not here yet: the first call has to pull it)" in praxis("explain", "inside")
    assert "localhost/explained is not here yet: the first call has to pull it" in praxis("doctor")
    assert "with pull: never a call is refused" in praxis("explain", "inside", pull="never")
    praxis("image", "from-host", "localhost/explained", "true", tools=())
    assert json.loads(praxis("explain", "inside", "--json"))["image_is_missing"] is False
    # It has one engine: where else a call could go is no question.
    assert json.loads(praxis("explain", "inside", "--json"))["spill"]["is_possible"] is False
    assert "where it would wait" not in praxis("explain", "inside")


LOCAL = """
name: here
description: Where it runs.
engine: local
command: [/bin/echo]
"""


def explain_here(directory: Path, sandbox: str, *words: str) -> str:
    (directory / "here.contract.yaml").write_text(LOCAL)
    environment = {**os.environ, "PRAXIS_ENGINES__LOCAL__SANDBOX": sandbox}
    done = command_line.praxis("explain", "here", *words, "--tools", str(directory), cwd=directory, env=environment)
    return done.stdout


@pytest.mark.native
def test_it_says_what_stands_between_tool_and_host_and_that_a_plain_process_has_nothing(tmp_path: Path) -> None:
    assert "isolation      none: a plain process of this user" in explain_here(tmp_path, "off")
    assert json.loads(explain_here(tmp_path, "off", "--json"))["isolation"] == "process"


@pytest.mark.native
@pytest.mark.sandbox
def test_it_names_what_makes_the_sandbox(tmp_path: Path) -> None:
    assert ["isolation", "praxis-init"] in [line.split() for line in explain_here(tmp_path, "own").splitlines()]


def warm_of(directory: Path, contract: str, **settings: str) -> dict[str, object]:
    (directory / "tool.contract.yaml").write_text(contract)
    environment = {**os.environ, "PRAXIS_ENGINES__LOCAL__SANDBOX": "own", **settings}
    words = ("explain", "tool", "--json", "--tools", str(directory))
    return json.loads(command_line.praxis(*words, cwd=directory, env=environment).stdout)["warm"]


HERE = """
name: tool
description: Runs here.
engine: local
command: [/bin/cat]
"""
WITH_A_FILE = "parameters: {text: {type: string, bind: {file: /tmp/text}}}"


@pytest.mark.native
@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("more", "settings", "reason"),
    [
        ("", {}, None),
        ("warm: false", {}, "the contract says warm: false"),
        (WITH_A_FILE, {}, "the call's files are laid into a sandbox of its own (bind: file)"),
        ("capture_output: false", {}, "its output is discarded (capture_output: false)"),
        ("", {"PRAXIS_WARM__ENABLED": "false"}, "warm.enabled is false"),
        ("", {"PRAXIS_WARM__MAX_CONTAINERS": "0"}, "warm.max_containers is 0"),
        ("", {"PRAXIS_WARM__MAX_PER_TOOL": "0"}, "warm.max_per_tool is 0"),
        ("", {"PRAXIS_WARM__MAX_MEMORY": "1000"}, "warm.max_memory has no room for one, which takes 8 MiB"),
        ("", {"PRAXIS_ENGINES__LOCAL__SANDBOX": "off"}, "a plain process starts at once"),
    ],
)
def test_it_says_whether_one_may_wait_for_a_call_and_why_not(
    tmp_path: Path, more: str, settings: dict[str, str], reason: str | None
) -> None:
    assert warm_of(tmp_path, HERE + more, **settings) == {"can_wait": reason is None, "reason": reason}


@pytest.mark.native
@pytest.mark.bubblewrap
def test_it_says_that_bubblewrap_makes_none_that_waits(tmp_path: Path) -> None:
    found = warm_of(tmp_path, HERE, PRAXIS_ENGINES__LOCAL__SANDBOX="bubblewrap")
    assert found == {"can_wait": False, "reason": "bubblewrap makes no sandbox that waits"}
    assert ["warm", "no:", "bubblewrap"] in [
        line.split()[:3] for line in explain_here(tmp_path, "bubblewrap").splitlines()
    ]


@pytest.mark.native
@pytest.mark.docker
def test_it_says_so_of_a_container_too(tmp_path: Path) -> None:
    contract = "name: tool\ndescription: Draw.\nimage: busybox:1.36\nengine: docker\ncommand: [draw]\n"
    assert warm_of(tmp_path, contract) == {"can_wait": True, "reason": None}
    found = warm_of(tmp_path, contract + "use_entrypoint: true\n")
    assert found == {"can_wait": False, "reason": "the image's own entrypoint starts its command (use_entrypoint)"}
    assert warm_of(tmp_path, contract + WITH_A_FILE) == {"can_wait": True, "reason": None}


@pytest.mark.docker
def test_a_limit_that_an_engine_sets_by_itself_is_shown(tmp_path: Path) -> None:
    (tmp_path / "draw.contract.yaml").write_text(TOOL.replace("memory_limit: 64Mi", "engine: docker"))
    done = command_line.praxis("explain", "draw", "--tools", str(tmp_path), cwd=tmp_path)
    assert ["pids", "512"] in [line.split() for line in done.stdout.splitlines()]


def test_limits_are_in_units_for_people_and_artifacts_are_among_the_facts(tmp_path: Path) -> None:
    rows = [line.split() for line in explain(tmp_path).stdout.splitlines()]
    assert ["memory", "64", "MiB"] in rows
    assert ["artifacts", "/out/*.png"] in rows
    assert ["file", "/in/icon", "(not", "given)"] in rows
