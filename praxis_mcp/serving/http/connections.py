"""The connections of a web server, and which of them gives way when there are too many."""

from __future__ import annotations

import sys
from typing import Protocol

SPARE = 256
"""Files that a process needs besides its clients' connections; half of its files where it may have few."""


class Connection(Protocol):
    """A client's connection, as far as it matters here."""

    def give_way(self) -> None:
        """Close it now."""
        ...


class Connections:
    """Knows of each connection whether a request is under way on it, and whether one ever was from a caller who may
    call.

    When one more comes than there may be, the one gives way that has been waiting longest without such a request; where
    there is none, the one of a known caller that has rested longest. So whoever opens connections and says nothing, or
    has no token, closes their own, and keeps nobody out. A connection with a request under way never gives way.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._serving: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}
        self._known: dict[Connection, None] = {}

    def arrived(self, connection: Connection) -> None:
        """A new one; another may give way."""
        if len(self._serving) + len(self._strangers) + len(self._known) >= self._most:
            victim = next(iter(self._strangers), None) or next(iter(self._known), None)
            if victim is not None:
                self.left(victim)
                victim.give_way()
        self._strangers[connection] = None

    def serves(self, connection: Connection) -> None:
        """A request is under way on it."""
        self.left(connection)
        self._serving.add(connection)

    def rests(self, connection: Connection, *, known: bool) -> None:
        """No request is under way on it any more.

        Args:
            known: whether there was one from a caller who may call.
        """
        self.left(connection)
        (self._known if known else self._strangers)[connection] = None

    def left(self, connection: Connection) -> None:
        """It is gone."""
        self._serving.discard(connection)
        self._strangers.pop(connection, None)
        self._known.pop(connection, None)


def affordable(most: int) -> int:
    """As many connections as are wanted, or as the process may have open files for; at least one."""
    if sys.platform == "win32":
        return most
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if limit == resource.RLIM_INFINITY else max(1, min(most, limit - min(SPARE, limit // 2)))
