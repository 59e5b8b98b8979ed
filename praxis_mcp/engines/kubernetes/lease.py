"""Whose a pod is: each server has a Lease, which owns what the server makes in the cluster and is renewed while the
server lives. When it goes, the cluster's garbage collector takes all that it owns.

Whether another server lives is judged by its Lease alone, as this server itself has watched it: by neither clocks of
two machines compared, nor process ids.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio

from praxis_mcp.engines.init.waiter import awake_or_not
from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.spec import MANAGED_BY, MANAGER, POD_GRACE, SERVER_LABEL
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import BackgroundTasks
from praxis_mcp.support.text import printable

LEASE_SECONDS = 30
"""Seconds for which a renewal counts."""
RENEW_EVERY = 10.0
"""Seconds between renewals."""
UPKEEP_FOR = 10.0
"""Seconds between two renewals for all else that is done with them: an API server that is slow to remove what is left
must not cost the Lease."""
LOOK_FOR = 3.0
"""Seconds for a look at the Lease that a call waits for."""
MISSED_AFTER = 2 * RENEW_EVERY
"""Seconds after a renewal in which there was none, after which it is looked at before anybody relies on it: this server
was frozen, or slept."""
LEASES_LOST = 3
"""How many times over a Lease must have expired, watched, before anybody else removes it."""
LEASE_PAGE, MOST_LEASES = 8, 512
"""Leases that are asked for at once, which are less than an answer may have (`client.MAX_API_ANSWER`) whatever is in
them, and that are looked at in all."""
MOST_LEASE_NOTES = 8
"""Notes on Leases that are shown."""
LEASE_END_TIMEOUT = 10.0
"""Seconds to remove the own one."""
LATE_AFTER = 60.0
"""Seconds within which a request to make a pod, whose answer was lost, may be done yet: the API server's own bound."""
MOST_LEFT_PODS = 4096
"""Pods and other objects that are to be removed later; of more, the first are left to the Lease's end."""


class ServerLease:
    """The Lease of this server.

    Args:
        cluster: the cluster.
        owner: name of a ConfigMap with whose removal it goes, and all that it owns; None: there is none.

    Attributes:
        server: this server's id, in labels.
    """

    def __init__(self, cluster: Cluster, owner: str | None = None) -> None:
        self.server = uuid.uuid4().hex
        self._cluster = cluster
        self._own_owner = owner
        self._owner: dict[str, Any] | None = None
        self._making = anyio.Lock()
        self._life = anyio.CancelScope()
        self._watchman = LeaseWatchman()
        self._is_kept = False
        self._may_exist = False
        self._left: dict[str, float] = {}
        self._renewed = 0.0

    @property
    def name(self) -> str:
        """Its name."""
        return f"{MANAGER}-{self.server[:16]}"

    async def owner(self, background: BackgroundTasks) -> Mapping[str, Any]:
        """The reference to it (meta/v1 OwnerReference), once it exists; it is renewed from then on.

        Args:
            background: keeps the task that renews it.
        """
        async with self._making:
            if self._owner is not None and self._has_missed:
                await self.renew()
            if self._owner is None:
                self._owner = await self._make()
            if not self._is_kept:
                self._is_kept = True
                background.start(self._keep, "renewing this server's Lease")
            return self._owner

    async def is_owned(self, owner: str) -> bool:
        """Whether what that Lease owned is still this server's: it was not removed while this server slept, was frozen,
        or could not reach the cluster.

        Args:
            owner: uid of the Lease that owns it.

        Raises:
            Refusal, ClusterLost: as the cluster's own.
        """
        if self._owner is not None and self._has_missed:
            try:
                with anyio.fail_after(LOOK_FOR):
                    await self.renew()
            except TimeoutError as exc:
                raise ClusterLost("", f"its Lease could not be looked at within {LOOK_FOR:g} s") from exc
        return self._owner is not None and self._owner["uid"] == owner

    @property
    def _has_missed(self) -> bool:
        return awake_or_not() - self._renewed > MISSED_AFTER

    async def _make(self) -> dict[str, Any]:
        owners: list[dict[str, str]] = []
        if self._own_owner is not None:
            found = await self._cluster.get(self._cluster.config_maps(self._own_owner))
            uid = str(found["metadata"].get("uid", ""))
            owners = [{"apiVersion": "v1", "kind": "ConfigMap", "name": self._own_owner, "uid": uid}]
        now, begun = _now(), awake_or_not()
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "labels": {MANAGED_BY: MANAGER, SERVER_LABEL: self.server},
                "ownerReferences": owners,
            },
            "spec": {
                "holderIdentity": self.server,
                "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": now,
                "renewTime": now,
            },
        }
        self._may_exist = True
        try:
            made = await self._cluster.create(self._cluster.leases(), body)
        except Refusal as exc:
            if not exc.is_taken:  # an attempt of ours whose answer was lost
                self._may_exist = exc.may_be_done
                raise
            made = await self._cluster.get(self._cluster.leases(self.name))
        self._renewed = begun
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "name": self.name,
            "uid": str(made["metadata"].get("uid", "")),
        }

    async def _keep(self) -> None:
        with self._life:
            while True:
                await anyio.sleep(RENEW_EVERY)
                try:
                    await self.renew()
                    with anyio.move_on_after(UPKEEP_FOR):
                        await self._remove_left()
                        await self.remove_expired()
                except (Refusal, ClusterLost) as exc:
                    logger.warning("this server's Lease could not be renewed: {}", exc)

    def remove_later(self, path: str, is_late: bool) -> None:
        """Have an object removed with one of the next renewals, such as a pod that the cluster did not remove when
        asked. Else it would stay, though it has ended, until this server does.

        Args:
            path: of the object.
            is_late: the request to make it may still be done: it is asked for again for `LATE_AFTER` seconds.
        """
        self._left[path] = time.monotonic() + (LATE_AFTER if is_late else 0.0)
        while len(self._left) > MOST_LEFT_PODS:
            del self._left[next(iter(self._left))]

    async def _remove_left(self) -> None:
        failure: Refusal | None = None
        for path, until in tuple(self._left.items()):
            is_last = time.monotonic() >= until
            try:
                await self._cluster.delete(path, {"gracePeriodSeconds": POD_GRACE})
            except Refusal as exc:
                if not exc.is_missing:
                    failure = exc  # of this one: the others may go
                    continue
                if not is_last:
                    continue
            self._left.pop(path, None)
        if failure is not None:
            raise failure

    async def annotate(self, name: str, text: str | None) -> None:
        """Say something on it that `doctor` shows, or, by None, take that back; never raises.

        Args:
            name: of the annotation.
            text: what it says; holds nothing of a call.
        """
        with anyio.move_on_after(LOOK_FOR):
            try:
                await self._cluster.merge(self._cluster.leases(self.name), {"metadata": {"annotations": {name: text}}})
            except (Refusal, ClusterLost) as exc:
                logger.debug("this server's Lease could not be annotated: {}", exc)

    async def renew(self) -> None:
        """Renew it; where somebody has removed it, the next `owner` is a new one.

        Raises:
            Refusal, ClusterLost: as the cluster's own.
        """
        if self._owner is None:
            return
        begun = awake_or_not()
        try:
            await self._cluster.merge(self._cluster.leases(self.name), {"spec": {"renewTime": _now()}})
            self._renewed = begun
        except Refusal as exc:
            if not exc.is_missing:
                raise
            logger.warning("this server's Lease was removed, and all pods that it owned; there is a new one")
            self._owner = None

    async def remove_expired(self) -> tuple[str, ...]:
        """Look at the Leases of all servers once more, and remove those that have expired long ago; their names.

        Raises:
            Refusal, ClusterLost: as the cluster's own.
        """
        parts = (("metadata", ("name", "uid", "resourceVersion")), ("spec", ("leaseDurationSeconds",)))
        others = [
            {part: {key: (lease.get(part) or {}).get(key) for key in keys} for part, keys in parts}
            async for lease in _leases(self._cluster)
            if lease["metadata"]["name"] != self.name
        ]
        removed: list[str] = []
        for lease in self._watchman.find_expired(others):
            # It may be renewed between the look and this.
            conditions = {"preconditions": {"uid": lease.uid, "resourceVersion": lease.version}}
            try:
                await self._cluster.delete(
                    self._cluster.leases(lease.name), body={**conditions, "propagationPolicy": "Background"}
                )
            except Refusal as exc:
                if not exc.is_missing and exc.reason != "Conflict":
                    raise
            else:
                removed.append(lease.name)
        if removed:
            logger.info("removed from the cluster what servers had left that are gone: {}", ", ".join(removed))
        return tuple(removed)

    async def end(self) -> None:
        """Remove it, and with it all that it owns; never raises."""
        self._life.cancel()
        self._owner = None
        if not self._may_exist:
            return
        with anyio.move_on_after(LEASE_END_TIMEOUT, shield=True):
            try:
                await self._cluster.delete(self._cluster.leases(self.name), {"propagationPolicy": "Background"})
            except (Refusal, ClusterLost) as exc:
                if not (isinstance(exc, Refusal) and exc.is_missing):
                    logger.warning("this server's Lease could not be removed; others do it when it expires: {}", exc)


async def lease_notes(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    """What servers have said by `ServerLease.annotate`, as pairs of a Lease's name and the text, on one line.

    Args:
        cluster: the cluster.
        name: of the annotation.

    Raises:
        Refusal, ClusterLost: as the cluster's own.
    """
    notes: list[tuple[str, str]] = []
    async for lease in _leases(cluster):
        metadata = lease["metadata"]
        if text := (metadata.get("annotations") or {}).get(name):
            notes.append((str(metadata["name"]), printable(str(text)[:500])))
    return notes[:MOST_LEASE_NOTES]


async def _leases(cluster: Cluster) -> AsyncIterator[Mapping[str, Any]]:
    """The Leases of servers, and others that strangers gave the same label: in pages, because each may be as large as
    an object can be, and up to a bound."""
    query: dict[str, str | int] = {"labelSelector": f"{MANAGED_BY}={MANAGER}", "limit": LEASE_PAGE}
    for _ in range(MOST_LEASES // LEASE_PAGE):
        found = await cluster.get(cluster.leases(), query)
        for lease in found.get("items") or []:
            yield lease
        query["continue"] = str(found["metadata"].get("continue") or "")
        if not query["continue"]:
            return


@dataclass(frozen=True, slots=True)
class SeenLease:
    """A Lease as it was last seen to change."""

    name: str
    uid: str
    version: str
    duration: float
    since: float = field(compare=False)


class LeaseWatchman:
    """Which Leases nobody renews any more: those that this process has seen unchanged for long enough, in looks that
    come while a renewal still counts. Where it could not look for longer (the API server was away, this
    machine slept), the others may not have been able to renew theirs: the watch starts again.

    Args:
        clock: seconds, which only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, SeenLease] = {}
        self._looked: float | None = None

    def find_expired(self, leases: Sequence[Mapping[str, Any]]) -> list[SeenLease]:
        """Those that have expired `LEASES_LOST` times over since they were last seen to change.

        Args:
            leases: all that there are now.
        """
        now = self._clock()
        found = [_seen(lease, now) for lease in leases]
        is_watching = self._looked is not None and now - self._looked <= LEASE_SECONDS
        self._looked = now
        before = self._seen if is_watching else {}
        self._seen = {each.uid: before[each.uid] if before.get(each.uid) == each else each for each in found}
        return [each for each in self._seen.values() if now - each.since >= LEASES_LOST * each.duration]


def _seen(lease: Mapping[str, Any], now: float) -> SeenLease:
    metadata, spec = lease["metadata"], lease.get("spec") or {}
    return SeenLease(
        str(metadata["name"]),
        str(metadata["uid"]),
        str(metadata["resourceVersion"]),
        float(spec.get("leaseDurationSeconds") or LEASE_SECONDS),
        now,
    )


def _now() -> str:
    """Now, as a MicroTime of Kubernetes."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
