"""Documents of YAML and JSON that anyone may have written, with the words of YAML 1.2: ``no`` and ``2024-01-01`` are
texts, as OpenAPI has them. What grows beyond its file, or leads back to itself, is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from praxis_mcp.errors import ArgumentError

MAX_VALUES = 4_000_000
"""Values of a document, each counted as often as aliases repeat it; a file of 16 MiB has hardly more of its own."""
_DEEPEST_FOREIGN = 200

_WORDS = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "tag:yaml.org,2002:int": (r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        list("-+0123456789."),
    ),
    "tag:yaml.org,2002:merge": (r"<<", ["<"]),
}
"""Of YAML 1.2, section 10.3.2, but for numbers to other bases than ten, which stay texts."""


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The mapping itself; what is of another kind counts as missing."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """The list itself; what is of another kind counts as missing."""
    return value if isinstance(value, list) else []


def read_foreign(text: str, place: str) -> Any:
    """What a text holds.

    Args:
        text: the document.
        place: what messages call it.

    Raises:
        ArgumentError: it is malformed, nested too deeply, grows beyond any use, or has merge keys: a few of them in one
            another grow beyond any memory while they are read.
    """
    import yaml

    try:
        if text.lstrip()[:1] in ("{", "["):
            value = json.loads(text, parse_constant=_refuse_constant)
        else:
            value = yaml.load(text, Loader=_loader(place))  # noqa: S506 - a safe one
        _measure(value, place)
    except json.JSONDecodeError as exc:
        raise ArgumentError(f"{place}:{exc.lineno}: it is not valid JSON: {exc.msg}.", remedy="Fix it.") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        raise ArgumentError(f"{place}{where}: it is not valid YAML.", remedy="Fix it.") from exc
    except (RecursionError, ValueError, TypeError) as exc:
        raise ArgumentError(f"{place} is nested too deeply, or has values of no use.", remedy="Fix it.") from exc
    return value


def _loader(place: str) -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):
        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

        def flatten_mapping(self, node: Any) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise ArgumentError(f"{place} has merge keys (<<).", remedy="Write it without, or as JSON.")

    for tag, (pattern, first) in _WORDS.items():
        Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})$"), first)
    return Loader


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _measure(document: Any, place: str) -> None:
    """Refuses what is endless or immense. Each list and mapping is measured once, however often it is repeated."""
    known: dict[int, tuple[int, int]] = {}

    def measure(value: Any, depth: int) -> tuple[int, int]:
        """How many values it has, and how deep they lie."""
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        if not isinstance(value, dict | list):
            return 1, 0
        if id(value) not in known:
            if depth > _DEEPEST_FOREIGN:
                raise RecursionError
            size, height = 1, 0
            for part in value.values() if isinstance(value, dict) else value:
                found = measure(part, depth + 1)
                size, height = size + found[0], max(height, found[1])
            known[id(value)] = size, height + 1
        size, height = known[id(value)]
        if height > _DEEPEST_FOREIGN:
            raise RecursionError
        if size > MAX_VALUES:
            raise ArgumentError(
                f"{place} repeats itself beyond any use.", remedy="Write it with fewer aliases (*name)."
            )
        return size, height

    measure(document, 0)
