"""An option means the same in every command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from praxis_mcp.cli.app import make_app
from tests.kit import command_line


def commands(group: Any, *above: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)
        else:
            yield " ".join((*above, name)), command


COMMANDS = dict(commands(typer.main.get_command(make_app())))
NO_ANSWER = {"serve", "console", "dev"}
"""They go on until they are interrupted."""
OWN_FORMAT = {"schema", "runs export", "runs logs"}
"""What they print is JSON, or what a tool wrote."""


def test_an_option_has_one_text_and_one_form_in_every_command() -> None:
    seen: dict[str, tuple[str, Any]] = {}
    for name, command in COMMANDS.items():
        for option in command.params:
            if option.param_type_name != "option":
                continue
            # Two fields have that word: OAuth's for what a token covers, clients' for whose settings are changed.
            if option.opts == ["--scope"]:
                continue
            # What --name names is another thing in each command that makes one.
            about = "" if "--name" in option.opts else option.help
            meaning = (about, option.multiple, option.is_flag, sorted(option.opts))
            for word in option.opts:
                first, same = seen.setdefault(word, (name, meaning))
                assert meaning == same, f"{word} of {name} is not that of {first}"
    assert seen["--json"][1][0] == "Print JSON, for scripts."


def test_a_value_that_an_option_does_not_have_is_refused_in_plain_words(tmp_path: Path) -> None:
    done = command_line.praxis("runs", "list", "--outcome", "nope", cwd=tmp_path)
    assert done.returncode == 2
    assert "'--outcome': 'nope' is not one of" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_that_the_command_takes(name: str) -> None:
    (example,) = re.findall(r"^Example: praxis-mcp (.+)$", COMMANDS[name].help, re.MULTILINE)
    words = shlex.split(example.partition(" > ")[0])
    count = len(name.split())
    assert " ".join(words[:count]) == name
    COMMANDS[name].make_context(name, words[count:])


def test_every_command_that_ends_prints_json_for_scripts() -> None:
    without = {name for name, command in COMMANDS.items() if not any("--json" in item.opts for item in command.params)}
    assert without == NO_ANSWER | OWN_FORMAT
