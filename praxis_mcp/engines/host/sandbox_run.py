"""How one call runs in an image's file system: the sandbox around it, and what its end means."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import anyio
import anyio.to_thread

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.artifacts import OUTPUT_DIR_VARIABLE
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.bubblewrap import (
    OWN_PROCESSES,
    Attempt,
    Bubblewrap,
    StatusPipe,
    bubblewrap_failure,
    isolation,
    mount_words,
    run_in_bubblewrap,
)
from praxis_mcp.engines.host.cgroups import Cgroups, RunGroup
from praxis_mcp.engines.host.launcher import LAUNCHER_PROCESSES, Launcher, Start, run_in_launcher
from praxis_mcp.engines.host.process import Launch, run_process
from praxis_mcp.engines.host.sandbox_view import LAYER_SIZE, Places, SandboxUser, SandboxView, find_user
from praxis_mcp.engines.init.seccomp import filter_descriptor
from praxis_mcp.engines.mounts.layout import Step
from praxis_mcp.engines.outcomes import ProgramSource
from praxis_mcp.engines.output import Streams
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ExecutionError, ImageError
from praxis_mcp.images.model import StoredImage
from praxis_mcp.plans.model import DEFAULT_PIDS, Blueprint, Plan
from praxis_mcp.support.owners import OWNER_VARIABLE, Owner
from praxis_mcp.support.praxis_init import praxis_init_path
from praxis_mcp.support.tasks import BackgroundTasks

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Tools:
    """What sandboxes are made with here; `no_overlay` says why there is none, where there is none."""

    maker: Launcher | Bubblewrap
    no_overlay: str | None
    cgroups: Cgroups


@dataclass(frozen=True, slots=True)
class Layout:
    """The steps of a file system, and where and as whom a command begins in it; `growing`: see `MountLayout`."""

    steps: tuple[Step, ...]
    growing: frozenset[str]
    working_dir: str
    user: SandboxUser


Layouts = dict[tuple[Blueprint, str], Layout]
"""Layouts of plans that have nothing of their own in them, by image; images never change."""
_MAX_LAYOUTS = 512


class SandboxRun:
    """One call in a sandbox.

    Attributes:
        plan: what to run.
        context: what surrounds it.
    """

    def __init__(
        self,
        plan: Plan,
        context: ExecutionContext,
        image: StoredImage,
        tools: Tools,
        places: Places,
        layouts: Layouts,
        later: BackgroundTasks,
    ) -> None:
        self.plan = plan
        self.context = context
        self._image = image
        self._tools = tools
        self._places = places
        self._layouts = layouts
        self._later = later

    async def run(self) -> Finished:
        """Run it to its end, or to its deadline; see `run_process`.

        Raises:
            CommandNotFound: the image has no such command.
            LimitUnsupported: its limits could not be set.
            ExecutionError: there is no sandbox for it, or its mounts have no place.
        """
        cgroups = self._tools.cgroups
        maker = self._tools.maker
        if isinstance(maker, Launcher):
            group = cgroups.for_run(self.plan, default_pids=DEFAULT_PIDS, own_processes=LAUNCHER_PROCESSES)
            return await self._launch(maker, group)
        return await run_in_bubblewrap(
            self.plan,
            self.context,
            lambda: cgroups.for_run(self.plan, default_pids=DEFAULT_PIDS, own_processes=OWN_PROCESSES),
            lambda group, streams: self._try(maker, group, streams),
            lambda stderr, exit_code: bubblewrap_failure(
                self._command[0], stderr, exit_code, ProgramSource.image(self.plan.blueprint.image)
            ),
            self._later,
        )

    @property
    def _command(self) -> tuple[str, ...]:
        return (*(self._image.entrypoint if self.plan.blueprint.use_entrypoint else ()), *self.plan.call.argv)

    async def _launch(self, launcher: Launcher, group: RunGroup) -> Finished:
        """See `run`; `group` is removed."""
        view = SandboxView(self._image, self._writable_root)
        try:
            layout = await self._layout(view)
        except BaseException as exc:
            view.close()
            await group.remove(self._later)
            if isinstance(exc, OSError):
                tool = self.plan.blueprint.tool
                raise ExecutionError(f"The sandbox for {tool} cannot be laid out: {exc}.") from exc
            raise
        user = layout.user
        env = self._environment(user.home)
        if any("\0" in text for text in (*self._command, *env, *env.values())):
            await group.remove(self._later)
            raise _holds_nul(self._image)
        start = Start(
            self._command,
            env,
            layout.working_dir,
            ProgramSource.image(self.plan.blueprint.image),
            user.uid,
            user.gid,
            self.plan.call.run_id[:12] or "sandbox",
        )
        steps = layout.steps, layout.growing
        return await run_in_launcher(launcher, self.plan, self.context, view, steps, group, start, self._later)

    async def _try(self, bubblewrap: Bubblewrap, group: RunGroup, streams: Streams) -> Attempt:
        started = 0.0
        fixed, call = self.plan.blueprint, self.plan.call
        view = SandboxView(self._image, self._writable_root, by_descriptor=bubblewrap.binds_descriptors)
        try:
            with StatusPipe() as status, ExitStack() as stack:
                options = _joined(self._options(bubblewrap, await self._layout(view), view), self._image)
                options_fd = _memory_file(stack, options)
                launch = Launch(
                    (
                        *self._prefix(bubblewrap, group),
                        *(bubblewrap.program, *status.options, "--args", str(options_fd)),
                        *("--", *self._command),
                    ),
                    {OWNER_VARIABLE: str(Owner.current())},  # bubblewrap's own, not the tool's
                    stdin=call.stdin,
                    descriptors=(*status.descriptors, *view.descriptors, options_fd),
                    own_session=False,
                )

                def on_start() -> None:
                    nonlocal started
                    started = time.perf_counter()
                    view.close()  # bubblewrap has its own by now, and a call may last

                ended = await run_process(
                    launch,
                    status.tree,
                    timeout=fixed.limits.timeout,
                    stdout=streams.stdout,
                    stderr=streams.stderr,
                    on_start=on_start,
                )
                return Attempt(ended, status.exit_code(), started)
        except OSError as exc:
            raise ExecutionError(f"The sandbox for {fixed.tool} cannot be laid out: {exc}.") from exc
        finally:
            view.close()

    def _prefix(self, bubblewrap: Bubblewrap, group: RunGroup) -> list[str]:
        init = praxis_init_path()
        if self._writable_root is not None:
            return group.prefix(init, overlay=(self._image.directory, LAYER_SIZE))
        return group.prefix(init, private_mounts=bubblewrap.keeps_out_late_mounts)

    @property
    def _writable_root(self) -> str | None:
        """Where the image's root is under a layer of the call's own. praxis-init makes it on its way to bubblewrap,
        which has learned that in 0.11 only, in a mount namespace that goes with the sandbox: nothing is left behind
        when that is killed."""
        is_wanted = self.plan.blueprint.read_only is False and self._tools.no_overlay is None
        return str(self._image.layer / "root") if is_wanted else None

    async def _layout(self, view: SandboxView) -> Layout:
        fixed = self.plan.blueprint
        key = (fixed, self._image.id)
        is_plain = not (fixed.mounts or self.plan.call.files or self._places.artifacts or self._places.caches)
        if is_plain and key in self._layouts:
            return self._layouts[key]
        layout = await anyio.to_thread.run_sync(self._lay_out, view)
        if is_plain and not view.descriptors:
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = layout
        return layout

    def _lay_out(self, view: SandboxView) -> Layout:
        fixed = self.plan.blueprint
        user = find_user(self._image.root, fixed.user or self._image.user)
        start = view.build(self.plan, self._places, fixed.working_dir or self._image.working_dir)
        return Layout(tuple(view.steps), view.growing, start, user)

    def _options(self, bubblewrap: Bubblewrap, layout: Layout, view: SandboxView) -> list[str]:
        """Everything for bubblewrap; what is secret in it travels over a descriptor."""
        fixed, call = self.plan.blueprint, self.plan.call
        words = mount_words(layout.steps, sizes=bubblewrap.sizes)
        options = [*words, *isolation(network=fixed.network is not Network.NONE)]
        options += ["--unshare-user", "--uid", str(layout.user.uid), "--gid", str(layout.user.gid)]
        options += ["--hostname", call.run_id[:12] or "sandbox", "--chdir", layout.working_dir]
        options += ["--unsetenv", OWNER_VARIABLE]
        if (descriptor := filter_descriptor(fixed)) is not None:
            view.descriptors.append(descriptor)
            options += ["--seccomp", str(descriptor)]
        for name, value in self._environment(layout.user.home).items():
            options += ["--setenv", name, value]
        return options

    def _environment(self, home: str) -> Mapping[str, str]:
        env = {"PATH": _DEFAULT_PATH, "HOME": home, "HOSTNAME": self.plan.call.run_id[:12] or "sandbox"}
        env |= self._image.env
        env |= self.plan.call.env
        if self.plan.blueprint.artifact_dir is not None:
            env[OUTPUT_DIR_VARIABLE] = self.plan.blueprint.artifact_dir
        return env


def _joined(options: list[str], image: StoredImage) -> bytes:
    """The options as bubblewrap reads them, each ended by a NUL.

    Raises:
        ImageError: one holds a NUL, behind which bubblewrap would find more options: a bind of the host's root, say.
    """
    text = "\0".join((*options, ""))
    if text.count("\0") != len(options):  # whatever the image holds, and whichever check has missed it
        raise _holds_nul(image)
    return text.encode(errors="surrogateescape")


def _holds_nul(image: StoredImage) -> ImageError:
    return ImageError(
        f"The image {image.id} cannot be used: its own description holds a NUL character.",
        remedy="Do not trust this image: remove it (praxis-mcp image rm), and choose another.",
    )


def _memory_file(stack: ExitStack, content: bytes) -> int:
    descriptor = os.memfd_create("praxis-options")
    stack.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as copy:
        copy.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
