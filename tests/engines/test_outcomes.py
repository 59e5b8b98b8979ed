"""Why a command did not start, and how it ended, is worded alike wherever it was to run."""

import errno
import os
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.outcomes import (
    HOST,
    SANDBOX,
    ProgramSource,
    describe_end,
    describe_failed_run,
    start_failure,
)
from praxis_mcp.errors import CommandNotFound, ExecutionError, ImageError

IMAGE = ProgramSource.image("tools:1")


@pytest.mark.parametrize("source", [IMAGE, HOST, SANDBOX], ids=["image", "host", "sandbox"])
@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOENT, CommandNotFound, 'There is no command "nope" in {place}.'),
        (errno.ENOTDIR, CommandNotFound, 'There is no command "nope" in {place}.'),
        (errno.EACCES, CommandNotFound, '"nope" in {place} cannot be executed.'),
        (errno.E2BIG, ExecutionError, '"nope" cannot be started: its words and variables are too large'),
        (errno.ENOEXEC, ExecutionError, '"nope" in {place} is not for this machine'),
        (errno.ENOMEM, ExecutionError, '"nope" in {place} could not be started: Cannot allocate memory.'),
    ],
)
def test_a_command_that_does_not_start_is_explained_alike_everywhere(
    source: ProgramSource, number: int, kind: type[ExecutionError], text: str
) -> None:
    failure = start_failure("nope", os.strerror(number), source)
    assert failure.message.startswith(text.format(place=source.place))
    assert isinstance(failure, kind)
    assert isinstance(failure, ImageError) == (number == errno.ENOEXEC and source is IMAGE)
    assert failure.remedy or number == errno.ENOMEM


@pytest.mark.parametrize(
    ("code", "marks", "text"),
    [
        (0, {}, "exit code 0"),
        (3, {}, "exit code 3"),
        (126, {}, "exit code 126 (the command was found, but could not be executed)"),
        (127, {}, "exit code 127 (a command was not found)"),
        (137, {}, "exit code 137 (ended by SIGKILL)"),
        (250, {}, "exit code 250"),
        (137, {"timed_out": True}, "timed out"),
        (137, {"out_of_memory": True}, "out of memory"),
        (None, {}, "its end is not known"),
    ],
)
def test_an_end_is_described_in_a_few_words(code: int | None, marks: dict[str, Any], text: str) -> None:
    assert describe_end(ExecutionResult("run", "docker", "container", code, **marks)) == text


def test_a_run_whose_end_is_not_known_is_described_as_such() -> None:
    contract = ToolContract.create_local_tool("t", ["true"])
    sentence = describe_failed_run(contract, ExecutionResult("run", "remote", "remote", None))
    assert sentence == "t failed; how it ended is not known."
