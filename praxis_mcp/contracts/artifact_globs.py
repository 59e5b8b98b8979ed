"""Globs of artifacts: the files that a call leaves behind as results."""

from __future__ import annotations

import re
from functools import lru_cache

from praxis_mcp.contracts.problems import quoted


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
        raise ValueError(f'"{glob}" is not a valid pattern: {exc.msg}') from exc


def check_artifact_patterns(patterns: tuple[str, ...]) -> None:
    """Check that each pattern can be used, and that all lie in one directory.

    Raises:
        ValueError: they do not.
    """
    for pattern in patterns:
        if not pattern.startswith("/") or ".." in pattern.split("/"):
            raise ValueError(f'"{pattern}" is not an artifact pattern; write an absolute one, such as /out/*.png')
        compile_glob(pattern)
    root = artifact_directory(patterns)
    if root == "/":
        raise ValueError("artifacts need a directory of their own, such as /out/*.png")
    for pattern in patterns:
        if root is not None and not _fixed_part(pattern).startswith(root + "/"):
            raise ValueError(
                f"artifacts lie in one directory, but {quoted(pattern)} is not below {root}; put all of them "
                f"below one, as {root}/*.png, {root}/sub/*.txt and {root}/** are"
            )


def artifact_directory(patterns: tuple[str, ...]) -> str | None:
    """The directory that is fresh and writable in every call: the one before the first wildcard of the patterns, which
    holds those of the others: ``/out/*.png`` and ``/out/sub/**/*.txt`` give ``/out``. None without patterns."""
    return min((_fixed_part(pattern).rpartition("/")[0] or "/" for pattern in patterns), key=len, default=None)


def _fixed_part(pattern: str) -> str:
    """The directories before the first wildcard of a pattern, and a slash."""
    parts = pattern.split("/")[1:]
    fixed: list[str] = []
    for part in parts[:-1]:
        if any(character in part for character in "*?["):
            break
        fixed.append(part)
    return "".join(f"/{part}" for part in fixed) + "/"
