"""How this copy of praxis-mcp was installed, and the command that adds a package to it.

Packages are named themselves, never as ``praxis-mcp[extra]``: that only works where an index has this very copy, and
replaces a checkout by whatever the index has.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

_EXTRA = re.compile(r"""\bextra\s*==\s*["']([^"']+)["']""")


def adding_extra(extra: str) -> str:
    """The command that installs what one of this package's extras needs."""
    return adding(*packages_of(extra))


def adding(*packages: str, prefix: Path | None = None) -> str:
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
        return f"uv tool install {options} {source}"
    if "archive-v0" in where.parts:  # of uv's cache: uvx
        return f"uvx {options} --from {source.removeprefix('--editable ')} praxis-mcp"
    if not _has_pip(where, prefix):
        return f"uv pip install --python {shlex.quote(_python(where, prefix))} {words}"
    return f"{shlex.quote(_python(where, prefix))} -m pip install {words}"


def packages_of(extra: str) -> tuple[str, ...]:
    """The requirements of one of this package's extras; of a copy without metadata, the extra's name, which is that of
    its first package."""
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
    return tuple(found) or (extra,)


def _source() -> str:
    """Where this copy came from, as uv's commands take it (PEP 610, direct_url.json)."""
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
