"""Calls of other servers' republished tools: admitted, counted and recorded as those of contracts are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.output import Captured, OutputListener, StreamCollector
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.remote import ISOLATION, progress_lines, text_of
from praxis_mcp.errors import ArgumentError, RunNotFoundError
from praxis_mcp.execution.admission import Share
from praxis_mcp.execution.records.record import RunRecord
from praxis_mcp.execution.records.row import About
from praxis_mcp.execution.records.runs import RunRecords
from praxis_mcp.execution.runner import ToolRunner
from praxis_mcp.execution.tally import Counted
from praxis_mcp.federation.addresses import (
    CallerLinks,
    Here,
    address_here,
    linked,
    resource_with_addresses_here,
    with_addresses_here,
)
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.federation.upstreams import Upstreams
from praxis_mcp.plans.build import new_run_id
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.text import NOT_FINITE, all_finite

SLACK = 1024
"""Bytes beyond `calls.max_output` that are still passed on whole: a worker that is a server like this one has cut its
text to that length already, and said so in a line of its own, which an address here makes longer."""


def engine_name(tool: RemoteTool) -> str:
    """What stands for an engine in records and counts."""
    return f"upstream:{tool.upstream}"


class RelayRunner:
    """Runs calls of upstreams' tools. `praxis-mcp call` and the server go through it."""

    def __init__(self, upstreams: Upstreams, runner: ToolRunner, records: RunRecords, settings: Settings) -> None:
        self._upstreams = upstreams
        self._runner = runner
        self._records = records
        self._settings = settings
        self._links = CallerLinks()

    @property
    def max_text(self) -> int:
        """Bytes of text that a result carries inline."""
        return self._settings.calls.max_output + SLACK

    async def find(self, name: str) -> RemoteTool | None:
        """The tool of that name, where an upstream has it; waits for those that may have it and have not answered yet.

        Raises:
            ExecutionError: it is held back.
        """
        found = self._upstreams.find(name)
        if found is None:
            await self._upstreams.wait_for(name)
            found = self._upstreams.find(name)
        return found

    async def call(
        self,
        tool: RemoteTool,
        arguments: Mapping[str, Any],
        *,
        caller: str = "",
        client: str = "",
        on_output: OutputListener | None = None,
        run_id: str = "",
    ) -> ExecutionResult:
        """What the tool answered. Cancelling cancels it there.

        Args:
            tool: the tool; its server checks the arguments.
            arguments: passed on as they are, where JSON can carry them.
            caller: who calls; the run's record, and what the answer links, is theirs. Empty is anonymous.
            client: name and version of the program that calls, as it gives them.
            on_output: receives progress, a line of JSON on standard error each.
            run_id: see `ToolRunner.call`.

        Raises:
            ContractError: the tool is not the locked one, where only that may be called.
            ArgumentError: a number among the arguments is not finite.
            RemoteError: the upstream answered with a protocol error.
            ExecutionError: see `Upstreams.call`.
        """
        runner = self._runner
        if runner.lock is not None:
            runner.lock.check_remote(tool)
        with (
            runner.tally.call(tool.name, caller, client) as counted,
            runner.callers.hold(caller, tool.name) as may_begin,
        ):
            if not all_finite(arguments):
                # Their server would get null, or what is not JSON, and might never answer.
                raise ArgumentError(f"The arguments of {tool.name} cannot be passed on: one {NOT_FINITE}.")
            counted.phases.enter(Phase.QUEUE)
            await may_begin()
            async with runner.admission.slot(tool.name, shares=self._shares(caller, tool.upstream)):
                counted.engine = engine_name(tool)
                counted.run_id = run_id or new_run_id()
                result = await self._run(tool, counted, arguments, caller, on_output)
            counted.ended(result)
            return result

    async def read(
        self, upstream: str, uri: str, *, caller: str = "", may_call: Callable[[str], bool] = lambda _: True
    ) -> tuple[Mapping[str, Any], ...]:
        """The contents of a resource that a result of a caller's own call linked, addresses made ours. Reading takes
        the place of a call of the tool that linked it, and a caller who may no longer call that may not
        read either.

        Args:
            upstream: name of the upstream.
            uri: the address there.
            caller: who reads. Empty is anonymous.
            may_call: whether they may call a tool.

        Raises:
            RunNotFoundError: no such result has linked it (recently).
            RemoteError: the upstream answered with a protocol error.
            ExecutionError: see `Upstreams.read`.
        """
        tool = self._links.tool_of(caller, upstream, uri)
        if tool is None or not may_call(tool):
            raise RunNotFoundError(
                "No result of a call of yours to an upstream's tool has linked that resource recently."
            )
        runner = self._runner
        with runner.callers.hold(caller, tool) as may_begin:
            await may_begin()
            async with runner.admission.slot(tool, shares=self._shares(caller, upstream)):
                found = await self._upstreams.read(upstream, uri)
        here = self._here(caller, upstream)
        return tuple(
            resource_with_addresses_here(
                # Contents that say they are something else, which nothing has linked, go by what was asked for.
                item if self._links.tool_of(caller, upstream, str(item.get("uri"))) else {**item, "uri": uri},
                here,
            )
            for item in found
        )

    def _shares(self, caller: str, upstream: str) -> tuple[Share, ...]:
        shares = self._runner.callers.shares(caller)
        # When an upstream hangs, all else goes on; where there is nothing else, it may take everything.
        if len(self._settings.upstreams) > 1 or self._runner.has_tools:
            shares += (Share(f"upstream:{upstream}", f"calls of {upstream}"),)
        return shares

    def _here(self, caller: str, upstream: str) -> Here:
        def here(uri: str) -> str | None:
            return address_here(upstream, uri) if self._links.tool_of(caller, upstream, uri) else None

        return here

    async def _run(
        self,
        tool: RemoteTool,
        counted: Counted,
        arguments: Mapping[str, Any],
        caller: str,
        on_output: OutputListener | None,
    ) -> ExecutionResult:
        run_id, phases = counted.run_id, counted.phases
        phases.enter(Phase.RUN)
        shown = await self._records.relayed_arguments(arguments, tool.input_schema)
        about = About(counted.client, str(self._settings.root), arguments=shown)
        record = await self._records.start_relayed(run_id, tool.name, engine_name(tool), caller, about, phases)
        counted.is_recorded = True
        listener = progress_lines(on_output) if on_output is not None else None
        async with self._records.watched(record):
            answer = await self._upstreams.call(tool, arguments, listener)
            phases.enter(Phase.COLLECT)
            for uri in linked(answer.content):
                self._links.remember(caller, tool.upstream, uri, tool.name)
            content = with_addresses_here(answer.content, tool.upstream, self._here(caller, tool.upstream))
            result = ExecutionResult(
                run_id=record.run_id,
                engine=record.engine,
                isolation=ISOLATION,
                exit_code=1 if answer.is_error else 0,
                stdout=await self._kept(record, text_of(content).encode(errors="replace")),
                phases=phases.seconds,
                remote=content,
            )
            logger.bind(run=record.run_id).debug("{}: answered in {:.1f} ms", tool.name, result.duration * 1000)
            return await self._records.finish(record, result)

    async def _kept(self, record: RunRecord, text: bytes) -> Captured:
        if len(text) <= self.max_text:
            return Captured(text, total=len(text))
        directory: Path = await self._records.directory_of(record)
        most = self._settings.records.max_stream
        async with StreamCollector("stdout", keep=self.max_text, file=directory / "stdout", max_file=most) as collector:
            await collector.write(text)
        return collector.captured
