"""JSON that stays one line for every reader of lines.

JSON allows U+0085, U+2028 and U+2029 unescaped in a string, and Python's ``str.splitlines``, Node's and C#'s readers
of lines and others end a line at them: a message that holds one reaches such a client as two halves. The other
characters that some reader splits at (U+000A to U+000D, U+001C to U+001E) are below U+0020, which JSON always escapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # servers on stdio start without it
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SPLIT_AT = tuple((character.encode(), f"\\u{ord(character):04x}".encode()) for character in "\u0085\u2028\u2029")


def one_line(data: bytes) -> bytes:
    """The same JSON, as UTF-8, without a character that some reader of lines splits at. In JSON these can stand in
    strings only, and never behind a backslash, so that each can be escaped where it is."""
    for raw, escaped in _SPLIT_AT:
        data = data.replace(raw, escaped)
    return data


class WholeEvents:
    """ASGI middleware that does the same for the events of a ``text/event-stream``. Their standard ends a line at CR
    and LF only, but clients read them with readers of lines that know more ends. Each piece holds whole events."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_events = False

        async def escaped(message: Message) -> None:
            nonlocal is_events
            if message["type"] == "http.response.start":
                is_events = any(
                    name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in message.get("headers", ())
                )
            elif is_events and message["type"] == "http.response.body" and message.get("body"):
                message = {**message, "body": one_line(message["body"])}
            await send(message)

        await self._app(scope, receive, escaped)
