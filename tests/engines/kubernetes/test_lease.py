"""Whether another server is gone, by its Lease as this server has watched it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from praxis_mcp.engines.kubernetes.lease import LEASE_SECONDS, LEASES_LOST, LeaseWatchman


def lease(name: str, version: int, seconds: int | None = LEASE_SECONDS) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {"leaseDurationSeconds": seconds},
    }


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def watch(watchman: LeaseWatchman, clock: Clock, leases: Sequence[dict[str, Any]], seconds: int) -> list[str]:
    """Look at them as often as a server does, for so long; the names of those that are lost in the end."""
    found: list[str] = []
    for _ in range(seconds):
        clock.now += 1
        found = [each.name for each in watchman.find_expired(leases)]
    return found


def test_a_lease_is_lost_when_it_was_watched_unchanged_three_times_over() -> None:
    clock = Clock()
    watchman = LeaseWatchman(clock)
    assert watchman.find_expired([lease("a", 1)]) == []
    assert watch(watchman, clock, [lease("a", 1)], LEASES_LOST * LEASE_SECONDS - 1) == []
    assert watch(watchman, clock, [lease("a", 1)], 1) == ["a"]


def test_no_lease_is_lost_while_nobody_could_renew_any() -> None:
    """The API server was away for longer than a Lease lasts, or this machine slept."""
    clock = Clock()
    watchman = LeaseWatchman(clock)
    watch(watchman, clock, [lease("a", 1)], 10)
    clock.now += LEASES_LOST * LEASE_SECONDS
    assert watchman.find_expired([lease("a", 1)]) == []
    assert watch(watchman, clock, [lease("a", 1)], LEASES_LOST * LEASE_SECONDS - 1) == []
    assert watch(watchman, clock, [lease("a", 1)], 1) == ["a"]


def test_a_lease_that_is_renewed_is_never_lost() -> None:
    clock = Clock()
    watchman = LeaseWatchman(clock)
    for version in range(20):
        assert watchman.find_expired([lease("a", version)]) == []
        clock.now += LEASE_SECONDS


def test_a_lease_that_was_away_is_watched_from_the_beginning() -> None:
    clock = Clock()
    watchman = LeaseWatchman(clock)
    watch(watchman, clock, [lease("a", 1)], LEASES_LOST * LEASE_SECONDS)
    assert watch(watchman, clock, [], 1) == []
    assert watch(watchman, clock, [lease("a", 1)], 1) == []


def test_one_with_a_longer_duration_is_given_longer() -> None:
    clock = Clock()
    watchman = LeaseWatchman(clock)
    both = [lease("a", 1, None), lease("b", 1, 10 * LEASE_SECONDS)]
    watchman.find_expired(both)
    assert watch(watchman, clock, both, LEASES_LOST * LEASE_SECONDS) == ["a"]
