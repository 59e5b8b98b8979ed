"""Spans, exported by OTLP: the only module that knows OpenTelemetry's SDK, which is imported when spans are to be
exported and not before.

The standard environment variables decide (`tracing_is_wanted`). Names and attributes are those of OpenTelemetry's
semantic conventions for MCP. A span holds no arguments, no output, no text of an error: of what a client sends, only
names that this server knows, and ids of a bounded length.

The provider is our own, not the process's: other libraries' spans (the MCP SDK's, Dagger's) hold what ours must not.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from praxis_mcp.support.installation import install_command_for_extra
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tracing import Sent, Trace, TraceContext, belonging_to

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span, Tracer

MAX_ATTRIBUTE = 128
"""Characters of an attribute whose value others choose."""
LAST_SPANS = 2.0
"""Seconds that a process which ends gives the last of its spans to be exported."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OURS = "http/protobuf"

Attributes = Mapping[str, str | int]


def tracing_is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether OpenTelemetry's variables say that spans are to be exported by OTLP; imports nothing of it."""
    exporters = [name.strip() for name in environment.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or "otlp" not in exporters:
        return False
    return bool(_first(environment, _ENDPOINTS))


def _first(environment: Mapping[str, str], names: Sequence[str]) -> str:
    return next((value for name in names if (value := environment.get(name, "").strip())), "")


def _is_address(text: str) -> bool:
    try:
        address = urlsplit(text)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # its port, or a host in brackets
        return False


def open_telemetry(environment: Mapping[str, str] = os.environ) -> Telemetry | None:
    """What exports spans; None, with a warning, where that cannot be made. Blocks, because it imports."""
    protocol = _first(environment, _PROTOCOLS) or _OURS
    if protocol != _OURS:
        logger.warning("no spans are exported: OTEL_EXPORTER_OTLP_PROTOCOL must be {} here", _OURS)
        return None
    if not _is_address(_first(environment, _ENDPOINTS)):
        # Not shown: it may hold a password.
        logger.warning("no spans are exported: OTEL_EXPORTER_OTLP_ENDPOINT is not an address of http or https")
        return None
    try:
        telemetry = Telemetry()
    except ImportError:
        logger.warning(
            "no spans are exported, though OTEL_EXPORTER_OTLP_ENDPOINT is set: OpenTelemetry's SDK is not installed. "
            "Install it: {}",
            install_command_for_extra("otel"),
        )
        return None
    except Exception as exc:  # noqa: BLE001 - whatever it does not like in its variables costs spans, not calls
        logger.warning("no spans are exported: OpenTelemetry's SDK refuses its variables ({})", type(exc).__name__)
        return None
    logger.info("spans are exported to {}", telemetry.place)
    return telemetry


def inject_ambient(carrier: dict[str, str]) -> None:
    """Add the trace that an application which embeds us has begun by OpenTelemetry's API, where it has."""
    from opentelemetry.propagate import inject

    inject(carrier)


class Telemetry:
    """Makes spans, and exports them from a thread of its own: no call waits for a collector.

    Attributes:
        place: the collector's address, without what may be secret in it.

    Raises:
        ImportError: OpenTelemetry's SDK is not installed.
    """

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # Its messages quote what it was given, and come with every batch that fails; `_watched` says what matters.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        address = urlsplit(_first(os.environ, _ENDPOINTS))
        self.place = f"{address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")
        resource = Resource.create()
        if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "praxis-mcp"}))
        resource = Resource({"service.version": version("praxis-mcp")}).merge(resource)
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_watched(OTLPSpanExporter(), self.place)))
        self._tracer = self._provider.get_tracer("praxis-mcp", version("praxis-mcp"))

    @contextmanager
    def serving(
        self, name: str, attributes: Attributes, parent: TraceContext | None, around: TraceContext | None
    ) -> Iterator[ServedSpan]:
        """Around a request that is served.

        Args:
            name: of the span.
            attributes: of the span.
            parent: where the request says that it belongs.
            around: where what carried it says that it belongs; linked.
        """
        from opentelemetry.trace import Link, SpanKind, get_current_span

        links: list[Link] = []
        if around is not None and around.traceparent:
            links.append(Link(get_current_span(_context_of(around)).get_span_context()))
        span = self._tracer.start_span(
            name, _context_of(parent), SpanKind.SERVER, _bounded(attributes), links, record_exception=False
        )
        served = ServedSpan(self._tracer, span, parent or TraceContext())
        try:
            with belonging_to(served):
                yield served
        except anyio.get_cancelled_exc_class():
            served.failed("cancelled")
            raise
        finally:
            served.end()

    def close(self, within: float) -> None:
        """Export what is left, within so many seconds. Blocks."""
        # In a thread that nobody waits for: the SDK's own bound on it is half a minute.
        ending = threading.Thread(target=self._provider.shutdown, name="exporting the last spans", daemon=True)
        ending.start()
        ending.join(within)
        if ending.is_alive():
            logger.warning(
                "the last spans cannot be exported to {} within {:.0f} s, and are dropped", self.place, within
            )


class ServedSpan(Trace):
    """The span of a request that is served, and those of the phases of its call."""

    def __init__(self, tracer: Tracer, span: Span, received: TraceContext) -> None:
        super().__init__(received)
        self._tracer = tracer
        self._span = span
        self._phase: Span | None = None
        self._began = time.time_ns() - time.perf_counter_ns()

    @property
    def outgoing(self) -> TraceContext:
        """See the base: the request's own span is what comes next."""
        return _context_from(self._span, self._received)

    def enter(self, phase: str | None, at: float) -> None:
        """See the base: each phase is a span below the request's."""
        moment = self._began + int(at * 1e9)
        if self._phase is not None:
            self._phase.end(moment)
        self._phase = None
        if phase is not None and self._span.is_recording():
            self._phase = self._tracer.start_span(phase[:MAX_ATTRIBUTE], _below(self._span), start_time=moment)

    def called(self, tool: str, about: Mapping[str, str]) -> None:
        """See the base."""
        name = tool[:MAX_ATTRIBUTE]
        self._span.update_name(f"tools/call {name}")
        self._span.set_attributes(_bounded({"gen_ai.tool.name": name, **about}))

    @contextmanager
    def sending(self, method: str, tool: str, about: Attributes) -> Iterator[Sent]:
        """See the base: a span below the phase that the call is in."""
        from opentelemetry.trace import SpanKind

        attributes: dict[str, str | int] = {"mcp.method.name": method, **about}
        if tool:
            attributes |= {"gen_ai.tool.name": tool, "gen_ai.operation.name": "execute_tool"}
        name = f"{method} {tool[:MAX_ATTRIBUTE]}" if tool else method
        parent = _below(self._phase or self._span)
        span = self._tracer.start_span(name, parent, SpanKind.CLIENT, _bounded(attributes))
        sent = _SentSpan(span, self._received)
        try:
            yield sent
        except anyio.get_cancelled_exc_class():
            sent.failed("cancelled")
            raise
        except Exception as exc:
            sent.failed(type(exc).__qualname__)
            raise
        finally:
            span.end()

    def failed(self, error_type: str, code: str = "") -> None:
        """The request failed.

        Args:
            error_type: in a word of a few.
            code: of the JSON-RPC error, where it is answered by one.
        """
        _fail(self._span, error_type)
        if code:
            self._span.set_attribute("rpc.response.status_code", code)

    def end(self) -> None:
        """The request has been served."""
        if self._phase is not None:
            self._phase.end()
        self._span.end()


class _SentSpan(Sent):
    def __init__(self, span: Span, received: TraceContext) -> None:
        super().__init__(_context_from(span, received))
        self._span = span
        self._has_failed = False

    def failed(self, error_type: str) -> None:
        if not self._has_failed:  # what is known first is known best
            self._has_failed = True
            _fail(self._span, error_type)


def _fail(span: Span, error_type: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", error_type[:MAX_ATTRIBUTE])
    # Without a description, though the conventions suggest the error's message: it may quote an argument.
    span.set_status(StatusCode.ERROR)


def _bounded(attributes: Attributes) -> dict[str, str | int]:
    return {
        name: value[:MAX_ATTRIBUTE] if isinstance(value, str) else value
        for name, value in attributes.items()
        if value != ""
    }


def _below(span: Span) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(span, Context())


def _context_of(received: TraceContext | None) -> Context:
    """What was received, as the SDK has it. It was checked when it was read: the SDK's own reader logs what it does not
    like."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

    if received is None or not received.traceparent:
        return Context()
    _, trace, span, flags = received.traceparent.split("-")
    members = [member.strip(" \t").partition("=") for member in received.tracestate.split(",")]
    state = TraceState([(key, value) for key, _, value in members if key])
    known = SpanContext(int(trace, 16), int(span, 16), True, TraceFlags(int(flags, 16)), state)
    return set_span_in_context(NonRecordingSpan(known), Context())


def _context_from(span: Span, received: TraceContext) -> TraceContext:
    known = span.get_span_context()
    traceparent = f"00-{known.trace_id:032x}-{known.span_id:016x}-{known.trace_flags:02x}"
    return TraceContext(traceparent, received.tracestate, received.baggage)


def _watched(exporter: SpanExporter, place: str) -> SpanExporter:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Watched(SpanExporter):
        """Says once that the collector cannot be reached, and once that it can be again."""

        def __init__(self) -> None:
            self._lost = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            try:
                result = exporter.export(spans)
            except Exception:  # noqa: BLE001 - a collector's answer of any kind costs spans, not the thread
                result = SpanExportResult.FAILURE
            if result is not SpanExportResult.SUCCESS:
                if not self._lost:
                    logger.warning("spans cannot be exported to {}, and are dropped; calls go on", place)
                self._lost += len(spans)
            elif self._lost:
                logger.info("spans are exported to {} again; {} were dropped", place, self._lost)
                self._lost = 0
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Watched()
