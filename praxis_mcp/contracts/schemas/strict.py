"""Output schemas that strict clients can compile.

A client compiles every output schema of a ``tools/list`` before it looks at any tool, so that one which it cannot
compile costs it all of them. The TypeScript SDK (1.32, `Client.cacheToolMetadata`) does it by Ajv, whose own rules go
beyond JSON Schema's; what is looked for here is what Ajv 8 throws at for a schema that the metaschema allows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from praxis_mcp.contracts.problems import quoted, shape
from praxis_mcp.contracts.schemas.patterns import UnusablePattern, compile_pattern
from praxis_mcp.contracts.vocabulary import resolves, schemas_inside

_SHOWN = ("type", "title", "description")
_UNKNOWN_TO_US = ("dependencies", "additionalItems")
_OF_OTHERS = ("id", "formatMinimum", "formatMaximum", "formatExclusiveMinimum", "formatExclusiveMaximum")

# ECMA-262, with its flag u, which Ajv sets.
_ESCAPE = r"\\(?:[dDwWsSnrtfv^$\\.*+?()\[\]{}|/]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[pP]\{(?:L|Lu|Ll|N|Nd|P|S|Z)\})"
_TOKEN = re.compile(
    rf"(?P<atom>{_ESCAPE}|\[\^?(?:{_ESCAPE}|\\-|[^\[\]\\])+\]|[^\\\[\](){{}}*+?|^$])"
    r"|(?P<end>\))|(?P<repeat>(?:[*+?]|\{\d+(?:,\d*)?\})\??)|(?P<other>[\^$|]|\\[bB]|\((?:\?:)?)"
)


def sendable(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as clients can compile it: itself, or an open one of its type where there is something in it that
    some cannot. Answers are still checked against the whole."""
    if why_not_sendable(schema) is None:
        return schema
    return {key: schema[key] for key in _SHOWN if key in schema}


def why_not_sendable(schema: Mapping[str, Any]) -> str | None:
    """What some clients cannot compile in a valid output schema, as a subject for "cannot be read"; None: nothing."""
    return next(_obstacles(schema), None)


def _obstacles(schema: Mapping[str, Any]) -> Iterator[str]:
    anchors: Counter[Any] = Counter()
    references: list[str] = []
    moved = False
    for keys, part in schemas_inside(schema):
        yield from (f'the keyword "{key}"' for key in (*_OF_OTHERS, *_UNKNOWN_TO_US) if key in part)
        if part.get("enum") == []:
            yield "an empty enum"
        if "nullable" in part and ("type" not in part or part["nullable"] is not True):
            yield 'the keyword "nullable"'
        patterns = [part["pattern"]] if "pattern" in part else []
        for pattern in (*patterns, *part.get("patternProperties", ())):
            if not is_portable(pattern):
                yield f"the pattern {quoted(str(pattern))}"
        anchors.update(part[key] for key in ("$anchor", "$dynamicAnchor") if isinstance(part.get(key), str))
        references += [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        moved = moved or (keys != () and "$id" in part)
    yield from (f'the anchor "{name}", which is there twice' for name, times in anchors.items() if times > 1)
    for reference in references:
        if moved or not _leads_somewhere(reference, schema, anchors):
            yield f"the reference {shape(reference)}"


def _leads_somewhere(reference: str, schema: Mapping[str, Any], anchors: Mapping[Any, int]) -> bool:
    try:
        fragment = unquote(reference.removeprefix("#"), errors="strict")
    except UnicodeDecodeError:
        return False
    if not reference.startswith("#") or "%" in fragment:
        return False
    return resolves("#" + fragment, schema) if fragment.startswith("/") or not fragment else anchors[fragment] == 1


def is_portable(pattern: Any) -> bool:
    """Whether a pattern is a regular expression for Rust's engine and for ECMA-262 with its flag u, as far as can be
    told without compiling it there: what is unusual counts as not."""
    if not isinstance(pattern, str):
        return False
    place, repeatable = 0, False
    while place < len(pattern):
        token = _TOKEN.match(pattern, place)
        if token is None or (token.lastgroup == "repeat" and not repeatable):
            return False
        place, repeatable = token.end(), token.lastgroup in ("atom", "end")
    try:
        compile_pattern(pattern)
    except UnusablePattern:
        return False
    return True
