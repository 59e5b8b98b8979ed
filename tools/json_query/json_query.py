"""A small query language over the JSON document on standard input; the query is the last word."""

import json
import operator
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

STEP = re.compile(
    r"""\s*(?:
        \.?\[\s*(?:
            (?P<all>\*) |
            (?P<quoted>"(?:[^"\\]|\\.)*"|'[^']*') |
            (?P<start>-?\d+)?\s*(?P<colon>:)\s*(?P<stop>-?\d+)? |
            (?P<index>-?\d+) |
            \?\s*(?P<field>[\w.\-$]+)\s*(?P<op>==|!=|<=|>=|<|>)\s*(?P<literal>"(?:[^"\\]|\\.)*"|'[^']*'|[^\]\s]+)
        )\s*\] |
        \.?(?P<star>\*) |
        \.?(?P<key>[\w\-$]+) |
        (?P<whole>\.)(?=\s*(?:\||$))
    )""",
    re.VERBOSE,
)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MISSING = object()


def unique(values: list[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "length": len,
    "keys": lambda value: list(value.keys()),
    "sum": sum,
    "min": min,
    "max": max,
    "unique": unique,
    "sort": sorted,
}


def literal(text: str) -> Any:
    if text.startswith("'"):
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        return text


def steps(path: str) -> Iterator[re.Match[str]]:
    at = 0
    while path[at:].strip():
        match = STEP.match(path, at)
        if match is None:
            sys.exit(f"The query cannot be read from {path[at:].strip()[:40]!r} on.")
        yield match
        at = match.end()


def child(value: Any, key: str) -> Any:
    return value.get(key, MISSING) if isinstance(value, dict) else MISSING


def fits(item: Any, field: str, op: str, wanted: Any) -> bool:
    for part in field.split("."):
        item = child(item, part)
    try:
        return item is not MISSING and COMPARE[op](item, wanted)
    except TypeError:  # a number beside a text has no order
        return False


def members(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def follow(value: Any, step: re.Match[str]) -> tuple[list[Any], bool]:
    """The values that one step leads to, and whether it is of a kind that can lead to many."""
    if step["all"] or step["star"]:
        return members(value), True
    if step["colon"]:
        bounds = (int(step[name]) if step[name] else None for name in ("start", "stop"))
        return (value[slice(*bounds)] if isinstance(value, list) else []), True
    if step["field"]:
        wanted = literal(step["literal"])
        return [item for item in members(value) if fits(item, step["field"], step["op"], wanted)], True
    if step["index"]:
        at = int(step["index"])
        return ([value[at]] if isinstance(value, list) and -len(value) <= at < len(value) else []), False
    if step["whole"]:
        return [value], False
    found = child(value, str(literal(step["quoted"])) if step["quoted"] else step["key"])
    return ([] if found is MISSING else [found]), False


def describe(value: Any) -> str:
    if isinstance(value, dict):
        return "keys there: " + (", ".join(list(value)[:20]) or "none")
    if isinstance(value, list):
        return f"an array of {len(value)} is there"
    return "null is there" if value is None else f"a {type(value).__name__} is there"


def query(document: Any, path: str) -> tuple[list[Any], bool, str]:
    values, many, walked = [document], False, ""
    for step in steps(path):
        reached = [follow(value, step) for value in values]
        found = [item for items, _ in reached for item in items]
        many = many or any(spread for _, spread in reached)
        if not found:
            what = f'no key "{step["key"]}"' if step["key"] else f"nothing for {step[0].strip()}"
            place = f"at {walked.lstrip('.')}" if walked else "at the root"
            return [], many, f"{what} {place}; {describe(values[0])}"
        values, walked = found, walked + step[0].strip()
    return values, many, ""


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large a number")
    return number


def main() -> None:
    path, *functions = (part.strip() for part in re.split(r"\|(?=\s*\w+\s*(?:\||$))", sys.argv[-1]))
    unknown = [name for name in functions if name not in FUNCTIONS]
    if unknown:
        sys.exit(f"There is no function {unknown[0]}; there are {', '.join(FUNCTIONS)}.")
    try:
        document = json.loads(sys.stdin.buffer.read(), parse_constant=refuse_constant, parse_float=finite)
    except (ValueError, RecursionError) as exc:
        sys.exit(f"The document is no JSON: {exc}.")
    values, many, hint = query(document, path)
    result, matches = (values if many else values[0] if values else None), len(values)
    if values:
        for name in functions:
            try:
                result, matches = FUNCTIONS[name](result), 1
            except (TypeError, AttributeError, ValueError):
                sys.exit(f"{name} does not work here: {describe(result)}.")
    answer = {"matches": matches, "result": result, **({"hint": hint} if hint else {})}
    # A lone surrogate (\ud800 in JSON text) has no UTF-8 form; written with a backslash it is JSON all the same.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    print(json.dumps(answer, ensure_ascii=False))


main()
