"""Failures of a transport, distinguished from errors that the server sent, which may have any code and any words.

Both reach the caller as JSON-RPC errors, some by way of the SDK. So a failure of ours carries a mark that no server
can know, and that no message to one ever holds.
"""

from __future__ import annotations

from enum import StrEnum
from secrets import token_hex
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, ErrorData

from praxis_mcp.support.mcp_sdk import LOST_STREAM


class Failure(StrEnum):
    """What went wrong on the way."""

    UNSENT = "unsent"
    """The request did not reach the server."""
    LOST = "lost"
    """The connection broke after the request was sent."""
    REFUSED = "refused"
    """The server wants other credentials, or none of these requests now."""
    REJECTED = "rejected"
    """The server did not accept a request that belongs to a session, and may no longer know the session."""


_MARK = token_hex(16)
_KEY = "io.github.praxis-mcp/failure"


def failed(
    failure: Failure, message: str, *, code: int = INTERNAL_ERROR, data: Any = None, in_session: bool = False
) -> ErrorData:
    """The error that says so to the caller.

    Args:
        failure: what went wrong.
        message: in words.
        code, data: of the server's own error, where it sent one.
        in_session: whether the request carried the id of a session.
    """
    about = {_KEY: _MARK, "failure": failure.value, "in_session": in_session, "data": data}
    return ErrorData(code=code, message=message, data=about)


def failure_in(exc: BaseException | None) -> Failure | None:
    """Which failure an error is; None where the server sent it, or it is something else."""
    if not isinstance(exc, MCPError):
        return None
    if (about := _about(exc)) is not None:
        return Failure(about["failure"])
    # The SDK's transport for Streamable HTTP of older revisions says by these words that an answer broke off. A server
    # that says the same has its connection opened again, and nothing else.
    if exc.code == CONNECTION_CLOSED and exc.message.startswith(LOST_STREAM):
        return Failure.LOST
    return None


def was_in_session(exc: MCPError) -> bool:
    """Whether it is a refusal of a request that carried the id of a session."""
    about = _about(exc)
    return about is not None and about["in_session"]


def data_in(exc: MCPError) -> Any:
    """The data of the server's own error."""
    about = _about(exc)
    return exc.data if about is None else about["data"]


def _about(exc: MCPError) -> dict[str, Any] | None:
    data = exc.data
    return data if isinstance(data, dict) and data.get(_KEY) == _MARK else None
