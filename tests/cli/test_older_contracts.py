"""The older SDK's contracts and configuration files, as somebody who has them meets the command line."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.kit import command_line

COUNT = """\
name: count
description: Counts the words of a file.
engine: local
params:
  - name: file
    type: string
    required: "true"
engineSpec:
  command: ["/bin/sh", "/praxis-s/tools/count/count.sh"]
  network: none
  mounts:
    ./shared: /praxis-s
    ./tools: /praxis-s/tools
"""
AWAY = COUNT.replace("name: count", "name: away").replace("./shared", "/praxis-nowhere/shared")
AGENT = """\
agent:
  name: one
  tools:
    - name: count
      engine: dagger
      engineSpec: {image: "python:3.11-slim", command: [python, /shared/count.py]}
    - {name: read_file, engine: local}
p2p: {enabled: true}
http: {enabled: true, port: 8000}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in (("count", COUNT), ("away", AWAY)):
        (tmp_path / "tools" / name).mkdir(parents=True)
        (tmp_path / "tools" / name / "contract.yaml").write_text(text)
    (tmp_path / "tools/count/count.sh").write_text('wc -w < "$file" > /praxis-s/words; cat /praxis-s/words')
    return tmp_path


def praxis(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return command_line.praxis(*words, cwd=project)


def test_validate_says_before_a_call_what_is_read_only_and_what_would_be_refused(project: Path) -> None:
    done = praxis(project, "validate", "--json")
    report = json.loads(done.stdout)
    assert (report["valid"], report["tools"], done.returncode) == (True, 2, 0)
    found = [(Path(item["path"]).parent.name, item["line"], item["message"]) for item in report["diagnostics"]]
    refused = [item for item in found if "Every call would be refused" in item[2]]
    assert [item[:2] for item in refused] == [("away", 12)]
    assert "/praxis-nowhere/shared, which does not exist" in refused[0][2]
    kept = [item for item in found if "read-only for the tool, because it holds contracts" in item[2]]
    assert sorted(item[:2] for item in kept) == [("away", 13), ("count", 13)]
    assert len(found) == 3
    assert sorted(path.name for path in project.iterdir()) == ["tools"]


@pytest.mark.bubblewrap
def test_a_call_makes_the_directory_that_explain_and_doctor_leave_alone(project: Path) -> None:
    explained = json.loads(praxis(project, "explain", "count", "--json").stdout)["mounts"]
    assert explained == [
        f"{project}/shared → /praxis-s (rw), which a call makes",
        f"{project}/tools → /praxis-s/tools (ro), because it holds contracts, which are served as they are",
    ]
    tools = {item["tool"]: item for item in json.loads(praxis(project, "doctor", "--json").stdout)["tools"]}
    assert (tools["count"]["engine"], tools["away"]["engine"]) == ("local", None)
    assert not (project / "shared").exists()
    done = praxis(project, "call", "count", "file=/praxis-s/tools/count/count.sh")
    assert (done.stdout.strip(), done.returncode) == ("8", 0), done.stderr
    assert (project / "shared/words").read_text().strip() == "8"


@pytest.mark.parametrize("command", ["serve", "validate", "doctor", "list"])
def test_an_agents_configuration_given_as_settings_is_called_that(project: Path, command: str) -> None:
    (project / "agent1.yaml").write_text(AGENT)
    done = praxis(project, command, "--config", "agent1.yaml")
    assert (done.stdout, done.returncode) == ("", 2)
    assert "agent1.yaml is the configuration of an agent of the older Praxis SDK" in done.stderr
    assert "(count): write it to a file of its own, tools/NAME/contract.yaml" in done.stderr
    assert "is not a setting" not in done.stderr
