"""HTTP to other MCP servers: what goes wrong with one request is the answer to that request.

An exception inside the SDK's HTTP transport ends the whole connection, and with it every other call that runs over it.
So a request that cannot be sent, is refused, or loses its connection is answered here, by a JSON-RPC error.

Nothing but an event stream is read without bound: the SDK reads whole answers, and so does its OAuth. Events are
bounded one by one where they are read.

Servers of 2026-07-28 and later are asked without the SDK's transport (`Posts`): each request is one POST and its
answer, and needs nothing else (specification 2026-07-28, basic/transports, "Streamable HTTP").
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
from mcp.client.auth import OAuthFlowError
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR

from praxis_mcp.support.mcp_sdk import stream_within_origin
from praxis_mcp.upstreams.messages import Failure, error_of, failed, lenient_json
from praxis_mcp.upstreams.raw_answers import FIRST_ID, MAX_UPSTREAM_MESSAGE, report_progress
from praxis_mcp.upstreams.spec import ProgressListener
from praxis_mcp.upstreams.transports.answers import (
    ReadableEvents,
    WithoutMark,
    answers_request,
    as_answer,
    error_in,
    is_event_stream,
    request_id,
    status_of,
)
from praxis_mcp.upstreams.transports.kept_connections import KEPT_IDLE, KeptConnections, needs_proxy

if TYPE_CHECKING:
    from praxis_mcp.plans.secrets import Masker
    from praxis_mcp.upstreams.spec import OAuthClient, UpstreamSpec

_POOL = httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=KEPT_IDLE)
_WRITE_TIMEOUT = 60.0
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_BUSY = 429
_REFUSALS = frozenset({401, 403, 407, _BUSY})
_SESSION = "mcp-session-id"
_STREAMED = "praxis.streamed"
"""Extension of a request whose answer may be an event stream."""


def http_client(spec: UpstreamSpec, masker: Masker) -> httpx2.AsyncClient:
    """A client for one server; `masker` learns the tokens that it gets for it. Reading has no limit in time of its own:
    calls have theirs."""
    timeout = httpx2.Timeout(spec.connect_timeout, read=None, write=_WRITE_TIMEOUT)
    auth = _oauth(spec.oauth, str(spec.address), masker) if spec.oauth else None
    kept = None if needs_proxy(str(spec.address)) else KeptConnections()
    # Not compressed, so that bytes received are bytes held: a few kilobytes can be made to unpack to gigabytes.
    headers = httpx2.Headers(dict(spec.headers))
    headers["Accept-Encoding"] = "identity"
    hooks = {"response": [_bound]}
    return _Client(headers=headers, timeout=timeout, limits=_POOL, auth=auth, transport=kept, event_hooks=hooks)


class _Unreadable(httpx2.ReadError):
    """An answer is such that it is not read to its end."""


class _Client(httpx2.AsyncClient):
    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        if stream:
            request.extensions = {**request.extensions, _STREAMED: True}
        try:
            response = await super().send(request, stream=True, **options)
            if not _is_event_stream(response):
                await _read(response)
        except _NEVER_SENT as exc:
            return _error(request, 503, Failure.UNSENT, _describe(exc))
        except OAuthFlowError as exc:
            return _error(request, 401, Failure.REFUSED, f"no token could be obtained: {exc}")
        except httpx2.TransportError as exc:
            return _error(request, 502, Failure.LOST, _describe(exc))
        status = response.status_code
        if status in _REFUSALS:
            in_session = _SESSION in request.headers and status != _BUSY
            reason = status_of(response, error_in(response).message)
            return _error(request, status, Failure.REFUSED, reason, in_session=in_session)
        if status >= 500 and not response.headers.get("content-type", "").lower().startswith("application/json"):
            return _error(request, status, Failure.LOST, error_in(response).message)
        identity = request_id(request)
        if identity is None:
            return response
        if 400 <= status < 500 and _SESSION in request.headers:
            return _rejection(request, response, identity)
        return as_answer(response, identity) if stream else response  # else its answer comes another way (HTTP+SSE)


def _rejection(request: httpx2.Request, response: httpx2.Response, identity: int | str) -> httpx2.Response:
    """The answer to a request of a session that the server does not accept (4xx)."""
    error, status = error_in(response), response.status_code
    if status == 404 and not (answers_request(response, identity) and error.code == METHOD_NOT_FOUND):
        # A server that was restarted does not know the session (specification 2025-11-25, transports, "Session
        # Management"); it has not looked at the request.
        return _error(request, 404, Failure.UNSENT, f"the server does not know the session ({error.message})")
    # Many say so by 400, and others by 400 that an argument is wrong: `Upstream` finds out.
    return _error(request, status, Failure.REJECTED, error.message, code=error.code, data=error.data, in_session=True)


async def _read(response: httpx2.Response) -> None:
    try:
        await response.aread()
    except BaseException:
        await response.aclose()
        raise


def _is_event_stream(response: httpx2.Response) -> bool:
    return is_event_stream(response) and _STREAMED in response.request.extensions


async def _bound(response: httpx2.Response) -> None:
    """Bound the body of an answer, of OAuth's as well; called as soon as its head is there."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _Unreadable("its answer is compressed, although the request forbids that")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    if _is_event_stream(response):
        response.stream = ReadableEvents(WithoutMark(response.stream))
        response.encoding = "utf-8"  # whatever its type says (HTML, 9.2.5)
    else:
        response.stream = _BoundedBody(response.stream)


class _BoundedBody(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._inner:
            size += len(piece)
            if size > MAX_UPSTREAM_MESSAGE:
                raise _Unreadable(f"its answer has more than {MAX_UPSTREAM_MESSAGE} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


def _describe(exc: Exception) -> str:
    if isinstance(exc, _Unreadable):
        return str(exc)
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _error(request: httpx2.Request, status: int, failure: Failure, message: str, **about: Any) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": None, "error": failed(failure, message, **about).model_dump()}
    headers = {"content-type": "application/json"}
    return httpx2.Response(status, headers=headers, content=json.dumps(body).encode(), request=request)


def _oauth(client: OAuthClient, address: str, masker: Masker) -> httpx2.Auth:
    from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

    return ClientCredentialsOAuthProvider(
        address,
        _TokenInMemory(masker),
        client.client_id,
        client.client_secret,
        scope=client.scope,
        issuer=client.issuer,
    )


class _TokenInMemory:
    """Where the SDK's provider keeps its token: nowhere but here."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._tokens: Any = None
        self._client: Any = None

    async def get_tokens(self) -> Any:
        return self._tokens

    async def set_tokens(self, tokens: Any) -> None:
        self._tokens = tokens
        for secret in (tokens.access_token, tokens.refresh_token):
            if secret:
                self._masker.learn(secret)

    async def get_client_info(self) -> Any:
        return self._client

    async def set_client_info(self, client_info: Any) -> None:
        self._client = client_info


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
