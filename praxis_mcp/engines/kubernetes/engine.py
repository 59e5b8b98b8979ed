"""The Kubernetes engine: every call runs in a pod of its own, made for it or waiting for it, and removed after it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
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
)
from praxis_mcp.engines.changes import Changed, ChangeKeeper
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.content import PodContent
from praxis_mcp.engines.kubernetes.errors import translate_cluster_errors
from praxis_mcp.engines.kubernetes.lease import ServerLease, lease_notes
from praxis_mcp.engines.kubernetes.rights import missing_rights, needed_rights, role
from praxis_mcp.engines.kubernetes.sandboxes import SANDBOX_NOTE, why_no_sandboxes
from praxis_mcp.engines.kubernetes.spec import room_for, why_no_user
from praxis_mcp.engines.kubernetes.warm import WarmKubernetes
from praxis_mcp.engines.mounts.bring_back import bring_back
from praxis_mcp.engines.mounts.locks import MountLocks
from praxis_mcp.engines.mounts.trees import CarriedTree
from praxis_mcp.engines.running import Finished, run_command
from praxis_mcp.engines.warm.call import Claim, find_cold_reason
from praxis_mcp.engines.warm.pool import WarmPool
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Capability, Plan
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.scratch import Scratch
from praxis_mcp.support.tasks import BackgroundTasks

CLUSTER_PROBE_TIMEOUT = 8.0
"""Seconds within which a cluster that `probe` asks must have answered everything."""
CHANNELS_CLOSE_TIMEOUT = 10.0
"""Seconds for what runs in the background to end."""

_ALWAYS = frozenset(
    {
        Capability.IMAGES, Capability.TIMEOUT, Capability.MEMORY_LIMIT, Capability.CPU_LIMIT, Capability.NETWORK_NONE,
        Capability.READ_ONLY_ROOT, Capability.WRITABLE_ROOT, Capability.USER, Capability.DROP_CAPABILITIES,
        Capability.MOUNTS, Capability.WRITABLE_MOUNTS, Capability.STDIN, Capability.FILES, Capability.ARTIFACTS,
    }
)  # fmt: skip
_NOTES = {
    Capability.BUILD: "a cluster runs images, and builds none",
    Capability.PRIVILEGED: "no pod has privileges",
    Capability.NETWORK_HOST: "no pod has its node's network",
    Capability.CACHE_DIRS: "nothing is kept between pods",
}


@dataclass(frozen=True, slots=True)
class KubernetesCapabilities(EngineCapabilities):
    """As the base; what is beyond it depends on the values in a contract, not on what it names."""

    def lacks(self, plan: Plan) -> tuple[str, ...]:
        """See `EngineCapabilities.lacks`."""
        # Not by super(): a dataclass with slots is another class than the one that the compiler saw.
        found = [*EngineCapabilities.lacks(self, plan)]
        fixed = plan.blueprint
        if fixed.use_entrypoint:
            found.append("use_entrypoint (the image's configuration is not known before a pod runs)")
        if (why := why_no_user(fixed)) is not None:
            found.append(why)
        pids, most = fixed.limits.pids, self.default_pids
        if pids is not None and most is not None and pids < most:
            found.append(f"pids_limit: {pids} (each pod of the cluster may have {most})")
        return tuple(found)


class KubernetesExecutionEngine(ExecutionEngine):
    """Runs tools in pods of a Kubernetes cluster.

    It connects with the first call. Pods meet the profile `restricted` of the Pod Security Standards: no root, no
    capabilities, no privileges to gain, the runtime's seccomp profile; and no token, a read-only root, a deadline.
    """

    name: ClassVar[str] = "kubernetes"
    never: ClassVar[frozenset[Capability]] = frozenset(_NOTES)

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._options = self.settings.engines.kubernetes
        self._background = BackgroundTasks()
        self._connecting = anyio.Lock()
        self._cluster: Cluster | None = None
        self._lease: ServerLease | None = None
        self._pods: WarmKubernetes | None = None
        self._locks = MountLocks()

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        """See `ExecutionEngine.run`. The plan's timeout counts from the tool's start; the start has a bound of its own
        (`engines.kubernetes.start_timeout`)."""
        await self.check_demands(plan)
        room_for(plan.blueprint, [file.path for file in plan.call.files])
        pods = await self._connected()

        async def command(artifacts: Path | None) -> Finished:
            async with self._locks.hold(plan.blueprint.mounts):
                with _Carried(plan, artifacts) as carried:
                    done = await pods.run(plan, context, carried.make)
                    return replace(done, changed=await carried.bring_back(context.changes))

        return await run_command(self, plan, context, command, isolation="pod", watches=False)

    async def get_capabilities(self) -> EngineCapabilities:
        """See `ExecutionEngine.get_capabilities`; asks nobody: what a pod enforces is the same everywhere, and what
        depends on the cluster, the settings say.

        Raises:
            EngineUnavailable: there is no praxis-init for the nodes.
        """
        PodContent.machine(self._options)
        enforces, notes = set(_ALWAYS), dict(_NOTES)
        if self._options.pids_limit is not None:
            enforces.add(Capability.PIDS_LIMIT)
        else:
            notes[Capability.PIDS_LIMIT] = (
                "no pod chooses it; name the cluster's own (the kubelet's podPidsLimit) in "
                "engines.kubernetes.pids_limit"
            )
        if self._options.network_bridge:
            enforces.add(Capability.NETWORK_BRIDGE)
        else:
            notes[Capability.NETWORK_BRIDGE] = (
                "it is the pod network; engines.kubernetes.network_bridge: true lets tools reach it"
            )
        return KubernetesCapabilities(
            self.name,
            "pod",
            frozenset(enforces),
            notes,
            default_pids=self._options.pids_limit,
            caution=self._options.caution,
        )

    async def probe(self) -> EngineStatus:
        """See `ExecutionEngine.probe`; also whether this server has the rights that it needs."""
        rights = needed_rights(self._options)
        try:
            with anyio.fail_after(CLUSTER_PROBE_TIMEOUT):
                await self._connected()
                cluster = self._cluster
                assert cluster is not None
                with translate_cluster_errors(cluster.address):
                    version = await cluster.get("/version")
                    missing = await missing_rights(cluster, rights)
                    sandboxes = "" if missing else await why_no_sandboxes(cluster, self._options)
                    notes = [] if missing or sandboxes else await lease_notes(cluster, SANDBOX_NOTE)
        except TimeoutError:
            return EngineStatus(
                self.name,
                available=False,
                detail=f"The Kubernetes API server did not answer within {CLUSTER_PROBE_TIMEOUT:g} s.",
                remedy="Check that `kubectl version` works for the server's user, and engines.kubernetes.context.",
                silent=True,
            )
        except ExecutionError as exc:
            return EngineStatus(self.name, available=False, detail=exc.message, remedy=exc.remedy or "")
        number = str(version.get("gitVersion", "")).removeprefix("v")
        where = f"the namespace {cluster.namespace} at {cluster.address}"
        if missing:
            return EngineStatus(
                self.name,
                available=False,
                version=number,
                detail=f"This server may not {', '.join(missing)} in {where}.",
                remedy=f"Bind this Role to it:\n{role(cluster.namespace, rights)}",
            )
        if sandboxes and self._options.agent_sandbox == "require":
            return EngineStatus(
                self.name,
                available=False,
                version=number,
                detail=f"No pod can be made in {where}: {sandboxes}.",
                remedy="Install agent-sandbox with its extensions, or write engines.kubernetes.agent_sandbox: auto.",
            )
        found = "; ".join(
            part for part in (where, self._maker_of_pods(sandboxes, notes), self._options.caution) if part
        )
        return EngineStatus(self.name, available=True, version=number, detail=found)

    def _maker_of_pods(self, no_sandboxes: str, notes: Sequence[tuple[str, str]]) -> str:
        """Who makes the pods that wait for calls, and why not agent-sandbox; nothing where the settings say it."""
        if self._options.agent_sandbox == "never":
            return ""
        if no_sandboxes:
            return f"plain pods, because {no_sandboxes}"
        failed = [f"the server of the Lease {name} makes plain pods for now ({why})" for name, why in notes]
        return "; ".join(["agent-sandbox makes the pods that wait for calls", *failed])

    @contextmanager
    def claim(self, plan: Plan, context: ExecutionContext) -> Iterator[Claim]:
        """See `ExecutionEngine.claim`."""
        key = WarmKubernetes.key(plan, context)
        if self._pods is None or key is None:
            yield Claim(begins_now=False)
            return
        with self._pods.claim(key) as claim:
            yield claim

    async def find_cold_reason(self, plan: Plan) -> str:
        """See `ExecutionEngine.find_cold_reason`."""
        return find_cold_reason(self.settings.warm, plan.blueprint)

    async def reap(self) -> tuple[str, ...]:
        """Look once more for servers that are gone, and remove what they left in the cluster; see `lease`. Nothing
        where this server has made nothing there itself."""
        if self._lease is None or self._cluster is None:
            return ()
        with translate_cluster_errors(self._cluster.address):
            return await self._lease.remove_expired()

    async def cleanup(self) -> None:
        """Remove what waits for calls and this server's Lease, and with it all that is left of it in the cluster."""
        pods, self._pods = self._pods, None
        lease, self._lease = self._lease, None
        cluster, self._cluster = self._cluster, None
        if pods is not None:
            await pods.close()
        if lease is not None:
            await lease.end()
        await self._background.close(CHANNELS_CLOSE_TIMEOUT)
        if cluster is not None:
            with anyio.CancelScope(shield=True):
                await cluster.close()

    @property
    def _warm_pool(self) -> WarmPool[Any, Any] | None:
        return self._pods.pool if self._pods is not None else None

    async def _connected(self) -> WarmKubernetes:
        """Raises `EngineUnavailable` where there is no cluster to speak to."""
        if self._pods is None:
            async with self._connecting:
                if self._pods is None:
                    cluster = await Cluster.connect(self._options)
                    self._cluster, self._lease = cluster, ServerLease(cluster, self._options.owner)
                    self._pods = WarmKubernetes(cluster, self._lease, self.settings, self.warm_budget, self._background)
        return self._pods


class _Carried(AbstractContextManager["_Carried"]):
    """What a call has carried to its pod and back: copies of the mounts that it may write to, and its artifacts."""

    def __init__(self, plan: Plan, artifacts: Path | None) -> None:
        self._plan = plan
        self._artifacts = artifacts
        self._trees: list[CarriedTree] = []
        self._stack = ExitStack()
        self._scratch: Path | None = None

    def __exit__(self, *about: object) -> None:
        self._stack.close()

    def make(self) -> Sequence[CarriedTree]:
        """The trees for one more pod: one that has been lost has run none of it."""
        fixed = self._plan.blueprint
        self._trees = []
        for mount in (mount for mount in fixed.own_mounts if mount.writable):
            # What no tool may change is carried too, to be read; where a tool changes the copy, nothing of the call is
            # written (`bring_back`).
            places = [other.target for other in fixed.own_mounts if other is not mount]
            places += [file.path for file in self._plan.call.files]
            if fixed.artifact_dir is not None:
                places.append(fixed.artifact_dir)
            self._trees.append(CarriedTree.of_mount(mount, places, self._staging()))
        if self._artifacts is not None and fixed.artifact_dir is not None:
            self._trees.append(CarriedTree(fixed.artifact_dir, staging=self._artifacts))
        return self._trees

    def _staging(self) -> Path:
        if self._scratch is None:
            scratch = Scratch.make()
            self._stack.callback(scratch.remove)
            self._scratch = scratch.path
        return Path(tempfile.mkdtemp(dir=self._scratch))

    async def bring_back(self, keeper: ChangeKeeper) -> Changed:
        """Write what the tool has changed to where its mounts are; the files that changed.

        Args:
            keeper: what is kept of them.

        Raises:
            ExecutionError: they reach what no tool may change, or the host refuses; nothing was written.
        """
        parts = [tree.part() for tree in self._trees]
        return await bring_back(self._plan.blueprint.mounts, parts, keeper, Masker(self._plan.call.secrets).text)
