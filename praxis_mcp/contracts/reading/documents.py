"""The text of a contract → plain data in which every value knows its line.

YAML is read from libyaml's events, without recursion and without PyYAML's constructors, because a contract is a
stranger's file: depth, size and the expansion of aliases are bounded, and no tag builds an object. YAML 1.1's words
(``yes``, ``off``) are read as PyYAML reads them, because contracts were written for it. Its traps are closed: keys are
always text; numbers with leading zeros, sexagesimal numbers, dates, times and infinities stay the text they were
written as; exponents without a dot (``1e5``) are numbers, as in JSON. For scalars that did become numbers or booleans
the written text is kept: ``version: 1.10`` means "1.10".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from praxis_mcp.diagnostics import Keys

MAX_NESTING = 100
MAX_ALIASED = 10_000
"""Values that aliases may add to those that are written out."""

_TOO_DEEP = f"The file is nested more than {MAX_NESTING} levels deep"
_EVEN_IN_JSON = (_TOO_DEEP, "The key", "The file is empty")

_INT = re.compile(r"^[-+]?(0|[1-9][0-9_]*)$", re.ASCII)
_OTHER_INT = re.compile(r"^[-+]?0(x[0-9a-fA-F_]+|o[0-7_]+|b[01_]+)$", re.ASCII)
_FLOAT = re.compile(r"^[-+]?((0|[1-9][0-9_]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$", re.ASCII)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
TRUE_WORDS = frozenset(word for base in ("true", "yes", "on") for word in (base, base.capitalize(), base.upper()))
FALSE_WORDS = frozenset(word for base in ("false", "no", "off") for word in (base, base.capitalize(), base.upper()))

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


class DocumentError(Exception):
    """The text cannot be read as one document; place is 1-based, 0 when unknown."""

    def __init__(self, message: str, remedy: str = "", line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message, self.remedy, self.line, self.column = message, remedy, line, column


@dataclass(slots=True)
class Document:
    """One document.

    Attributes:
        data: mappings with text keys, lists, text, numbers, booleans, None.
        marks: line and column (from 1) of each value; of a mapping's member, those of its key.
        written: the text of each plain scalar that did not stay text.
        commented: the plain texts that end at a comment, after one space: often it was meant to be part of them.
        files: the file of each value that comes from another one than the document itself (see `defaults`).
    """

    data: Any
    marks: dict[Keys, tuple[int, int]] = field(default_factory=dict)
    written: dict[Keys, str] = field(default_factory=dict)
    commented: list[Keys] = field(default_factory=list)
    files: dict[Keys, Path] = field(default_factory=dict)

    def place(self, keys: Keys) -> tuple[int, int]:
        """Line and column of a value, or of the nearest one around it."""
        return self.marks.get(self._known(keys), (0, 0))

    def file(self, keys: Keys) -> Path | None:
        """The file of a value, or of the nearest one around it; None where that is the document's own."""
        return self.files.get(self._known(keys))

    def _known(self, keys: Keys) -> Keys:
        while keys and keys not in self.marks:
            keys = keys[:-1]
        return keys


def read_document(text: str, *, is_json: bool = False, holds: str = "a contract") -> Document:
    """The one document in a text. `holds`: what it is to hold, for messages.

    Raises:
        DocumentError: it is empty, malformed, too deep or too large, or holds several documents.
    """
    if is_json:
        return _read_json(text)
    documents = [document for document in _yaml_documents(text) if document.data is not None]
    if not documents:
        raise DocumentError("The file is empty.", f"Write {holds}, or delete the file.", 1, 1)
    if len(documents) > 1:
        line, column = documents[1].place(())
        raise DocumentError(
            f"The file holds {len(documents)} YAML documents.",
            "Write each contract to a file of its own, such as NAME.contract.yaml.",
            line,
            column,
        )
    return documents[0]


def _read_json(text: str) -> Document:
    # YAML contains JSON, escapes of surrogates aside: it knows the lines, json knows the values.
    try:
        where = read_document(text)
    except DocumentError as exc:
        if exc.message.startswith(_EVEN_IN_JSON):
            raise
        where = Document(None)
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as exc:
        raise DocumentError(f"The file is not valid JSON: {exc.msg}.", "", exc.lineno, exc.colno) from exc
    except RecursionError as exc:
        raise DocumentError(f"{_TOO_DEEP}.") from exc
    except ValueError as exc:
        raise DocumentError(f"The file is not valid JSON: {exc}.") from exc
    return Document(data, where.marks, where.written)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key appears twice in one object")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number that JSON knows")


class _Open:
    """A mapping or list whose end has not come yet."""

    __slots__ = ("anchor", "key", "key_lines", "keys", "merges", "size", "value")

    def __init__(self, value: dict[str, Any] | list[Any], keys: Keys, anchor: str | None) -> None:
        self.value = value
        self.keys = keys
        self.anchor = anchor
        self.size = 1
        self.key: str | None = None
        self.key_lines: dict[str, int] = {}
        self.merges: list[dict[str, Any]] = []


def _yaml_documents(text: str) -> Iterator[Document]:
    # The parser is fed bytes: it would fail on text with lone surrogates in a way of its own.
    try:
        loader = _LOADER(text.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise DocumentError("The file is not valid Unicode text.") from exc
    except yaml.reader.ReaderError as exc:
        raise _unprintable(exc) from exc
    try:
        while loader.check_event():
            if isinstance(loader.get_event(), yaml.DocumentStartEvent):
                yield _Builder(loader, text).build()
    except yaml.reader.ReaderError as exc:
        raise _unprintable(exc) from exc
    except yaml.MarkedYAMLError as exc:
        raise _malformed(exc) from exc
    finally:
        loader.dispose()


class _Builder:
    def __init__(self, loader: Any, text: str) -> None:
        self._loader = loader
        self._text = text
        self._document = Document(None)
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._aliased = 0

    def build(self) -> Document:
        while True:
            event = self._loader.get_event()
            if isinstance(event, yaml.DocumentEndEvent):
                return self._document
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._start(event)
            else:
                done = self._stack.pop()
                if isinstance(done.value, dict):
                    for merged in done.merges:
                        done.value.update({key: item for key, item in merged.items() if key not in done.value})
                if done.anchor:
                    self._anchors[done.anchor] = (done.value, done.size)
                if self._stack:
                    self._stack[-1].size += done.size

    def _scalar(self, event: Any) -> None:
        line, column = _position(event)
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            self._key(parent, event.value, line, column)
            if event.anchor:
                self._anchors[event.anchor] = (event.value, 1)
            return
        value = _scalar_value(event, line, column)
        keys = self._put(value, line, column)
        if not isinstance(value, str):
            self._document.written[keys] = event.value
        elif event.implicit[0] and self._text.startswith(" #", event.end_mark.index):
            self._document.commented.append(keys)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        if parent is not None:
            parent.size += 1

    def _key(self, parent: _Open, key: str, line: int, column: int) -> None:
        if key in parent.key_lines:
            raise DocumentError(
                f'The key "{key[:60]}" appears twice in one mapping, in lines {parent.key_lines[key]} and {line}.',
                "Remove one of them.",
                line,
                column,
            )
        parent.key, parent.key_lines[key] = key, line
        self._document.marks[(*parent.keys, key)] = (line, column)

    def _start(self, event: Any) -> None:
        line, column = _position(event)
        if len(self._stack) >= MAX_NESTING:
            raise DocumentError(f"{_TOO_DEEP}.", "", line, column)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _TAG + ("map" if is_mapping else "seq")):
            raise _unknown_tag(event.tag, line, column)
        value: dict[str, Any] | list[Any] = {} if is_mapping else []
        self._stack.append(_Open(value, self._put(value, line, column), event.anchor))

    def _alias(self, event: Any) -> None:
        line, column = _position(event)
        if event.anchor not in self._anchors:
            if any(part.anchor == event.anchor for part in self._stack):
                raise DocumentError(f"The alias *{event.anchor} contains itself.", "", line, column)
            raise DocumentError(f"The alias *{event.anchor} has no anchor before it.", "", line, column)
        value, size = self._anchors[event.anchor]
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            raise DocumentError(f"Aliases add more than {MAX_ALIASED} values to the file.", "", line, column)
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            if not isinstance(value, str):
                raise DocumentError("A key must be text.", "", line, column)
            self._key(parent, value, line, column)
            return
        self._put(value, line, column)
        if parent is not None:
            parent.size += size

    def _put(self, value: Any, line: int, column: int) -> Keys:
        """Add a value to the innermost open container; tells where it is."""
        if not self._stack:
            self._document.data = value
            self._document.marks[()] = (line, column)
            return ()
        parent = self._stack[-1]
        if isinstance(parent.value, list):
            keys = (*parent.keys, len(parent.value))
            parent.value.append(value)
            self._document.marks[keys] = (line, column)
            return keys
        key = parent.key
        if key is None:
            raise DocumentError("A key must be text, not a mapping or a list.", "", line, column)
        parent.key = None
        if key == "<<":
            parent.merges += _merged(value, line, column)
        else:
            parent.value[key] = value
        return (*parent.keys, key)


def _merged(value: Any, line: int, column: int) -> list[dict[str, Any]]:
    parts = value if isinstance(value, list) else [value]
    # Only aliases can be merged here: a mapping that is written out in place is still empty when it comes by.
    if not parts or not all(isinstance(part, dict) and part for part in parts):
        raise DocumentError("<< merges a mapping that has an anchor.", "Write <<: *NAME.", line, column)
    return parts


def _scalar_value(event: Any, line: int, column: int) -> Any:
    text: str = event.value
    tag: str | None = event.tag
    if tag in (None, "!") and not event.implicit[0]:
        return text
    if tag is None:
        return plain_value(text)
    if tag in ("!", _TAG + "str"):
        return text
    value = plain_value(text)
    wanted = {_TAG + "int": int, _TAG + "float": float, _TAG + "bool": bool, _TAG + "null": type(None)}.get(tag)
    if wanted is None:
        raise _unknown_tag(tag, line, column)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise DocumentError(f"The value is not {wanted.__name__}, as its tag says.", "Remove the tag.", line, column)
    return value


def plain_value(text: str) -> str | int | float | bool | None:
    """What a plain scalar stands for."""
    if text in _NULLS:
        return None
    if text[0] in "+-.0123456789":
        return _number(text)
    if text in TRUE_WORDS:
        return True
    if text in FALSE_WORDS:
        return False
    return text


def _number(text: str) -> str | int | float:
    try:
        if _INT.fullmatch(text):
            return int(text.replace("_", ""))
        if _OTHER_INT.fullmatch(text):
            return int(text.replace("_", ""), 0)
        if _FLOAT.fullmatch(text):
            value = float(text.replace("_", ""))
            return value if value - value == 0 else text  # an infinity is not a JSON number
    except ValueError:  # `0x_`, or more digits than Python converts
        return text
    return text


def _position(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _unknown_tag(tag: str, line: int, column: int) -> DocumentError:
    return DocumentError(f"The tag {tag} is not known here.", "Write plain YAML without tags.", line, column)


def _malformed(exc: yaml.MarkedYAMLError) -> DocumentError:
    mark = exc.problem_mark or exc.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    problem = " ".join(part for part in (exc.context, exc.problem) if part) or "it cannot be read"
    remedy = ""
    if (
        "maximum nesting depth" in problem
    ):  # libyaml 0.2.6 has a bound, too, and reads ahead of the events that it has reported
        return DocumentError(f"{_TOO_DEEP}.", "", line, column)
    if "cannot start any token" in problem:
        remedy = "Indent with spaces, not tabs; put text that begins with @, ` or % in quotation marks."
    return DocumentError(f"The file is not valid YAML: {problem}.", remedy, line, column)


def _unprintable(exc: yaml.reader.ReaderError) -> DocumentError:
    return DocumentError(f"The file is not valid YAML: {exc.reason} at byte {exc.position}.", "Remove that character.")
