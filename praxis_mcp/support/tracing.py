"""The trace that a request belongs to, as W3C Trace Context and W3C Baggage say, without any library: what a client
sent is read, kept while its request is served, and passed on to other servers and to tools that ask for it.

Where spans of our own are exported, `praxis_mcp.support.telemetry` makes them; nothing else knows OpenTelemetry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

MAX_TRACESTATE = 512
"""Characters of a ``tracestate`` that are passed on; the specification asks for no more (3.3.1.5). A longer one is
dropped, the trace goes on."""
MAX_TRACESTATE_MEMBERS = 32
MAX_BAGGAGE = 8192
"""Bytes of ``baggage`` that are passed on, as its specification limits it (3.3.2); more is dropped."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]{0,256})?")
_STATE_MEMBER = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=([ -+\--<>-~]{0,255}[!-+\--<>-~])"
)
_BAGGAGE_MEMBER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*=[ \t!-+\--~]*")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a request belongs.

    Attributes:
        traceparent: trace, span and flags, in version 00; empty where there is no trace.
        tracestate: what vendors add, as it was received; empty where nothing is.
        baggage: what the application adds, as it was received; empty where nothing is.
    """

    traceparent: str = ""
    tracestate: str = ""
    baggage: str = ""

    @classmethod
    def read(cls, carrier: Mapping[str, Any] | None) -> TraceContext | None:
        """What a request carries in its ``_meta`` (SEP-414), or in its headers; None where there is nothing that is
        valid. Of what is not, nothing is kept, shown or logged: it is a stranger's."""
        if not carrier:
            return None
        traceparent = _traceparent(carrier.get("traceparent"))
        baggage = _baggage(carrier.get("baggage"))
        if not traceparent:
            return cls(baggage=baggage) if baggage else None
        return cls(traceparent, _tracestate(carrier.get("tracestate")), baggage)

    def carrier(self) -> dict[str, str]:
        """As ``_meta`` and headers carry it."""
        items = {"traceparent": self.traceparent, "tracestate": self.tracestate, "baggage": self.baggage}
        return {name: value for name, value in items.items() if value}


class Sent:
    """A request to another server, while it is under way.

    Attributes:
        context: what it carries.
    """

    def __init__(self, context: TraceContext) -> None:
        self.context = context

    def failed(self, error_type: str) -> None:
        """It failed, in a word of a few (``error.type``)."""


class Trace:
    """What is served now, as its trace sees it. This one has no spans of its own: it passes on what the client sent."""

    def __init__(self, received: TraceContext) -> None:
        self._received = received

    @property
    def outgoing(self) -> TraceContext:
        """What is passed on from here."""
        return self._received

    def enter(self, phase: str | None, at: float) -> None:
        """A phase of the call begins, or the call has ended; `at` is by `time.perf_counter`."""

    def called(self, tool: str, about: Mapping[str, str]) -> None:
        """The request called this tool, and what there is to say about the call (never a value of its arguments)."""

    @contextmanager
    def sending(self, method: str, tool: str, about: Mapping[str, str | int]) -> Iterator[Sent]:
        """Around a request to another server."""
        yield Sent(self.outgoing)


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current_trace() -> Trace | None:
    """The trace of what this task serves; None where it serves nothing that has one."""
    return _current.get()


@contextmanager
def belonging_to(trace: Trace) -> Iterator[None]:
    """While a request of a trace is served, in this task and those that it starts."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def sending(method: str, tool: str, about: Mapping[str, str | int]) -> Iterator[Sent]:
    """Around a request to another server: see `Trace.sending`. It carries nothing where there is no trace.

    Args:
        method: of MCP.
        tool: its name there; empty where it is about none.
        about: attributes of a span, such as where the server is; no values of arguments.
    """
    trace = _current.get()
    if trace is None:
        yield Sent(TraceContext())
        return
    with trace.sending(method, tool, about) as sent:
        yield sent


VARIABLES = ("TRACEPARENT", "TRACESTATE", "BAGGAGE")
"""What carries a trace to a process (OpenTelemetry, "Environment Variables as Context Propagation Carriers")."""


def trace_variables() -> dict[str, str]:
    """The variables that carry the trace of what is served now to a process."""
    trace = _current.get()
    if trace is None:
        return {}
    return {name.upper(): value for name, value in trace.outgoing.carrier().items()}


def _traceparent(value: object) -> str:
    match = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return ""
    version, trace, span, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace, 16) or not int(span, 16):
        return ""
    # A later version is passed on as the one that we know, and of its flags those that this one has (4.3).
    return f"00-{trace}-{span}-{flags if version == '00' else format(int(flags, 16) & 3, '02x')}"


def _tracestate(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TRACESTATE:
        return ""
    members = [member.strip(" \t") for member in value.split(",")]
    found = [_STATE_MEMBER.fullmatch(member) for member in members if member]
    keys = {match[1] for match in found if match is not None}
    # A key twice, and all of it is invalid, as one member that is (3.3.1.1).
    return value if len(keys) == len(found) <= MAX_TRACESTATE_MEMBERS else ""


def _baggage(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_BAGGAGE:
        return ""
    return value if all(_BAGGAGE_MEMBER.fullmatch(member.strip(" \t")) for member in value.split(",")) else ""
