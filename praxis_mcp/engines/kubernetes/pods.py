"""One pod of this server: made, watched until it runs, and removed whatever happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import anyio

from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal, WatchExpired, may_pass
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.spec import POD_GRACE
from praxis_mcp.engines.kubernetes.states import PodTrouble, Trouble, is_over, is_running, trouble_of
from praxis_mcp.support.logs import logger

POD_REMOVE_TIMEOUT = 20.0
"""Seconds for the removal of a pod that a call waits for; beyond, it is asked for again with the renewals of the
Lease."""
POD_REMOVE_AGAIN = 0.5
"""Seconds until a removal that failed is asked for again."""
POD_LOOK_AGAIN = 0.2
"""Seconds until a pod is looked at again whose watch has ended."""
POD_WATCH_FOR = 20.0
"""Seconds for one watch of a pod, which may have been lost without a word; then it is looked at."""
MOST_LOOKS = 5
"""How often a pod that is to run is looked at in vain, because the API server is away or busy, before the call
fails: for 3 seconds."""
Body = dict[str, Any]


_REMOVED = PodTrouble(Trouble.REMOVED, "Removed", "something else has removed it")


class PodFailed(Exception):
    """A pod will not run.

    Attributes:
        trouble: why.
    """

    def __init__(self, trouble: PodTrouble) -> None:
        super().__init__(f"{trouble.reason}: {trouble.message}")
        self.trouble = trouble


class OwnPod:
    """A pod of this server, by its name, which is chosen here: so it can be removed though nobody knows whether it was
    made.

    Args:
        cluster: the cluster.
        name: its name.
        on_left: is called with its path where its removal failed, or it may still come to be, which the second
            argument says.

    Attributes:
        last: the pod as it was last seen; empty before it was.
    """

    def __init__(self, cluster: Cluster, name: str, on_left: Callable[[str, bool], None]) -> None:
        self._cluster = cluster
        self._on_left = on_left
        self.name = name
        self.last: Mapping[str, Any] = {}
        self._may_exist = self._is_uncertain = False

    @property
    def path(self) -> str:
        """Its path in the API."""
        return self._cluster.pods(self.name)

    async def create(self, body: Mapping[str, Any]) -> None:
        """Make it. Not abandoned when cancelled: it might come to be after it was removed.

        Raises:
            Refusal, ClusterLost: as the cluster's own.
        """
        self._may_exist = True
        try:
            with anyio.CancelScope(shield=True):
                self.last = await self._cluster.create(self._cluster.pods(), body)
        except Refusal as exc:
            self._may_exist = self._is_uncertain = exc.may_be_done
            raise
        except ClusterLost:
            self._is_uncertain = True
            raise

    async def run(self, on_trouble: Callable[[PodTrouble], None]) -> None:
        """Wait until its container runs; the caller bounds the time.

        Args:
            on_trouble: is called with what keeps it from running for now.

        Raises:
            PodFailed: it never will.
            Refusal, ClusterLost: as the cluster's own.
        """
        reported: PodTrouble | None = None

        def has_settled(pod: Mapping[str, Any]) -> bool:
            nonlocal reported
            trouble = trouble_of(pod)
            if trouble is not None and trouble.is_final:
                raise PodFailed(trouble)
            if trouble is not None and trouble != reported:
                reported = trouble
                on_trouble(trouble)
            return is_running(pod)

        try:
            await self._until(has_settled, looks=MOST_LOOKS)
        except Refusal as exc:
            if not exc.is_missing:
                raise
            raise PodFailed(_REMOVED) from exc

    async def end(self) -> PodTrouble | None:
        """Wait until nothing of it runs; why, as far as the cluster says, and `last` has it as it was then. The caller
        bounds the time."""
        try:
            await self._until(is_over)
        except Refusal as exc:
            if not exc.is_missing:
                raise
            return trouble_of(self.last) or _REMOVED
        return trouble_of(self.last)

    async def check(self) -> None:
        """Look at it.

        Raises:
            PodFailed: it does not run any more.
            Refusal, ClusterLost: as the cluster's own.
        """
        try:
            self.last = await self._cluster.get(self.path)
        except Refusal as exc:
            if not exc.is_missing:
                raise
            raise PodFailed(_REMOVED) from exc
        trouble = trouble_of(self.last)
        if trouble is not None and trouble.is_final:
            raise PodFailed(trouble)

    async def remove(self) -> None:
        """Remove it whatever happened, cancelled or not, and wait until it is gone; never raises."""
        if not self._may_exist:
            return
        failure: Exception | None = None
        with anyio.move_on_after(POD_REMOVE_TIMEOUT, shield=True):
            while True:
                try:
                    await self._cluster.delete(self.path, {"gracePeriodSeconds": POD_GRACE})
                    self._is_uncertain = False
                    await self._until(lambda pod: False)
                except Refusal as exc:
                    if exc.is_missing:
                        if self._is_uncertain:  # the request to make it may still be on its way
                            self._on_left(self.path, self._is_uncertain)
                        return
                    failure = exc
                except ClusterLost as exc:
                    failure = exc
                await anyio.sleep(POD_REMOVE_AGAIN)
        logger.warning("the pod {} was not seen to be gone within {} s: {}", self.name, POD_REMOVE_TIMEOUT, failure)
        self._on_left(self.path, self._is_uncertain)

    async def _until(self, matches: Callable[[Mapping[str, Any]], bool], *, looks: int = 1) -> None:
        """Watch it until it matches. A watch only saves time: whatever becomes of one, the pod is looked at again.

        Args:
            matches: what is waited for.
            looks: how often it may be looked at in vain, one time after the other.

        Raises:
            Refusal: among others, `Refusal.is_missing`: it is gone.
        """
        in_vain = 0
        while True:
            try:
                self.last = pod = await self._cluster.get(self.path)
            except (Refusal, ClusterLost) as exc:
                in_vain += 1
                if in_vain >= looks or not may_pass(exc):
                    raise
            else:
                in_vain = 0
                if matches(pod):
                    return
                try:
                    with anyio.move_on_after(POD_WATCH_FOR):
                        if await self._watch(str(pod["metadata"].get("resourceVersion", "")), matches):
                            return
                except (Refusal, ClusterLost, WatchExpired) as exc:
                    if not may_pass(exc):
                        raise
            await anyio.sleep(POD_LOOK_AGAIN * 2**in_vain)

    async def _watch(self, version: str, matches: Callable[[Mapping[str, Any]], bool]) -> bool:
        query: dict[str, str | int] = {
            "fieldSelector": f"metadata.name={self.name}",
            "resourceVersion": version,
            "timeoutSeconds": int(POD_WATCH_FOR),
        }
        async with aclosing(self._cluster.watch(self._cluster.pods(), query)) as events:
            async for kind, pod in events:
                self.last = pod
                if kind == "DELETED":
                    raise Refusal(404, "NotFound", f"the pod {self.name} was removed")
                if matches(pod):
                    return True
        return False
