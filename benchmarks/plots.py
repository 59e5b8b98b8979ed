"""Plots and tables of a run's results: ``python -m benchmarks.plots RESULTS.json docs``; SVG, written by hand, and a
page of Markdown."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LABEL, BAR, GAP, TOP = 820, 220, 16, 8, 46
OURS, BARE = "#2563eb", "#9ca3af"
PAGE, PLOTS = "benchmarks.md", "performance"


@dataclass(frozen=True)
class Bar:
    """A name, its value, a second value up to which a thin line goes (0 for none), and its colour."""

    name: str
    value: float
    reach: float = 0.0
    colour: str = OURS


def bars(title: str, unit: str, rows: Sequence[Bar], *, logarithmic: bool) -> str:
    """A chart of horizontal bars as SVG."""
    most = max(max(row.value, row.reach) for row in rows)
    least = 10 ** math.floor(math.log10(min(row.value for row in rows if row.value > 0))) if logarithmic else 0.0
    space = WIDTH - LABEL - 90

    def x(value: float) -> float:
        if not logarithmic:
            return LABEL + space * value / most
        return LABEL + space * max(0.0, math.log10(max(value, least) / least)) / math.log10(most / least)

    height = TOP + len(rows) * (BAR + GAP) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for tick in _ticks(least, most, logarithmic=logarithmic):
        parts.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP - 6}" y2="{height - 22}" stroke="#e5e7eb"/>'
        )
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle" fill="#6b7280">{tick:g}</text>')
    parts.append(f'<text x="{WIDTH - 12}" y="22" text-anchor="end" fill="#6b7280">{escape(unit)}</text>')
    for number, row in enumerate(rows):
        y = TOP + number * (BAR + GAP)
        end = max(x(row.value), x(row.reach))
        parts.append(f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(row.name)}</text>')
        parts.append(
            f'<rect x="{LABEL}" y="{y}" width="{max(1.0, x(row.value) - LABEL):.1f}" height="{BAR}" '
            f'fill="{row.colour}"/>'
        )
        if row.reach > row.value:
            middle = y + BAR / 2
            parts.append(
                f'<line x1="{x(row.value):.1f}" x2="{x(row.reach):.1f}" y1="{middle}" y2="{middle}" '
                f'stroke="{row.colour}" stroke-width="2"/>'
            )
        parts.append(f'<text x="{end + 6:.1f}" y="{y + 12}" fill="#374151">{row.value:.3g}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _ticks(least: float, most: float, *, logarithmic: bool) -> list[float]:
    if logarithmic:
        return [10.0**power for power in range(round(math.log10(least)), math.floor(math.log10(most)) + 1)]
    step = 10 ** math.floor(math.log10(most)) / 2
    return [step * number for number in range(int(most / step) + 1)]


def latency(report: dict[str, Any]) -> str:
    """Medians, with a line up to the ninetieth percentile; grey is bare."""
    bare = {"bare subprocess", "raw bwrap over the image", "docker run", "Docker API, the minimum"}
    rows = [
        Bar(row["name"], row["p50_ms"], row["p90_ms"], BARE if row["name"] in bare else OURS) for row in report["rows"]
    ]
    return bars(report["title"], "ms, p50 and p90, logarithmic", rows, logarithmic=True)


def throughput(report: dict[str, Any], column: int) -> str:
    """Calls a second of one column; grey is bare."""
    bare = ("bare", "raw", "docker run", "Docker API")
    rows = [
        Bar(row["name"], row["values"][column], colour=BARE if row["name"].startswith(bare) else OURS)
        for row in report["rows"]
    ]
    title = f"{report['title']}: {report['columns'][column]}"
    return bars(title, "calls a second, logarithmic", rows, logarithmic=True)


def memory(report: dict[str, Any]) -> str:
    """How far memory rose."""
    rows = [Bar(row["name"], row["values"][1]) for row in report["rows"] if "idle" not in row["name"]]
    return bars(
        f"{report['title']}: rise", "MiB (bar: 32)", [*rows, Bar("the bar", 32, colour=BARE)], logarithmic=False
    )


def page(results: dict[str, Any], plots: Mapping[str, str]) -> str:
    """All tables as a page, each with its plot.

    Args:
        results: what ``--json`` has written.
        plots: names of files by the titles of what they show.
    """
    machine = results["machine"]
    load = " / ".join(f"{value:g}" for value in machine["load_before"])
    parts = [
        "# Results of the benchmarks",
        f"{machine['date'][:10]}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_mib'] // 1024} GiB, "
        f"{machine['platform']}, Python {machine['python']}, mcp {machine['mcp']}; load before: {load}. Written by "
        "`python -m benchmarks.plots` from `performance/results.json`; how to read it is in "
        "[performance.md](performance.md#read-it).",
    ]
    for report in results["reports"]:
        title = report["title"]
        parts += [f"## {title}", "\n".join(_table(report))]
        if report["note"]:
            parts.append(report["note"])
        if title in plots:
            parts.append(f"![{title}]({plots[title]})")
    return "\n\n".join(parts) + "\n"


def _table(report: dict[str, Any]) -> list[str]:
    if "columns" in report:
        columns = report["columns"]
        lines = [f"| | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
        return lines + [f"| {row['name']} | {' | '.join(map(_number, row['values']))} |" for row in report["rows"]]
    lines = ["| | p50 ms | p90 ms | p99 ms | ratio | against |", "|---|--:|--:|--:|--:|---|"]
    for row in report["rows"]:
        times = " | ".join(_number(row[f"p{part}_ms"]) for part in (50, 90, 99))
        ratio = f"{row['ratio']:.2f} x" if "ratio" in row else ""
        lines.append(f"| {row['name']} | {times} | {ratio} | {row.get('against', '')} |")
    return lines


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def main() -> None:
    """Write the plots and the page of a results file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("results", type=Path, help="what --json has written")
    parser.add_argument("directory", type=Path, help="the directory of the page; the plots go below it")
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    reports = {report["title"]: report for report in results["reports"]}
    plots: dict[str, str] = {}
    (options.directory / PLOTS).mkdir(parents=True, exist_ok=True)
    for title, report in reports.items():
        name = "".join(letter if letter.isalnum() else "-" for letter in title.lower()).strip("-")
        if title.endswith("until the end") or title.startswith(("echo hi, paced", "echo hi, a burst")):
            drawn = latency(report)
        elif title.endswith("throughput by concurrency"):
            drawn = throughput(report, 1)
        elif title.startswith("Memory of a server"):
            drawn = memory(report)
        else:
            continue
        while "--" in name:
            name = name.replace("--", "-")
        plots[title] = f"{PLOTS}/{name}.svg"
        (options.directory / plots[title]).write_text(drawn, encoding="utf-8")
    (options.directory / PAGE).write_text(page(results, plots), encoding="utf-8")
    print(f"{options.directory}: {PAGE}, {len(plots)} plots")


if __name__ == "__main__":
    main()
