"""The command line, as a user or a script meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import command_line

Run = Callable[..., "subprocess.CompletedProcess[str]"]

GREET = """\
name: greet
description: Greet somebody.
engine: local
command: [/bin/sh, -c, 'printf "%s, %s%s\\n" "$greeting" "$who" "$times"; echo "to stderr" >&2; exit "$code"']
timeout: 20
parameters:
  who: {type: string, description: Whom to greet.}
  greeting: {type: string, default: Hello}
  times: {type: integer, default: 1}
  code: {type: integer, default: 0, minimum: 0, maximum: 255}
examples:
  - {name: Greets, arguments: {who: Ada}, expect: "Hello, Ada1"}
  - {name: Fails, arguments: {who: Ada, code: 3}, expect_exit: 3}
"""
BROKEN = """\
name: broken
description: Has a mistake.
engine: local
command: [/bin/true]
timout: 5
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tools" / "greet").mkdir(parents=True)
    (tmp_path / "tools" / "greet" / "contract.yaml").write_text(GREET)
    return tmp_path


@pytest.fixture
def praxis(project: Path) -> Run:
    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return command_line.praxis(*words, cwd=project, stdin=stdin)

    return run


@pytest.mark.parametrize("command", ["list", "validate"])
def test_somebody_without_contracts_learns_where_they_go(tmp_path: Path, command: str) -> None:
    (tmp_path / "tools").mkdir()
    done = command_line.praxis(command, cwd=tmp_path)
    assert done.returncode == 0
    assert f"There are no contracts in {tmp_path / 'tools'}." in done.stderr
    assert "NAME.contract.yaml" in done.stderr
    assert "praxis-mcp new NAME" in done.stderr


def test_a_test_of_nothing_says_what_to_do_and_a_wrong_directory_is_not_told_to_write_examples(tmp_path: Path) -> None:
    done = command_line.praxis("test", cwd=tmp_path)
    assert ("praxis-mcp init" in done.stderr, "xamples" in done.stderr, done.returncode) == (True, False, 1)
    (tmp_path / "tools").mkdir()
    assert "praxis-mcp new NAME" in command_line.praxis("test", cwd=tmp_path).stderr


def test_call_prints_what_the_tool_wrote_and_ends_with_its_exit_code(praxis: Run) -> None:
    done = praxis("call", "greet", "who=Ada Lovelace", "times=3")
    assert (done.stdout, done.returncode) == ("Hello, Ada Lovelace3\n", 0)
    assert done.stderr == "to stderr\n"
    assert praxis("call", "greet", "who=x", "code=7").returncode == 7


@pytest.mark.parametrize("command", ["call", "explain"])
def test_arguments_are_words_json_a_file_or_standard_input(praxis: Run, project: Path, command: str) -> None:
    (project / "all.json").write_bytes(b'\xef\xbb\xbf{"who": "file", "times": 2}')
    for words, stdin, greeting in (
        (("who=@all.json", "times=3"), "", "Hello, @all.json3\n"),
        (("--arguments", '{"who": "json", "times": 2}'), "", "Hello, json2\n"),
        (("--arguments", "@all.json", "times=4"), "", "Hello, file4\n"),
        (("--arguments", "@-", "times=5"), '{"who": "stdin"}', "Hello, stdin5\n"),
    ):
        done = praxis(command, "greet", *words, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        if command == "call":
            assert told["stdout"] == greeting
        else:
            assert f"Hello, {told['env']['WHO']}{told['env']['TIMES']}\n" == greeting


def test_call_can_give_the_whole_result_as_json(praxis: Run) -> None:
    result = json.loads(praxis("call", "greet", "who=Ada", "--json").stdout)
    assert (result["tool"], result["engine"], result["exit_code"]) == ("greet", "local", 0)
    assert (result["stdout"], result["stderr"]) == ("Hello, Ada1\n", "to stderr\n")
    assert set(result["seconds"]) >= {"queue"}


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        (("call", "gret", "who=x"), 'did you mean "greet"'),
        (("call", "greet"), '"who"'),
        (("call", "greet", "who=x", "times=many"), "times"),
        (("call", "greet", "who=x", "nonsense"), "key=value"),
        (("call", "greet", "who=x", "times:=2"), 'did you mean "times"'),
        (("call", "greet", "--arguments", "{"), "not valid JSON"),
        (("call", "greet", "--arguments", "-"), "@- is standard input"),
        (("call", "greet", "--arguments", "[" * 100_000), "not valid JSON"),
        (("call", "greet", "--arguments", "[]"), "JSON object"),
        (("explain", "greet", "--arguments", "@missing.json"), "missing.json"),
        (("list", "--config", "missing.yaml"), "missing.yaml"),
        (("run", "greet"), "No such command 'run'. Did you mean 'call'?"),
        (("instal",), "Did you mean 'install'"),
    ],
)
def test_mistakes_get_a_sentence_and_exit_code_2_and_nothing_on_stdout(
    praxis: Run, words: tuple[str, ...], saying: str
) -> None:
    done = praxis(*words)
    assert saying in done.stderr
    assert "Traceback" not in done.stderr
    assert (done.stdout, done.returncode) == ("", 2)


def test_list_shows_tools_and_names_broken_contracts_without_losing_the_others(praxis: Run, project: Path) -> None:
    (project / "tools" / "broken.contract.yaml").write_text(BROKEN)
    done = praxis("list")
    assert "greet" in done.stdout
    assert "broken.contract.yaml:5" in done.stderr
    listed = json.loads(praxis("list", "--json").stdout)
    assert [tool["name"] for tool in listed["tools"]] == ["greet"]
    assert [item["field"] for item in listed["diagnostics"]] == ["timout"]


def test_list_says_what_each_tool_and_all_of_them_cost_an_agent(praxis: Run, project: Path) -> None:
    (project / "tools" / "other.contract.yaml").write_text("name: other\nimage: busybox:1.36\ncommand: ['true']\n")
    listed = json.loads(praxis("list", "--json").stdout)
    costs = {tool["name"]: (tool["bytes"], tool["tokens"]) for tool in listed["tools"]}
    assert (listed["bytes"], listed["tokens"]) == tuple(map(sum, zip(*costs.values(), strict=True)))
    assert costs["greet"][0] > costs["greet"][1] > costs["other"][1] > 0
    done = praxis("list")
    row = next(line for line in done.stdout.splitlines() if line.startswith("greet"))
    assert [str(number) for number in costs["greet"]] == row.split()[2:4]
    assert f"2 tools: {listed['bytes']} bytes in tools/list, about {listed['tokens']} tokens" in done.stderr


def test_list_says_what_an_agent_pays_where_tools_are_searched(praxis: Run, project: Path) -> None:
    (project / "tools" / "other.contract.yaml").write_text("name: other\nimage: busybox:1.36\ncommand: ['true']\n")
    assert json.loads(praxis("list", "--json").stdout)["search"] is None
    (project / "searched.yaml").write_text("search: {above: 1, core: [oth*]}\n")
    config = ("--config", str(project / "searched.yaml"))
    search = json.loads(praxis("list", "--json", *config).stdout)["search"]
    assert search["shown"] == ["call_tool", "find_tool", "other"]
    said = praxis("list", *config).stderr
    assert "They are searched: an agent is shown 3 tools" in said
    assert f"about {search['tokens']} tokens, and finds the others by find_tool" in said


def test_list_says_container_of_an_image_that_insists_on_no_engine(praxis: Run, project: Path) -> None:
    for name, line in (("any", ""), ("insists", "engine: docker\n")):
        text = f"name: {name}\ndescription: Do nothing.\n{line}image: busybox:1.36\ncommand: ['true']\n"
        (project / "tools" / f"{name}.contract.yaml").write_text(text)
    tools = json.loads(praxis("list", "--json").stdout)["tools"]
    assert {tool["name"]: tool["engine"] for tool in tools} == {
        "any": "container",
        "greet": "local",
        "insists": "docker",
    }
    assert "dagger" not in praxis("list").stdout


@pytest.mark.parametrize("command", ["call", "explain", "test"])
def test_a_tool_whose_contract_is_broken_or_whose_directory_is_missing_is_not_taken_for_a_wrong_name(
    praxis: Run, project: Path, command: str
) -> None:
    (project / "tools" / "any.contract.yaml").write_text(BROKEN)
    done = praxis(command, "broken")
    assert "broken is left out, because its contract is broken" in done.stderr
    assert "any.contract.yaml:5" in done.stderr
    assert ("There is no tool" in done.stderr, done.returncode) == (False, 2)
    done = praxis(command, "greet", "--tools", "nowhere")
    assert done.stderr.index("nowhere does not exist") < done.stderr.index('There is no tool "greet"')
    assert ("--tools DIRECTORY" in done.stderr, done.returncode) == (True, 2)
    assert 'There is no tool "other"' in praxis(command, "other").stderr


@pytest.mark.parametrize("command", ["list", "validate", "doctor"])
def test_directories_are_named_with_tools_as_they_are_for_call(praxis: Run, project: Path, command: str) -> None:
    (project / "tools").rename(project / "moved")
    (project / "more").mkdir()
    assert praxis(command).returncode == 1
    for words in (("-t", "moved"), ("--tools", "more", "-t", "moved"), ("more", "-t", "moved"), ("moved",)):
        done = praxis(command, *words, "--json")
        assert "does not exist" not in done.stdout
        assert done.returncode == 0


def test_validate_fails_with_file_line_field_and_remedy(praxis: Run, project: Path) -> None:
    assert praxis("validate").returncode == 0
    (project / "tools" / "broken.contract.yaml").write_text(BROKEN)
    done = praxis("validate", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["valid"], report["tools"]) == (1, False, 1)
    (finding,) = report["diagnostics"]
    assert (finding["line"], finding["field"]) == (5, "timout")
    assert "timeout" in finding["remedy"] + finding["message"]


def test_examples_run_as_tests(praxis: Run, project: Path) -> None:
    assert "2 passed, 0 failed" in praxis("test").stdout
    contract = project / "tools" / "greet" / "contract.yaml"
    contract.write_text(GREET.replace("Hello, Ada1", "Goodbye"))
    done = praxis("test", "greet")
    assert "1 passed, 1 failed" in done.stdout
    assert done.returncode == 1


def test_an_example_that_only_shows_is_not_run(praxis: Run, project: Path) -> None:
    contract = project / "tools" / "greet" / "contract.yaml"
    before = contract.read_text()
    contract.write_text(f"{before}  - {{name: only shown, arguments: {{}}, run: false, expect: nothing of this}}\n")
    assert "2 passed, 0 failed" in praxis("test", "greet").stdout
    examples = before[before.index("examples:") :]
    contract.write_text(before.replace(examples, "examples:\n  - {arguments: {}, run: false}\n"))
    done = praxis("test", "greet")
    assert ("greet has no examples that are run" in done.stderr, done.returncode) == (True, 1)


def test_examples_that_are_missing_are_a_failure(praxis: Run, project: Path) -> None:
    sleepy = project / "tools" / "sleepy.contract.yaml"
    sleepy.write_text("name: sleepy\ndescription: Sleep.\nengine: local\ncommand: [/bin/sleep, '0']\n")
    done = praxis("test")
    assert ("sleepy has no examples" in done.stderr, done.returncode) == (True, 0)
    done = praxis("test", "sleepy")
    assert ("Nothing was tested" in done.stderr, done.returncode) == (True, 1)
    (project / "tools" / "broken.contract.yaml").write_text(BROKEN)
    done = praxis("test")
    assert "2 passed, 0 failed" in done.stdout
    assert ("broken.contract.yaml:5" in done.stderr, done.returncode) == (True, 1)
    assert praxis("test", "greet").returncode == 0


@pytest.mark.parametrize("words", [("test", "--tools", "nowhere"), ("list", "nowhere"), ("list", "nowhere", "--json")])
def test_a_missing_directory_of_contracts_is_a_failure(praxis: Run, words: tuple[str, ...]) -> None:
    done = praxis(*words)
    assert ("nowhere does not exist" in done.stderr + done.stdout, done.returncode) == (True, 1)


def test_explain_shows_the_plan_with_its_engine_and_runs_nothing(
    praxis: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "hunter2hunter2")
    (project / "tools" / "touch.contract.yaml").write_text(
        "name: touch\ndescription: Leave a trace.\nengine: local\ncommand: [/bin/touch, trace]\n"
        "env: {TOKEN: {secret: API_TOKEN}}\n"
    )
    facts = json.loads(praxis("explain", "touch", "--json").stdout)
    assert (facts["engine"], facts["command"]) == ("local", ["/bin/touch", "trace"])
    assert facts["env"] == {"TOKEN": "***"}
    assert "network: none" in facts["demands"]
    assert not list(project.rglob("trace"))
    readable = praxis("explain", "touch").stdout
    assert "local" in readable
    assert "hunter2" not in readable


def test_explain_masks_a_secret_by_where_it_comes_from(
    praxis: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "tools" / "report.contract.yaml").write_text(
        "name: report\ndescription: Report.\nengine: local\ncommand: [/bin/true]\nenv: {KEY: {secret: REPORT_KEY}}\n"
    )
    monkeypatch.setenv("REPORT_KEY", "")
    assert json.loads(praxis("explain", "report", "--json").stdout)["env"] == {"KEY": "***"}
    monkeypatch.setenv("REPORT_KEY", "q7z")
    done = praxis("explain", "report")
    assert "q7z" not in done.stdout + done.stderr
    assert ("too few to be masked" in done.stderr, done.returncode) == (True, 2)


def test_doctor_says_of_every_engine_whether_it_works_or_how_to_fix_it(praxis: Run) -> None:
    report = json.loads(praxis("doctor", "--json").stdout)
    engines = {item["engine"]: item for item in report["engines"]}
    assert {"dagger", "docker", "local"} <= engines.keys()
    assert all(item["available"] or item["remedy"] for item in report["engines"])
    assert [(item["tool"], item["engine"]) for item in report["tools"]] == [("greet", "local")]


def test_schema_is_a_json_schema_that_knows_the_contract_format(praxis: Run) -> None:
    schema = json.loads(praxis("schema").stdout)
    assert {"name", "command", "parameters", "timeout"} <= schema["else"]["properties"].keys()


def test_settings_come_from_file_environment_and_flags_in_that_order(
    praxis: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "mine.yaml").write_text("calls: {max_timeout: 10}\n")
    assert "max_timeout" in praxis("call", "greet", "who=x", "--config", "mine.yaml").stderr
    monkeypatch.setenv("PRAXIS_CONFIG", str(project / "mine.yaml"))
    assert "max_timeout" in praxis("call", "greet", "who=x").stderr
    monkeypatch.setenv("PRAXIS_CALLS__MAX_TIMEOUT", "30")
    assert praxis("call", "greet", "who=x").returncode == 0
    (project / "mine.yaml").write_text("calls: {max_tiemout: 10}\n")
    done = praxis("call", "greet", "who=x")
    assert "calls.max_tiemout" in done.stderr
    assert done.returncode == 2


def test_a_tool_that_runs_into_its_timeout_ends_with_124(praxis: Run, project: Path) -> None:
    (project / "tools" / "sleep.contract.yaml").write_text(
        "name: sleep\ndescription: Sleep.\nengine: local\ncommand: [/bin/sleep, '60']\ntimeout: 0.5\n"
    )
    done = praxis("call", "sleep")
    assert (done.stdout, done.returncode) == ("", 124)
    assert done.stderr.startswith("error: sleep was stopped at its time limit of 0.5 s")
    assert "→ ask for less in one call" in done.stderr


def test_a_failed_call_is_explained_where_the_tool_cannot_have_done_it(praxis: Run, project: Path) -> None:
    (project / "tools" / "sh.contract.yaml").write_text(
        "name: sh\ndescription: Run.\nengine: local\ncommand: [/bin/sh, -c, 'printf oh >&2; eval \"$1\"', sh]\n"
        "parameters: {script: {type: string, bind: {position: 1}}}\n"
    )
    assert praxis("call", "sh", "script=exit 3").stderr == "oh"
    assert praxis("call", "sh", "script=exit 127").stderr.splitlines() == [
        "oh",
        "error: sh failed with exit code 127 (a command was not found).",
    ]
    full = praxis("call", "sh", "script=echo No space left on device >&2; exit 1").stderr
    assert "→ a disk or the tool's /tmp is full" in full


def test_the_last_line_is_ended_on_a_terminal_only(praxis: Run, project: Path) -> None:
    (project / "tools" / "hi.contract.yaml").write_text(
        "name: hi\ndescription: Greet.\nengine: local\ncommand: [/usr/bin/printf, HI]\n"
    )
    assert praxis("call", "hi").stdout == "HI"
    ours, theirs = os.openpty()
    try:
        command = [sys.executable, "-m", "praxis_mcp", "call", "hi"]
        subprocess.run(command, cwd=project, stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=True)
        assert os.read(ours, 100) == b"HI\r\n"
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_command_line_starts_without_any_engine_sdk_or_model() -> None:
    script = (
        "import sys, praxis_mcp.cli.app\n"
        "late = ('dagger', 'docker', 'jsonschema', 'watchfiles', 'rich.table', 'pydantic')\n"
        "print([name for name in late if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_paragraph_of_help_breaks_at_the_terminals_width_only(praxis: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    text = praxis("contracts", "approve", "--help").stdout
    assert "as the log and `praxis-mcp contracts list` show it, only what you have looked at." in text


def test_help_names_every_command(praxis: Run) -> None:
    text = praxis("--help").stdout
    assert all(
        name in text
        for name in ("serve", "list", "call", "explain", "validate", "test", "doctor", "trust", "contracts")
    )
