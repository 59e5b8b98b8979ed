"""Arguments on the command line that do not fit are answered in words of the tool, and with how to write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from praxis_mcp.cli.tool_call import read_arguments
from praxis_mcp.errors import ArgumentError
from tests.cli.test_cli import Run, praxis, project  # noqa: F401  # pyright: ignore[reportUnusedImport]

SCHEMA = {
    "properties": {
        "eat": {"type": "integer"},
        "bars": {"type": "object"},
        "maybe": {"type": ["boolean", "null"]},
        "pin": {"type": "integer", "writeOnly": True},
    }
}


@pytest.mark.parametrize(
    ("word", "message", "remedy"),
    [
        ("eat=many", '"eat" must be a whole number, and "many" is not.', "Write eat=1."),
        ("bars=a", '"bars" must be an object, and "a" is not.', """Write bars='{"a": 1}'."""),
        ("maybe=yes", '"maybe" must be true or false or null, and "yes" is not.', "Write maybe=true."),
        ("pin=hunter2", '"pin" must be a whole number, and what was given is not.', "Write pin=1."),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_it_must_be(word: str, message: str, remedy: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        read_arguments(SCHEMA, [word], None)
    assert (caught.value.message, caught.value.remedy) == (message, remedy)


def test_an_argument_is_given_once_and_one_of_json_is_replaced() -> None:
    with pytest.raises(ArgumentError, match='"eat" is given twice'):
        read_arguments(SCHEMA, ["eat=1", "eat=2"], None)
    assert read_arguments(SCHEMA, ["eat=2"], '{"eat": 1}') == {"eat": 2}


def test_the_directory_for_artifacts_is_made(praxis: Run, project: Path) -> None:  # noqa: F811
    assert praxis("call", "greet", "who=x", "--artifacts", "new/deep").returncode == 0
    assert (project / "new" / "deep").is_dir()


def test_a_directory_for_artifacts_that_cannot_be_made_is_refused_before_the_call(praxis: Run) -> None:  # noqa: F811
    done = praxis("call", "greet", "who=x", "--artifacts", "/dev/null/new")
    assert (done.stdout, done.returncode) == ("", 2)
    assert "/dev/null/new cannot be made" in done.stderr


@pytest.mark.parametrize("command", ["call", "explain"])
def test_an_argument_that_is_written_as_an_option_is_answered_with_how_it_is_written(
    praxis: Run,  # noqa: F811
    command: str,
) -> None:
    done = praxis(command, "greet", "--who=x")
    assert (done.stdout, done.returncode) == ("", 2)
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "No such option: --who. Arguments of the tool are written without dashes: who=VALUE" in said
    assert "--json" in praxis(command, "greet", "--jsn").stderr, "what may have been meant is still named"
