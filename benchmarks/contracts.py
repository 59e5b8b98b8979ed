"""Contracts to measure with."""

from __future__ import annotations

from pathlib import Path

NOOP = """\
name: {name}
description: Do nothing (tool {number} of a benchmark).
engine: local
command: ["/bin/true"]
timeout: 30
network: {network}
parameters:
  text: {{type: string, description: Some text., default: ""}}
  count: {{type: integer, description: How often., default: 1, minimum: 1, maximum: 10}}
"""


def write_noops(directory: Path, count: int, network: str = "none") -> Path:
    """A directory of `count` tools that do nothing: ``noop``, ``noop_1``, …"""
    for number in range(count):
        name = f"noop_{number}" if number else "noop"
        place = directory / name
        place.mkdir(parents=True)
        (place / "contract.yaml").write_text(NOOP.format(name=name, number=number, network=network), encoding="utf-8")
    return directory
