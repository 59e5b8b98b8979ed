"""Numbers that JSON can write and Python cannot hold: ``1e999`` is read as an infinity, and sent on as null."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

T = TypeVar("T")
NOT_FINITE = "holds a number that JSON cannot carry, such as 1e999 or NaN"


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


def finite(value: T) -> T:
    """A value of JSON in which numbers that are not finite are text, as ``Infinity``; the same object where there are
    none. For what only describes: where a number means something, refuse what is not `all_finite`."""
    return value if all_finite(value) else _spelled(value)


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spelled(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_spelled(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value
