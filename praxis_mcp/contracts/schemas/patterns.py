"""Regular expressions in schemas, matched in time that grows with the text and no faster.

Python's own engine backtracks: ``^(a+)+$`` against thirty letters takes minutes, during which it holds the interpreter
and with it the whole server. Rust's engine, which pydantic-core brings, cannot backtrack. It has neither look-arounds
nor back-references; patterns with those are refused when a contract is loaded.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from praxis_mcp.contracts.problems import quoted
from praxis_mcp.contracts.vocabulary import schemas_inside
from praxis_mcp.diagnostics import Keys

MOST_STEPS = 50_000_000
"""Size of a pattern, repetitions written out, times the characters of a text that it may be matched against: some
seconds for the worst of patterns, and next to nothing for ordinary ones."""
LONGEST_PATTERN = 64 * 1024
"""Characters of a pattern."""
PATTERN_BYTES = 10 * 1024 * 1024
"""Estimated bytes of one compiled pattern: some 150 times ``\\w``, whose Unicode tables are the largest."""
TEXT_BYTES = 256 * 1024
"""Estimated bytes of a text that a caller sends for a regular expression; it takes some 2 ms to compile."""
SCHEMA_BYTES = 32 * 1024 * 1024
"""Estimated bytes of all patterns of one schema; they take some 200 ms to compile."""
CACHE_BYTES = 128 * 1024 * 1024
"""Estimated bytes of the compiled patterns that are kept, of all contracts and upstreams."""

_ESCAPE = r"\\[pP](?:\{[^}]{0,64}\}|.)|\\."
_TOKEN = re.compile(rf"{_ESCAPE}|\(\?[a-zA-Z-]*[:)]|\(|\)|\{{\d*(?:,\d*)?\}}|[\s\S]", re.DOTALL)
_CLASS_ITEM = re.compile(rf"{_ESCAPE}|[\s\S]", re.DOTALL)
_COUNTED = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_NO_CASE = re.compile(r"\(\?[a-zA-Z]*i")
_VERBOSE = re.compile(r"\(\?[a-zA-Z]*x")
# Bytes of parts of a compiled pattern, measured with pydantic-core 2.41 and rounded up: a MiB takes some 6 ms to
# compile. Where case is ignored, a class of wide ranges is folded character by character, which takes as long as so
# many bytes.
_BASE, _PLAIN, _RANGE, _ITEM, _SMALL_TABLE, _LARGE_TABLE = 16 * 1024, 80, 2048, 512, 4096, 65_536
_FOLDED_CLASS = 640 * 1024
_SMALL_TABLES = frozenset({"\\d", "\\D", "\\s", "\\S"})
_LARGE_TABLES = ("\\w", "\\W", "\\p", "\\P")


class TooLong(Exception):
    """A text is too long for a pattern to be matched against it in time."""


class UnusablePattern(ValueError):
    """A pattern cannot be used; the text says why, as the end of a sentence."""


class MalformedPattern(UnusablePattern):
    """It is not a regular expression, as far as can be known; others, as look-aheads, are unusable here only."""


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a text holds a match anywhere, as JSON Schema's ``pattern`` asks (2020-12, validation, 6.3.3).

    What comes of a pattern is kept, a refusal too. The result raises `TooLong`.

    Raises:
        UnusablePattern: it is malformed (`MalformedPattern`), too large, or needs backtracking.
    """
    found = _cache.find(pattern)
    if found is None:
        cost = estimate(pattern)
        try:
            if cost > PATTERN_BYTES:
                raise UnusablePattern(_TOO_LARGE)
            found = _compiled(pattern)
        except UnusablePattern as exc:
            found, cost = exc, 0
        _cache.keep(pattern, found, cost)
    if isinstance(found, UnusablePattern):
        raise type(found)(*found.args)
    return found


def is_regular_expression(text: str) -> bool:
    """Whether a text is a regular expression, for the format ``regex``: what cannot be known cheaply is taken for one,
    and so is what only this engine cannot match."""
    if estimate(text) > TEXT_BYTES:
        return True
    try:
        _compiled(text)
    except MalformedPattern:
        return False
    except UnusablePattern:
        pass
    return True


def _compiled(pattern: str) -> Callable[[str], bool]:
    from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

    # Set operations in Rust's classes, plain characters in everybody else's.
    classes = (re.sub(r"\\.", "", token) for token in _tokens(pattern) if token[0] == "[")
    operation = next(filter(None, (re.search("&&|--|~~", text) for text in classes)), None)
    if operation is not None:
        raise UnusablePattern(f"has {operation[0]} between brackets, which stands for an operation on sets there")
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except (SchemaError, UnicodeEncodeError) as exc:
        raise _unusable(str(exc)) from exc
    longest = MOST_STEPS // _size(pattern, _one)

    def matches(text: str) -> bool:
        if len(text) > longest:
            raise TooLong
        try:
            validator.validate_python(text)
        except ValidationError:
            return False
        return True

    return matches


class _Cache:
    """Patterns used last, bounded by what they hold; used from the event loop and from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[Callable[[str], bool] | UnusablePattern, int]] = OrderedDict()
        self._bytes = 0

    def find(self, pattern: str) -> Callable[[str], bool] | UnusablePattern | None:
        with self._lock:
            if pattern not in self._kept:
                return None
            self._kept.move_to_end(pattern)
            return self._kept[pattern][0]

    def keep(self, pattern: str, result: Callable[[str], bool] | UnusablePattern, cost: int) -> None:
        size = cost + 4 * len(pattern) + 1024
        with self._lock:
            if pattern in self._kept or size > CACHE_BYTES:
                return
            self._kept[pattern] = (result, size)
            self._bytes += size
            while self._bytes > CACHE_BYTES:
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed


_cache = _Cache()


class PatternBudget:
    """Bytes that the patterns of some schemas may take together, each counted once.

    Args:
        most: bytes, by `estimate`.
    """

    def __init__(self, most: int = SCHEMA_BYTES) -> None:
        self._left = most
        self._counted: set[str] = set()

    def allows(self, pattern: str) -> bool:
        """Count a pattern in; False where it would be too much, and then it is not counted."""
        if pattern in self._counted:
            return True
        cost = estimate(pattern)
        if cost > self._left or cost > PATTERN_BYTES:
            return False
        self._left -= cost
        self._counted.add(pattern)
        return True


def unusable_patterns(schema: Any) -> Iterator[tuple[Keys, str]]:
    """Place of every pattern in a schema, and in the schemas inside it, that cannot be used, and a sentence that says
    why, without its full stop."""
    budget = PatternBudget()
    for keys, part in schemas_inside(schema):
        by_name = part.get("patternProperties")
        found: list[tuple[Keys, Any]] = [((*keys, "pattern"), part.get("pattern"))]
        found += [((*keys, "patternProperties", name), name) for name in by_name or ()]
        for place, pattern in found:
            try:
                if isinstance(pattern, str):
                    if estimate(pattern) <= PATTERN_BYTES and not budget.allows(pattern):
                        raise UnusablePattern("makes the patterns of this schema too large together")
                    compile_pattern(pattern)
            except UnusablePattern as exc:
                yield place, f"The pattern {quoted(pattern)} {exc}"
        if by_name and "unevaluatedProperties" in part:
            # jsonschema itself would match these, by backtracking.
            yield (*keys, "unevaluatedProperties"), "unevaluatedProperties cannot be used with patternProperties"


def _unusable(text: str) -> UnusablePattern:
    if "look-around" in text:
        return UnusablePattern("has a look-ahead or look-behind, which is not supported")
    if "backreference" in text:
        return UnusablePattern("has a back-reference, which is not supported")
    if "size limit" in text:
        return UnusablePattern(_TOO_LARGE)
    _, found, detail = text.rpartition("error: ")
    reason = "is not a regular expression"
    return MalformedPattern(f"{reason}: {detail.strip()}" if found else reason)


_TOO_LARGE = "becomes too large, because of its length or its repetitions"


def estimate(pattern: str) -> int:
    """Roughly how many bytes the compiled pattern takes, rather more than less; estimated without compiling it."""
    if len(pattern) > LONGEST_PATTERN:
        return _ENDLESS
    folded = 0
    if _NO_CASE.search(pattern):
        folded = sum(_is_wide(token) and "-" in token for token in _tokens(pattern) if token[0] == "[")
    return _BASE + folded * _FOLDED_CLASS + _size(pattern, _bytes)


def _tokens(pattern: str) -> Iterator[str]:
    if _VERBOSE.search(pattern):  # white space and comments stand between an element and its repetition
        pattern = re.sub(r"(\\.)|\s+|#[^\n]*", r"\1", pattern, flags=re.DOTALL)
    place = 0
    while place < len(pattern):
        match = _TOKEN.match(pattern, place)
        end = match.end() if match is not None else place + 1
        if pattern[place] == "[":
            end = _end_of_class(pattern, place)
        yield pattern[place:end]
        place = end


def _end_of_class(pattern: str, place: int) -> int:
    """Rust's classes hold classes; a bracket that comes first in one does not close it."""
    depth = 0
    while place < len(pattern):
        character = pattern[place]
        place += 1
        if character == "\\":
            place += 1
        elif character == "[":
            depth += 1
            place += pattern.startswith("^", place)
            place += pattern.startswith("]", place)
        elif character == "]":
            depth -= 1
            if depth == 0:
                break
    return place


def _is_wide(token: str) -> bool:
    return not token.isascii() or re.search(r"\\[xuU]", token) is not None


def _bytes(token: str) -> int:
    if token[0] == "[":
        items = _CLASS_ITEM.findall(token[1:-1])
        wide = (_ITEM if _is_wide(token) else 0) * len(items)
        open_ended = _RANGE * (token.count("[^") + token.count("[:^") + bool(wide))
        return _PLAIN + 8 * len(items) + open_ended + wide + sum(_bytes_of_table(item) for item in items)
    if token == "." or not token.isascii():  # noqa: S105 - of a pattern
        return _RANGE
    return _PLAIN + _bytes_of_table(token)


def _bytes_of_table(item: str) -> int:
    return _SMALL_TABLE if item in _SMALL_TABLES else _LARGE_TABLE if item.startswith(_LARGE_TABLES) else 0


def _one(token: str) -> int:
    return 1


def _size(pattern: str, weigh: Callable[[str], int]) -> int:
    """The weight of all elements of a pattern once its repetitions are written out."""
    groups: list[int] = []
    size = last = 0
    for token in _tokens(pattern):
        counted = _COUNTED.fullmatch(token)
        if counted is not None:
            times = max(_times(counted[1]), _times(counted[2] or "0"), 1)
            size += last * (times - 1)
            last *= times
        elif token.startswith("(") and not token.endswith(")"):
            groups.append(size)
            last = 0
        elif token == ")":  # noqa: S105 - of a pattern
            last = size - groups.pop() if groups else 0
        else:
            last = weigh(token)
            size += last
        if size > _ENDLESS:
            return size
    return max(size, 1)


_ENDLESS = 1 << 62


def _times(digits: str) -> int:
    # Python converts no more than 4300 digits, and Rust takes no more than ten.
    return int(digits) if len(digits) <= 10 else _ENDLESS
