"""What is installed here: this copy of praxis-mcp, with the command that adds a package to it, and engines of other
packages.

Packages are named themselves, never as ``praxis-mcp[extra]``: that only works where an index has this very copy, and
replaces a checkout by whatever the index has.

Engines are found by entry point, without importing any of them. A package names its engine in its own metadata (entry
points specification, packaging.python.org)::

    [project.entry-points."praxis_mcp.engines"]
    firecracker = "praxis_firecracker:FirecrackerEngine"

The code behind it is imported when a contract (``engine: firecracker``) or the settings (``engines.order``) ask for it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

GROUP = "praxis_mcp.engines"
OWN_ENGINES = ("dagger", "docker", "http", "kubernetes", "local", "remote-mcp", "sandbox")
"""Names that no other package's engine may have."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_EXTRA = re.compile(r"""\bextra\s*==\s*["']([^"']+)["']""")


_PACKAGES = {
    "console": ("jinja2",),
    "dagger": ("dagger-io", "gql[httpx]"),
    "kubernetes": ("lightkube", "httpx2[ws]"),
    "otel": ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"),
    "postgres": ("psycopg[binary]",),
}
"""Packages of extras that are not named as their only package is: an index has strangers' packages of those names."""


def own_command() -> tuple[str, ...]:
    """The words that start this copy of praxis-mcp from anywhere, the first one absolute."""
    if "archive-v0" in Path(sys.prefix).parts:  # of uv's cache (uvx), which is emptied at times
        import shutil

        source = shlex.split(_source())[-1]
        return (shutil.which("uvx") or "uvx", "--from", source, "praxis-mcp")
    import sysconfig

    script = Path(sysconfig.get_path("scripts")) / ("praxis-mcp.exe" if os.name == "nt" else "praxis-mcp")
    return (str(script),) if script.is_file() else (sys.executable, "-m", "praxis_mcp")


def install_command_for_extra(extra: str) -> str:
    """The command that installs what one of this package's extras needs."""
    return install_command(*packages_of(extra))


def install_command(*packages: str, prefix: Path | None = None) -> str:
    """The command that installs packages where this program runs.

    Args:
        packages: requirements (PEP 508).
        prefix: of the environment; None is this process's own.
    """
    where = prefix or Path(sys.prefix)
    source = _source()
    words = shlex.join(packages)
    if (where / "pipx_metadata.json").is_file():
        # The environment's name is the package's, with a suffix where the user gave one.
        return f"pipx inject {shlex.quote(where.name)} {words}"
    options = " ".join(f"--with {shlex.quote(package)}" for package in packages)
    if (where / "uv-receipt.toml").is_file():
        extras, others = _given_to_uv(where / "uv-receipt.toml")
        options = " ".join(f"--with {shlex.quote(package)}" for package in (*others, *packages))
        if extras:
            *words_before, place = shlex.split(source)
            source = shlex.join([*words_before, f"{place}[{','.join(extras)}]"])
        return f"uv tool install {options} {source}"
    if "archive-v0" in where.parts:  # of uv's cache: uvx
        return f"uvx {options} --from {source.removeprefix('--editable ')} praxis-mcp"
    if not _has_pip(where, prefix):
        return f"uv pip install --python {shlex.quote(_python(where, prefix))} {words}"
    return f"{shlex.quote(_python(where, prefix))} -m pip install {words}"


def _given_to_uv(receipt: Path) -> tuple[list[str], list[str]]:
    """What ``uv tool install`` was given before, and would remove: extras of this package, and other packages."""
    import tomllib

    try:
        requirements = tomllib.loads(receipt.read_text(encoding="utf-8"))["tool"]["requirements"]
        extras: list[str] = []
        others: list[str] = []
        for item in requirements:
            if item["name"] == "praxis-mcp":
                extras += item.get("extras", ())
            else:
                of_it = f"[{','.join(item['extras'])}]" if item.get("extras") else ""
                place = next((item[key] for key in ("path", "directory", "editable", "url", "git") if key in item), "")
                others.append(f"{item['name']}{of_it}" + (f" @ {place}" if place else item.get("specifier", "")))
        return extras, others
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # of another version of uv
        return [], []


def packages_of(extra: str) -> tuple[str, ...]:
    """The requirements of one of this package's extras; of a copy without metadata, the names of its packages."""
    import importlib.metadata  # with email, which no start needs

    try:
        lines = importlib.metadata.requires("praxis-mcp") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    core = {_name(line) for line in lines if ";" not in line}
    found: list[str] = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        match = _EXTRA.search(marker)
        if match and match[1] == extra and _name(requirement) not in core:
            found.append(requirement.strip())
    return tuple(found) or _PACKAGES.get(extra, (extra,))


def _source() -> str:
    """Where this copy came from, as uv's commands take it (PEP 610, direct_url.json)."""
    import importlib.metadata

    try:
        text = importlib.metadata.distribution("praxis-mcp").read_text("direct_url.json")
        about = json.loads(text) if text else {}
        url = str(about["url"]) if about else ""
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return "praxis-mcp"
    if not url:
        return "praxis-mcp"
    if url.startswith("file:"):
        from urllib.request import url2pathname  # with http.client, for which no server should wait at its start

        path = shlex.quote(url2pathname(urlsplit(url).path))
        return f"--editable {path}" if about.get("dir_info", {}).get("editable") else path
    version = about.get("vcs_info")
    return shlex.quote(f"{version['vcs']}+{url}@{version['commit_id']}" if version else url)


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0].lower()


def _python(where: Path, prefix: Path | None) -> str:
    if prefix is None:
        return sys.executable
    return str(where / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def _has_pip(where: Path, prefix: Path | None) -> bool:
    if prefix is None:
        return importlib.util.find_spec("pip") is not None
    return any(where.glob("lib/python3*/site-packages/pip")) or (where / "Lib" / "site-packages" / "pip").is_dir()


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
