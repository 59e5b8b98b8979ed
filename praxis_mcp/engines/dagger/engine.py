"""The Dagger engine: every call is one query in one long-lived session.

The order: mounts and image are brought into the engine, what is fixed for the contract is made once, and the call
meets an exec that waits for it (see `warm`), or asks for exit code and both streams at once; what does not fit
an answer is fetched as files. A call is killed by praxis-init at its deadline, with its whole process tree, and by
Dagger, by SIGKILL, when it is cancelled.

Writable mounts are copies in the engine. They are written back, all or nothing, whenever the tool ran to its end,
whatever its exit code; not after a deadline or a cancellation.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.to_thread
from pydantic import ValidationError

from praxis_mcp.engines.artifacts import OUTPUT_DIR_VARIABLE
from praxis_mcp.engines.base import (
    EngineCapabilities,
    EngineStatus,
    ExecutionContext,
    ExecutionEngine,
    ExecutionResult,
    StatusListener,
)
from praxis_mcp.engines.changes import Changed
from praxis_mcp.engines.dagger.cli import find_cli, probe_engine, runner_host, session_in_environment
from praxis_mcp.engines.dagger.cold import CallResult, run_cold
from praxis_mcp.engines.dagger.errors import QueryFailed, run_failed
from praxis_mcp.engines.dagger.exec import CallRequest
from praxis_mcp.engines.dagger.export import export_artifacts, export_changes
from praxis_mcp.engines.dagger.images import BaseContainer, Image, ImageSource, make_base_container
from praxis_mcp.engines.dagger.mounts import (
    Upload,
    add_mount_points,
    find_missing_mount_points,
    make_shield,
    upload_mount,
)
from praxis_mcp.engines.dagger.sdk import sdk_installed, sdk_missing
from praxis_mcp.engines.dagger.session import Session, SessionManager
from praxis_mcp.engines.dagger.warm import WarmDagger, cold_reason
from praxis_mcp.engines.mounts.locks import MountLocks
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished, run_command
from praxis_mcp.engines.warm.call import find_cold_reason
from praxis_mcp.engines.warm.pool import WarmPool
from praxis_mcp.errors import EngineUnavailable, ExecutionTimeout, SettingsError
from praxis_mcp.plans.model import Blueprint, Capability, Guard, Plan
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import DaggerSettings
from praxis_mcp.support.praxis_init import praxis_init_path
from praxis_mcp.support.scratch import Scratch, remove_directory, sweep_scratch
from praxis_mcp.support.text import counted

_ALWAYS = frozenset(
    {
        Capability.IMAGES,
        Capability.TIMEOUT,
        Capability.NETWORK_BRIDGE,
        Capability.WRITABLE_ROOT,
        Capability.USER,
        Capability.PRIVILEGED,
        Capability.MOUNTS,
        Capability.WRITABLE_MOUNTS,
        Capability.CACHE_DIRS,
        Capability.STDIN,
        Capability.FILES,
        Capability.ARTIFACTS,
        Capability.BUILD,
    }
)
_NO_SWITCH = "Dagger has no such switch"
_NOTES: Mapping[Capability, str] = {
    Capability.MEMORY_LIMIT: _NO_SWITCH,
    Capability.CPU_LIMIT: _NO_SWITCH,
    Capability.PIDS_LIMIT: _NO_SWITCH,
    Capability.READ_ONLY_ROOT: _NO_SWITCH,
    Capability.DROP_CAPABILITIES: _NO_SWITCH,
    Capability.NETWORK_HOST: _NO_SWITCH,
}
LOCK_PATIENCE = 1.0
"""Seconds that an exec which is to wait for a call waits for mounts that a call writes to."""
_NO_INIT = "this installation lacks praxis-init, which Dagger needs for it"


class DaggerExecutionEngine(ExecutionEngine):
    """Runs commands in containers of a Dagger engine; see the module."""

    name: ClassVar[str] = "dagger"
    never: ClassVar[frozenset[Capability]] = frozenset(Capability) - _ALWAYS - {Capability.NETWORK_NONE}

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._options: DaggerSettings = self.settings.engines.dagger
        self._sessions = SessionManager(lambda: self._options, self._forget_session)
        self._locks = MountLocks()
        self._scratch: Scratch | None = None
        self._images: ImageSource | None = None
        self._warm: WarmDagger | None = None

    def configure_connection(self, **options: Any) -> None:
        """Change how the engine is reached; the next call opens a session accordingly.

        Args:
            options: fields of `DaggerSettings`: ``runner_host``, ``cli``, ``workdir``, ``images``,
                ``connect_timeout``, ``grace``, ``rotate_after_calls``, ``rotate_after``.

        Raises:
            SettingsError: there is no such option, or its value is wrong.
        """
        try:
            self._options = DaggerSettings.model_validate({**self._options.model_dump(), **options})
        except ValidationError as exc:
            problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in exc.errors())
            raise SettingsError(
                f"The connection to Dagger cannot be configured so ({problems}).",
                remedy=f"Options are {', '.join(DaggerSettings.model_fields)}.",
            ) from exc
        self._sessions.replace()

    async def get_capabilities(self) -> EngineCapabilities:
        capabilities = self._capabilities()
        if self.settings.builds.network != "none":
            return capabilities
        notes = {**capabilities.notes, Capability.BUILD: "Dagger has no switch for builds.network: none"}
        return replace(capabilities, enforces=capabilities.enforces - {Capability.BUILD}, notes=notes)

    def _capabilities(self) -> EngineCapabilities:
        # The engine's processor is known only in a session: one that is neither of these two is refused there.
        if praxis_init_path() is not None:
            return EngineCapabilities(self.name, "container", _ALWAYS | {Capability.NETWORK_NONE}, _NOTES)
        notes = {**_NOTES, Capability.NETWORK_NONE: _NO_INIT}
        return EngineCapabilities(self.name, "container", _ALWAYS, notes, frozenset({Capability.NETWORK_NONE}))

    async def probe(self) -> EngineStatus:
        if not sdk_installed():
            missing = sdk_missing()
            return EngineStatus(self.name, False, detail=missing.message, remedy=missing.remedy or "")
        health = self._sessions.health()
        if health.open:
            detail = f"a session of {counted(health.calls, 'call')}, open for {health.age:.0f} s"
            return EngineStatus(self.name, True, health.version, detail)
        try:
            if session_in_environment() is not None:
                return EngineStatus(self.name, True, detail="the session that the environment names")
            cli = find_cli(self._options)
            found = await probe_engine(runner_host(self._options), os.environ.get("DOCKER_HOST"))
        except EngineUnavailable as exc:
            return EngineStatus(self.name, False, detail=exc.message, remedy=exc.remedy or "")
        if health.error is not None:
            error = health.error
            return EngineStatus(self.name, False, detail=error.message, remedy=error.remedy or "")
        return EngineStatus(self.name, True, detail=f"{cli}; {found}")

    async def prepare(self, blueprint: Blueprint, on_status: StatusListener | None = None) -> None:
        """Open the session, fetch the image and make what is fixed for the contract."""
        async with self._sessions.lease() as session:
            await self._base_container(session, blueprint, on_status)

    async def find_cold_reason(self, plan: Plan) -> str:
        """See `ExecutionEngine.find_cold_reason`."""
        return find_cold_reason(self.settings.warm, plan.blueprint) or cold_reason(plan)

    @property
    def _warm_pool(self) -> WarmPool[Any, Any] | None:
        return self._warm.pool if self._warm is not None else None

    async def reap(self) -> tuple[str, ...]:
        """Remove the files that killed servers have left; what they ran in the engine went with their sessions."""
        await anyio.to_thread.run_sync(sweep_scratch)
        return ()

    async def cleanup(self) -> None:
        """Remove what waits for calls, and close the session."""
        warm, self._warm = self._warm, None
        if warm is not None:
            await warm.close()
        await self._sessions.close()
        if warm is not None:
            await warm.close_queries()
        scratch, self._scratch, self._images = self._scratch, None, None
        if scratch is not None:
            await anyio.to_thread.run_sync(scratch.remove)

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        if plan.blueprint.artifact_dir is not None:
            env = {**plan.call.env, OUTPUT_DIR_VARIABLE: plan.blueprint.artifact_dir}
            plan = replace(plan, call=replace(plan.call, env=env))

        async def command(artifacts: Path | None) -> Finished:
            async with self._locks.hold(plan.blueprint.mounts), self._sessions.lease() as session:
                try:
                    base = await self._base_container(session, plan.blueprint, context.on_status)
                    uploads = await self._upload_mounts(session, plan.blueprint)
                    result = await self._call(session, plan, context, base, uploads)
                    if artifacts is not None and result.container:
                        await export_artifacts(session, result.container, plan.blueprint, artifacts)
                    changed = Changed()
                    if not result.done.end.timed_out:
                        changed = await self._write_back(session, result, plan, context)
                except QueryFailed as exc:
                    raise run_failed(plan.blueprint, exc) from exc
            return replace(result.done, changed=changed)

        return await run_command(self, plan, context, command, isolation="container", watches=False)

    async def _call(
        self, session: Session, plan: Plan, context: ExecutionContext, base: BaseContainer, uploads: list[Upload]
    ) -> CallResult:
        grace = self._options.grace

        async def cold() -> CallResult:
            context.phases.enter(Phase.START)  # again, where one that waited turned out not to run it
            async with self._call_directory() as scratch:
                return await run_cold(session, CallRequest(base, plan, uploads, scratch), context, grace)

        return await self._warm_execs().run(session, plan, base, uploads, context, grace, cold)

    async def _write_back(self, session: Session, result: CallResult, plan: Plan, context: ExecutionContext) -> Changed:
        if not result.container or not any(item.mount.writable for item in result.uploads):
            return Changed()
        mask = Masker(plan.call.secrets).text
        async with self._call_directory() as scratch:
            return await export_changes(
                session, result.container, result.uploads, result.changes, scratch, context.changes, mask
            )

    def _warm_execs(self) -> WarmDagger:
        if self._warm is None:
            self._warm = WarmDagger(
                self._sessions, self._prepare, self._scratch_directory, self.settings.warm, self.warm_budget
            )
        return self._warm

    async def _prepare(self, session: Session, blueprint: Blueprint) -> tuple[BaseContainer, list[Upload]]:
        """What an exec that waits starts from.

        Raises:
            TimeoutError: another call has one of the mounts, and goes on.
        """
        async with AsyncExitStack() as held:
            with anyio.fail_after(LOCK_PATIENCE):
                await held.enter_async_context(self._locks.hold(blueprint.mounts))
            return await self._base_container(session, blueprint, None), await self._upload_mounts(session, blueprint)

    def _forget_session(self, session: Session) -> None:
        if self._warm is not None:
            self._warm.forget(session)

    async def _base_container(
        self, session: Session, blueprint: Blueprint, on_status: StatusListener | None
    ) -> BaseContainer:
        image = await self._image(session, blueprint, on_status)
        try:
            with anyio.fail_after(self._options.connect_timeout):
                return await make_base_container(session, blueprint, image)
        except QueryFailed as exc:
            raise run_failed(blueprint, exc) from exc
        except TimeoutError as exc:
            raise ExecutionTimeout(
                f"The Dagger engine did not prepare the container of {blueprint.tool} within "
                f"{self._options.connect_timeout:g} s.",
                remedy="Look at the Dagger engine's log and load.",
            ) from exc

    async def _image(self, session: Session, blueprint: Blueprint, on_status: StatusListener | None) -> Image:
        source = await self._image_source()
        if blueprint.build is not None:
            return await source.build(
                session, blueprint.image or "", blueprint.build, blueprint.tool, self._options.images, on_status
            )
        return await source.load(session, blueprint.image or "", self._options.images, on_status)

    async def _image_source(self) -> ImageSource:
        if self._images is None:
            self._images = ImageSource(self.settings, await self._scratch_directory())
        return self._images

    async def lacks_image(self, blueprint: Blueprint) -> bool:
        """See the base. Whether Dagger has built an image is seen only by having it built."""
        return blueprint.build is None and await (await self._image_source()).lacks(
            blueprint.image or "", self._options.images
        )

    async def _upload_mounts(self, session: Session, blueprint: Blueprint) -> list[Upload]:
        found: list[Upload] = []
        try:
            with anyio.fail_after(blueprint.limits.timeout + self._options.grace):
                for mount in blueprint.mounts:
                    if mount.guard is not Guard.NONE:
                        continue
                    if mount.writable:
                        found.append(await upload_mount(session, mount, blueprint.user, blueprint.tool))
                    else:
                        async with self._locks.hold_while_read(mount, blueprint.mounts):
                            found.append(await upload_mount(session, mount, blueprint.user, blueprint.tool))
                found += [
                    await make_shield(session, mount, found)
                    for mount in blueprint.mounts
                    if mount.guard is Guard.SHIELD
                ]
                places = await anyio.to_thread.run_sync(find_missing_mount_points, blueprint)
                for number, item in enumerate(found):
                    if item.mount.target in places:
                        found[number] = await add_mount_points(session, item, places[item.mount.target])
        except TimeoutError as exc:
            raise ExecutionTimeout(
                f"The mounts of {blueprint.tool} were not in the Dagger engine within "
                f"{blueprint.limits.timeout + self._options.grace:g} s.",
                remedy="Mount less, or wait until no other call writes there.",
            ) from exc
        return found

    async def _scratch_directory(self) -> Path:
        if self._scratch is None:
            # Made by one line that no other task can come into: the first two calls arrive together.
            self._scratch = Scratch.make()
        return self._scratch.path

    @asynccontextmanager
    async def _call_directory(self) -> AsyncIterator[Path]:
        """A directory of one call's own, gone afterwards."""
        base = await self._scratch_directory()
        place = Path(tempfile.mkdtemp(dir=base))
        try:
            yield place
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(remove_directory, place)
