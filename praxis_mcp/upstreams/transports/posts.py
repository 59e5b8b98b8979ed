"""Requests to Streamable HTTP servers of 2026-07-28 and later: each is one POST and its answer, and needs nothing else
(specification 2026-07-28, basic/transports, "Streamable HTTP"). Each is sent by the task that waits for its answer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import anyio
import httpx2
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST, PARSE_ERROR

from praxis_mcp.support.mcp_sdk import stream_within_origin
from praxis_mcp.upstreams.messages import Failure, error_of, failed, lenient_json
from praxis_mcp.upstreams.raw_answers import FIRST_ID, MAX_UPSTREAM_MESSAGE, report_progress
from praxis_mcp.upstreams.spec import ProgressListener

_FIXED_HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


class Posts:
    """Asks one server.

    Args:
        client: sends; its errors are answers, and answers that are not event streams are read (see `transports.http`).
        url: the endpoint.
        on_received: is called when an answer arrives, or begins to where it is a stream.
    """

    def __init__(self, client: httpx2.AsyncClient, url: str, on_received: Callable[[], None]) -> None:
        self._client = client
        self._url = url
        self._on_received = on_received
        self._ids = itertools.count(FIRST_ID)
        self._requests: set[anyio.CancelScope] = set()

    async def ask(
        self, method: str, params: dict[str, Any], headers: dict[str, str], on_progress: ProgressListener | None
    ) -> dict[str, Any]:
        """See `RawAnswers.ask`. A cancelled request closes its response, which cancels it at the server."""
        identity = next(self._ids)
        if on_progress is not None:
            params["_meta"]["progressToken"] = identity
        request = {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}
        body = json.dumps(request, separators=(",", ":")).encode()
        with anyio.CancelScope() as scope:
            self._requests.add(scope)
            try:
                return await self._exchange(body, {**_FIXED_HEADERS, **headers}, on_progress)
            except (httpx2.TransportError, httpx2.StreamError) as exc:
                raise _lost(f"{type(exc).__name__}: {exc}".rstrip(": ")) from exc
            finally:
                self._requests.discard(scope)
        raise _lost("Connection closed")

    def close(self) -> None:
        """Break off what is being asked."""
        for scope in self._requests:
            scope.cancel()

    async def _exchange(
        self, body: bytes, headers: dict[str, str], on_progress: ProgressListener | None
    ) -> dict[str, Any]:
        async with stream_within_origin(self._client, "POST", self._url, content=body, headers=headers) as response:
            self._on_received()
            kind = response.headers.get("content-type", "").lower()
            if kind.startswith("application/json"):
                return _result(_parsed(response.content))
            if kind.startswith("text/event-stream"):
                return await self._follow(response, on_progress)
            raise MCPError(INVALID_REQUEST, f"the answer is neither JSON nor events, but {kind[:80] or 'of no type'}")

    async def _follow(self, response: httpx2.Response, on_progress: ProgressListener | None) -> dict[str, Any]:
        try:
            async for event in httpx2.EventSource(response, max_event_size=MAX_UPSTREAM_MESSAGE):
                self._on_received()
                if event.event != "message" or not event.data:
                    continue
                message = _parsed(event.data)
                if "method" not in message:
                    return _result(message)
                if message["method"] == "notifications/progress" and on_progress is not None:
                    about = message.get("params")
                    report_progress(on_progress, about if isinstance(about, dict) else {})
        except httpx2.SSEError as exc:
            raise _lost(f"its events cannot be read: {exc}") from exc
        raise _lost("the response ended without an answer")


def _lost(message: str) -> MCPError:
    return MCPError.from_error_data(failed(Failure.LOST, message))


def _parsed(text: bytes | str) -> dict[str, Any]:
    try:
        message = lenient_json(text)
    except ValueError as exc:
        raise MCPError(PARSE_ERROR, "its answer is not JSON") from exc
    if not isinstance(message, dict):
        raise MCPError(PARSE_ERROR, "its answer is not a JSON-RPC message")
    return message


def _result(message: dict[str, Any]) -> dict[str, Any]:
    if (error := error_of(message.get("error"))) is not None:
        raise MCPError.from_error_data(error)
    result = message.get("result")
    if not isinstance(result, dict):
        raise MCPError(PARSE_ERROR, "its answer is not a JSON-RPC message")
    return result
