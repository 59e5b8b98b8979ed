"""The older HTTP+SSE transport (specification 2024-11-05), as a client.

The SDK's own caps an event at 1 MiB, and when one message cannot be sent, its caller waits forever.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urljoin, urlsplit

import anyio
import anyio.abc
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError, JSONRPCRequest

from praxis_mcp.support.mcp_sdk import TransportStreams
from praxis_mcp.upstreams.messages import Failure, failed, failure_in, message_in
from praxis_mcp.upstreams.raw_answers import MAX_UPSTREAM_MESSAGE
from praxis_mcp.upstreams.transports.answers import error_in

_EVENT_STREAM = {"Accept": "text/event-stream", "Cache-Control": "no-store"}

Incoming = MemoryObjectSendStream[SessionMessage | Exception]


@asynccontextmanager
async def sse_streams(client: httpx2.AsyncClient, url: str) -> AsyncIterator[TransportStreams]:
    """The two streams of a connection; the read stream ends with the event stream.

    Raises:
        ConnectionError, MCPError: the server does not answer with an event stream that names an endpoint.
    """
    received, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, to_send = anyio.create_memory_object_stream[SessionMessage](0)
    async with (
        client.stream("GET", url, headers=_EVENT_STREAM) as response,
        received,
        read_stream,
        write_stream,
        to_send,
        anyio.create_task_group() as tasks,
    ):
        if response.status_code != 200:
            await response.aread()
            raise MCPError.from_error_data(_error_in(response))
        events = aiter(httpx2.EventSource(response, max_event_size=MAX_UPSTREAM_MESSAGE))
        endpoint = await _endpoint(events, url)
        tasks.start_soon(_receive, events, received)
        tasks.start_soon(_send, client, endpoint, to_send, received)
        yield read_stream, write_stream
        tasks.cancel_scope.cancel()


async def _endpoint(events: AsyncIterator[httpx2.ServerSentEvent], url: str) -> str:
    async for event in events:
        if event.event == "endpoint":
            endpoint = urljoin(url, event.data)
            if urlsplit(endpoint)[:2] != urlsplit(url)[:2]:
                # It would get our headers, and with them our token.
                raise ConnectionError("the server names an endpoint on another host")
            return endpoint
    raise ConnectionError("the event stream ended without naming an endpoint")


async def _receive(events: AsyncIterator[httpx2.ServerSentEvent], received: Incoming) -> None:
    async with received:
        try:
            async for event in events:
                if event.event != "message" or not event.data:
                    continue
                await received.send(message_in(event.data))
        except (httpx2.TransportError, httpx2.StreamError, httpx2.SSEError):
            pass  # the same as an end: every waiting call learns that the connection is closed
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # nobody reads any more


async def _send(
    client: httpx2.AsyncClient, endpoint: str, to_send: MemoryObjectReceiveStream[SessionMessage], received: Incoming
) -> None:
    async with anyio.create_task_group() as tasks:
        async for message in to_send:
            tasks.start_soon(_post, client, endpoint, message, received)


async def _post(client: httpx2.AsyncClient, endpoint: str, message: SessionMessage, received: Incoming) -> None:
    sent = message.message
    response = await client.post(
        endpoint, json=sent.model_dump(by_alias=True, mode="json", exclude_unset=True), follow_redirects=False
    )
    if response.is_success or not isinstance(sent, JSONRPCRequest):
        return
    # No answer will come over the event stream.
    error = JSONRPCError(jsonrpc="2.0", id=sent.id, error=_error_in(response))
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # nobody reads any more
        await received.send(SessionMessage(error))


def _error_in(response: httpx2.Response) -> ErrorData:
    error = error_in(response)
    if failure_in(MCPError.from_error_data(error)) is not None:
        return error  # of our own (see `transports.http`)
    in_session = response.request.method == "POST"
    if in_session and response.status_code == 404:  # it was restarted
        return failed(Failure.UNSENT, f"the server does not know the session ({error.message})")
    if in_session and 400 <= response.status_code < 500:
        return failed(Failure.REJECTED, error.message, code=error.code, data=error.data, in_session=True)
    return failed(Failure.LOST, error.message) if response.status_code >= 500 else error
