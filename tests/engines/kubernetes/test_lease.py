"""Whether another server is gone, by its Lease as this server has watched it."""

from __future__ import annotations

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


def test_a_lease_is_lost_when_it_was_watched_unchanged_three_times_over() -> None:
    clock = Clock()
    watchman = LeaseWatchman(clock)
    assert watchman.find_expired([lease("a", 1)]) == []
    clock.now += LEASES_LOST * LEASE_SECONDS - 1
    assert watchman.find_expired([lease("a", 1)]) == []
    clock.now += 1
    assert [found.name for found in watchman.find_expired([lease("a", 1)])] == ["a"]


def test_a_lease_that_is_renewed_is_never_lost() -> None:
    clock = Clock()
    watchman = LeaseWatchman(clock)
    for version in range(20):
        assert watchman.find_expired([lease("a", version)]) == []
        clock.now += LEASE_SECONDS


def test_a_lease_that_was_away_is_watched_from_the_beginning() -> None:
    clock = Clock()
    watchman = LeaseWatchman(clock)
    watchman.find_expired([lease("a", 1)])
    clock.now += LEASES_LOST * LEASE_SECONDS
    assert watchman.find_expired([]) == []
    assert watchman.find_expired([lease("a", 1)]) == []


def test_one_with_a_longer_duration_is_given_longer() -> None:
    clock = Clock()
    watchman = LeaseWatchman(clock)
    both = [lease("a", 1, None), lease("b", 1, 10 * LEASE_SECONDS)]
    watchman.find_expired(both)
    clock.now += LEASES_LOST * LEASE_SECONDS
    assert [found.name for found in watchman.find_expired(both)] == ["a"]
