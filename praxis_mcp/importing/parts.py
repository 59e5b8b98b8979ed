"""Parts of documents that anyone may have written: what is of another kind than it has to be counts as missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The mapping itself, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """The list itself, else an empty one."""
    return value if isinstance(value, list) else []
