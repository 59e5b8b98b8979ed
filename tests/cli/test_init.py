"""`praxis-mcp init` and `new`: what they write works, and nothing that was there is touched."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.kit import command_line


def praxis(cwd: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of a user whose home is empty."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PRAXIS_", "XDG_"))}
    home = cwd / ".home"
    home.mkdir(exist_ok=True)
    return command_line.praxis(*words, cwd=cwd, env={**kept, "HOME": str(home), **variables}, timeout=180)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    # One home for every directory that a test works in.
    return tmp_path


def test_what_init_makes_is_valid_passes_its_examples_and_is_approved(here: Path) -> None:
    made = praxis(here, "init", "my-tools")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-3:] == [
        "Next:",
        "  cd my-tools && praxis-mcp test",
        "  praxis-mcp install claude-code",
    ]
    mine = here / "my-tools"
    assert (mine / ".gitignore").exists()
    assert "praxis-mcp test" in (mine / ".github/workflows/tools.yaml").read_text()
    variables = {"HOME": str(here / ".home")}
    checked = praxis(mine, "validate", "--strict", **variables)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "1 tool usable, 0 errors, 0 warnings\n", "")
    tested = praxis(mine, "test", **variables)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert tested.stdout.endswith("3 passed, 0 failed\n")
    assert "left aside" not in tested.stderr


def test_a_workflow_for_ci_runs_commands_that_pass_on_a_machine_where_nothing_is_approved(here: Path) -> None:
    assert praxis(here, "init", "my-tools").returncode == 0
    workflow = yaml.safe_load((here / "my-tools/.github/workflows/tools.yaml").read_text())
    commands = [shlex.split(step["run"]) for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    ours = [words[1:] for words in commands if words[0] == "praxis-mcp"]
    assert [words[0] for words in ours] == ["validate", "lint", "test"]
    for words in ours:
        done = praxis(here / "my-tools", *words)
        assert done.returncode == 0, done.stderr


def test_init_names_what_is_there_and_leaves_it_as_it_is(here: Path) -> None:
    mine = here / "mine"
    (mine / "tools" / "old").mkdir(parents=True)
    (mine / "tools/old/contract.yaml").write_text("name: old\n")
    (mine / "praxis.yml").write_text("reload: false\n")
    (mine / ".gitignore").symlink_to("nowhere")
    made = praxis(mine, "init", "--json")
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    assert [Path(file).name for file in said["files"]] == ["tools.yaml"]
    assert [Path(file).name for file in said["kept"]] == ["praxis.yml", ".gitignore", "tools"]
    assert (mine / ".gitignore").is_symlink()
    assert not (mine / "praxis.yaml").exists(), "both names count alike"
    assert sorted(path.name for path in (mine / "tools").iterdir()) == ["old"]
    assert praxis(mine, "trust", "--list").stdout == "No settings file is approved.\n"
    again = praxis(mine, "init")
    assert "kept .github/workflows/tools.yaml, which is there already" in again.stdout
    assert "wrote" not in again.stdout


def test_init_is_refused_where_settings_are_never_looked_for(here: Path) -> None:
    home = here / ".home"
    home.mkdir()
    refused = praxis(here, "init", str(home))
    assert refused.returncode == 2
    assert "holds many projects" in refused.stderr
    assert not list(home.iterdir())
    (here / "file").touch()
    assert "is not a directory" in praxis(here, "init", "file").stderr


@pytest.mark.parametrize("link", [".github", "tools", ".github/workflows"])
def test_init_writes_through_no_link_that_leads_out_of_the_directory(here: Path, link: str) -> None:
    mine, elsewhere = here / "mine", here / "elsewhere"
    (mine / link).parent.mkdir(parents=True)
    elsewhere.mkdir()
    (mine / link).symlink_to(elsewhere)
    refused = praxis(mine, "init")
    assert refused.returncode == 2
    assert f"leads out of {mine}; nothing was written" in refused.stderr
    assert not list(elsewhere.iterdir())
    assert not (mine / "praxis.yaml").exists()
    (mine / link).unlink()
    (mine / "inside").mkdir()
    (mine / link).symlink_to(mine / "inside")
    assert praxis(mine, "init").returncode == 0


def test_a_place_where_one_file_cannot_be_written_is_left_as_it_was(here: Path) -> None:
    mine = here / "mine"
    mine.mkdir()
    (mine / "tools").mkdir()
    (mine / ".github").touch()
    refused = praxis(mine, "init")
    assert refused.returncode == 2
    assert ".github/workflows cannot be written: Not a directory" in refused.stderr
    assert {path.relative_to(mine).as_posix() for path in mine.rglob("*")} == {"tools", ".github", ".home"}


def test_a_name_that_yaml_would_read_as_something_else_is_still_a_name(here: Path) -> None:
    names = ["null", "1.5", "true", "plain_2"]
    for name in names:
        assert praxis(here, "new", name, "--local").returncode == 0
    listed = json.loads(praxis(here, "list", "--json").stdout)
    assert sorted(tool["name"] for tool in listed["tools"]) == sorted(names)
    read = [yaml.safe_load((here / f"tools/{name}/contract.yaml").read_text())["name"] for name in names]
    assert read == names, "as other readers of YAML have it, too"


@pytest.mark.parametrize("language", ["shell", "python", "node", "go"])
def test_a_new_tool_is_valid_in_an_image_and_on_the_host(here: Path, language: str) -> None:
    assert praxis(here, "new", "a", "--lang", language).returncode == 0
    assert praxis(here, "new", "b", "--lang", language, "--local").returncode == 0
    checked = praxis(here, "validate", "--strict")
    assert (checked.returncode, checked.stdout) == (0, "2 tools usable, 0 errors, 0 warnings\n"), checked.stderr
    contracts = [yaml.safe_load((here / f"tools/{name}/contract.yaml").read_text()) for name in "ab"]
    assert "image" in contracts[0]
    assert contracts[1]["engine"] == "local"
    assert contracts[0]["parameters"] == contracts[1]["parameters"]


@pytest.mark.parametrize("language", ["shell", "python", pytest.param("node", marks=pytest.mark.node)])
def test_a_new_tool_of_this_machines_programs_passes_its_examples(here: Path, language: str) -> None:
    made = praxis(here, "new", "mine", "--lang", language, "--local", "--json")
    said = json.loads(made.stdout)
    assert said["next"][0] == "praxis-mcp test mine"
    tested, called = (praxis(here, *shlex.split(step)[1:]) for step in said["next"])
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert json.loads(called.stdout) == {"unit": "words", "count": 2}
    refused = praxis(here, "call", "mine", "text=a", "unit=letters")
    assert refused.returncode == 2


@pytest.mark.docker
@pytest.mark.parametrize(("language", "image"), [("shell", "busybox:1.36"), ("python", "python:3.11-slim")])
def test_a_new_tool_in_an_image_passes_its_examples(here: Path, language: str, image: str) -> None:
    assert praxis(here, "new", "mine", "--lang", language, "--image", image).returncode == 0
    tested = praxis(here, "test", "mine", PRAXIS_PULL="never")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_program_of_a_go_tool_is_made_by_the_command_that_is_shown_first(here: Path) -> None:
    said = json.loads(praxis(here, "new", "mine", "--lang", "go", "--local", "--json").stdout)
    assert said["next"][0] == "(cd tools/mine && go build -o main main.go)"
    contract = yaml.safe_load((here / "tools/mine/contract.yaml").read_text())
    assert contract["command"] == ["{contract_dir}/main"]
    assert (here / "tools/mine/.gitignore").read_text() == "main\n"


def test_a_name_that_is_taken_or_cannot_be_one_is_refused_and_nothing_is_written(here: Path) -> None:
    (here / "tools/other").mkdir(parents=True)
    (here / "tools/other/contract.yaml").write_text("name: mine\ndescription: D.\nimage: a\ncommand: [b]\n")
    taken = praxis(here, "new", "mine")
    assert taken.returncode == 2
    assert "There is a tool mine already: " in taken.stderr
    assert "tools/other/contract.yaml" in taken.stderr
    for name in ("../up", "", ".hidden", "a b", "x" * 65, "-x"):
        refused = praxis(here, "new", "--", name)
        assert refused.returncode == 2
        assert "is not a valid name" in refused.stderr
    (here / "tools/busy").mkdir()
    (here / "tools/busy/main.py").write_text("mine\n")
    busy = praxis(here, "new", "busy")
    assert busy.returncode == 2
    assert "main.py exists already; nothing was written" in busy.stderr
    assert [path.name for path in (here / "tools/busy").iterdir()] == ["main.py"]
    assert praxis(here, "new", "both", "--local", "--image", "a").returncode == 2
    odd = praxis(here, "new", "odd", "--image", "a: b #c")
    assert odd.returncode == 2
    assert "is not an image reference" in odd.stderr
    assert sorted(path.name for path in (here / "tools").iterdir()) == ["busy", "other"]


def test_a_new_tool_goes_where_tools_are_looked_for_and_the_next_commands_find_it(here: Path) -> None:
    said = json.loads(praxis(here, "new", "mine", "--tools", "my tools", "--local", "--json").stdout)
    assert said["files"][0] == str(here / "my tools/mine/contract.yaml")
    done = praxis(here, *shlex.split(said["next"][0])[1:])
    assert done.returncode == 0, done.stdout + done.stderr
