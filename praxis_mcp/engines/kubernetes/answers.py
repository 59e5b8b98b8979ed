"""What an API server answers instead of what was asked for, as exceptions that stay within the engine."""

from __future__ import annotations


class Refusal(Exception):
    """The API server will not do what was asked.

    Attributes:
        status: code of HTTP.
        reason: the API's word for it (meta/v1 Status): ``Forbidden``, ``AlreadyExists``.
        message: its sentence.
        kind, name: of the object that it is about, where it says so.
        retry_after: seconds after which it wants to be asked again, having done nothing; None: it did not say so.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        kind: str = "",
        name: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.kind = kind
        self.name = name
        self.retry_after = retry_after

    @property
    def is_missing(self) -> bool:
        """Whether there is no such object (any more)."""
        return self.status == 404

    @property
    def is_taken(self) -> bool:
        """Whether there is an object of that name already."""
        return self.reason == "AlreadyExists"

    @property
    def is_passing(self) -> bool:
        """Whether the same request may be answered a moment later: the server is busy or starting."""
        return self.status in (429, 500, 502, 503, 504)

    @property
    def may_be_done(self) -> bool:
        """Whether the request may be done all the same: the server, its store or a proxy did not wait for that."""
        return self.status >= 500 and self.retry_after is None


class ClusterLost(Exception):
    """The API server cannot be reached, or the connection to it broke.

    Attributes:
        address: of the server; empty where only a connection is known.
        reason: in words.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(reason)
        self.address = address
        self.reason = reason


class WatchExpired(Exception):
    """A watch asked for changes since a version that the server has forgotten (410 Gone): look again, then watch."""


def may_pass(error: Exception) -> bool:
    """Whether the next request may be answered otherwise."""
    return not isinstance(error, Refusal) or error.is_passing
