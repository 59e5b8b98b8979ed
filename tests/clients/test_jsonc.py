"""Edits of JSON with comments change what they mean, and no other byte."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.clients import jsonc

BLANKS = st.sampled_from(["", " ", "\n", "\t", "\r\n", " // a, } \n", '/* {\n" */', "\n\n  "])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
NAMES = st.sampled_from(["a", "b", "é", 'q"', "servers", "//"])


@st.composite
def texts(draw: st.DrawFn, depth: int = 0) -> tuple[str, Any]:
    """JSON with blanks, comments and commas at the end wherever they may be, and what it means."""
    kind = (
        "object"
        if depth == 0
        else draw(st.sampled_from(["object", "array", "scalar"]) if depth < 3 else st.just("scalar"))
    )
    if kind == "scalar":
        value = draw(SCALARS)
        return json.dumps(value, ensure_ascii=draw(st.booleans())), value
    items: list[str] = []
    values: list[Any] = []
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    for name in names:
        text, value = draw(texts(depth + 1))
        key = f"{json.dumps(name)}{draw(BLANKS)}:{draw(BLANKS)}" if kind == "object" else ""
        items.append(f"{draw(BLANKS)}{key}{text}{draw(BLANKS)}")
        values.append(value)
    inner = ",".join(items) + (
        f",{draw(BLANKS)}" if items and draw(st.booleans()) else draw(BLANKS) if not items else ""
    )
    if kind == "object":
        return f"{{{inner}}}", dict(zip(names, values, strict=True))
    return f"[{inner}]", values


@given(texts(), st.lists(NAMES, min_size=1, max_size=3), st.dictionaries(NAMES, SCALARS, max_size=2), BLANKS, BLANKS)
def test_a_value_is_put_and_removed_and_nothing_else_changes(
    made: tuple[str, Any], path: list[str], value: dict[str, Any], before: str, after: str
) -> None:
    text, meaning = f"{before}{made[0]}{after}", made[1]
    assert jsonc.parse(text).value == meaning
    place: Any = meaning
    for name in path[:-1]:
        place = place.get(name, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        with pytest.raises(jsonc.MalformedError):
            jsonc.put(text, path, value)
        return
    was_there = path[-1] in place
    added = jsonc.put(text, path, value)
    assert jsonc.parse(added).value == with_value(meaning, path, value)
    assert comments(added) >= comments(text) or was_there
    removed = jsonc.remove(added, path)
    expected = with_value(meaning, path, value)
    del_at(expected, path)
    assert jsonc.parse(removed).value == expected
    assert jsonc.put_members(added, path, value) == added
    assert jsonc.parse_object(text) == meaning


def with_value(meaning: Any, path: list[str], value: Any) -> Any:
    whole = json.loads(json.dumps(meaning))
    place = whole
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value
    return whole


def del_at(whole: Any, path: list[str]) -> None:
    for name in path[:-1]:
        whole = whole[name]
    del whole[path[-1]]


def comments(text: str) -> int:
    return text.count("// a, }") + text.count("/* {")


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("", '{\n  "s": {\n    "p": 1\n  }\n}\n'),
        ("// mine\n", '// mine\n{\n  "s": {\n    "p": 1\n  }\n}\n'),
        ('{"a": 1}', '{"a": 1, "s": {"p": 1}}'),
        ('{"a": 1,}', '{"a": 1, "s": {"p": 1}}'),
        ('{\n\t"a": 1 // one\n}', '{\n\t"a": 1, // one\n\t"s": {\n\t\t"p": 1\n\t}\n}'),
        ('{\n    "a": 1, // one\n}\n', '{\n    "a": 1, // one\n    "s": {\n        "p": 1\n    },\n}\n'),
        ('{\r\n  "s": {\r\n    "q": 2\r\n  }\r\n}', '{\r\n  "s": {\r\n    "q": 2,\r\n    "p": 1\r\n  }\r\n}'),
        ('{"s": {"p": 0}}', '{"s": {"p": 1}}'),
        ('\ufeff{"s": {}}', '\ufeff{"s": {\n  "p": 1\n}}'),
    ],
)
def test_an_addition_is_written_as_its_surroundings_are(text: str, added: str) -> None:
    assert jsonc.put(text, ("s", "p"), 1) == added


@pytest.mark.parametrize(
    ("text", "removed"),
    [
        ('{"a": 1, "p": 2}', '{"a": 1}'),
        ('{"p": 2, "a": 1}', '{"a": 1}'),
        ('{"p": 2}', "{}"),
        ('{"p": 2,}', "{}"),
        ('{\n  "a": 1, // one\n  // about p\n  "p": 2 // two\n}', '{\n  "a": 1 // one\n  // about p\n}'),
        ('{\n  "p": 2, // two\n  "a": 1\n}', '{\n  "a": 1\n}'),
        ('{\n  "a": 1,\n  "p": [\n    2\n  ],\n}', '{\n  "a": 1,\n}'),
        ("{}", "{}"),
        ("", ""),
    ],
)
def test_a_removal_takes_its_own_lines_along(text: str, removed: str) -> None:
    assert jsonc.remove(text, ("p",)) == removed


def test_objects_within_are_changed_by_their_members() -> None:
    text = '{"p": {\n  "h": {"x": 1 /* mine */, "a": 2},\n  "gone": 0\n}}'
    assert jsonc.put_members(text, ("p",), {"h": {"x": 1, "a": 3}}) == '{"p": {\n  "h": {"x": 1 /* mine */, "a": 3}\n}}'


@pytest.mark.parametrize("size", [40, 4000])
@pytest.mark.timeout(60)
def test_comments_in_a_row_are_read_in_one_way(size: int) -> None:
    text = '{\n  "p": 1 ' + "/**/" * size + "/*\n*/\n}"
    assert jsonc.parse(jsonc.put(text, ("q",), 2)).value == {"p": 1, "q": 2}
    assert jsonc.parse(jsonc.remove(text, ("p",))).value == {}


@pytest.mark.parametrize("comment", ["", " // mine"])
def test_a_long_string_takes_little_more_memory_than_it_has_bytes(comment: str) -> None:
    text = f'{{"s": "{"x" * 1_000_000}"{comment}\n}}'
    tracemalloc.start()
    try:
        assert len(jsonc.parse(text).value["s"]) == 1_000_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
