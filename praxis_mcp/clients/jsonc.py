"""Edits of JSON with comments by position: every byte that an edit does not mean stays as it is.

Of the Python packages that keep comments (json-five, jsonc-edit, jsonc-document …) none both keeps the bytes and is in
wide use; editors do it by position, as here (Microsoft's jsonc-parser, against which the tests compare). Comments and
commas before a closing bracket are understood in every file, whatever its client makes of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

MAX_BRACKETS = 200
"""Brackets in one another, above which a file is refused."""
_FAST_BRACKETS = 4
"""Down to here, values that no edit goes into are first tried with Python's own parser, which is 20 times as fast."""

# Possessive throughout: else comments in a row could be split in 2^n ways, and a long string took 120 times its size.
_COMMENT = r"/\*(?:[^*]++|\*(?!/))*+\*/"
_BLANK = re.compile(rf"(?:[ \t\r\n\ufeff]++|//[^\r\n]*+|{_COMMENT})*+")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"')
_OTHER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null")
_REST_OF_LINE = re.compile(r"(?:[ \t]++|/\*(?:[^*\r\n]++|\*(?!/))*+\*/)*+(?://[^\r\n]*+)?(?=\r?\n|\Z)")


class MalformedError(ValueError):
    """A text that is not JSON, with or without comments.

    Attributes:
        line: where, from 1.
        column: there, from 1.
    """

    def __init__(self, message: str, text: str, at: int) -> None:
        super().__init__(message)
        self.line = text.count("\n", 0, at) + 1
        self.column = at - text.rfind("\n", 0, at)


@dataclass(slots=True)
class Node:
    """A value and where it is.

    Attributes:
        start: its first character.
        end: behind its last one.
        value: what it means.
        members: of an object, the places of names, and the values.
        comma: of an object or array, the place of a comma behind its last value; -1 where there is none.
    """

    start: int
    end: int = 0
    value: Any = None
    members: dict[str, tuple[int, Node]] = field(default_factory=dict)
    comma: int = -1


def parse(text: str, path: Sequence[str] | None = None) -> Node:
    """The value of a text.

    Args:
        text: JSON, with or without comments.
        path: names of objects whose members are needed, from the outermost; those of others may be left out. None is
            all of them.

    Raises:
        MalformedError: it is not one.
    """
    reader = _Reader(text)
    node = reader.value(reader.blank(0), 0, path)
    end = reader.blank(node.end)
    if end < len(text):
        raise MalformedError("there is more text after the value", text, end)
    return node


def parse_object(text: str) -> dict[str, Any]:
    """The object of a text; an empty one where it has nothing but comments.

    Raises:
        MalformedError: it is something else.
    """
    if _is_empty(text):
        return {}
    node = parse(text, ())
    _check_object(node, text)
    return node.value


def put(text: str, path: Sequence[str], value: Any) -> str:
    """The text with a value at a place: changed where there is one, else added at the end of its object.

    Args:
        text: an object; one that is empty, or has only comments, is taken as ``{}``.
        path: names of objects, the last of which is that of the value.
        value: JSON.

    Raises:
        MalformedError: the text is not JSON, or on the way there is something else than an object.
    """
    if _is_empty(text):
        text = f"{text}{'' if not text or text.endswith(_MARKS) else _line_end(text)}{{}}{_line_end(text)}"
    node = parse(text, path)
    _check_object(node, text)
    unit = _indentation(text, node)
    for number, name in enumerate(path):
        found = node.members.get(name)
        if found is None:
            for inner in reversed(path[number + 1 :]):
                value = {inner: value}
            return _insert(text, node, name, value, unit)
        if number == len(path) - 1:
            return text[: found[1].start] + _written(text, value, unit, found[0]) + text[found[1].end :]
        node = found[1]
        _check_object(node, text)
    return text


def put_members(text: str, path: Sequence[str], value: dict[str, Any]) -> str:
    """As `put` with an object, of which only the members that differ are changed, added or removed, and likewise within
    those that are objects.

    Raises:
        MalformedError: see `put`.
    """
    node: Node | None = None if _is_empty(text) else parse(text, path)
    for name in path:
        node = node.members[name][1] if node is not None and name in node.members else None
    if node is None or not isinstance(node.value, dict):
        return put(text, path, value)
    for name in node.value:
        if name not in value:
            text = remove(text, (*path, name))
    for name, item in value.items():
        if name not in node.value or node.value[name] != item:
            change = put_members if isinstance(item, dict) else put
            text = change(text, (*path, name), item)
    return text


def remove(text: str, path: Sequence[str]) -> str:
    """The text without the value at a place, and without the comment that follows on its line; as it is where there is
    no such value.

    Raises:
        MalformedError: the text is not JSON.
    """
    if _is_empty(text):
        return text
    node = parse(text, path)
    for name in path[:-1]:
        found = node.members.get(name)
        if found is None:
            return text
        node = found[1]
    names = list(node.members)
    if path[-1] not in names:
        return text
    index = names.index(path[-1])
    start, member = node.members[path[-1]]
    end = member.end
    after = _blank(text, end)
    is_last = index == len(names) - 1
    if text[after] == ",":
        end = after + 1
    line = text.rfind("\n", 0, start) + 1
    rest = _REST_OF_LINE.match(text, end)
    if not text[line:start].strip(" \t") and rest is not None:
        # Whole lines.
        start, end = line, rest.end()
        end += 2 if text.startswith("\r\n", end) else 1 if text.startswith("\n", end) else 0
    elif not is_last:
        end = list(node.members.values())[index + 1][0]
    elif index:
        start = list(node.members.values())[index - 1][1].end
    inside, closing = node.start + 1, node.end - 1
    if len(names) == 1 and not (text[inside:start] + text[end:closing]).strip():
        return text[:inside] + text[closing:]
    if is_last and index and text[after] != ",":
        before = list(node.members.values())[index - 1][1].end
        comma = text.index(",", _blank(text, before))
        if comma < start:
            return text[:comma] + text[comma + 1 : start] + text[end:]
    return text[:start] + text[end:]


_MARKS = ("\n", "\ufeff")


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text

    def blank(self, at: int) -> int:
        return _blank(self.text, at)

    def value(self, at: int, depth: int, path: Sequence[str] | None) -> Node:
        text = self.text
        if depth > MAX_BRACKETS:
            raise MalformedError(f"brackets are nested more than {MAX_BRACKETS} deep", text, at)
        first = text[at : at + 1]
        if path is not None and not (path and first == "{") and depth <= _FAST_BRACKETS:
            with suppress(ValueError, RecursionError):
                value, end = _STRICT.raw_decode(text, at)
                return Node(at, end, value)
        if first == "{":
            return self._object(at, depth, path)
        if first == "[":
            return self._array(at, depth, path)
        match = (_STRING if first == '"' else _OTHER).match(text, at)
        if match is None:
            found = {"": "the end of the file", '"': "a string that does not end, or has a character it may not"}
            raise MalformedError(f"expected a value, found {found.get(first, repr(first))}", text, at)
        try:
            return Node(at, match.end(), json.loads(match[0]))
        except ValueError as exc:  # Python's limit of digits
            raise MalformedError("a number is too long", text, at) from exc

    def _object(self, at: int, depth: int, path: Sequence[str] | None) -> Node:
        node = Node(at, value={})
        at = self.blank(at + 1)
        while self.text[at : at + 1] != "}":
            name = _STRING.match(self.text, at)
            if name is None:
                raise MalformedError('a name in quotation marks, or "}", is missing', self.text, at)
            colon = self.blank(name.end())
            if self.text[colon : colon + 1] != ":":
                raise MalformedError(f"a colon is missing after {name[0]}", self.text, colon)
            key = json.loads(name[0])
            inner = None if path is None else path[1:] if path and path[0] == key else ()
            member = self.value(self.blank(colon + 1), depth + 1, inner)
            node.members.pop(key, None)  # of two of one name the last one counts
            node.members[key] = (name.start(), member)
            node.value[key] = member.value
            at = self._next(node, member.end, "}")
        node.end = at + 1
        return node

    def _array(self, at: int, depth: int, path: Sequence[str] | None) -> Node:
        node = Node(at, value=[])
        at = self.blank(at + 1)
        while self.text[at : at + 1] != "]":
            item = self.value(at, depth + 1, None if path is None else ())
            node.value.append(item.value)
            at = self._next(node, item.end, "]")
        node.end = at + 1
        return node

    def _next(self, node: Node, end: int, closing: str) -> int:
        at = self.blank(end)
        node.comma = -1
        if self.text[at : at + 1] == ",":
            node.comma = at
            at = self.blank(at + 1)
        elif self.text[at : at + 1] != closing:
            raise MalformedError(f'a comma, or "{closing}", is missing', self.text, at)
        return at


def _refuse(constant: str) -> None:
    raise ValueError(constant)


_STRICT = json.JSONDecoder(parse_constant=_refuse)
"""Of JSON as RFC 8259 has it, without comments."""


def _blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _is_empty(text: str) -> bool:
    """Whether it has nothing but comments."""
    return _blank(text, 0) == len(text)


def _check_object(node: Node, text: str) -> None:
    if not isinstance(node.value, dict):
        raise MalformedError("there is no object here", text, node.start)


def _insert(text: str, node: Node, name: str, value: Any, unit: str) -> str:
    key = json.dumps(name, ensure_ascii=False)
    closing = node.end - 1
    if node.members:
        start, last = list(node.members.values())[-1]
        has_comma = node.comma >= 0
        end = node.comma + 1 if has_comma else last.end
        if "\n" not in text[node.start : node.end]:  # all of it on one line
            return f"{text[:end]}{'' if has_comma else ','} {key}: {json.dumps(value, ensure_ascii=False)}{text[end:]}"
        rest = _REST_OF_LINE.match(text, end)
        place = rest.end() if rest is not None else end
        indentation = _indentation_at(text, start)
        comma = "" if has_comma else ","
        item = f"{_line_end(text)}{indentation}{key}: {_written(text, value, unit, start)}{',' if has_comma else ''}"
        return text[:end] + comma + text[end:place] + item + text[place:]
    outer = _indentation_at(text, node.start)
    line = _line_end(text)
    inner = text[node.start + 1 : closing].rstrip(" \t\r\n")
    written = _dumped(value, unit, outer + unit, line)
    return f"{text[: node.start + 1]}{inner}{line}{outer}{unit}{key}: {written}{line}{outer}{text[closing:]}"


def _written(text: str, value: Any, unit: str, near: int) -> str:
    return _dumped(value, unit, _indentation_at(text, near), _line_end(text))


def _dumped(value: Any, unit: str, indentation: str, line: str) -> str:
    lines = json.dumps(value, indent=unit, ensure_ascii=False).split("\n")
    return f"{line}{indentation}".join(lines)


def _indentation_at(text: str, at: int) -> str:
    line = text.rfind("\n", 0, at) + 1
    found = re.match(r"[ \t]*", text[line:at])
    return found[0] if found else ""


def _indentation(text: str, node: Node) -> str:
    """What one level is indented by: as of the outermost members."""
    for start, _ in node.members.values():
        if "\n" in text[node.start : start]:
            return _indentation_at(text, start) or "  "
    return "  "


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
