"""JSON Schema 2020-12 validators: compiled once, and unable to fetch anything.

The jsonschema package costs 30 ms to import, so it is imported on first use: a server lists its tools without it.

Values come from strangers and are checked on the event loop, so the formats are checked here, each in time that grows
with the text and no faster: jsonschema's own checks compile a ``regex`` with Python's engine, encode host names in
quadratic time, and come and go with the packages that happen to be installed.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from praxis_mcp.contracts.schemas.patterns import is_regular_expression, unusable_patterns
from praxis_mcp.contracts.vocabulary import is_plainly_valid, without_booleans
from praxis_mcp.errors import ContractError

if TYPE_CHECKING:
    from jsonschema import FormatChecker
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

MOST_PROBLEMS = 20
"""Problems that one check reports; an array of a million wrong items must not become a million sentences."""

PATTERN_REMEDY = "Write it without, put a backslash before what is meant literally, or leave the check to the tool."


LONGEST_HOST = 253
"""Characters of a host name (RFC 1123, section 2.1, and RFC 1034, section 3.1)."""
LONGEST_ADDRESS = 254
"""Characters of an e-mail address (RFC 5321, section 4.5.3.1, errata 1690)."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# RFC 3339, section 5.6; nine digits of a second's fraction and some more.
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,30})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
# RFC 3986, sections 2 and 3.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NOT_IN_URI = re.compile(r'[\x00-\x20\x7f<>"{}|\\^`]')
_AUTHORITY = re.compile(r"//([^/?#]*)")
_BRACKETED = re.compile(r"(?:[^\[\]]*@)?\[[0-9A-Za-z:._~-]+\](?::\d*)?", re.ASCII)


_TOO_DEEP = "is nested too deeply, or holds a number too large, to be checked"


class CheckFailed(Exception):
    """A value is too deep or too large, or a number in it is, for it to be checked at all."""


def schema_errors(schema: Any) -> Iterator[ValidationError]:
    """What is wrong with a schema itself, by the metaschema of the 2020-12 dialect; patterns are left to
    `unusable_patterns`: Python's engine never sees them."""
    if is_plainly_valid(schema):
        return
    from jsonschema import Draft202012Validator

    yield from Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema)


def compile_schema(schema: Mapping[str, Any], owner: str) -> Validator:
    """A validator that checks formats, resolves references inside the schema only, and cannot be kept busy for long.

    Args:
        schema: what values must fit.
        owner: how to name the schema in an error.

    Raises:
        ContractError: it is not a valid schema.
    """
    from referencing import Registry

    from praxis_mcp.contracts.schemas.bounded_checks import BoundedValidator

    error = next(schema_errors(schema), None)
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path) or "its root"
        raise ContractError(
            f"{owner} is not a valid JSON Schema at {place}: {error.message}.",
            remedy="See https://json-schema.org/draft/2020-12.",
        )
    for keys, reason in unusable_patterns(schema):
        place = ".".join(str(part) for part in keys)
        raise ContractError(f"{owner} cannot be used, because of {place}. {reason}.", remedy=PATTERN_REMEDY)
    # jsonschema does not say where a value is that a `false` refuses, and without a registry of its own it fetches what
    # a $ref names from the network.
    return BoundedValidator(without_booleans(schema), registry=Registry(), format_checker=_format_checker())


def find_errors(validator: Validator, value: Any, owner: str) -> list[ValidationError]:
    """The first `MOST_PROBLEMS` errors, in the order of the schema's keywords.

    Raises:
        CheckFailed: the value is too deep or too large, or a number in it is.
        ContractError: the schema refers to something outside itself.
    """
    from referencing.exceptions import Unresolvable

    from praxis_mcp.contracts.schemas.bounded_checks import TookTooLong, bounded

    try:
        with bounded():
            return list(islice(validator.iter_errors(value), MOST_PROBLEMS))
    except TookTooLong as exc:
        raise CheckFailed("takes too long to be checked: it is too large or too deep") from exc
    except (RecursionError, OverflowError) as exc:
        raise CheckFailed(_TOO_DEEP) from exc
    except Unresolvable as exc:
        raise ContractError(
            f'{owner} has a $ref to "{exc.ref}", which is not inside it.',
            remedy="Write the definition under $defs, and refer to it as #/$defs/NAME.",
        ) from exc
    except BaseException as exc:
        # What a RecursionError becomes in rpds, written in Rust, where `referencing` looks documents up.
        if type(exc).__name__ != "PanicException":
            raise
        raise CheckFailed(_TOO_DEEP) from exc


@functools.cache
def _format_checker() -> FormatChecker:
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name, check in CHECKS.items():
        checker.checks(name, raises=ValueError)(_text_only(check))
    return checker


def _text_only(check: Callable[[str], bool]) -> Callable[[object], bool]:
    # A format says nothing about values of other types (JSON Schema 2020-12, validation, section 7.2.1).
    return lambda value: not isinstance(value, str) or check(value)


def _is_date(text: str) -> bool:
    return bool(_DATE.fullmatch(text) and date.fromisoformat(text))


def _is_date_time(text: str) -> bool:
    return bool(_DATE_TIME.fullmatch(text) and datetime.fromisoformat(text.upper().replace(" ", "T")))


def _is_email(text: str) -> bool:
    return len(text) <= LONGEST_ADDRESS and "@" in text


def _is_idn_hostname(text: str) -> bool:
    if len(text) > LONGEST_HOST:
        return False
    import idna

    idna.encode(text)
    return True


def _is_ipv4(text: str) -> bool:
    return len(text) <= 15 and bool(ipaddress.IPv4Address(text))


def _is_ipv6(text: str) -> bool:
    return len(text) <= 45 and "%" not in text and bool(ipaddress.IPv6Address(text))


def _is_uri(text: str) -> bool:
    scheme = _SCHEME.match(text)
    if scheme is None or scheme.end() == len(text) or not text.isascii() or _NOT_IN_URI.search(text):
        return False
    authority = _AUTHORITY.match(text, scheme.end())
    if authority is None or not ("[" in authority[1] or "]" in authority[1]):
        return True
    return _BRACKETED.fullmatch(authority[1]) is not None


def _is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


CHECKS: dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "date-time": _is_date_time,
    "email": _is_email,
    "idn-email": _is_email,
    "idn-hostname": _is_idn_hostname,
    "ipv4": _is_ipv4,
    "ipv6": _is_ipv6,
    "regex": is_regular_expression,
    "uri": _is_uri,
    "uuid": _is_uuid,
}
"""Format → whether a text has it; a ValueError says no as well. All other formats are descriptions only."""
