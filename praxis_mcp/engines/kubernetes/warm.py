"""Pods that wait for a call, each for a single one: made ahead of it, or for it, in the same way.

A pod's praxis-init listens on the pod's loopback (with `channel: direct`, on its address), takes one connection, and
ends with it. What a blueprint fixes is fixed when the pod is made; what varies travels over that connection.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.artifacts import OUTPUT_DIR_VARIABLE
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.init.framing import FramingError
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.engines.init.waiter import WAITER_MAX_AGE, Waiter, WaiterLost, WaiterSilent, wait_call
from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.content import ConfigMaps, PodContent
from praxis_mcp.engines.kubernetes.errors import lost, no_sandbox, not_running, too_slow, translate_cluster_errors
from praxis_mcp.engines.kubernetes.lease import ServerLease
from praxis_mcp.engines.kubernetes.pods import OwnPod, PodFailed
from praxis_mcp.engines.kubernetes.reach import WayToPods
from praxis_mcp.engines.kubernetes.sandboxes import AgentSandbox, SandboxUnusable
from praxis_mcp.engines.kubernetes.spec import PodIdentity, Volume, name_for, pod_spec, room_for
from praxis_mcp.engines.kubernetes.states import PodTrouble, image_of, ran_out_of_memory
from praxis_mcp.engines.mounts.trees import CarriedTree
from praxis_mcp.engines.outcomes import end_failure
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished
from praxis_mcp.engines.warm.call import WarmCalls, WarmKey
from praxis_mcp.engines.warm.pool import WarmBudget
from praxis_mcp.errors import ExecutionError, ExecutionTimeout
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import CHANNEL_SECRET_BYTES, EXIT_KILLED, Ended, EndKind
from praxis_mcp.support.tasks import BackgroundTasks

PodKey = WarmKey[None]
"""The key of warm pods."""
POD_END_TIMEOUT = 10.0
"""Seconds for a pod to be reported as ended, which says whether it ran out of memory."""
MOST_PODS = 3
"""Pods that a call is tried on, none of which has run it, before it fails."""
OUTPUT_VOLUME = 2 * 1024**3 + 64 * 1024**2
"""Bytes of the place for artifacts, and of each copy of a mount that can be written to: a little more than comes
back."""
_TOO_TIGHT = "Its limits may be too tight to start anything (memory_limit)."


class WarmPod:
    """A pod whose praxis-init has said hello.

    Args:
        pod: the pod.
        waiter: its praxis-init.
        content: what it shows of this machine.
        owner: uid of the Lease that owns it.
        quiet: waits until calls leave time for its removal.
    """

    def __init__(
        self, pod: OwnPod, waiter: Waiter, content: PodContent, owner: str, quiet: Callable[[], Awaitable[None]]
    ) -> None:
        self.pod = pod
        self._quiet = quiet
        self.waiter = waiter
        self.content = content
        self.owner = owner
        self.image = image_of(pod.last)
        self._until = time.monotonic() + WAITER_MAX_AGE - pod.age

    def is_fresh(self) -> bool:
        """See `WarmItem.is_fresh`."""
        return time.monotonic() < self._until and self.waiter.is_waiting()

    async def discard(self) -> None:
        """See `WarmItem.discard`. What runs in it ends at once, with its connection; its removal, which is work for the
        cluster and for this server, waits until a burst of calls is over."""
        await self.waiter.aclose()
        try:
            await self._quiet()
        finally:
            await self.pod.remove()


class WarmKubernetes(WarmCalls[None, WarmPod]):
    """The pods of one connection to a cluster.

    Args:
        cluster: the cluster.
        lease: owns what is made there.
        settings: the settings.
        budget: what the engine shares with others.
        background: keeps channels and renews the Lease.
    """

    log = "the namespace's events (kubectl get events)"
    kind = "pod"
    fills_at_once = 4  # a pod takes about two seconds, of other machines

    def __init__(
        self, cluster: Cluster, lease: ServerLease, settings: Settings, budget: WarmBudget, background: BackgroundTasks
    ) -> None:
        super().__init__(settings.warm, budget, Refusal, ClusterLost, PodFailed)
        self._cluster = cluster
        self._lease = lease
        self._settings = settings
        self._options = settings.engines.kubernetes
        self._background = background
        self._way = WayToPods(cluster, self._options, background)
        self._maps = ConfigMaps(cluster, lease.server)
        self._sandboxes = AgentSandbox(cluster, lease, settings, background)

    @staticmethod
    def key(plan: Plan, context: ExecutionContext) -> PodKey | None:
        """The key of a plan's pods; None for a plan that no pod may wait for."""
        return WarmKey.of(plan, None) if plan.blueprint.warm and context.is_served() else None

    async def run(self, plan: Plan, context: ExecutionContext, trees: Callable[[], Sequence[CarriedTree]]) -> Finished:
        """Run a call in a pod that waits for it, or in one that is made for it.

        Args:
            plan: the call.
            context: what surrounds it.
            trees: gives what is carried to a pod and back, for each pod once more.

        Raises:
            ExecutionError: it could not be run; see the subclasses.
        """

        async def hand_over(pod: WarmPod) -> Finished | None:
            if not await pod.content.is_current(plan.blueprint) or not await self._is_owned(pod):
                return None
            return await self._hand_to(pod, plan, context, trees())

        async def cold() -> Finished:
            tool, failure = plan.blueprint.tool, None
            for _ in range(MOST_PODS):
                context.phases.enter(Phase.START)
                try:
                    pod = await self._make(WarmKey.of(plan, None), context.status)
                except PodFailed as exc:
                    failure = exc
                    if not exc.trouble.is_of_this_pod:
                        break
                else:
                    done = await self._hand_over(pod, tool, hand_over)
                    if done is not None:
                        return done
            if failure is not None:
                raise not_running(tool, plan.blueprint.image, failure.trouble) from failure
            raise ExecutionError(
                f"{tool}: {MOST_PODS} pods were lost before the call could be handed over.", remedy=f"See {self.log}."
            )

        return await self.call(self.key(plan, context), hand_over, cold, context.claim)

    async def drop(self, item: WarmPod) -> None:
        """See `WarmCalls.drop`. No answer waits for the API server, which may be away: what runs in the pod ends with
        its connection, which is cut first."""
        self.pool.remove(item)

    async def start(self, key: PodKey) -> WarmPod:
        """See `WarmCalls.start`."""
        with translate_cluster_errors(self._cluster.address, key.blueprint.tool):
            by_claim = await self._sandboxes.is_usable()
        try:
            return await self._make(key, lambda text: None, by_claim=by_claim)
        except PodFailed as exc:
            raise not_running(key.blueprint.tool, key.blueprint.image, exc.trouble) from exc

    async def close(self) -> None:
        """See `WarmCalls.close`."""
        self._sandboxes.close()
        await super().close()

    async def _make(self, key: PodKey, tell: Callable[[str], None], *, by_claim: bool = False) -> WarmPod:
        """Have a pod.

        Args:
            tell: shows what is waited for.
            by_claim: whether agent-sandbox is to make it, if it can.
        """
        tool = key.blueprint.tool
        try:
            if by_claim or self._sandboxes.is_required:
                claimed = self._sandboxes.pod(key)
                found = await self._wait_for(claimed, claimed.secret, key, tell)
                self._sandboxes.note_success()
                return found
        except (SandboxUnusable, PodFailed, ExecutionTimeout) as exc:
            if self._sandboxes.is_required:
                if isinstance(exc, SandboxUnusable):
                    raise no_sandbox(tool, str(exc)) from exc
                raise
            logger.info("{} is given a pod without agent-sandbox: {}", tool, exc)
            if not isinstance(exc, PodFailed):  # another pod may fail for the same reason
                self._sandboxes.note_failure(str(exc))
        pod = OwnPod(self._cluster, name_for(tool, secrets.token_hex(5)), self._lease.remove_later)
        return await self._wait_for(pod, secrets.token_bytes(CHANNEL_SECRET_BYTES), key, tell)

    async def _wait_for(self, pod: OwnPod, secret: bytes, key: PodKey, tell: Callable[[str], None]) -> WarmPod:
        """Make a pod, and have it say hello.

        Raises:
            PodFailed: it will not run.
            SandboxUnusable: agent-sandbox does not give it.
            ExecutionError: see the subclasses.
        """
        blueprint = key.blueprint
        content = await PodContent.read(blueprint, self._options)
        done = False
        trouble: PodTrouble | None = None

        def note(found: PodTrouble) -> None:
            nonlocal trouble
            trouble = found
            tell(f"waiting for a node: {found.message or found.reason}")

        try:
            with translate_cluster_errors(self._cluster.address, blueprint.tool):
                try:
                    with anyio.fail_after(self._options.start_timeout):
                        owner = await self._lease.owner(self._background)
                        volumes = await content.put(self._maps, owner)
                        body = self._body(
                            key, PodIdentity(pod.name, self._lease.server, owner), volumes, secret, pod.caller
                        )
                        tell(f"starting a pod for {blueprint.tool}")
                        await pod.create(body)
                        await pod.run(note)
                        waiter = await self._way.greet(pod, secret, blueprint.tool)
                except TimeoutError as exc:
                    raise too_slow(blueprint.tool, self._options.start_timeout, blueprint.image, trouble) from exc
            done = True
            return WarmPod(pod, waiter, content, str(owner["uid"]), self.pool.wait_for_quiet)
        finally:
            if not done:
                self._maps.forget()
                self.pool.remove_by(pod.remove)  # as in `drop`

    def _body(
        self, key: PodKey, identity: PodIdentity, volumes: Sequence[Volume], secret: bytes, caller: float | None
    ) -> Mapping[str, Any]:
        blueprint = key.blueprint
        more = [*room_for(blueprint, key.files), *_output_volumes(blueprint)]
        return pod_spec(
            blueprint,
            identity,
            self._options,
            [*volumes, *more],
            machine=PodContent.machine(self._options),
            secret=secret,
            caller=caller,
            pull=self._settings.pull,
        )

    async def _is_owned(self, pod: WarmPod) -> bool:
        """Whether nobody has had reason to remove it: what waited while this server was frozen may just be going."""
        try:
            return await self._lease.is_owned(pod.owner)
        except (Refusal, ClusterLost) as exc:
            logger.debug("whether {} is still there is not known: {}", pod.pod.name, exc)
            return True

    async def _hand_to(
        self, found: WarmPod, plan: Plan, context: ExecutionContext, trees: Sequence[CarriedTree]
    ) -> Finished:
        fixed = plan.blueprint
        context.phases.enter(Phase.RUN)
        async with context.collectors(plan) as streams:
            machine = (await found.waiter.greet()).machine
            env = {OUTPUT_DIR_VARIABLE: fixed.artifact_dir} if fixed.artifact_dir is not None else {}
            call = wait_call(
                plan, env=env, no_network=fixed.network is Network.NONE, seccomp=filter_for(fixed, machine)
            )
            try:
                end = await found.waiter.run(call, plan.call.stdin, *streams, trees=trees)
            except WaiterSilent as exc:
                raise ExecutionTimeout(
                    f"The cluster gave no answer for {fixed.tool} within {exc.seconds:g} s, long past the tool's own "
                    "timeout; the call was cancelled, and its pod is removed.",
                    remedy="Look at the node that it ran on, and at the API server's load.",
                ) from exc
            except FramingError as exc:
                raise _too_large(plan, exc) from exc
            except WaiterLost as exc:
                end = await self._end_after_loss(found, plan, exc)
            if end.kind is EndKind.SETUP_FAILED and found.waiter.detail:
                raise ExecutionError(
                    f"{fixed.tool} was not started: {found.waiter.detail}.",
                    remedy="What is carried into a pod must fit its volume, where the tool's user may write.",
                )
            failure = end_failure(plan, end, _TOO_TIGHT)
            if failure is not None:
                raise failure
            context.phases.enter(Phase.COLLECT)
            if end.timed_out:
                end = replace(end, number=EXIT_KILLED)
            elif not end.out_of_memory and (
                end.exit_code == EXIT_KILLED or (end.exit_code != 0 and fixed.limits.memory is not None)
            ):
                end = await self._explained(found.pod, fixed.tool, end)
        return Finished(end, *streams.captured, found.image)

    async def _end_after_loss(self, found: WarmPod, plan: Plan, loss: WaiterLost) -> Ended:
        """How a call ended whose praxis-init is gone without a word.

        Raises:
            WaiterLost: it surely has not run.
            ExecutionError: nobody can tell.
        """
        if not loss.may_have_run:
            raise loss
        trouble = await _trouble_at_end(found.pod)
        if ran_out_of_memory(found.pod.last):
            return Ended(EndKind.SIGNAL, 9, out_of_memory=True)
        raise lost(plan.blueprint.tool, trouble, str(loss)) from loss

    @staticmethod
    async def _explained(pod: OwnPod, tool: str, end: Ended) -> Ended:
        """An end that may not be the command's own: the kernel kills what needs more memory than it may have, and a
        pod that is removed or evicted is ended, with all that runs in it.

        Raises:
            ExecutionError: it was.
        """
        trouble = await _trouble_at_end(pod)
        if ran_out_of_memory(pod.last):
            return replace(end, out_of_memory=True)
        if end.exit_code == EXIT_KILLED and trouble is not None and trouble.is_from_outside:
            raise lost(tool, trouble)
        return end


async def _trouble_at_end(pod: OwnPod) -> PodTrouble | None:
    """Why a pod has ended, once the cluster says so; None where it does not in time."""
    with anyio.move_on_after(POD_END_TIMEOUT):
        try:
            return await pod.end()
        except (Refusal, ClusterLost) as exc:
            logger.warning("what became of {} is not known: {}", pod.name, exc)
    return None


def _output_volumes(blueprint: Blueprint) -> list[Volume]:
    """Where a tool leaves artifacts, and copies of what it may write to; empty, on the node's disk."""
    places = [mount.target for mount in blueprint.own_mounts if mount.writable]
    if blueprint.artifact_dir is not None:
        places.append(blueprint.artifact_dir)
    return [Volume({"emptyDir": {"sizeLimit": str(OUTPUT_VOLUME)}}, place, writable=True) for place in places]


def _too_large(plan: Plan, exc: FramingError) -> ExecutionError:
    return ExecutionError(
        f"{plan.blueprint.tool}: its words and variables are more than Linux takes for one command: {exc}.",
        remedy="Bind large parameters to stdin or a file.",
    )
