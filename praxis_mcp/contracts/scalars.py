"""Unquoted words in YAML → numbers, booleans, nothing, or the text itself.

YAML 1.1's words (``yes``, ``off``) are read as PyYAML reads them, because contracts were written for it. Its traps are
not: numbers with leading zeros, sexagesimal numbers, dates, times and infinities stay the text they were written as.
Exponents without a dot (``1e5``) are numbers, as in JSON.
"""

from __future__ import annotations

import re

_INT = re.compile(r"^[-+]?(0|[1-9][0-9_]*)$", re.ASCII)
_OTHER_INT = re.compile(r"^[-+]?0(x[0-9a-fA-F_]+|o[0-7_]+|b[01_]+)$", re.ASCII)
_FLOAT = re.compile(r"^[-+]?((0|[1-9][0-9_]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$", re.ASCII)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
TRUE_WORDS = frozenset(word for base in ("true", "yes", "on") for word in (base, base.capitalize(), base.upper()))
FALSE_WORDS = frozenset(word for base in ("false", "no", "off") for word in (base, base.capitalize(), base.upper()))


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
            return value if value - value == 0 else text  # an infinity is no JSON number
    except ValueError:  # `0x_`, or more digits than Python converts
        return text
    return text
