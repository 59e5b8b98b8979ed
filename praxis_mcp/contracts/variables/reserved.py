"""Environment names that no argument may set.

An argument that sets one of these would steer the loader, a shell, an interpreter or a well-known program before the
tool's first line runs: ``TAR_OPTIONS`` can hold a command. The names and where they are documented stand in
``reserved.txt``.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

_VERSION = re.compile(r"(_\d+)+$", re.ASCII)


class _Names(NamedTuple):
    exact: frozenset[str]
    families: tuple[str, ...]
    exact_in_any_case: frozenset[str]
    families_in_any_case: tuple[str, ...]


def is_reserved(name: str) -> bool:
    """Whether an argument is kept from setting this variable."""
    names = _names()
    plain = _VERSION.sub("", name.partition("=")[0])
    return (
        plain in names.exact
        or plain.startswith(names.families)
        or plain.upper() in names.exact_in_any_case
        or plain.upper().startswith(names.families_in_any_case)
    )


@functools.cache
def _names() -> _Names:
    text = Path(__file__).with_name("reserved.txt").read_text(encoding="utf-8")
    words = [word for line in text.splitlines() if not line.startswith("#") for word in line.split()]
    any_case = [word.removesuffix("~") for word in words if word.endswith("~")]
    written = [word for word in words if not word.endswith("~")]
    return _Names(
        frozenset(word for word in written if not word.endswith("*")),
        tuple(word[:-1] for word in written if word.endswith("*")),
        frozenset(word for word in any_case if not word.endswith("*")),
        tuple(word[:-1] for word in any_case if word.endswith("*")),
    )
