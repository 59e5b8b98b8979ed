"""The formats of JSON Schema that are checked: each in time that grows with the text and no faster.

Values come from strangers and are checked on the event loop. jsonschema's own checks compile a ``regex`` with Python's
engine, encode host names in quadratic time, and come and go with the packages that happen to be installed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import date, datetime

from praxis_mcp.contracts.schemas.patterns import is_regular_expression

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
