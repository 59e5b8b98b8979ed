"""``/metrics`` in Prometheus's text format (exposition format 0.0.4).

Written by hand: the numbers exist already where they are counted, and a client library would keep them a second time
in a registry of the whole process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from praxis_mcp.engines.warm.counts import PoolMetrics
from praxis_mcp.execution.tally import BUCKETS, Histogram
from praxis_mcp.execution.toolbox import Toolbox

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]


def render(toolbox: Toolbox, connections: Mapping[str, int], version: str) -> str:
    """Everything there is to measure.

    Args:
        toolbox: what is served.
        connections: open sessions and streams, by kind.
        version: of this server.
    """
    runner = toolbox.runner
    tally = runner.tally
    calls = [
        ({"tool": tool, "engine": engine, "outcome": outcome}, count)
        for (tool, engine, outcome), count in sorted(tally.ended.items())
    ]
    spilled = [
        ({"tool": tool, "engine": engine, "instead_of": first}, count)
        for (tool, engine, first), count in sorted(tally.spilled.items())
    ]
    upstreams = toolbox.upstreams.reports()
    lines = [
        *_family("praxis_info", "gauge", "Version of the server.", [({"version": version}, 1)]),
        *_family("praxis_tools", "gauge", "Tools in the catalog.", [({}, len(toolbox.catalog.entries()))]),
        *_family("praxis_calls_total", "counter", "Calls that have ended, by outcome.", calls),
        *_family("praxis_calls_spilled_total", "counter", "Calls that ran on another engine than the first.", spilled),
        *_histograms(
            "praxis_call_duration_seconds",
            "Seconds that calls took, waiting included, by engine.",
            [({"engine": engine}, durations) for engine, durations in sorted(tally.durations.items())],
        ),
        *_histograms(
            "praxis_call_phase_seconds",
            "Seconds that calls spent in each of their phases.",
            [
                ({"engine": engine, "phase": phase}, durations)
                for (engine, phase), durations in sorted(tally.phase_durations.items())
            ],
        ),
        *_family("praxis_calls_running", "gauge", "Calls that run.", [({}, runner.admission.running)]),
        *_family("praxis_calls_waiting", "gauge", "Calls that wait for a place.", [({}, runner.admission.waiting)]),
        *_family(
            "praxis_caller_limits_shared",
            "gauge",
            "Whether limits per caller hold for all servers of the store together.",
            [({}, int(not shared.is_away))] if (shared := runner.callers.shared) is not None else [],
        ),
        *_warm(toolbox.engines.warm()),
        *_family(
            "praxis_connections",
            "gauge",
            "Open sessions and streams of clients.",
            [({"kind": kind}, count) for kind, count in connections.items()],
        ),
        *_family(
            "praxis_upstream_up",
            "gauge",
            "Whether an upstream is connected.",
            [({"upstream": report.name}, int(bool(report.version))) for report in upstreams],
        ),
        *_family(
            "praxis_upstream_tools",
            "gauge",
            "Tools that are served of an upstream.",
            [({"upstream": report.name}, len(report.tools)) for report in upstreams],
        ),
    ]
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{_labels(labels)} {value}"


def _warm(pools: Mapping[str, PoolMetrics]) -> Iterator[str]:
    def samples(value: Callable[[PoolMetrics], float], **labels: str) -> list[Sample]:
        return [({"engine": engine, **labels}, value(pool)) for engine, pool in pools.items()]

    yield from _family(
        "praxis_warm_calls_total",
        "counter",
        "Calls that could meet what was started ahead of them, by whether it waited for them.",
        samples(lambda pool: pool.hits, met="yes") + samples(lambda pool: pool.misses, met="no"),
    )
    yield from _family("praxis_warm_waiting", "gauge", "How many wait for a call.", samples(lambda pool: pool.waiting))
    yield from _family(
        "praxis_warm_started_total",
        "counter",
        "Starts ahead of a call, by whether they succeeded.",
        samples(lambda pool: pool.made, outcome="ok") + samples(lambda pool: pool.failed, outcome="failed"),
    )
    yield from _family(
        "praxis_warm_discarded_total", "counter", "Removed without a call.", samples(lambda pool: pool.discarded)
    )
    yield from _family(
        "praxis_warm_start_seconds",
        "gauge",
        "Seconds that a start takes, over the last few.",
        samples(lambda pool: pool.fill_seconds),
    )


def _histograms(name: str, about: str, samples: Iterable[tuple[Mapping[str, str], Histogram]]) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} histogram"
    bounds = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
    for labels, histogram in samples:
        for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
            yield f"{name}_bucket{_labels({**labels, 'le': bound})} {count}"
        yield f"{name}_sum{_labels(labels)} {histogram.total:.6f}"
        yield f"{name}_count{_labels(labels)} {sum(histogram.counts)}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
