"""jsonschema's keywords, those replaced that could keep the server busy for minutes, and all of them under a clock.

Values come from strangers, and short ones are checked on the event loop.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from praxis_mcp.contracts.schemas.patterns import TooLong, compile_pattern

MOST_SECONDS = 2.0
"""Seconds of the processor's time that one check may take. A value of a megabyte takes less than one; a schema whose
alternatives refer to themselves doubles its time with each level of the value."""

_Errors = Iterator[ValidationError]
_Keyword = Callable[[Any, Any, Any, Any], _Errors]


class _Clock:
    __slots__ = ("ends", "steps")

    def __init__(self) -> None:
        self.ends = time.thread_time() + MOST_SECONDS
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        # Asking the system takes as long as checking a keyword does.
        if not self.steps % 64 and time.thread_time() > self.ends:
            raise TookTooLong


_clock: ContextVar[_Clock | None] = ContextVar("_clock", default=None)


class TookTooLong(Exception):
    """A check was broken off."""


@contextmanager
def bounded() -> Iterator[None]:
    """Breaks a check off when it has taken `MOST_SECONDS`.

    Raises:
        TookTooLong: it has.
    """
    token = _clock.set(_Clock())
    try:
        yield
    except TooLong as exc:
        raise TookTooLong from exc
    finally:
        _clock.reset(token)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> _Errors:
    if validator.is_type(instance, "string") and not compile_pattern(pattern)(instance):
        yield ValidationError(f"does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> _Errors:
    if not validator.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        matches = compile_pattern(pattern)
        for key, value in instance.items():
            if matches(key):
                yield from validator.descend(value, subschema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, wanted: Any, instance: Any, schema: Any) -> _Errors:
    if not validator.is_type(instance, "object"):
        return
    known = schema.get("properties", {})
    patterns = [compile_pattern(pattern) for pattern in schema.get("patternProperties", {})]
    extras = [key for key in instance if key not in known and not any(matches(key) for matches in patterns)]
    if wanted is False and extras:
        yield ValidationError("Additional properties are not allowed")
    elif wanted is not False:
        for extra in extras:
            yield from validator.descend(instance[extra], wanted, path=extra)


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> _Errors:
    # jsonschema compares each item with each other one: half an hour for a megabyte of objects.
    if wanted and validator.is_type(instance, "array") and len({_identity(item) for item in instance}) < len(instance):
        yield ValidationError("has non-unique elements")


def _identity(value: Any) -> Hashable:
    """Equal for values that JSON Schema calls equal: ``1`` and ``1.0``, but not ``1`` and ``true``."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list):
        return (list, tuple(_identity(item) for item in value))
    if isinstance(value, dict):
        return (dict, frozenset((key, _identity(item)) for key, item in value.items()))
    # Numbers as text, whose hashes nobody can foresee: numbers can be chosen so that all of them have the same.
    if isinstance(value, float) and not value.is_integer():
        return (float, value.hex())
    if isinstance(value, int | float):
        return (int, hex(int(value)))
    return value


def _timed(keyword: _Keyword) -> _Keyword:
    @functools.wraps(keyword)
    def timed(validator: Any, wanted: Any, instance: Any, schema: Any) -> _Errors:
        if (clock := _clock.get()) is not None:
            clock.step()
        yield from keyword(validator, wanted, instance, schema) or ()

    return timed


_KEYWORDS: dict[str, Any] = {
    **Draft202012Validator.VALIDATORS,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}

BoundedValidator: Any = extend(
    Draft202012Validator, validators={name: _timed(keyword) for name, keyword in _KEYWORDS.items()}
)
"""A validator of the 2020-12 dialect whose checks `bounded` bounds."""
