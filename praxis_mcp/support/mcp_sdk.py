"""What is needed of the MCP SDK besides its public names: all of it, and nowhere else.

Each may go with any release of the SDK, so pyproject.toml bounds its version to what was run, and
``tests/test_sdks.py`` fails when one goes.

- The types of a transport's two streams: transports and wrappers of ours are typed as the SDK's own are.
- `connection_of`: the SDK tells nobody which older clients are connected, nor when one leaves.
- `stamp`: requests that are sent here and not by the SDK's session need what the session adds to its own.
- `stream_within_origin`: redirects are followed as the SDK follows them, for the same reasons.
- `LOST_STREAM`: the SDK has no code for an answer that broke off, only words.
"""

from __future__ import annotations

from typing import Any

from mcp import ClientSession
from mcp.client._transport import Transport as Transport
from mcp.client._transport import TransportStreams as TransportStreams
from mcp.server.connection import Connection
from mcp.server.session import ServerSession
from mcp.shared._httpx_utils import stream_within_origin as stream_within_origin
from mcp.shared._stream_protocols import ReadStream as ReadStream
from mcp.shared._stream_protocols import WriteStream as WriteStream

LOST_STREAM = "SSE stream "
"""How the message begins of an error by which the client's Streamable HTTP of older revisions says that an answer broke
off."""


def connection_of(session: ServerSession) -> Connection:
    """The connection that a request came over: one object for each client of the older era, with an `exit_stack` that
    ends with it."""
    return session._connection


def stamp(session: ClientSession, method: str, params: dict[str, Any]) -> dict[str, str]:
    """Add to a request what the SDK adds to its own: version and capabilities to `params`; arguments that travel as
    headers are returned."""
    headers: dict[str, str] = {}
    session._stamp({"method": method, "params": params}, {"headers": headers})
    return headers
