"""Engines that other packages bring, by entry point, found without importing any of them.

A package names its engine in its own metadata (entry points specification, packaging.python.org)::

    [project.entry-points."praxis_mcp.engines"]
    firecracker = "praxis_firecracker:FirecrackerEngine"

The code behind it is imported when a contract (``engine: firecracker``) or the settings (``engines.order``) ask for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

GROUP = "praxis_mcp.engines"
OWN_ENGINES = ("dagger", "docker", "local", "remote-mcp", "sandbox")
"""Names that no other package's engine may have."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class EnginePlugin:
    """One engine of another package.

    Attributes:
        name: what contracts and settings call it.
        target: ``module:Class``.
        package: the package that brings it, and its version.
        problem: why it cannot be used, a sentence; empty where nothing is known to be wrong.
    """

    name: str
    target: str
    package: str
    problem: str = ""


@cache
def all_plugins() -> tuple[EnginePlugin, ...]:
    """What the packages of this environment name, those that are refused too, sorted by name."""
    from importlib.metadata import entry_points

    found: dict[tuple[str, str, str], Any] = {}
    for point in entry_points(group=GROUP):
        package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
        found[point.name, point.value, package] = point  # a directory may stand on sys.path twice
    counts: dict[str, int] = {}
    for name, _, _ in found:
        counts[name] = counts.get(name, 0) + 1
    return tuple(
        EnginePlugin(name, target, package, _problem(name, counts[name])) for name, target, package in sorted(found)
    )


def usable_plugins() -> Mapping[str, EnginePlugin]:
    """Those that may be loaded, by name."""
    return {plugin.name: plugin for plugin in all_plugins() if not plugin.problem}


def _problem(name: str, times: int) -> str:
    if name in OWN_ENGINES:
        return f"It has the name of an engine of praxis-mcp, {name}, which is used instead."
    if not _NAME.fullmatch(name):
        return "An engine's name begins with a-z and has up to 32 characters out of a-z 0-9 and -."
    if times > 1:
        return f"There are {times} engines of the name {name}, so none of them is used."
    return ""
