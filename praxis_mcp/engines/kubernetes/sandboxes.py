"""Pods by agent-sandbox (kubernetes-sigs): a SandboxTemplate and a SandboxWarmPool for each blueprint, and a
SandboxClaim for each pod that is to wait for a call. Whatever goes wrong, the caller can make a pod itself.

All that a server has of it is owned by one claim that is bound to nothing and expires unless it is renewed: the
controller, which else would hold pods ready for ever after the server was killed, removes it, and all else with it.
That claim is owned by the server's Lease.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from praxis_mcp.engines.init.waiter import REPORT_GRACE, WAITER_PATIENCE, awake_or_not
from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.lease import ServerLease
from praxis_mcp.engines.kubernetes.pods import OwnPod
from praxis_mcp.engines.kubernetes.rights import SANDBOX_RIGHTS, missing_rights
from praxis_mcp.engines.kubernetes.sandbox_spec import (
    CLAIM_GROUP,
    POD_NAME_ANNOTATION,
    SANDBOX_GROUP,
    SANDBOX_VERSION,
    bound_sandbox,
    difference,
    is_controlled_by,
    is_name,
    lacks_its_pool,
    made_at,
    sandbox_claim,
    sandbox_object,
    sandbox_pool,
    sandbox_template,
    steering_annotation,
    timestamp,
    why_not_bound,
)
from praxis_mcp.engines.kubernetes.spec import MANAGER, name_for
from praxis_mcp.engines.kubernetes.states import PodTrouble
from praxis_mcp.engines.warm.call import WarmKey, find_cold_reason
from praxis_mcp.settings.kubernetes import SHARED_BY_PODS, KubernetesSettings
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import CHANNEL_SECRET_BYTES
from praxis_mcp.support.tasks import BackgroundTasks
from praxis_mcp.support.text import printable

POOL_REPLICAS = 2
"""Pods that a SandboxWarmPool holds ready, beyond those that this server has claimed."""
CLAIM_TIMEOUT = 30.0
"""Seconds within which a claim must have been given a pod; the controller takes less than one."""
CLAIM_AGAIN = 0.2
"""Seconds until a pod is claimed again whose pool the controller did not know."""
POD_LOOK_EVERY = 0.1
"""Seconds between looks for the pod of a Sandbox that has just been made."""
HOLD_FOR, HOLD_EVERY = 300.0, 60.0
"""Seconds after its last renewal after which the claim expires that owns templates and pools, and between renewals."""
TEND_EVERY = 5.0
"""Seconds between looks at pools which nobody uses any more."""
MOST_POOLS = 32
"""SandboxWarmPools of one server at a time; of more, the one used longest ago goes."""
USE_AGAIN_AFTER, MOST_USE_AGAIN_AFTER = 60.0, 900.0
"""Seconds after a failure for which pods are made without agent-sandbox; doubled with each, up to the second."""
SANDBOX_NOTE = "praxis-mcp/agent-sandbox"
"""Annotation of a server's Lease: why it makes pods itself."""


class SandboxUnusable(Exception):
    """agent-sandbox gave no pod that can be used; the message says why, on one line."""


async def why_no_sandboxes(cluster: Cluster, options: KubernetesSettings) -> str:
    """Why agent-sandbox cannot be used with these settings on this cluster; empty where it can.

    Raises:
        Refusal, ClusterLost: as the cluster's own.
    """
    if options.agent_sandbox == "never":
        return "engines.kubernetes.agent_sandbox is never"
    if options.channel == "direct":
        return f"engines.kubernetes.channel is direct, and {SHARED_BY_PODS}"
    served: set[str] = set()
    for group in (SANDBOX_GROUP, CLAIM_GROUP):
        try:
            found = await cluster.get(f"/apis/{group}/{SANDBOX_VERSION}")
        except Refusal as exc:
            if not exc.is_missing:
                raise
        else:
            served |= {str(each.get("name")) for each in found.get("resources") or []}
    if lacking := [right.resource for right in SANDBOX_RIGHTS if right.resource not in served]:
        return f"agent-sandbox is not installed ({SANDBOX_VERSION} of {', '.join(lacking)} is not served)"
    missing = await missing_rights(cluster, SANDBOX_RIGHTS)
    return f"this server may not {', '.join(missing)}" if missing else ""


@dataclass(eq=False, slots=True)
class SandboxPool:
    """The SandboxTemplate and the SandboxWarmPool of one blueprint, which have the same name.

    Attributes:
        tool: whose they are.
        replicas: pods that it holds ready.
        secret: what channels to its pods begin with.
        template: specification of the SandboxTemplate.
        hold: uid of the claim that owns both; empty while there are none.
        name: theirs.
        used: when a pod of it was last claimed (`time.monotonic`).
    """

    tool: str
    replicas: int
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(CHANNEL_SECRET_BYTES), repr=False)
    template: Mapping[str, Any] = field(default_factory=dict)
    hold: str = ""
    name: str = ""
    used: float = field(default_factory=time.monotonic)


class AgentSandbox:
    """What one server has of agent-sandbox.

    Args:
        cluster: the cluster.
        lease: owns what is made there.
        settings: the settings.
        background: keeps the task that renews and removes.
    """

    def __init__(self, cluster: Cluster, lease: ServerLease, settings: Settings, background: BackgroundTasks) -> None:
        self.cluster = cluster
        self.lease = lease
        self._settings = settings
        self._options = settings.engines.kubernetes
        self._background = background
        self._pools: dict[WarmKey[None], SandboxPool] = {}
        self._making = anyio.Lock()
        self._looking = anyio.Lock()
        self._life = anyio.CancelScope()
        self._is_tended = False
        self._hold: Mapping[str, Any] | None = None
        self._held_by = ""
        self._renewed = self._clock = 0.0
        self._why, self._look_at = "", 0.0
        self._failures = 0

    @property
    def is_required(self) -> bool:
        """Whether no other pods may be used."""
        return self._options.agent_sandbox == "require"

    async def is_usable(self) -> bool:
        """Whether pods that wait for calls are to be claimed: as far as is known.

        Raises:
            ClusterLost: as the cluster's own.
        """
        async with self._looking:
            if time.monotonic() >= self._look_at:
                try:
                    self._why = await why_no_sandboxes(self.cluster, self._options)
                except Refusal as exc:
                    self._why = str(exc)
                self._look_at = time.monotonic() + USE_AGAIN_AFTER if self._why else math.inf
        return not self._why

    def note_failure(self, reason: str) -> None:
        """A pod could not be claimed: for a while, none is. `doctor` says why.

        Args:
            reason: may come from the cluster.
        """
        if time.monotonic() < self._look_at < math.inf:  # those that were claimed at once fail once
            return
        self._failures += 1
        self._why = printable(reason)
        pause = min(USE_AGAIN_AFTER * 2 ** (self._failures - 1), MOST_USE_AGAIN_AFTER)
        self._look_at = time.monotonic() + pause
        logger.warning("pods are made without agent-sandbox for the next {:g} s: {}", pause, self._why)
        self._annotate(self._why)

    def note_success(self) -> None:
        """A pod was claimed, and can be used."""
        if self._failures:
            self._failures = 0
            self._annotate(None)

    def _annotate(self, text: str | None) -> None:
        self._background.start(lambda: self.lease.annotate(SANDBOX_NOTE, text), "annotating this server's Lease")

    def pod(self, key: WarmKey[None]) -> ClaimedPod:
        """A pod to be claimed."""
        pool = self._pools.get(key)
        if pool is None:
            ahead = not find_cold_reason(self._settings.warm, key.blueprint)
            replicas = min(POOL_REPLICAS, self._settings.warm.max_per_tool) if ahead else 0
            pool = self._pools[key] = SandboxPool(key.blueprint.tool, replicas)
            if not self._is_tended:
                self._is_tended = True
                self._background.start(self._tend, "tending pools of agent-sandbox")
        return ClaimedPod(self, pool, name_for(pool.tool, secrets.token_hex(5)))

    async def have(self, pool: SandboxPool, body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """Have a pool make its pods as this body says; the name of its objects, and the reference to what owns them.

        Args:
            pool: the pool.
            body: of the request that would make one.

        Raises:
            Refusal, ClusterLost: as the cluster's own.
            ValueError: the API server does not say what time it is.
        """
        async with self._making:
            pool.used = time.monotonic()
            hold = await self._have_hold(body["metadata"]["ownerReferences"][0])
            template = sandbox_template(body)
            if pool.hold == hold["uid"] and pool.template == template:
                return pool.name, hold
            self.retire(pool)
            name = name_for(pool.tool, secrets.token_hex(5))
            await self._create("SandboxTemplate", name, hold, template)
            pool.name, pool.hold, pool.template = name, hold["uid"], template
            try:
                await self._create("SandboxWarmPool", name, hold, sandbox_pool(name, pool.replicas))
            except BaseException:
                self.retire(pool)
                raise
            return name, hold

    def retire(self, pool: SandboxPool) -> None:
        """Have what there is of a pool removed; when it is used again, it is made again."""
        if pool.name:
            for kind in ("SandboxWarmPool", "SandboxTemplate"):
                self.lease.remove_later(self.path(kind, pool.name), False)
        pool.name = pool.hold = ""

    def path(self, kind: str, name: str = "") -> str:
        """The path of objects of agent-sandbox, or of one of them."""
        group = SANDBOX_GROUP if kind == "Sandbox" else CLAIM_GROUP
        plural = "sandboxes" if kind == "Sandbox" else f"{kind.lower()}s"
        return self.cluster.objects(f"apis/{group}/{SANDBOX_VERSION}", plural, name)

    def now(self) -> float:
        """What time it is by the API server's clock, in seconds since the epoch; after the first `have`."""
        return self._clock + awake_or_not()

    def close(self) -> None:
        """End what it does in the background. The Lease's end removes all that it has made."""
        self._life.cancel()

    async def _create(self, kind: str, name: str, owner: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
        body = sandbox_object(kind, name, self.lease.server, owner, spec)
        made: dict[str, Any] = {}
        try:
            with anyio.CancelScope(shield=True):
                made = await self.cluster.create(self.path(kind), body)
        except (Refusal, ClusterLost) as exc:
            if isinstance(exc, ClusterLost) or exc.may_be_done:
                self.lease.remove_later(self.path(kind, name), True)
            raise
        return made

    async def _have_hold(self, lease: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._hold is None or self._held_by != lease["uid"]:
            name = f"{MANAGER}-hold-{secrets.token_hex(8)}"
            begun = awake_or_not()
            # By our clock: that of the API server is known from the answer on.
            made = await self._create("SandboxClaim", name, lease, sandbox_claim(name, time.time() + HOLD_FOR))
            self._clock = made_at(made) - begun
            self._hold = {
                "apiVersion": f"{CLAIM_GROUP}/{SANDBOX_VERSION}",
                "kind": "SandboxClaim",
                "name": name,
                "uid": str(made["metadata"].get("uid", "")),
            }
            self._held_by, self._renewed = str(lease["uid"]), 0.0
        return self._hold

    async def _tend(self) -> None:
        with self._life:
            while True:
                for key, pool in sorted(self._pools.items(), key=lambda each: each[1].used):
                    idle = time.monotonic() - pool.used
                    if idle >= self._settings.warm.idle_seconds or len(self._pools) > MOST_POOLS:
                        self.retire(pool)
                        del self._pools[key]
                try:
                    if awake_or_not() - self._renewed >= HOLD_EVERY:
                        await self._renew_hold()
                except (Refusal, ClusterLost) as exc:
                    logger.warning("what owns this server's pools of agent-sandbox could not be renewed: {}", exc)
                await anyio.sleep(TEND_EVERY)

    async def _renew_hold(self) -> None:
        hold = self._hold
        if hold is None:
            return
        begun = awake_or_not()
        until = timestamp(self.now() + HOLD_FOR)
        try:
            await self.cluster.merge(
                self.path("SandboxClaim", hold["name"]), {"spec": {"lifecycle": {"shutdownTime": until}}}
            )
        except Refusal as exc:
            if not exc.is_missing:
                raise
            logger.info("this server's pools of agent-sandbox have expired; they are made again when they are used")
            if self._hold is hold:
                self._hold = None
        else:
            self._renewed = begun


class ClaimedPod(OwnPod):
    """A pod of a Sandbox that is given to a claim of this server's.

    Args:
        sandboxes: what this server has of agent-sandbox.
        pool: whose pod it is to be.
        claim: name of the claim.

    Attributes:
        secret: what its channel begins with.
    """

    caller = WAITER_PATIENCE  # that it waits in its pool for a claim is part of it

    def __init__(self, sandboxes: AgentSandbox, pool: SandboxPool, claim: str) -> None:
        super().__init__(sandboxes.cluster, "", sandboxes.lease.remove_later)
        self._sandboxes = sandboxes
        self._pool = pool
        self._claim = claim
        self._body: Mapping[str, Any] = {}
        self.secret = pool.secret

    @property
    def made(self) -> str:
        """See `OwnPod.made`: the claim."""
        return self._sandboxes.path("SandboxClaim", self._claim)

    @property
    def _watched(self) -> tuple[Callable[[str], str], str]:
        if self.name:
            return super()._watched
        return lambda name: self._sandboxes.path("SandboxClaim", name), self._claim

    async def create(self, body: Mapping[str, Any]) -> None:
        """Claim it, and see whose it is.

        Raises:
            SandboxUnusable: there is none, or it is not what its template says.
            ClusterLost: as the cluster's own.
        """
        self._body = body
        try:
            with anyio.fail_after(CLAIM_TIMEOUT):
                await self._adopt(await self._bound())
        except TimeoutError as exc:
            reason = why_not_bound(self.last)
            self._sandboxes.retire(self._pool)
            raise SandboxUnusable(
                f"a claim was given no pod within {CLAIM_TIMEOUT:g} s{f' ({printable(reason)})' if reason else ''}"
            ) from exc
        except ValueError as exc:
            raise SandboxUnusable("an object of the API does not say when it was made") from exc
        except Refusal as exc:
            self._sandboxes.retire(self._pool)
            raise SandboxUnusable(printable(str(exc))) from exc

    async def run(self, on_trouble: Callable[[PodTrouble], None]) -> None:
        """See `OwnPod.run`.

        Raises:
            SandboxUnusable: it is not what its template says (any more).
        """
        await super().run(on_trouble)
        self._check()

    async def _bound(self) -> Mapping[str, Any]:
        """The claim, once it was given a Sandbox of its pool."""
        unknown = ""
        while True:
            pool, hold = await self._sandboxes.have(self._pool, self._body)
            # For as long as the pod may live by itself, and a little.
            life = self._body["spec"]["activeDeadlineSeconds"] + REPORT_GRACE + HOLD_EVERY
            spec = sandbox_claim(pool, self._sandboxes.now() + life)
            body = sandbox_object("SandboxClaim", self._claim, self._sandboxes.lease.server, hold, spec)
            self.last = await self._create(self._sandboxes.path("SandboxClaim"), body)
            await self._until(lambda claim: bool(bound_sandbox(claim)) or lacks_its_pool(claim))
            if bound_sandbox(self.last):
                return self.last
            # The controller has not seen the pool, or its template, yet, or somebody has removed one of them. It would
            # look at this claim again in a minute; of another it knows no more than there is.
            if unknown == pool == self._pool.name:
                self._sandboxes.retire(self._pool)
            unknown = pool
            try:
                await self._cluster.delete(self.made)
            except Refusal as exc:
                if not exc.is_missing:
                    raise
            self._claim = name_for(self._pool.tool, secrets.token_hex(5))
            await anyio.sleep(CLAIM_AGAIN)

    async def _adopt(self, claim: Mapping[str, Any]) -> None:
        sandbox = await self._cluster.get(self._sandboxes.path("Sandbox", bound_sandbox(claim)))
        if not is_controlled_by(sandbox, claim):
            raise SandboxUnusable("a claim was given a Sandbox that belongs to something else")
        metadata = sandbox["metadata"]
        name = (metadata.get("annotations") or {}).get(POD_NAME_ANNOTATION) or metadata.get("name")
        if not is_name(name):
            raise SandboxUnusable("a Sandbox names a pod that cannot be one")
        while True:
            try:
                pod = await self._cluster.get(self._cluster.pods(name))
                break
            except Refusal as exc:
                if not exc.is_missing:
                    raise
            await anyio.sleep(POD_LOOK_EVERY)
        if not is_controlled_by(pod, sandbox):
            raise SandboxUnusable("a claim was given a pod that belongs to something else")
        self.name, self.last = name, pod
        self.age = max(0.0, made_at(claim) - made_at(pod))
        self._check()

    def _check(self) -> None:
        wanted, found = self._body, self.last
        if field := difference(wanted["spec"], found["spec"]):
            raise SandboxUnusable(f"a pod that it gave is not what its template says (spec.{printable(field)})")
        labels = found["metadata"].get("labels") or {}
        if not wanted["metadata"]["labels"].items() <= labels.items():
            raise SandboxUnusable("a pod that it gave is not what its template says (metadata.labels)")
        if name := steering_annotation(wanted["metadata"], found["metadata"]):
            raise SandboxUnusable(f"a pod that it gave has an annotation of another (metadata.annotations.{name})")
