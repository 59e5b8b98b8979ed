"""Numbers that JSON can write and Python cannot hold: ``1e999`` is read as an infinity, and sent on as null."""

from __future__ import annotations

import math
from typing import Any


def all_finite(value: Any) -> bool:
    """Whether every number in a value of JSON is finite. Without recursion, so that no depth is too much."""
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            todo += part.values()
        elif isinstance(part, list):
            todo += part
        elif isinstance(part, float) and not math.isfinite(part):
            return False
    return True
