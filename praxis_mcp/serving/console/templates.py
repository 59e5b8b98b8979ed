"""The console's pages: the one module that knows Jinja2, which is an optional extra and imported with it.

Everything that a page shows is escaped (autoescape), and made visible first: controls, bidirectional marks and the like
are shown by number (`praxis_mcp.support.text`).
"""

from __future__ import annotations

import hashlib
import importlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from praxis_mcp.errors import SettingsError
from praxis_mcp.execution.records.row import iso_time
from praxis_mcp.serving.console.text import json_text
from praxis_mcp.support.installation import install_command_for_extra
from praxis_mcp.support.text import counted, printable, size_in_words, visible

HERE = Path(__file__).parent
STATIC = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""Files that pages load, and their types."""
JSON_SHOWN = 8 * 1024 * 1024
"""Characters of a value that are shown as JSON."""


class Pages:
    """Makes pages.

    Args:
        shared: what every page knows.

    Raises:
        SettingsError: Jinja2 is not installed.
    """

    def __init__(self, **shared: Any) -> None:
        try:
            jinja2 = importlib.import_module("jinja2")
        except ImportError as exc:
            raise SettingsError(
                "The console needs Jinja2, which is not installed.",
                remedy=f"Install it: {install_command_for_extra('console')}",
            ) from exc
        markup = importlib.import_module("markupsafe").Markup

        def shown(value: Any) -> Any:
            if value is None:
                return ""
            return visible(value) if isinstance(value, str) and not isinstance(value, markup) else value

        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=shown,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {
            "size": size,
            "seconds": seconds,
            "time": utc,
            "iso": iso_time,
            "line": printable,
            "counted": counted,
            "pretty": pretty,
        }
        self._environment.globals |= {**shared, "static": {name: digest(name)[:16] for name in STATIC}}

    def render(self, name: str, **values: Any) -> str:
        """A page."""
        return self._environment.get_template(name).render(**values)


def read_static(name: str) -> bytes:
    """The content of one of `STATIC`."""
    return (HERE / "static" / name).read_bytes()


@cache
def digest(name: str) -> str:
    """SHA-256 of such a file, by which browsers know a new one."""
    return hashlib.sha256(read_static(name)).hexdigest()


def size(number: float | None) -> str:
    """A number of bytes for people."""
    return size_in_words(int(number)) if number is not None else ""


def seconds(number: float | None) -> str:
    """A duration for people."""
    if number is None:
        return ""
    if number < 1:
        return f"{number * 1000:.3g} ms"
    if number < 120:
        return f"{number:.3g} s"
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def utc(moment: float) -> str:
    """Seconds since 1970 for people."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def pretty(value: Any) -> str:
    """A value as JSON for people; what a model reads is bounded elsewhere, and far shorter than `JSON_SHOWN`."""
    text, is_cut = json_text(value, JSON_SHOWN)
    return f"{text}…" if is_cut else text
