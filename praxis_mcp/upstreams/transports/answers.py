"""Answers of HTTP servers, brought into the form of JSON-RPC before anything reads them.

A JSON answer is matched with its request by its id. Some servers answer with null, ``"server-error"`` or the id of
another type, and then the answer is lost: the call would wait for its whole timeout. But the response to a POST is
the answer to that request, whatever it says (specification 2025-11-25, transports, "Sending Messages to the Server"),
so here it gets the request's id, and what is not an answer becomes an error that says what came instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from mcp_types import INTERNAL_ERROR, METHOD_NOT_FOUND, PARSE_ERROR, ErrorData
from pydantic_core import from_json, to_json

from praxis_mcp.upstreams.messages import error_of, id_as_sent, is_hard, lenient_json

BOM = b"\xef\xbb\xbf"
_LONGEST_TEXT = 300
"""Characters of a body that an error shows."""
_KEPT_HEADERS = ("mcp-session-id", "mcp-protocol-version", "www-authenticate", "retry-after")
_LONGEST_HELD = 4 * 1024 * 1024
"""Bytes of a line of an event stream that are held back to look at the whole of it."""
_BODY_ENDS = 96
"""Bytes at either end of a body in which the id is looked for before all of it is read."""
_REQUEST = re.compile(rb'\{"jsonrpc":"2\.0","id":(\d+|"[\w-]*"),"method":')
_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"'
_ID = rb'"id"\s*:\s*(\d+|"[^"\\]*")'
_AT_START = re.compile(rb"\s*\{\s*" + _VERSION + rb"\s*,\s*" + _ID + rb'\s*,\s*"result"\s*:\s*\{')
_RESULT_FIRST = re.compile(rb'\s*\{\s*"result"\s*:\s*\{')
_AT_END = re.compile(rb"\}\s*,\s*" + _VERSION + rb"\s*,\s*" + _ID + rb"\s*\}\s*\Z")


def request_id(request: httpx2.Request) -> int | str | None:
    """The id of the JSON-RPC request that is posted; None for a notification, and whatever else is sent."""
    if request.method != "POST":
        return None
    try:
        if found := _REQUEST.match(request.content[:_BODY_ENDS]):
            return json.loads(found[1])
        message = from_json(request.content)
    except (ValueError, httpx2.RequestNotRead):
        return None
    is_request = isinstance(message, dict) and "method" in message
    return message.get("id") if is_request else None


def is_event_stream(response: httpx2.Response) -> bool:
    """Whether a successful answer comes as events."""
    return response.is_success and _kind(response) == "text/event-stream"


def as_answer(response: httpx2.Response, identity: int | str) -> httpx2.Response:
    """The response to a request, its body being JSON-RPC in any case; redirects and events stay as they are.

    Args:
        response: has been read, unless it is an event stream.
        identity: of the request.
    """
    if is_event_stream(response) or response.is_redirect:
        return response
    if response.is_success:
        if _kind(response) == "application/json" and _is_for(response.content, identity):
            return response
        return _with_body(response, _answer_in(response, identity), status=200)
    error = error_in(response).model_dump(exclude_none=True)
    return _with_body(response, {"jsonrpc": "2.0", "id": None, "error": error}, status=response.status_code)


def error_in(response: httpx2.Response) -> ErrorData:
    """What a response that is not a success says is wrong: its JSON-RPC error, with or without an id; else its status
    and the first words of its body."""
    body = _parsed(response.content)
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and (found := error_of(error)) is not None:
        return found
    code = METHOD_NOT_FOUND if response.status_code == 404 else INTERNAL_ERROR
    return ErrorData(code=code, message=status_of(response, _words(response, body)))


def status_of(response: httpx2.Response, message: str) -> str:
    """The status, and what its body says, which may say the same."""
    status = f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
    return message if message.startswith(status) else f"{status}: {message}" if message else status


def answers_request(response: httpx2.Response, identity: int | str) -> bool:
    """Whether the body is an answer to that very request, so that the server has read it."""
    body = _parsed(response.content)
    return isinstance(body, dict) and _same(body.get("id"), identity)


class WithoutMark(httpx2.AsyncByteStream):
    """A body without the byte order mark that it may begin with, which is not part of its first line (HTML, 9.2.5).

    Args:
        inner: the body as it comes.
    """

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        head: bytes | None = b""
        async for piece in self._inner:
            if head is None:
                yield piece
                continue
            head += piece
            if len(head) < len(BOM) and BOM.startswith(head):
                continue
            first, head = head.removeprefix(BOM), None
            if first:
                yield first
        if head:
            yield head

    async def aclose(self) -> None:
        await self._inner.aclose()


class ReadableEvents(httpx2.AsyncByteStream):
    """The body of an event stream in which what the SDK's reader refuses is written so that it reads it.

    Args:
        inner: the body as it comes.
    """

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held: list[bytes] = []
        size = 0
        async for piece in self._inner:
            *lines, rest = piece.split(b"\n")
            for line in lines:
                yield _readable(b"".join([*held, line])) + b"\n"
                held, size = [], 0
            held.append(rest)
            size += len(rest)
            if size > _LONGEST_HELD:  # goes on as it is: who reads it bounds it
                yield b"".join(held)
                held, size = [], 0
        if rest := b"".join(held):
            yield _readable(rest)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _readable(line: bytes) -> bytes:
    if not line.startswith(b"data:") or not is_hard(line):
        return line
    try:
        return b"data: " + json.dumps(lenient_json(line.removeprefix(b"data:"))).encode()
    except ValueError:
        return line


def _kind(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_for(body: bytes, identity: int | str) -> bool:
    """Whether it is plainly a result for that id, written as the SDKs write it: a large one is not read twice."""
    if is_hard(body):
        return False
    mark = json.dumps(identity).encode()
    if found := _AT_START.match(body[:_BODY_ENDS]):
        return found[1] == mark
    found = _AT_END.search(body[-_BODY_ENDS:]) if _RESULT_FIRST.match(body[:_BODY_ENDS]) else None
    return found is not None and found[1] == mark


def _answer_in(response: httpx2.Response, identity: int | str) -> dict[str, Any]:
    body = _parsed(response.content)
    if isinstance(body, list):
        # A batch (specification 2025-03-26, basic, "Batching"). Ours was one request, so one answer is for it.
        answers = [part for part in body if _is_answer(part)]
        body = next((part for part in answers if _same(part.get("id"), identity)), answers[0] if answers else None)
    if isinstance(body, dict) and _is_answer(body):
        if isinstance(result := body.get("result"), dict) and not body.get("error"):
            return {"jsonrpc": "2.0", "id": identity, "result": result}
        if (error := error_of(body.get("error"))) is not None:
            return {"jsonrpc": "2.0", "id": identity, "error": error.model_dump(exclude_none=True)}
    error = {"code": PARSE_ERROR, "message": _what_came(response)}
    return {"jsonrpc": "2.0", "id": identity, "error": error}


def _is_answer(body: Any) -> bool:
    return isinstance(body, dict) and "method" not in body and ("result" in body or "error" in body)


def _what_came(response: httpx2.Response) -> str:
    if not response.content.strip():
        return f"it answered HTTP {response.status_code} without a body"
    kind = _kind(response)
    what = "JSON" if kind == "application/json" else f"{kind[:80]}" if kind else "a body of no type"
    shown = _words(response, None)
    return f"its answer is not a JSON-RPC message, but {what}" + (f": {shown}" if shown else "")


def _words(response: httpx2.Response, body: Any) -> str:
    """What a body that is not JSON-RPC says to people, in one line."""
    if isinstance(body, dict):
        found = next(
            (body[key] for key in ("error", "message", "detail", "title") if isinstance(body.get(key), str)), ""
        )
    elif "html" in _kind(response):
        return ""  # a page, whose words are between its tags
    else:
        found = response.content[: 4 * _LONGEST_TEXT].decode(errors="replace")
    return " ".join(found.split())[:_LONGEST_TEXT]


def _parsed(content: bytes) -> Any:
    try:
        return lenient_json(content.removeprefix(BOM))
    except ValueError:
        return None


def _same(found: Any, identity: int | str) -> bool:
    return found is not None and not isinstance(found, bool) and id_as_sent(found) == id_as_sent(identity)


def _with_body(response: httpx2.Response, body: dict[str, Any], *, status: int) -> httpx2.Response:
    headers = [(name, response.headers[name]) for name in _KEPT_HEADERS if name in response.headers]
    return httpx2.Response(
        status,
        headers=[*headers, ("content-type", "application/json")],
        content=to_json(body, inf_nan_mode="constants"),
        request=response.request,
        extensions=response.extensions,
    )
