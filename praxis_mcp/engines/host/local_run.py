"""How one call runs on the host: what surrounds its process, and what its end means."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.artifacts import OUTPUT_DIR_VARIABLE
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.call_directories import CallDirectories
from praxis_mcp.engines.host.local_view import HOME, WORK, HostView
from praxis_mcp.engines.host.process import Launch, ReportPipe, run_process
from praxis_mcp.engines.host.sandboxed import Sandboxed, laying_out
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.engines.outcomes import HOST, SANDBOX, start_failure
from praxis_mcp.engines.output import Streams
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support import praxis_init as native
from praxis_mcp.support.praxis_init import Ended, EndKind, parse_report
from praxis_mcp.support.processes import OWNER_VARIABLE, TERM_GRACE, MarkedTree, Owner, ProcessTree, SupervisedTree

RUN_ID_VARIABLE = "PRAXIS_RUN_ID"
"""Tells the tool its run's id, and us which processes belong to it."""

# What a command may learn of the server's environment; all else stays with the server, whose secrets may be among it.
_PASSED = (
    "PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE",
    "LC_IDENTIFICATION", "LC_MEASUREMENT", "LC_MESSAGES", "LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER",
    "LC_TELEPHONE", "LC_TIME",
)  # fmt: skip
_PASSED_ON_WINDOWS = ("SYSTEMROOT", "COMSPEC", "PATHEXT", "WINDIR")


class LocalRun:
    """One call on the host: its sandbox, or it as a plain process.

    Attributes:
        plan: what to run.
        context: what surrounds it.
        artifacts: directory on the host for the plan's artifacts.
    """

    def __init__(self, plan: Plan, context: ExecutionContext, artifacts: Path | None) -> None:
        self.plan = plan
        self.context = context
        self.artifacts = artifacts

    async def prepare(self, settings: Settings) -> Sandboxed:
        """Lay its sandbox out; see `HostView` for what is raised."""
        fixed = self.plan.blueprint
        artifacts = None if self.artifacts is None else str(self.artifacts)
        view = HostView()

        def build() -> tuple[object, ...]:
            view.build(self.plan, settings, self.artifacts)
            return view.state(artifacts)

        with laying_out(view, self.plan):
            state = await anyio.to_thread.run_sync(build)
        return Sandboxed(
            self.plan.call.argv,
            environment(self.plan, home=HOME, temporary="/tmp", artifacts=fixed.artifact_dir),  # noqa: S108
            view.steps,
            view,
            fixed.working_dir or WORK,
            SANDBOX,
            hidden=view.hidden_program,
            state=state,
        )

    async def as_plain_process(self, directories: CallDirectories) -> Finished:
        """Run it without one, under praxis-init where that is present; see `CallDirectories` and `run_process` for what
        is raised."""
        fixed, call = self.plan.blueprint, self.plan.call
        mark = f"{RUN_ID_VARIABLE}={call.run_id}"
        async with directories.hold() as scratch, self.context.collectors(self.plan) as streams:
            launch = Launch(
                call.argv,
                environment(
                    self.plan,
                    home=os.path.join(scratch, "home"),  # noqa: PTH118 - three paths of pathlib are a hundredth of a call
                    temporary=os.path.join(scratch, "tmp"),  # noqa: PTH118
                    artifacts=None if self.artifacts is None else str(self.artifacts),
                ),
                cwd=fixed.working_dir or os.path.join(scratch, "work"),  # noqa: PTH118
                stdin=call.stdin,
                capture=fixed.capture_output,
            )
            init = native.host_init_path()
            if init is None:
                end = await self._process(launch, lambda process: MarkedTree(process, mark), streams)
            else:
                end = await self._supervised(launch, str(init), mark, streams)
            self.context.phases.enter(Phase.COLLECT)
        return Finished(end, *streams.captured)

    async def _supervised(self, launch: Launch, init: str, mark: str, streams: Streams) -> Ended:
        with ReportPipe() as reported:
            prefix = native.run_prefix(
                init,
                timeout=None,
                no_network=self.plan.blueprint.network is Network.NONE,
                kill_after=TERM_GRACE,
                parent=os.getpid(),
                seccomp=filter_for(self.plan.blueprint),
                report=reported.write_end,
            )
            ended = await self._process(
                replace(
                    launch,
                    argv=(*prefix, *launch.argv),
                    descriptors=(reported.write_end,),
                    own_session=False,
                ),
                lambda process: SupervisedTree(process, mark),
                streams,
            )
            # None where praxis-init was killed: by the tool, or by us.
            report = parse_report(reported.read().decode())
        if report is None:
            return ended
        if report.kind is EndKind.EXEC_FAILED:
            raise start_failure(launch.argv[0], report.reason, HOST)
        if report.kind is EndKind.SETUP_FAILED:
            raise ExecutionError(
                f"The command could not be confined ({report.step}: {report.reason}).",
                remedy="Let a sandbox be made (`praxis-mcp doctor` says why none can), or write network: host in the "
                "contract.",
            )
        return Ended.by_code(report.exit_code, timed_out=ended.timed_out)

    async def _process(
        self, launch: Launch, tree: Callable[[subprocess.Popen[bytes]], ProcessTree], streams: Streams
    ) -> Ended:
        return await run_process(
            launch,
            tree,
            timeout=self.plan.blueprint.limits.timeout,
            stdout=streams.stdout,
            stderr=streams.stderr,
            on_start=partial(self.context.phases.enter, Phase.RUN),
        )


def environment(plan: Plan, *, home: str, temporary: str, artifacts: str | None) -> Mapping[str, str]:
    """The whole environment of a command: little of the server's own, then what the contract and the call set.

    Args:
        plan: the call.
        home: its home directory.
        temporary: its directory for temporary files.
        artifacts: where it leaves artifacts.
    """
    passed = (*_PASSED, *(_PASSED_ON_WINDOWS if sys.platform == "win32" else ()))
    env = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    env |= {name: value for name in passed if (value := os.environ.get(name)) is not None}
    env |= {"HOME": home, "TMPDIR": temporary, "TERM": "dumb"}
    env |= plan.call.env
    env[RUN_ID_VARIABLE] = plan.call.run_id
    if sys.platform == "linux":
        env[OWNER_VARIABLE] = str(Owner.current())
    if artifacts is not None:
        env[OUTPUT_DIR_VARIABLE] = artifacts
    return env
