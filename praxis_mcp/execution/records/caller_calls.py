"""What callers have under way on all servers of a store together: a row for each, which says how many of their calls
each server has, and how many more they may begin for now.

A server holds its calls for `LEASE` and renews that; what a killed one held is free again when it has not.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

LEASE = 20.0
"""Seconds for which a server's calls count without a renewal."""
FORGOTTEN = 86_400.0
"""Seconds after which a caller is forgotten who has not called."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a caller may call.

    Attributes:
        each: calls that are allowed a second.
        most: calls that may come at once after a pause.
    """

    each: float
    most: float


@dataclass(frozen=True, slots=True)
class Claim:
    """What a server has of a caller's calls, and asks for.

    Attributes:
        caller: whose.
        server: id of the server.
        held: calls that it has under way.
        wanted: calls that it would begin.
        most: calls that the caller may have under way on all servers; None sets no limit, and `held` is not kept.
        rate: None sets no limit.
    """

    caller: str
    server: str
    held: int
    wanted: int
    most: int | None
    rate: Rate | None


@dataclass(frozen=True, slots=True)
class Grant:
    """What came of a claim.

    Attributes:
        calls: so many of those that were wanted may begin.
        left: calls that the rate allows after them; below one, the next has to wait. Infinite without a rate.
    """

    calls: int
    left: float = math.inf


@dataclass(frozen=True, slots=True)
class Kept:
    """A row.

    Attributes:
        holders: JSON: for each server its calls, and until when they count, in seconds since 1970.
        allowance: calls that the rate allowed.
        at: when, in seconds since 1970.
    """

    holders: str = "{}"
    allowance: float = 0.0
    at: float = 0.0


def settle(kept: Kept | None, claim: Claim, now: float) -> tuple[Kept, Grant]:
    """A claim on a row, for a database in which only one server at a time is at it.

    Args:
        kept: the row; None where there is none.
        claim: see `Claim`.
        now: in seconds since 1970, by the clock that all of them have.
    """
    kept = kept or Kept(at=-math.inf)
    alive = _alive(kept.holders, now)
    others = sum(calls for server, (calls, _) in alive.items() if server != claim.server)
    rate = claim.rate
    allowance = min(rate.most, kept.allowance + max(0.0, now - kept.at) * rate.each) if rate is not None else math.inf
    room = math.inf if claim.most is None else claim.most - claim.held - others
    calls = int(max(0, min(claim.wanted, room, allowance)))
    alive.pop(claim.server, None)
    if claim.most is not None and claim.held + calls > 0:
        alive[claim.server] = claim.held + calls, now + LEASE
    left = allowance - calls
    return Kept(json.dumps(alive), left if rate is not None else 0.0, now), Grant(calls, left)


def _alive(holders: str, now: float) -> dict[str, tuple[int, float]]:
    try:
        found = {server: (int(calls), float(until)) for server, (calls, until) in json.loads(holders).items()}
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return {}  # somebody has changed it; each server soon says again what it has
    # An entry from beyond a lease is of a clock that has been set back.
    return {server: held for server, held in found.items() if now < held[1] <= now + LEASE}
