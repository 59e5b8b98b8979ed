"""Computing that is long is done in a thread, so that the event loop goes on."""

from __future__ import annotations

import gc
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.schemas.schema import compile_schemas
from praxis_mcp.engines.base import ExecutionResult, RemoteContent
from praxis_mcp.engines.output import Captured
from praxis_mcp.execution.result_checks import OutputChecks
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.results import ResultWriter
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.workers import INLINE_SIZE, compute, size_of_json
from tests.kit.until import until

pytestmark = pytest.mark.anyio

COUNT = 1024 * 1024 // 75
ENTRY = {"type": "object", "properties": {"k": {"type": "integer"}, "s": {"type": "string"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "array", "items": ENTRY}}}
LEAST_TURNS = 20
"""Turns of the event loop while much is worked on; were it done there, there would be two or three."""


def value() -> dict[str, Any]:
    return {"a": [{"k": number, "s": "x" * 50} for number in range(COUNT)]}


async def turns_while(work: Callable[[], Awaitable[object]]) -> int:
    """How often the event loop came round to something else before that had ended."""
    turns, is_done = 0, False

    async def do() -> None:
        nonlocal is_done
        await work()
        is_done = True

    with anyio.fail_after(120):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(do)
            while not is_done:
                turns += 1
                await anyio.lowlevel.checkpoint()
    return turns


async def test_a_result_of_8_mib_that_is_checked_keeps_no_other_call_waiting() -> None:
    spec = {"image": "scratch:1", "command": ["run"]}
    fields = {"name": "tool", "engine": "dagger", "engine_spec": spec, "output": "json", "output_schema": SCHEMA}
    contract = ToolContract.model_validate(fields)
    compile_schemas(contract)
    data = ("[" + ",".join(["1234567"] * (1024 * 1024)) + "]").encode()
    result = ExecutionResult("0" * 32, "docker", "container", 0, Captured(data, total=len(data)))
    writer = ResultWriter(Settings(), Dialect("2025-11-25"))
    assert await turns_while(lambda: writer.write(contract, result)) > LEAST_TURNS


async def test_an_answer_of_another_server_that_is_checked_keeps_no_other_call_waiting() -> None:
    tool = RemoteTool("up_tool", "up", "tool", {}, SCHEMA)
    checks, content = OutputChecks(), RemoteContent((), value())
    assert await checks.misfit(tool, RemoteContent((), {})) is None  # compiles the schema, in a thread as well
    assert await turns_while(lambda: checks.misfit(tool, content)) > LEAST_TURNS


async def test_small_values_are_worked_on_where_they_are_and_others_in_a_thread() -> None:
    here = threading.get_ident()
    assert await compute(threading.get_ident, size=INLINE_SIZE) == here
    assert await compute(threading.get_ident, size=INLINE_SIZE + 1) != here


async def test_nothing_of_a_caller_stays_behind_an_error_until_garbage_is_collected() -> None:
    """Arguments that do not fit may be long, and collections are rare."""

    class Argument:
        pass

    def refuse() -> None:
        raise ValueError("does not fit")

    async def call() -> None:
        argument = Argument()
        left.append(weakref.ref(argument))
        await compute(refuse, size=INLINE_SIZE + 1)

    left: list[weakref.ref[Argument]] = []
    places: list[str] = []
    gc.disable()
    try:
        try:
            await call()
        except ValueError as exc:
            places = [entry.name for entry in traceback.extract_tb(exc.__traceback__)]
        await until(lambda: left[0]() is None)  # the thread lets go a moment later
    finally:
        gc.enable()
    assert places[-1] == "refuse", "where it was raised is seen"


async def test_much_that_is_computed_at_once_takes_no_thread_from_what_reads_files() -> None:
    release = threading.Event()
    most = anyio.to_thread.current_default_thread_limiter().total_tokens
    async with anyio.create_task_group() as tasks:
        for _ in range(2 * int(most)):
            tasks.start_soon(partial(compute, release.wait, size=INLINE_SIZE + 1))
        try:
            await anyio.lowlevel.checkpoint()
            with anyio.fail_after(30):
                await anyio.to_thread.run_sync(threading.get_ident)
        finally:
            release.set()


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        ({}, 0, 20),
        ("x" * 100, 100, 120),
        ({"name": ["text", 1, None, {"a": True}]}, 30, 200),
        ([0] * 10**7, INLINE_SIZE, 10**8),
        ([["x" * 1000] * 1000] * 1000, INLINE_SIZE, INLINE_SIZE + 20_000),
    ],
    ids=["empty", "text", "small", "long", "nested"],
)
def test_the_size_of_a_value_is_counted_up_to_a_bound(given: Any, least: int, most: int) -> None:
    assert least <= size_of_json(given) <= most
