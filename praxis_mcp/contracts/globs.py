"""Globs of artifacts."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def compile_glob(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression: ``*`` and ``?`` stay within one directory, ``**`` spans any number of them.

    Raises:
        ValueError: a range between brackets runs backwards.
    """
    pieces: list[str] = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", glob):
        match part:
            case "**/":
                pieces.append("(?:[^/]+/)*")
            case "**":
                pieces.append(".*")
            case "*":
                pieces.append("[^/]*")
            case "?":
                pieces.append("[^/]")
            case _ if part.startswith("[") and part.endswith("]"):
                inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
                pieces.append(f"[^/{inside[1:]}]" if inside.startswith("!") else f"[{inside}]")
            case _:
                pieces.append(re.escape(part))
    try:
        return re.compile("".join(pieces), re.DOTALL)
    except re.error as exc:
        raise ValueError(f'"{glob}" is no pattern: {exc.msg}') from exc
