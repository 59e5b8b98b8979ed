"""Formats the JSON on standard input by INDENT and SORT_KEYS."""

import json
import os
import sys
from collections.abc import Iterator

INDENT = int(os.environ["INDENT"])
SORT_KEYS = os.environ["SORT_KEYS"] == "true"


class Number(str):
    """A number as it was written: a float would lose digits, and Python reads no int of more than 4300."""


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def refuse_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key {json.dumps(key)} is there twice in one object")
        members[key] = value
    return members


def pieces(value: object, level: int = 0) -> Iterator[str]:
    if isinstance(value, Number):
        yield value
    elif isinstance(value, dict) and value:
        keys = sorted(value) if SORT_KEYS else list(value)
        colon = ": " if INDENT else ":"
        yield from block("{}", level, [(json.dumps(key, ensure_ascii=False) + colon, value[key]) for key in keys])
    elif isinstance(value, list) and value:
        yield from block("[]", level, [("", item) for item in value])
    else:
        yield json.dumps(value, ensure_ascii=False)


def block(brackets: str, level: int, members: list[tuple[str, object]]) -> Iterator[str]:
    def line(depth: int) -> str:
        return "\n" + " " * INDENT * depth if INDENT else ""

    yield brackets[0]
    for number, (prefix, value) in enumerate(members):
        yield ("," if number else "") + line(level + 1) + prefix
        yield from pieces(value, level + 1)
    yield line(level) + brackets[1]


try:
    document = json.loads(
        sys.stdin.buffer.read().decode(),
        parse_int=Number,
        parse_float=Number,
        parse_constant=refuse_constant,
        object_pairs_hook=refuse_twins,
    )
    # A lone surrogate (\ud800 in JSON text) has no UTF-8 form; written with a backslash it is JSON all the same.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    print("".join(pieces(document)))
except json.JSONDecodeError as exc:
    line = exc.doc.split("\n")[exc.lineno - 1]
    sys.exit(f"Not valid JSON at line {exc.lineno}, column {exc.colno}: {exc.msg}.\n{line[:200]}")
except (ValueError, RecursionError) as exc:
    sys.exit(f"Not valid JSON: {exc}.")
