"""What comes back from other servers: their messages, read as far as they can be, and failures on the way to and from
them.

What is wrong in one message costs at most the call that it answers. The SDK's reader refuses a whole message for half
of a surrogate pair, a number of thousands of digits, or a level too many, which Python's and JavaScript's own readers
take; and for a result that is not an object. The caller would then wait for the whole timeout, and one such tool would
cost a whole list.

Failures of a transport and errors that the server sent, which may have any code and any words, both reach the caller as
JSON-RPC errors, some by way of the SDK. So a failure of ours carries a mark that no server can know, and that no
message to one ever holds.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from secrets import token_hex
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError
from pydantic_core import from_json

from praxis_mcp.support.mcp_sdk import LOST_STREAM

MOST_LEVELS = 200
"""Levels of one message; as many as the SDK's reader takes."""
_MOST_DIGITS = 4300
"""Digits of a number that Python reads as an integer (`sys.int_info`)."""
_MESSAGE_ENDS = 160
"""Bytes at either end of a message in which the id is looked for where the whole cannot be read."""
_ID = rb'"id"\s*:\s*(\d{1,18}|"[\w-]{1,80}")'
_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"'
_AT_START = re.compile(rb"\s*\{\s*" + _VERSION + rb"\s*,\s*" + _ID + rb'\s*,\s*"(?:result|error)"')
_RESULT_FIRST = re.compile(rb'\s*\{\s*"(?:result|error)"')
_AT_END = re.compile(_VERSION + rb"\s*,\s*" + _ID + rb"\s*\}\s*\Z")
_HARD = re.compile(rb"\\u[dD][89a-fA-F]|[0-9]{4300}")


class Unreadable(ValueError):
    """Something that is not a message, and answers no request."""


def is_hard(body: bytes) -> bool:
    """Whether the SDK's reader might refuse JSON that others read."""
    return _HARD.search(body) is not None


def lenient_json(text: bytes | str) -> Any:
    """What JSON says, halves of surrogate pairs replaced.

    Raises:
        ValueError: it is not JSON, or has more than `MOST_LEVELS` levels.
    """
    try:
        return from_json(text)
    except ValueError:
        pass
    try:
        return _clean(json.loads(_decoded(text), parse_int=_integer), MOST_LEVELS)
    except RecursionError as exc:
        raise ValueError("it has too many levels") from exc


def id_as_sent(identity: Any) -> Any:
    """The id of an answer as its request had it: some servers send a number back as text."""
    is_number = isinstance(identity, str) and identity.isdecimal() and len(identity) < 20
    return int(identity) if is_number else identity


def error_of(error: Any) -> ErrorData | None:
    """An error however it is written: servers send text for the whole of it, or for its code. None where it is not an
    error."""
    if isinstance(error, str) and error:
        return ErrorData(code=INTERNAL_ERROR, message=error)
    if not isinstance(error, dict):
        return None
    code, message = error.get("code"), error.get("message")
    if not isinstance(message, str):
        message = "" if code is None else f"error {code}"
    if isinstance(code, int) and not isinstance(code, bool):
        return ErrorData(code=code, message=message, data=error.get("data"))
    return ErrorData(code=INTERNAL_ERROR, message=message, data=error.get("data")) if message else None


def message_in(text: bytes | str) -> SessionMessage | Exception:
    """A message; the error that an answer is where it cannot be one; else why it is not one."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(text, by_name=False))
    except ValidationError:
        return _read_again(text)


def received_anyway(error: ValidationError) -> SessionMessage | Exception:
    """The message behind an error of the SDK's reader, which holds the text where it could not read that as JSON."""
    about = error.errors(include_url=False, include_context=False)[0]
    text = about["input"]
    return _read_again(text) if about["type"] == "json_invalid" and isinstance(text, bytes | str) else error


def _read_again(text: bytes | str) -> SessionMessage | Exception:
    try:
        message = lenient_json(text)
    except ValueError as exc:
        identity = _id_of(text.encode(errors="replace") if isinstance(text, str) else text)
        return _parse_error(identity, str(exc)) if identity is not None else Unreadable("it is not JSON")
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_python(message, by_name=False))
    except ValidationError:
        pass
    identity = message.get("id") if isinstance(message, dict) else None
    if isinstance(identity, int | str) and not isinstance(identity, bool) and "method" not in message:
        return _parse_error(identity, "it is not a JSON-RPC message")
    return Unreadable("it is not a JSON-RPC message")


def _parse_error(identity: int | str, reason: str) -> SessionMessage:
    error = ErrorData(code=PARSE_ERROR, message=f"its answer cannot be read: {reason}")
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=identity, error=error))


def _id_of(data: bytes) -> int | str | None:
    found = _AT_START.match(data[: 2 * _MESSAGE_ENDS])
    if found is None and _RESULT_FIRST.match(data[:_MESSAGE_ENDS]):
        found = _AT_END.search(data[-_MESSAGE_ENDS:])
    return json.loads(found[1]) if found is not None else None


def _decoded(text: bytes | str) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _clean(value: Any, levels: int) -> Any:
    if levels < 0:
        raise ValueError(f"it has more than {MOST_LEVELS} levels")
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_clean(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {_clean(key, levels - 1): _clean(item, levels - 1) for key, item in value.items()}
    return value


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
