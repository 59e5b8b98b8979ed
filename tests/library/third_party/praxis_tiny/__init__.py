"""A small engine of another package: it runs commands of this machine, and says that it isolates nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress

import anyio
from anyio.abc import ByteReceiveStream, Process

from praxis_mcp import (
    Capability,
    CommandNotFound,
    EngineCapabilities,
    EngineStatus,
    ExecutionContext,
    ExecutionEngine,
    ExecutionResult,
    Plan,
    StreamCollector,
)

print("praxis_tiny is imported", file=sys.stderr)

_ENFORCES = frozenset(
    {Capability.IMAGES, Capability.HOST_COMMANDS, Capability.TIMEOUT, Capability.NETWORK_HOST, Capability.STDIN}
)


class TinyEngine(ExecutionEngine):
    name = "tiny"

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        if shutil.which(plan.call.argv[0]) is None:
            raise CommandNotFound(f"{plan.blueprint.tool}: there is no command {plan.call.argv[0]} here.")
        began = anyio.current_time()
        timed_out = False
        with tempfile.TemporaryDirectory(prefix="praxis-tiny-") as directory:
            process = await anyio.open_process(
                plan.call.argv,
                env={"PATH": os.environ["PATH"], **plan.call.env},
                cwd=plan.blueprint.working_dir or directory,
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            try:
                async with context.collectors(plan) as streams:
                    with anyio.move_on_after(plan.blueprint.limits.timeout) as scope:
                        async with anyio.create_task_group() as tasks:
                            assert process.stdout is not None
                            assert process.stderr is not None
                            tasks.start_soon(_feed, process, plan.call.stdin or b"")
                            tasks.start_soon(_collect, process.stdout, streams.stdout)
                            tasks.start_soon(_collect, process.stderr, streams.stderr)
                            await process.wait()
                timed_out = scope.cancelled_caught
            except ExceptionGroup as group:
                raise group.exceptions[0] from group
            finally:
                with anyio.CancelScope(shield=True):
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
                    await process.aclose()
        code = process.returncode
        return ExecutionResult(
            run_id=plan.call.run_id,
            engine=self.name,
            isolation="none",
            exit_code=code if code is None or code >= 0 else 128 - code,
            stdout=streams.stdout.captured,
            stderr=streams.stderr.captured,
            timed_out=timed_out,
            phases={"run": anyio.current_time() - began},
        )

    async def get_capabilities(self) -> EngineCapabilities:
        return EngineCapabilities(self.name, "none", _ENFORCES)

    async def probe(self) -> EngineStatus:
        return EngineStatus(self.name, available=True, version="1.2.3")


async def _feed(process: Process, data: bytes) -> None:
    assert process.stdin is not None
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.send(data)
    await process.stdin.aclose()


async def _collect(source: ByteReceiveStream, collector: StreamCollector) -> None:
    async for data in source:
        await collector.write(data)
