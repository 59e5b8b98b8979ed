"""Runs tools in containers of a Docker or Podman daemon: a fresh container for every call, removed after it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
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
from praxis_mcp.engines.docker import errors as docker_errors
from praxis_mcp.engines.docker.api import DockerDaemon, ImageMissing
from praxis_mcp.engines.docker.builds import DockerBuilds
from praxis_mcp.engines.docker.cold import CallWithoutInit, ColdCall, InitRefused
from praxis_mcp.engines.docker.connections import Refusal
from praxis_mcp.engines.docker.handover import CONTAINER_START_TIMEOUT, ran_out_of_memory
from praxis_mcp.engines.docker.images import DockerImages
from praxis_mcp.engines.docker.ownership import SERVER, DockerCaches, OwnContainer, OwnContainers, call_labels
from praxis_mcp.engines.docker.spec import (
    DockerInit,
    Staging,
    container_config,
    has_our_files,
    init_for,
    is_usual,
    stage,
    waiting_config,
    why_no_init,
)
from praxis_mcp.engines.docker.warm import WarmDocker, find_cold_reason_of_containers
from praxis_mcp.engines.init.waiter import REPORT_GRACE
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished, run_command
from praxis_mcp.engines.warm.call import Claim
from praxis_mcp.engines.warm.pool import WarmPool
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout, ImageError, LimitUnsupported
from praxis_mcp.plans.model import DEFAULT_PIDS, Blueprint, Capability, Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.scratch import sweep_scratch
from praxis_mcp.support.tasks import BackgroundTasks

DAEMON_PROBE_TIMEOUT = 3.0
"""Seconds within which a daemon that `probe` asks must have answered at all."""
VERSION_TIMEOUT = 1.5
"""Seconds more that it may take to say its version: a busy Podman takes 3 s, and does not hang."""
DAEMON_CONNECT_TIMEOUT = 15.0
"""Seconds to connect to the daemon."""
LEFTOVERS_TIMEOUT = 10.0
"""Seconds for removing what a cut connection has left; beyond, the reaper takes over."""

_ALWAYS = frozenset({
    Capability.IMAGES, Capability.TIMEOUT, Capability.NETWORK_NONE, Capability.NETWORK_BRIDGE,
    Capability.NETWORK_HOST, Capability.READ_ONLY_ROOT, Capability.WRITABLE_ROOT, Capability.USER,
    Capability.PRIVILEGED, Capability.DROP_CAPABILITIES, Capability.CACHE_DIRS, Capability.BUILD,
})  # fmt: skip
_LOCAL_ONLY = (Capability.MOUNTS, Capability.WRITABLE_MOUNTS, Capability.FILES, Capability.ARTIFACTS)
_MEMORY, _CPU, _PIDS = Capability.MEMORY_LIMIT, Capability.CPU_LIMIT, Capability.PIDS_LIMIT
_CONTROLLED = {_MEMORY: "MemoryLimit", _CPU: "CpuCfsQuota", _PIDS: "PidsLimit"}


class DockerSDKExecutionEngine(ExecutionEngine):
    """The Docker engine.

    It connects with the first call, and again after the daemon has been away. Containers are hardened as far as the
    contract allows: read-only root, no capabilities, no new privileges, no network, a bound on processes.
    """

    name: ClassVar[str] = "docker"

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._images = DockerImages()
        self._builds = DockerBuilds(self.settings)
        self._own = OwnContainers()
        self._caches = DockerCaches(self._own)
        self._daemon: DockerDaemon | None = None
        self._capabilities: EngineCapabilities | None = None
        self._init: DockerInit | None = None
        self._info: Mapping[str, Any] = {}
        self._warm: WarmDocker | None = None
        self._connecting = anyio.Lock()
        self._background = BackgroundTasks()

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        """See `ExecutionEngine.run`. The plan's timeout counts from the tool's start; a pull and a slow daemon have
        bounds of their own."""
        await self.get_capabilities()
        daemon = await self._connected()

        async def command(artifacts: Path | None) -> Finished:
            cold = partial(self._run_cold, daemon, plan, context, artifacts)
            return await (self._warm.run(plan, context, cold) if self._warm is not None else cold())

        try:
            with self._translating(plan):
                return await run_command(self, plan, context, command, isolation="container")
        except EngineUnavailable:
            await self._forget(daemon)
            raise

    async def _run_cold(
        self, daemon: DockerDaemon, plan: Plan, context: ExecutionContext, artifacts: Path | None
    ) -> Finished:
        context.phases.enter(Phase.START)  # again, where one that waited turned out not to run it
        async with stage(plan, artifacts) as staging:
            while True:
                init = self._init
                try:
                    if init is None:
                        return await self._run_without_init(daemon, plan, staging, context)
                    return await self._run_with_init(daemon, plan, init, staging, context)
                except InitRefused as exc:  # nothing has run
                    await self._use_other_init(daemon, init, str(exc))

    async def _use_other_init(self, daemon: DockerDaemon, init: DockerInit | None, why: str) -> None:
        """praxis-init cannot be in containers in this way: the daemon is on this machine and sees other files (this
        server runs in a container itself, say), or its place is mounted noexec."""
        if init is None or self._init != init:
            return
        self._init = init.other_way
        if self._init is None:
            _warn_of_no_init(why)
        else:
            logger.info("praxis-init cannot be mounted ({}); it is copied into each container", why.strip())
        await self._close_warm()
        self._open_warm(daemon)

    async def _run_with_init(
        self, daemon: DockerDaemon, plan: Plan, init: DockerInit, staging: Staging, context: ExecutionContext
    ) -> Finished:
        deadline = time.time() + CONTAINER_START_TIMEOUT + plan.blueprint.limits.timeout + REPORT_GRACE
        config = waiting_config(
            plan.blueprint,
            init,
            staging,
            call_labels(self._own.server, plan.blueprint, plan.call.run_id, deadline),
            CONTAINER_START_TIMEOUT,
            runtime=self.settings.engines.docker.runtime,
        )
        async with self._container(daemon, plan, config, context, init) as container:
            return await ColdCall(daemon, container, init, self._images, plan, context).run()

    async def _run_without_init(
        self, daemon: DockerDaemon, plan: Plan, staging: Staging, context: ExecutionContext
    ) -> Finished:
        if plan.call.secrets:
            raise LimitUnsupported(
                f"{plan.blueprint.tool} needs a secret, which would stand in its container's configuration, on the "
                "daemon's disk and for `docker inspect`: praxis-init, which would take it over a channel, cannot be in "
                "this daemon's containers.",
                remedy="Run it on another engine, or a daemon for x86-64 or arm64.",
            )
        digest: str | None = None

        async def find_digest() -> None:
            nonlocal digest
            try:
                facts = await self._images.facts(daemon, plan.blueprint.image or "")
                digest = facts.digest if facts is not None else None
            except (ExecutionError, Refusal) as exc:
                logger.debug("the digest of {} is unknown: {}", plan.blueprint.image, exc)

        config = container_config(
            plan,
            staging,
            call_labels(
                self._own.server,
                plan.blueprint,
                plan.call.run_id,
                time.time() + CONTAINER_START_TIMEOUT + plan.blueprint.limits.timeout,
            ),
            runtime=self.settings.engines.docker.runtime,
            auto_remove=daemon.keeps_wait and plan.blueprint.limits.memory is None,
        )
        async with self._container(daemon, plan, config, context) as container:
            done = await CallWithoutInit(daemon, container, plan, context).run(find_digest)
            # One more request, so only where it can be so: a tool that ends with 0 has coped with what was killed.
            can_be = plan.blueprint.limits.memory is not None and done.end.exit_code != 0 and not done.end.timed_out
            out_of_memory = can_be and await ran_out_of_memory(daemon, container, plan.blueprint.tool)
        failure = docker_errors.init_failure(plan, done.end.exit_code, done.stderr.data)
        if failure is not None:
            raise failure
        return replace(done, end=replace(done.end, out_of_memory=out_of_memory), image=digest)

    @asynccontextmanager
    async def _container(
        self,
        daemon: DockerDaemon,
        plan: Plan,
        config: Mapping[str, Any],
        context: ExecutionContext,
        init: DockerInit | None = None,
    ) -> AsyncIterator[str]:
        """A container for one call, removed after it; its id.

        Raises:
            InitRefused: the daemon will not have `init` in it.
            ExecutionError: it cannot be created.
        """
        container = self._own.begin()
        try:
            try:
                try:
                    await self._create(daemon, plan.blueprint, container, config)
                except ImageMissing:
                    await self._pull(daemon, plan.blueprint, context.on_status)
                    await self._create(daemon, plan.blueprint, container, config)
            except Refusal as exc:
                if init is not None and init.is_named_in(exc.explanation):
                    raise InitRefused(exc.explanation) from exc
                raise docker_errors.refused(exc.explanation, plan) from exc
            yield container.id
        finally:
            await container.remove(daemon)

    async def _create(
        self, daemon: DockerDaemon, blueprint: Blueprint, container: OwnContainer, config: Mapping[str, Any]
    ) -> None:
        await self._caches.ensure(daemon, blueprint, str(config["Image"]))
        await container.create(daemon, config)

    async def _pull(self, daemon: DockerDaemon, blueprint: Blueprint, on_status: StatusListener | None) -> None:
        image = blueprint.image or ""
        if blueprint.build is not None:
            await self._builds.ensure(daemon, blueprint, on_status)
        elif self.settings.pull == "never":
            raise ImageError(
                f"{blueprint.tool} needs the image {image}, which the Docker daemon does not have.",
                remedy=f"Pull it (docker pull {image}), or set pull: missing in the settings.",
            )
        else:
            await self._images.pull(daemon, image, on_status)

    @contextmanager
    def claim(self, plan: Plan, context: ExecutionContext) -> Iterator[Claim]:
        """See `ExecutionEngine.claim`. A daemon takes a tenth of a second to start a container, and starts wait for
        each other: a call begins at once only where one waits."""
        key = WarmDocker.key(plan, context) if self._warm is not None else None
        if self._warm is None or key is None:
            yield Claim(begins_now=False)
            return
        with self._warm.claim(key) as claim:
            yield claim

    async def pin_image(self, blueprint: Blueprint) -> PinnedImage | None:
        """See `ExecutionEngine.pin_image`."""
        if blueprint.image is None or not is_usual(self._info, self.settings.engines.docker.runtime):
            return None
        if self._warm is not None:
            facts = await self._warm.image(blueprint.image)
        else:
            with self._translating():
                facts = await self._images.facts(await self._connected(), blueprint.image)
        return facts and facts.pinned(blueprint.image, shares_files=has_our_files(self._info, self._init))

    async def lacks_image(self, blueprint: Blueprint) -> bool:
        """See `ExecutionEngine.lacks_image`."""
        with self._translating():
            return await self._images.facts(await self._connected(), blueprint.image or "") is None

    async def name_by_digest(self, image: str) -> str | None:
        """See `ExecutionEngine.name_by_digest`."""
        with self._translating():
            return await self._images.name_by_digest(await self._connected(), image)

    async def prepare(self, blueprint: Blueprint, on_status: StatusListener | None = None) -> None:
        """Pull or build the image where it is missing."""
        with self._translating():
            daemon = await self._connected()
            is_wanted = self.settings.pull == "missing" and not await daemon.has_image(blueprint.image or "")
            if blueprint.build is not None or is_wanted:
                await self._pull(daemon, blueprint, on_status)

    async def get_capabilities(self) -> EngineCapabilities:
        """See `ExecutionEngine.get_capabilities`; asks the daemon once.

        Raises:
            EngineUnavailable: the daemon cannot be reached.
        """
        if self._capabilities is None:
            with self._translating():
                daemon = await self._connected()
                info = await daemon.info()
            self._init = init_for(daemon, info)
            if self._init is None:
                _warn_of_no_init(why_no_init(info))
            self._open_warm(daemon)
            self._info = info if daemon.has_socket else {}
            self._capabilities = _capabilities_of(daemon, info)
        return self._capabilities

    async def probe(self) -> EngineStatus:
        """See `ExecutionEngine.probe`; takes at most `DAEMON_PROBE_TIMEOUT` and `VERSION_TIMEOUT`. The version is
        empty where the daemon did not say it in time."""
        version = ""
        try:
            with anyio.fail_after(DAEMON_PROBE_TIMEOUT), self._translating():
                daemon = await self._connected()
                await daemon.ping()
            with anyio.move_on_after(VERSION_TIMEOUT), self._translating():
                version = str(await daemon.version())
        except TimeoutError:
            detail = f"The Docker daemon did not answer within {DAEMON_PROBE_TIMEOUT:g} s."
            remedy = "It may be hung: see its log, and restart it."
            return EngineStatus(self.name, available=False, detail=detail, remedy=remedy, silent=True)
        except ExecutionError as exc:
            if self._daemon is not None:
                await self._forget(self._daemon)
            return EngineStatus(self.name, available=False, detail=exc.message, remedy=exc.remedy or "")
        return EngineStatus(self.name, available=True, version=version, detail=f"at {daemon.address}")

    async def reap(self) -> tuple[str, ...]:
        """Remove containers that a server left behind when it was killed, and those of this server that no call holds;
        their ids.

        Never those of another server that still runs, nor any that are not ours: see `ownership.is_orphan`.

        Raises:
            EngineUnavailable: the daemon cannot be reached.
        """
        with self._translating():
            daemon = await self._connected()
            orphans = await self._own.remove_orphans(daemon)
            await anyio.to_thread.run_sync(sweep_scratch)
        return orphans

    async def _remove_leftovers(self) -> None:
        """Remove what calls could not when the connection to the daemon was cut, if anything; never raises."""
        if not self._own.may_have_leftovers:
            return
        with anyio.move_on_after(LEFTOVERS_TIMEOUT, shield=True):
            try:
                with self._translating():
                    await self._own.remove_orphans(await self._connected(), f"{SERVER}={self._own.server.id}")
            except ExecutionError as exc:
                self._own.may_have_leftovers = True
                logger.warning("a container may be left of a call whose connection was cut: {}", exc)

    async def cleanup(self) -> None:
        """Remove what waits for calls and what a cut connection has left, and close the connection; other containers
        are gone with their calls."""
        await self._close_warm()
        await self._remove_leftovers()
        await self._background.close(LEFTOVERS_TIMEOUT)
        if self._daemon is not None:
            await self._forget(self._daemon)

    async def find_cold_reason(self, plan: Plan) -> str:
        """See `ExecutionEngine.find_cold_reason`."""
        await self.get_capabilities()
        return find_cold_reason_of_containers(plan, self.settings.warm, can_wait=self._warm is not None)

    @property
    def _warm_pool(self) -> WarmPool[Any, Any] | None:
        return self._warm.pool if self._warm is not None else None

    def _translating(self, plan: Plan | None = None) -> AbstractContextManager[None]:
        return docker_errors.translate_errors(self._address, plan)

    def _address(self) -> str:
        if self._daemon is not None:
            return self._daemon.address
        return self.settings.engines.docker.host or "the default socket"

    def _open_warm(self, daemon: DockerDaemon) -> None:
        if self._warm is None and self._init is not None and daemon.has_socket and self.settings.warm.enabled:
            self._warm = WarmDocker(daemon, self._init, self._own, self._caches, self.settings, self.warm_budget)

    async def _close_warm(self) -> None:
        warm, self._warm = self._warm, None
        if warm is not None:
            await warm.close()

    async def _connected(self) -> DockerDaemon:
        if self._daemon is None:
            async with self._connecting:
                if self._daemon is None:
                    try:
                        with anyio.fail_after(DAEMON_CONNECT_TIMEOUT):
                            self._daemon = await DockerDaemon.connect(self.settings.engines.docker.host)
                    except TimeoutError as exc:
                        raise ExecutionTimeout(
                            f"The Docker daemon did not answer within {DAEMON_CONNECT_TIMEOUT:g} s.",
                            remedy="It may be hung: see its log, and restart it.",
                        ) from exc
                    if self._own.may_have_leftovers:
                        self._background.start(self._remove_leftovers, "removing what a cut connection left")
        return self._daemon

    async def _forget(self, daemon: DockerDaemon) -> None:
        """Let go of a daemon: the next call connects again, and asks again what it can."""
        if self._daemon is daemon:
            self._daemon, self._capabilities = None, None
        with anyio.CancelScope(shield=True):
            await self._close_warm()
            await daemon.close()


def _warn_of_no_init(why: str) -> None:
    logger.warning(
        "praxis-init cannot be in the containers of this Docker daemon ({}): tools with secrets are refused, words and "
        "variables of others stand in their container's configuration, and a call of a server that is killed goes on "
        "until another server finds it",
        why.strip(),
    )


def _capabilities_of(daemon: DockerDaemon, info: Mapping[str, Any]) -> EngineCapabilities:
    """What a daemon can enforce, by what it says of itself (SystemInfo)."""
    enforces = set(_ALWAYS)
    notes: dict[Capability, str] = {}
    if str(info.get("OSType", "linux")).lower() != "linux":
        notes = dict.fromkeys(Capability, "the Docker daemon runs Windows containers")
        return EngineCapabilities("docker", "container", frozenset(), MappingProxyType(notes))
    without_cgroups = info.get("CgroupDriver") == "none"
    for capability, key in _CONTROLLED.items():
        if info.get(key) and not without_cgroups:
            enforces.add(capability)
        else:
            notes[capability] = (
                "the rootless Docker daemon has no cgroups; see 'Limiting resources' in Docker's rootless guide"
                if without_cgroups
                else "the daemon's kernel does not support it"
            )
    if daemon.is_local:
        enforces.update(_LOCAL_ONLY)
    else:
        notes |= dict.fromkeys(_LOCAL_ONLY, f"the Docker daemon at {daemon.address} does not see this machine's files")
    if daemon.carries_stdin:
        enforces.add(Capability.STDIN)
    else:
        notes[Capability.STDIN] = "over TLS or a Windows pipe, standard input cannot be ended"
    pids = DEFAULT_PIDS if Capability.PIDS_LIMIT in enforces else None
    return EngineCapabilities("docker", "container", frozenset(enforces), MappingProxyType(notes), default_pids=pids)
