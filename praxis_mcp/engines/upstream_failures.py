"""Failures of a transport, told apart from errors that the server sent, which may have any code and any words.

Both reach whoever asked as JSON-RPC errors, some by way of the SDK. So a failure of ours carries a mark that no server
can know, and that no message to one ever holds.
"""

from __future__ import annotations

from enum import StrEnum
from secrets import token_hex

from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, ErrorData


class Failure(StrEnum):
    """What went wrong on the way."""

    UNSENT = "unsent"
    """The request did not reach the server."""
    LOST = "lost"
    """The connection broke after the request was sent."""
    REFUSED = "refused"
    """The server wants other credentials, or none of these requests now."""


_MARK = token_hex(16)
_KEY = "io.github.praxis-mcp/failure"
_SDK_LOST = "SSE stream "


def failed(failure: Failure, message: str) -> ErrorData:
    """The error that says so to who asked."""
    return ErrorData(code=INTERNAL_ERROR, message=message, data={_KEY: _MARK, "failure": failure.value})


def failure_in(exc: BaseException | None) -> Failure | None:
    """Which failure an error is; None where the server sent it, or it is something else."""
    if not isinstance(exc, MCPError):
        return None
    data = exc.data
    if isinstance(data, dict) and data.get(_KEY) == _MARK:
        return Failure(data["failure"])
    # The SDK's transport for Streamable HTTP of older revisions says by these words that an answer broke off. A server
    # that says the same has its connection opened anew, and no more.
    if exc.code == CONNECTION_CLOSED and exc.message.startswith(_SDK_LOST):
        return Failure.LOST
    return None
