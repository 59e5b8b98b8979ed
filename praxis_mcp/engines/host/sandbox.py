"""Images without a daemon: an OCI image's file system in a sandbox, a few milliseconds a call, as any user.

A sandbox maps one user only: whatever name and numbers a command has inside, on the host it is the user who started the
server, without any privilege. Files that it leaves in mounts belong to that user, and all files of the image seem to be
the command's own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.to_thread

from praxis_mcp.engines.base import (
    EngineCapabilities,
    EngineStatus,
    ExecutionContext,
    ExecutionEngine,
    ExecutionResult,
    PinnedImage,
    StatusListener,
)
from praxis_mcp.engines.host.cgroups import CGROUP_REMOVE_TIMEOUT, find_cgroups
from praxis_mcp.engines.host.launcher import find_launcher
from praxis_mcp.engines.host.sandbox_images import SandboxImages
from praxis_mcp.engines.host.sandbox_run import Layouts, SandboxRun, Tools
from praxis_mcp.engines.host.sandbox_view import Places
from praxis_mcp.engines.host.sandboxed import Launcher, Lookup, NoLauncher, Sandboxed, reap_host
from praxis_mcp.engines.host.standby import Standbys
from praxis_mcp.engines.host.taken_images import TakenImages
from praxis_mcp.engines.host.warm import SandboxKey, WarmSandboxes, find_cold_reason_in_sandbox, open_warm
from praxis_mcp.engines.outcomes import NotBegun
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished, run_command
from praxis_mcp.engines.warm.pool import WarmPool
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ImageError
from praxis_mcp.images.model import NamedImage, StoredImage
from praxis_mcp.plans.model import DEFAULT_PIDS, Blueprint, Capability, Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import LauncherChoice
from praxis_mcp.support.scratch import Scratch
from praxis_mcp.support.tasks import BackgroundTasks

_DEVICES = Path("/dev")
_ALWAYS = frozenset(
    {
        Capability.IMAGES, Capability.TIMEOUT, Capability.NETWORK_NONE, Capability.NETWORK_HOST,
        Capability.READ_ONLY_ROOT, Capability.USER, Capability.DROP_CAPABILITIES, Capability.MOUNTS,
        Capability.WRITABLE_MOUNTS, Capability.CACHE_DIRS, Capability.STDIN, Capability.FILES, Capability.ARTIFACTS,
    }
)  # fmt: skip
_NO_PRIVILEGE = "a sandbox has no privileges to give"
_NO_BUILDS = "it runs images, and builds none"
_NO_BRIDGE = "a sandbox has no network of its own, only the host's: set policy.host_network: true to allow that"


class SandboxExecutionEngine(ExecutionEngine):
    """Runs tools in images, without a daemon.

    Read-only root (or a writable layer of the call's own), private /tmp, no capabilities, no new privileges, a filter
    on system calls, namespaces of every kind; limits by cgroups where this user may make them.
    """

    name: ClassVar[str] = "sandbox"
    never: ClassVar[frozenset[Capability]] = frozenset({Capability.PRIVILEGED, Capability.BUILD})
    stands_in_for: ClassVar[frozenset[str]] = frozenset({"docker"})

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self.images = SandboxImages(self.settings)
        self._standbys = Standbys(self.settings.warm)
        self._tools = Lookup(partial(_find_tools, self.settings.engines.sandbox.launcher, self._standbys))
        self._layouts: Layouts = {}
        self._warm: WarmSandboxes | None = None
        self._background = BackgroundTasks()
        self._taken = TakenImages(self.images, self._background)

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        """See `ExecutionEngine.run`. The plan's timeout counts from the tool's start; a pull has a bound of its own."""
        context.phases.enter(Phase.START)
        tools = await self._found()
        named, shown = await self._image(plan, context)
        ident = named.image.id

        async def command(artifacts: Path | None) -> Finished:
            async with self._ready(plan, context, named.image, tools, artifacts) as run:
                warm = self._warm = self._warm or self._open_warm(tools)
                if warm is None or context.image is not None:
                    # Where it stands in for another engine, the places of those that wait are that one's.
                    return replace(await run.run(), image=shown)
                # An image that the name has meant before.
                warm.pool.forget(
                    lambda other: other.blueprint.image == plan.blueprint.image and ident not in other.session
                )
                key = warm.key(plan, context, ident)
                return replace(await warm.run(key, plan, context, run.prepare, run.run), image=shown)

        try:
            return await run_command(self, plan, context, command, isolation=tools.launcher.name)
        except ExecutionError as exc:
            if context.image is None or context.phases.current != Phase.START:
                raise
            # Whatever it was, nothing has run: the engine that it stands in for may do it after all.
            raise NotBegun(exc.message, remedy=exc.remedy) from exc

    async def _image(self, plan: Plan, context: ExecutionContext) -> tuple[NamedImage, str]:
        """The image to run, and its name by digest, as results have it."""
        pinned = context.image
        if pinned is None:
            named = await self.images.ensure(str(plan.blueprint.image), context.on_status)
            return named, named.pinned
        if (named := self._taken.find(pinned)) is None:
            raise ImageError(f"The image {pinned.reference} was removed from the store just now.", remedy="Call again.")
        return named, pinned.digest

    def has_image(self, image: PinnedImage) -> bool:
        """See `ExecutionEngine.has_image`."""
        return self._taken.find(image) is not None

    async def find_differences(self, blueprint: Blueprint, image: PinnedImage) -> Sequence[str]:
        """See `ExecutionEngine.find_differences`."""
        if not blueprint.mounts:
            return ()
        if not image.shares_files:
            return ("mounts, which it shows under other users, labels or paths",)
        if not (await self._found()).launcher.has_host_users:
            # A plain user's sandbox has one user, and keeps that user's groups.
            return ("mounts, whose owners the sandbox can show to a server that is root only, by praxis-init",)
        if any(_has_devices(mount.source) for mount in blueprint.mounts):
            return ("a device among its mounts",)
        return ()

    async def lacks_image(self, blueprint: Blueprint) -> bool:
        """See `ExecutionEngine.lacks_image`."""
        return self.images.store.find(str(blueprint.image)) is None

    async def name_by_digest(self, image: str) -> str | None:
        """See `ExecutionEngine.name_by_digest`."""
        named = self.images.store.find(image)
        return named.pinned if named is not None else None

    def take_image(self, image: PinnedImage) -> None:
        """See `ExecutionEngine.take_image`."""
        self._taken.start_taking(image)

    async def prepare(self, blueprint: Blueprint, on_status: StatusListener | None = None) -> None:
        """Bring the image into the store."""
        await self.images.ensure(str(blueprint.image), on_status)

    async def get_capabilities(self) -> EngineCapabilities:
        """See the base.

        Raises:
            EngineUnavailable: nothing here makes sandboxes.
        """
        tools = await self._found()
        enforces = _ALWAYS | tools.cgroups.enforces
        notes = {Capability.PRIVILEGED: _NO_PRIVILEGE, Capability.BUILD: _NO_BUILDS, **tools.cgroups.notes}
        if tools.no_layer is None:
            enforces |= {Capability.WRITABLE_ROOT}
        else:
            notes[Capability.WRITABLE_ROOT] = tools.no_layer
        if self.settings.policy.host_network:
            enforces |= {Capability.NETWORK_BRIDGE}
        else:
            notes[Capability.NETWORK_BRIDGE] = _NO_BRIDGE
        pids = DEFAULT_PIDS if Capability.PIDS_LIMIT in enforces else None
        return EngineCapabilities(self.name, tools.launcher.name, enforces, notes, default_pids=pids)

    async def probe(self) -> EngineStatus:
        """See the base."""
        tools = await self._tools.get()
        if isinstance(tools, NoLauncher):
            return EngineStatus(self.name, available=False, detail=tools.reason, remedy=tools.remedy)
        try:
            place = self.images.store.directory
        except ImageError as exc:  # nowhere: other engines can still be chosen
            return EngineStatus(self.name, available=False, detail=exc.message, remedy=exc.remedy or "")
        host_network = self.settings.policy.host_network
        return EngineStatus(
            self.name,
            available=True,
            version=tools.launcher.shown,
            detail="; ".join(filter(None, [f"images in {place}", tools.launcher.notes(host_network=host_network)])),
        )

    async def reap(self) -> tuple[str, ...]:
        """See the base."""
        tools = await self._tools.get()
        if isinstance(tools, NoLauncher):
            return ()
        return await anyio.to_thread.run_sync(reap_host, tools.cgroups)

    async def cleanup(self) -> None:
        """Remove what waits for calls, and wait for the last of what calls have left to be removed. No image is taken
        any more."""
        self._taken.stop()
        warm, self._warm = self._warm, None
        if warm is not None:
            await warm.close()
        await self._standbys.close()
        await self._background.close(2 * CGROUP_REMOVE_TIMEOUT)

    async def find_cold_reason(self, plan: Plan) -> str:
        """See the base."""
        tools = await self._found()
        self._warm = self._warm or self._open_warm(tools)
        return find_cold_reason_in_sandbox(tools.launcher, self._warm, plan, self.settings.warm)

    @property
    def _warm_pool(self) -> WarmPool[Any, Any] | None:
        return self._warm.pool if self._warm is not None else None

    def _open_warm(self, tools: Tools) -> WarmSandboxes | None:
        settings, budget = self.settings.warm, self.warm_budget
        lay_out = partial(self._lay_out, tools)
        return open_warm(tools.launcher, tools.cgroups, lay_out, settings, budget)

    @asynccontextmanager
    async def _lay_out(
        self, tools: Tools, plan: Plan, key: SandboxKey, artifacts: Path | None
    ) -> AsyncIterator[Sandboxed]:
        """See `LayOut`."""
        named = self.images.store.find(key.session[0])
        if named is None:
            raise ImageError(f"The image {plan.blueprint.image} is not there any more.")
        async with self._ready(plan, ExecutionContext(), named.image, tools, artifacts) as run:
            yield await run.prepare()

    @asynccontextmanager
    async def _ready(
        self, plan: Plan, context: ExecutionContext, image: StoredImage, tools: Tools, artifacts: Path | None
    ) -> AsyncIterator[SandboxRun]:
        """A call, its image and cache directories kept for it meanwhile."""
        async with self.images.use(image):
            with ExitStack() as holds:
                caches = ()
                if plan.blueprint.cache_dirs:
                    caches = await anyio.to_thread.run_sync(self._caches, plan.blueprint, holds)
                places = Places(artifacts, caches)
                yield SandboxRun(plan, context, image, tools, places, self._layouts, self._background)

    def _caches(self, blueprint: Blueprint, holds: ExitStack) -> tuple[tuple[str, Path], ...]:
        store = self.images.store
        try:
            return tuple(
                (directory, holds.enter_context(store.use_cache(blueprint.cache_key(directory))))
                for directory in blueprint.cache_dirs
            )
        except OSError as exc:
            raise ExecutionError(f"The cache directories of {blueprint.tool} cannot be made: {exc.strerror}.") from exc

    async def _found(self) -> Tools:
        tools = await self._tools.get()
        if isinstance(tools, NoLauncher):
            raise EngineUnavailable(f"The sandbox engine cannot be used: {tools.reason}.", remedy=tools.remedy)
        return tools


async def _find_tools(wanted: LauncherChoice, standbys: Standbys) -> Tools | NoLauncher:
    launcher = await find_launcher(wanted, standbys)
    if isinstance(launcher, NoLauncher):
        if wanted == "auto":
            return launcher
        return NoLauncher(launcher.reason, f"{launcher.remedy} Or set engines.sandbox.launcher: auto.")
    cgroups = replace(await anyio.to_thread.run_sync(find_cgroups), default_pids=DEFAULT_PIDS)
    return Tools(launcher, await _why_no_layer(launcher), cgroups)


async def _why_no_layer(launcher: Launcher) -> str | None:
    """See `Launcher.why_no_layer`."""
    try:
        scratch = await anyio.to_thread.run_sync(Scratch.make)
    except OSError as exc:
        return f"a directory to try it out in cannot be made ({exc.strerror})"
    try:
        return await launcher.why_no_layer(scratch.path)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(scratch.remove)


def _has_devices(path: Path) -> bool:
    if path.is_relative_to(_DEVICES) or _DEVICES.is_relative_to(path):
        return True  # a container opens some of them, such as null; no mount of a sandbox lets any in
    try:
        return stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFCHR, stat.S_IFBLK)
    except OSError:  # the call will say it
        return False
