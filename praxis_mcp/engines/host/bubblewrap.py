"""bubblewrap: found, tried out, and asked to put a command into a sandbox.

Only what version 0.4 (2019) knows is used; what is here is Linux's.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.bubblewrap_options import (
    LAYER_FOLDER,
    ROOT_FOLDER,
    dev_words,
    isolation,
    join_options,
    options_of,
    proc_words,
)
from praxis_mcp.engines.host.cgroups import Cgroups, RunGroup
from praxis_mcp.engines.host.process import Launch, ReportPipe, run_process
from praxis_mcp.engines.host.sandboxed import (
    Later,
    Launcher,
    NoLauncher,
    Prepare,
    Sandboxed,
    hold_content,
    layout_failure,
    namespace_remedy,
)
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.engines.mounts.layout import Step, StepKind
from praxis_mcp.engines.outcomes import NotBegun
from praxis_mcp.engines.output import StreamCollector, Streams
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.praxis_init import EXIT_SETUP_FAILED, Ended, EndKind, join_words, praxis_init_path
from praxis_mcp.support.processes import OWNER_VARIABLE, MarkedTree, NamespaceTree, Owner

_CANNOT_MAKE_IT = 1
"""Its exit code where it could not make a sandbox; that of a command comes by its status pipe."""
BUBBLEWRAP_PROBE_TIMEOUT = 4.0
"""Seconds for trying it out."""
OWN_PROCESSES = 2
"""Processes in a run's group that are not the tool's, whose limit must not pay for them: bubblewrap and its init."""

OVERLAY_PROBE_TIMEOUT = 4.0
"""Seconds for trying out a writable root."""
_OVERLAY_MARK = "PRAXIS_OVERLAY_PROBE"

START_ATTEMPTS = 5
"""Bubblewrap lists the host's mounts and then treats each: one that goes in between, as Docker's do with every
container that ends, makes it fail. The command has not started then, so it may try again."""


@dataclass(frozen=True, slots=True)
class Bubblewrap(Launcher):
    """A bubblewrap that works here.

    Attributes:
        program: where it is.
        keeps_out_late_mounts: whether it can be started in a mount namespace of its own (`RunGroup.prefix`). AppArmor
            may let bubblewrap make one, and nobody else.
        binds_descriptors: whether it mounts what a descriptor holds, and sees to it that it was that: 0.10, and what
            Debian 12 and Ubuntu 22.04 have as 0.8, 0.6 and 0.9 with their fixes of CVE-2024-42472.
    """

    name: ClassVar[str] = "bubblewrap"

    program: str
    version: str
    keeps_out_late_mounts: bool = True
    binds_descriptors: bool = True

    @property
    def shown(self) -> str:
        """See the base."""
        return f"bubblewrap {self.version}"

    @property
    def sizes(self) -> bool:
        """Whether it bounds file systems in memory: since 0.7."""
        numbers = [int(part) for part in self.version.split(".")[:2] if part.isdecimal()]
        return numbers >= [0, 7]

    @property
    def note(self) -> str:
        """See the base."""
        notes: list[str] = []
        if not self.keeps_out_late_mounts:
            notes.append(
                "what the host mounts during a call appears in it: this user may make no mount namespace beforehand"
            )
        if not self.binds_descriptors:
            notes.append(
                "it mounts by path, which a tool with a writable mount around it could replace after the check: update "
                "bubblewrap (0.10, or your distribution's fix of CVE-2024-42472)"
            )
        return "; ".join(notes)

    async def run(
        self, plan: Plan, context: ExecutionContext, prepare: Prepare, cgroups: Cgroups, later: Later = None
    ) -> Finished:
        """See the base. Tries again where another attempt may start it."""
        attempts = 0
        while True:
            attempts += 1
            context.phases.enter(Phase.START)
            group = cgroups.for_run(plan, own_processes=OWN_PROCESSES)
            try:
                async with context.collectors(plan) as streams:
                    attempt = await self._attempt(plan, context, prepare, group, streams)
                    context.phases.enter(Phase.COLLECT)
                    out_of_memory = group.out_of_memory
            finally:
                await group.remove(later)
            stdout, stderr = streams.captured
            end = attempt.ended
            if attempt.exit_code is None and not end.timed_out:
                if out_of_memory:  # it took the sandbox's own init along
                    end = Ended(EndKind.SIGNAL, signal.SIGKILL)
                elif attempts < START_ATTEMPTS and may_try_again(stderr.text, end.exit_code):
                    continue
                else:
                    raise _failure(attempt.sandboxed, stderr.text, end.exit_code)
            return Finished(replace(end, out_of_memory=out_of_memory), stdout, stderr)

    async def why_no_layer(self, place: Path) -> str | None:
        """See the base. Bubblewrap itself has learned overlays in 0.11 only."""
        init = praxis_init_path()
        if init is None:
            return "praxis-init is missing"
        try:
            for name in (ROOT_FOLDER, LAYER_FOLDER):
                await anyio.Path(place, name).mkdir()
            words = [*join_words(str(init), overlay=(place, 1 << 30)), str(init), "--version"]
            async with StreamCollector("stdout", keep=4096) as out, StreamCollector("stderr", keep=4096) as err:
                ended = await run_process(
                    Launch(tuple(words), {_OVERLAY_MARK: str(place)}),
                    lambda process: MarkedTree(process, f"{_OVERLAY_MARK}={place}"),
                    timeout=OVERLAY_PROBE_TIMEOUT,
                    stdout=out,
                    stderr=err,
                )
        except ExecutionError as exc:
            return exc.message
        if ended.exit_code == 0:
            return None
        reason = last_line(err.captured.text)
        return f"the kernel lets no user namespace mount an overlay ({reason or f'exit code {ended.exit_code}'})"

    async def _attempt(
        self, plan: Plan, context: ExecutionContext, prepare: Prepare, group: RunGroup, streams: Streams
    ) -> Attempt:
        fixed, call = plan.blueprint, plan.call
        sandboxed = await prepare()
        with ExitStack() as held, StatusPipe() as status:
            held.callback(sandboxed.layout.close)
            descriptors = list(sandboxed.layout.descriptors)
            try:
                options = options_of(plan, sandboxed, by_descriptor=self.binds_descriptors, sizes=self.sizes)
                if (program := filter_for(fixed)) is not None:
                    descriptors.append(hold_content(program, held))
                    options += ["--seccomp", str(descriptors[-1])]
                descriptors.append(hold_content(join_options(options), held))
            except OSError as exc:
                raise layout_failure(plan, exc) from exc
            launch = Launch(
                (
                    *self._prefix(group, sandboxed.steps),
                    *(self.program, *status.options, "--args", str(descriptors[-1])),
                    *("--", *sandboxed.argv),
                ),
                {OWNER_VARIABLE: str(Owner.current())},  # bubblewrap's own, not the tool's
                stdin=call.stdin,
                capture=fixed.capture_output,
                descriptors=(*status.descriptors, *descriptors),
                own_session=False,
                umask=sandboxed.umask,
            )

            def on_start() -> None:
                context.phases.enter(Phase.RUN)
                held.close()  # bubblewrap has its own by now, and a call may last

            ended = await run_process(
                launch,
                status.tree,
                timeout=fixed.limits.timeout,
                stdout=streams.stdout,
                stderr=streams.stderr,
                on_start=on_start,
            )
            return Attempt(sandboxed, ended, status.exit_code())

    def _prefix(self, group: RunGroup, steps: Sequence[Step]) -> list[str]:
        """praxis-init makes the layer on its way to bubblewrap, in a mount namespace that goes with the sandbox:
        nothing is left behind when that is killed."""
        root = steps[0]
        if root.kind is StepKind.LAYERED_ROOT and root.source is not None:
            return group.prefix(praxis_init_path(), overlay=(Path(root.source).parent, root.size))
        return group.prefix(praxis_init_path(), private_mounts=self.keeps_out_late_mounts)


async def find_bubblewrap() -> Bubblewrap | NoLauncher:
    """Look for bubblewrap, and try it out: present is not enough, since kernels, containers and AppArmor may refuse
    the namespaces."""
    program = shutil.which("bwrap")
    if program is None:
        return NoLauncher(
            "bwrap is not on the PATH", "Install bubblewrap (apt install bubblewrap, dnf install bubblewrap)."
        )
    found = await _tried(program, private_mounts=True)
    # Where neither works, bubblewrap's own words say why.
    return found if isinstance(found, Bubblewrap) else await _tried(program, private_mounts=False)


async def _tried(program: str, *, private_mounts: bool) -> Bubblewrap | NoLauncher:
    attempts = 1
    found, again = await _try_out(program, private_mounts=private_mounts)
    while again and attempts < START_ATTEMPTS:
        attempts += 1
        found, again = await _try_out(program, private_mounts=private_mounts)
    return found


async def _try_out(program: str, *, private_mounts: bool) -> tuple[Bubblewrap | NoLauncher, bool]:
    """What a trial shows, and whether another one may show something else."""
    words = [
        "--ro-bind",
        "/",
        "/",
        *proc_words("/proc"),
        *dev_words("/dev", 0),
        *isolation(network=False),
    ]
    prefix = RunGroup((), unified=False).prefix(praxis_init_path(), private_mounts=private_mounts)
    try:
        with StatusPipe() as status:
            launch = Launch(
                (*prefix, program, *status.options, *words, "--", program, "--version"),
                {},
                descriptors=status.descriptors,
            )
            async with StreamCollector("stdout", keep=4096) as out, StreamCollector("stderr", keep=4096) as err:
                ended = await run_process(launch, status.tree, timeout=BUBBLEWRAP_PROBE_TIMEOUT, stdout=out, stderr=err)
            exit_code = status.exit_code()
    except ExecutionError as exc:
        return NoLauncher(exc.message, "Reinstall bubblewrap."), False
    if exit_code == 0:
        version = out.captured.text.strip().removeprefix("bubblewrap ")
        made = Bubblewrap(
            program,
            version,
            keeps_out_late_mounts=private_mounts,
            binds_descriptors=await _binds_descriptors(program),
        )
        return made, False
    errors = err.captured.text
    reason = last_line(errors) or f"exit code {ended.exit_code}"
    if ended.timed_out:
        reason = f"no answer within {BUBBLEWRAP_PROBE_TIMEOUT:g} s"
    nothing = NoLauncher(
        f"{program} does not work here: {reason}",
        f"{namespace_remedy()} An AppArmor profile for bwrap allows them to it alone.",
    )
    return nothing, not ended.timed_out and may_try_again(errors, ended.exit_code)


async def _binds_descriptors(program: str) -> bool:
    """Whether its help names the option: version numbers do not tell, since distributions have brought it back."""
    try:
        with anyio.fail_after(BUBBLEWRAP_PROBE_TIMEOUT):
            usage = await anyio.run_process([program, "--help"], check=False)
    except (TimeoutError, OSError):
        return False
    return b"--ro-bind-fd" in usage.stdout + usage.stderr


class StatusPipe(ReportPipe):
    """What bubblewrap tells about a sandbox: the pid of its init, and the exit code of its command."""

    def __init__(self) -> None:
        self._text = b""

    @property
    def options(self) -> tuple[str, ...]:
        """Options that make bubblewrap write to the pipe."""
        return "--json-status-fd", str(self.write_end)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What bubblewrap must inherit."""
        return (self.write_end,)

    def tree(self, process: subprocess.Popen[bytes]) -> NamespaceTree:
        """What can end the sandbox."""
        return NamespaceTree(process, self.init_pid)

    def init_pid(self) -> int | None:
        """The init of the sandbox's pid namespace; None until there is one."""
        return self._value("child-pid")

    def exit_code(self) -> int | None:
        """The command's own exit code (128 + signal); None where the command was never started, or was killed along
        with its sandbox."""
        return self._value("exit-code")

    def _value(self, key: str) -> int | None:
        self._text += self.read()
        for line in self._text.splitlines():
            try:
                found = json.loads(line)
            except ValueError:  # not written to its end yet
                continue
            if isinstance(value := found.get(key), int):
                return value
        return None


def may_try_again(stderr: str, exit_code: int | None) -> bool:
    """Whether bubblewrap, which has not started the command, may have met a mount that was just going: see
    `START_ATTEMPTS`."""
    return exit_code == _CANNOT_MAKE_IT and "execvp" not in last_line(stderr)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to run a command: how bubblewrap ended, and the command's exit code as bubblewrap tells it (None where
    it started none, or was killed)."""

    sandboxed: Sandboxed
    ended: Ended
    exit_code: int | None


def _failure(sandboxed: Sandboxed, stderr: str, exit_code: int | None) -> ExecutionError:
    """Why bubblewrap did not start the command, from the last line that it wrote."""
    line = last_line(stderr)
    if "execvp" in line:
        return sandboxed.start_failure(line.rpartition(": ")[2])
    # Where neither it nor praxis-init before it has failed by itself, it was killed, and the command may have run.
    kind = NotBegun if exit_code in (_CANNOT_MAKE_IT, EXIT_SETUP_FAILED) else ExecutionError
    return kind(
        f"bubblewrap could not make the sandbox: {line.removeprefix('bwrap: ') or f'exit code {exit_code}'}.",
        remedy="Check the contract's mounts, or see what `praxis-mcp doctor` says about bubblewrap."
        if line
        else "Set capture_output: true in the contract to see why.",
    )


def last_line(text: str) -> str:
    """The last line with something in it."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
