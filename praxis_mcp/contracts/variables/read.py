"""Environment names that a contract's own programs read for themselves.

A parameter ``seconds`` is set as ``SECONDS`` too, which counts seconds in bash. The names and where they are documented
stand in ``read.txt``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_PROGRAM = re.compile(r"[A-Za-z0-9_+-]+")


def programs_in(texts: Iterable[str]) -> frozenset[str]:
    """Which programs of the list are named in the words of a command, be it inside a shell's text, or an image."""
    known = _names()
    return frozenset(word for text in texts for word in _PROGRAM.findall(text) if word in known)


def reader_of(name: str, programs: Iterable[str]) -> str | None:
    """The first of these programs, by name, that reads a variable; None where none does."""
    known = _names()
    return next((program for program in sorted(programs) if name in known[program]), None)


@functools.cache
def _names() -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for line in Path(__file__).with_name("read.txt").read_text(encoding="utf-8").splitlines():
        programs, colon, names = line.partition(" : ")
        if colon and not line.startswith("#"):
            for program in programs.split():
                found[program] = found.get(program, frozenset()) | frozenset(names.split())
    return found
