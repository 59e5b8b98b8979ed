"""Regular expressions in schemas, matched in time that grows with the text and no faster.

Python's own engine backtracks: ``^(a+)+$`` against thirty letters takes minutes, during which it holds the interpreter
and with it the whole server. Rust's engine, which pydantic-core brings, cannot backtrack. It has neither look-arounds
nor back-references; patterns with those are refused when a contract is loaded.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from praxis_mcp.contracts.findings import Keys
from praxis_mcp.contracts.problems import quoted
from praxis_mcp.contracts.vocabulary import schemas_inside

MOST_STEPS = 50_000_000
"""Size of a pattern, repetitions written out, times the characters of a text that it may be matched against: some
seconds for the worst of patterns, and next to nothing for ordinary ones."""

_TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\(|\)|\{\d*(?:,\d*)?\}|[\s\S]")
_COUNTED = re.compile(r"\{(\d+)(?:,(\d*))?\}")
# Set operations in Rust's classes, plain characters in everybody else's.
_SET_OPERATION = re.compile(r"\[(?:\\.|[^\]\\])*?(&&|--|~~)")


class TooLong(Exception):
    """A text is too long for a pattern to be matched against it in time."""


class UnusablePattern(ValueError):
    """A pattern cannot be used; the text says why, as the end of a sentence."""


class MalformedPattern(UnusablePattern):
    """It is no regular expression, as far as can be told; others, as look-aheads, are unusable here only."""


@functools.lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a text holds a match anywhere, as JSON Schema's ``pattern`` asks (2020-12, validation, 6.3.3).

    The result raises `TooLong`.

    Raises:
        UnusablePattern: it is malformed (`MalformedPattern`), too large, or needs backtracking.
    """
    from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

    operation = _SET_OPERATION.search(pattern)
    if operation is not None:
        raise UnusablePattern(f"has {operation[1]} between brackets, which stands for an operation on sets there")
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except (SchemaError, UnicodeEncodeError) as exc:
        raise _unusable(str(exc)) from exc
    longest = MOST_STEPS // _size(pattern)

    def matches(text: str) -> bool:
        if len(text) > longest:
            raise TooLong
        try:
            validator.validate_python(text)
        except ValidationError:
            return False
        return True

    return matches


def unusable_patterns(schema: Any) -> Iterator[tuple[Keys, str]]:
    """Place of every pattern in a schema, and in the schemas inside it, that cannot be used, and a sentence that says
    why, without its full stop."""
    for keys, part in schemas_inside(schema):
        by_name = part.get("patternProperties")
        found: list[tuple[Keys, Any]] = [((*keys, "pattern"), part.get("pattern"))]
        found += [((*keys, "patternProperties", name), name) for name in by_name or ()]
        for place, pattern in found:
            try:
                if isinstance(pattern, str):
                    compile_pattern(pattern)
            except UnusablePattern as exc:
                yield place, f"The pattern {quoted(pattern)} {exc}"
        if by_name and "unevaluatedProperties" in part:
            # jsonschema itself would match these, by backtracking.
            yield (*keys, "unevaluatedProperties"), "unevaluatedProperties cannot stand beside patternProperties"


def _unusable(text: str) -> UnusablePattern:
    if "look-around" in text:
        return UnusablePattern("has a look-ahead or look-behind, which is not supported")
    if "backreference" in text:
        return UnusablePattern("has a back-reference, which is not supported")
    if "size limit" in text:
        return UnusablePattern("becomes too large, because of its repetitions")
    _, found, detail = text.rpartition("error: ")
    return MalformedPattern(f"is no regular expression: {detail.strip()}" if found else "is no regular expression")


def _size(pattern: str) -> int:
    """Roughly how many elements the pattern has once its repetitions are written out."""
    groups: list[int] = []
    size = last = 0
    for token in _TOKEN.findall(pattern):
        counted = _COUNTED.fullmatch(token)
        if counted is not None:
            times = max(int(counted[1]), int(counted[2] or 0), 1)
            size += last * (times - 1)
            last *= times
        elif token == "(":  # noqa: S105 - of a pattern
            groups.append(size)
            last = 0
        elif token == ")":  # noqa: S105
            last = size - groups.pop() if groups else 0
        else:
            last = 1
            size += 1
    return max(size, 1)
