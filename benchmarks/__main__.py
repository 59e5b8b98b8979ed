"""``python -m benchmarks [NAME]… [--rounds N] [--json FILE]``."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

import anyio

from benchmarks.measure import Report, Table, save

NAMES = {
    "startup": 5,
    "calls": 60,
    "http": 5,
    "proxy": 100,
    "dagger": 30,
    "docker": 8,
    "kubernetes": 15,
    "sandbox": 20,
    "spill": 3,
    "throughput": 5,
    "engines": 4,
    "memory": 1,
    "records": 40,
    "console": 15,
}
"""Benchmarks, and the rounds that each takes by default."""


def main() -> None:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=f"any of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, help="rounds of each (default: enough for a steady median)")
    parser.add_argument("--json", type=Path, help="write all results to this file as well")
    options = parser.parse_args()
    load = os.getloadavg()
    reports: list[Report | Table] = []
    for name in options.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        for report in anyio.run(module.measure, options.rounds or NAMES[name]):
            report.show()
            reports.append(report)
    if options.json:
        save(reports, options.json, load)


if __name__ == "__main__":
    main()
