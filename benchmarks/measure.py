"""Timings, and how they are summed up: percentiles, and ratios of medians taken alternately."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

Work = Callable[[], Awaitable[float]]
"""Does the work once and gives the seconds it took."""


@dataclass(slots=True)
class Row:
    """One way of doing something: its name, the seconds each round took, the row it is compared with."""

    name: str
    seconds: list[float] = field(default_factory=list)
    against: str | None = None

    def percentile(self, part: int) -> float:
        """Seconds that `part` per cent of the rounds stayed below."""
        if len(self.seconds) < 2:
            return self.seconds[0]
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[part - 1]


@dataclass(slots=True)
class Report:
    """A table of rows under a title, with a note on how to read it."""

    title: str
    rows: list[Row]
    note: str = ""

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def ratio(self, row: Row) -> float | None:
        """Median of a row over the median of the row it is compared with."""
        return row.percentile(50) / self.row(row.against).percentile(50) if row.against else None

    def as_json(self) -> dict[str, Any]:
        """Everything, in milliseconds."""
        rows = []
        for row in self.rows:
            facts: dict[str, Any] = {"name": row.name, "rounds": len(row.seconds)}
            facts |= {f"p{part}_ms": round(row.percentile(part) * 1000, 3) for part in (50, 90, 99)}
            if row.against:
                facts |= {
                    "against": row.against,
                    "ratio": round(self.ratio(row) or 0, 3),
                    "over_ms": round((row.percentile(50) - self.row(row.against).percentile(50)) * 1000, 3),
                }
            rows.append(facts)
        return {"title": self.title, "note": self.note, "rows": rows}

    def show(self) -> None:
        """Print the table."""
        from rich.table import Table

        table = Table(title=self.title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        for name in ("p50 ms", "p90 ms", "p99 ms", "ratio", "over, ms"):
            table.add_column(name, justify="right")
        table.add_column("against")
        for facts in self.as_json()["rows"]:
            compared = "ratio" in facts
            table.add_row(
                facts["name"],
                *(f"{facts[f'p{part}_ms']:.2f}" for part in (50, 90, 99)),
                f"{facts['ratio']:.2f} x" if compared else "",
                f"{facts['over_ms']:+.2f}" if compared else "",
                facts.get("against", ""),
            )
        console = _console()
        console.print(table)
        if self.note:
            console.print(self.note, style="dim")
        console.print()


@dataclass(slots=True)
class Table:
    """Numbers under a title other than timings: the columns' names, then each row's name and numbers."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[float]]]
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        rows = [{"name": name, "values": [round(value, 3) for value in values]} for name, values in self.rows]
        return {"title": self.title, "note": self.note, "columns": self.columns, "rows": rows}

    def show(self) -> None:
        """Print the table."""
        from rich.table import Table as Printed

        table = Printed(title=self.title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        for name in self.columns:
            table.add_column(name, justify="right")
        for name, values in self.rows:
            table.add_row(name, *(f"{value:.1f}" for value in values))
        console = _console()
        console.print(table)
        if self.note:
            console.print(self.note, style="dim")


async def in_turns(works: Mapping[str, Work], rounds: int, *, against: Mapping[str, str]) -> list[Row]:
    """Rows of `rounds` timings each, taken alternately so that a machine's moods fall on all alike; the first round,
    which warms caches, does not count."""
    rows = {name: Row(name, against=against.get(name)) for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            with anyio.fail_after(120):
                seconds = await work()
            if number:
                rows[name].seconds.append(seconds)
    return list(rows.values())


def machine(load: tuple[float, ...]) -> dict[str, Any]:
    """What the numbers were taken on."""
    import os
    from datetime import UTC, datetime
    from importlib.metadata import version

    model = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "load_before": [round(value, 1) for value in load],
        "load_after": [round(value, 1) for value in os.getloadavg()],
        "cpu": model[0].partition(": ")[2] if model else platform.processor(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "mcp": version("mcp"),
        "praxis_mcp": version("praxis-mcp"),
    }


def _console() -> Any:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=130)


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def save(reports: Sequence[Report | Table], file: Path | None, load: tuple[float, ...]) -> None:
    """Write all reports as JSON, to a file or standard output; `load` is the machine's before the run."""
    text = json.dumps({"machine": machine(load), "reports": [report.as_json() for report in reports]}, indent=1)
    if file is None:
        sys.stdout.write(text + "\n")
    else:
        file.write_text(text + "\n", encoding="utf-8")
