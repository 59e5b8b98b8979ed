"""What of a stranger's trace context is taken, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from praxis_mcp.support.telemetry import tracing_is_wanted
from praxis_mcp.support.tracing import MAX_BAGGAGE, MAX_TRACESTATE, TraceContext, trace_variables

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_what_is_valid_is_kept_as_it_is() -> None:
    sent = {"traceparent": PARENT, "tracestate": "rojo=1,t@v=a b", "baggage": "user=al%20ice;p=1, n = 2", "other": 3}
    found = TraceContext.read(sent)
    assert found is not None
    assert found.carrier() == {name: value for name, value in sent.items() if name != "other"}


@pytest.mark.parametrize(
    "value",
    [
        "", "x", 5, None, [PARENT], {"a": 1}, PARENT.upper(), PARENT + "-x", "ff" + PARENT[2:], PARENT + "\n",
        f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE}-{'0' * 16}-01", PARENT * 1000,
        "01" + PARENT[2:] + "-" + "x" * 300,
    ],
)  # fmt: skip
def test_a_parent_that_is_not_valid_is_dropped_together_with_its_state(value: Any) -> None:
    assert TraceContext.read({"traceparent": value, "tracestate": "a=1"}) is None


def test_a_later_version_goes_on_as_the_one_that_is_known() -> None:
    found = TraceContext.read({"traceparent": f"01-{TRACE}-00f067aa0ba902b7-ff-more"})
    assert found is not None
    assert found.traceparent == f"00-{TRACE}-00f067aa0ba902b7-03"


@pytest.mark.parametrize(
    "value",
    [
        7, "a", "a=", "A=1", "a=1,a=2", "a=1\n", "a=ü", "a=\x1b[31m", ",".join(f"k{i}=1" for i in range(33)),
        "a=" + "x" * MAX_TRACESTATE, {"a": "b"},
    ],
)  # fmt: skip
def test_a_state_that_is_not_valid_is_dropped_and_the_trace_goes_on(value: Any) -> None:
    assert TraceContext.read({"traceparent": PARENT, "tracestate": value}) == TraceContext(PARENT)


@pytest.mark.parametrize("value", [7, "novalue", "a=1\nb=2", "a=\x1b[0m", "a=ü", "a=" + "x" * MAX_BAGGAGE, ["a=1"]])
def test_baggage_that_is_not_valid_is_dropped(value: Any) -> None:
    assert TraceContext.read({"traceparent": PARENT, "baggage": value}) == TraceContext(PARENT)
    assert TraceContext.read({"baggage": value}) is None


def test_baggage_travels_without_a_trace_too() -> None:
    assert TraceContext.read({"baggage": "a=1"}) == TraceContext(baggage="a=1")


def test_nothing_is_carried_where_nothing_is_served() -> None:
    assert trace_variables() == {}
    assert TraceContext.read(None) is None
    assert TraceContext.read({}) is None


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c"}, False),
    ],
)
def test_the_standard_variables_decide_whether_spans_are_exported(environment: dict[str, str], wanted: bool) -> None:
    assert tracing_is_wanted(environment) is wanted
