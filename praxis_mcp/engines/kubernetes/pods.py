"""One pod of this server: made, watched until it runs, and removed whatever happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio

from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.spec import POD_GRACE
from praxis_mcp.engines.kubernetes.states import PodTrouble, Trouble, is_over, is_running, trouble_of
from praxis_mcp.engines.kubernetes.watching import watch_until
from praxis_mcp.support.logs import logger

POD_REMOVE_TIMEOUT = 20.0
"""Seconds for the removal of a pod that a call waits for; beyond, it is asked for again with the renewals of the
Lease."""
POD_REMOVE_AGAIN = 0.5
"""Seconds until a removal that failed is asked for again."""
MOST_LOOKS = 5
"""How often a pod that is to run is looked at in vain, because the API server is away or busy, before the call
fails: for 3 seconds."""
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
    """A pod of this server. The name of what is made for it is chosen here: so it can be removed though nobody knows
    whether it was made.

    Args:
        cluster: the cluster.
        name: its name.
        on_left: is called with its path where its removal failed, or it may still come to be, which the second
            argument says.

    Attributes:
        last: the pod as it was last seen; empty before it was.
        age: seconds that it had run at most when it became this server's.
        caller: seconds after which it ends where this server has not connected; None is a minute.
    """

    age = 0.0
    caller: float | None = None

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

    @property
    def made(self) -> str:
        """The path of what this server makes to have it, and whose removal removes it."""
        return self.path

    async def create(self, body: Mapping[str, Any]) -> None:
        """Make it.

        Raises:
            Refusal, ClusterLost: as the cluster's own.
        """
        self.last = await self._create(self._cluster.pods(), body)

    async def _create(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Where the answer does not come, for cancellation too, it may come to be after its removal: `remove` then has
        it looked for again."""
        self._may_exist = self._is_uncertain = True
        try:
            made = await self._cluster.create(path, body)
        except Refusal as exc:
            self._may_exist = self._is_uncertain = exc.may_be_done
            raise
        self._is_uncertain = False
        return made

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
            self._note(await self._cluster.get(self.path))
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
                    await self._cluster.delete(self.made, {"gracePeriodSeconds": POD_GRACE})
                    self._is_uncertain = False
                    await self._until(lambda pod: False)
                except Refusal as exc:
                    if exc.is_missing:
                        if self._is_uncertain:  # the request to make it may still be on its way
                            self._on_left(self.made, self._is_uncertain)
                        return
                    failure = exc
                except ClusterLost as exc:
                    failure = exc
                await anyio.sleep(POD_REMOVE_AGAIN)
        logger.warning("the pod {} was not seen to be gone within {} s: {}", self.name, POD_REMOVE_TIMEOUT, failure)
        self._on_left(self.made, self._is_uncertain)

    async def _until(self, matches: Callable[[Mapping[str, Any]], bool], *, looks: int = 1) -> None:
        """As `watch_until`; notes the pod as it is seen."""

        def look(pod: Mapping[str, Any]) -> bool:
            self._note(pod)
            return matches(pod)

        await watch_until(self._cluster, *self._watched, look, looks=looks)

    def _note(self, found: Mapping[str, Any]) -> None:
        """Raises `Refusal` where it is another, which somebody has made when this one was gone."""
        uid = (found.get("metadata") or {}).get("uid")
        if not uid:
            raise ClusterLost("", "an answer does not say which object it is about")
        if self.last and self.last["metadata"].get("uid") != uid:
            raise Refusal(404, "NotFound", f"{self.last['metadata'].get('name')} was removed, and another has its name")
        self.last = found

    @property
    def _watched(self) -> tuple[Callable[[str], str], str]:
        """What is watched: paths of its kind, and its name."""
        return self._cluster.pods, self.name
