"""Formats are checked in time that grows with the text and no faster, whatever a caller sends."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.contracts.schemas.schema import validate_arguments
from praxis_mcp.contracts.schemas.validators import CHECKS
from praxis_mcp.errors import ArgumentError
from tests.contracts.schemas.test_schema import one

GOOD = {
    "date": ["2024-02-29"],
    "date-time": ["2024-02-29T23:59:59Z", "2024-02-29t23:59:59.123456789+01:00", "1990-12-31 00:00:00-08:00"],
    "email": ["a@example.org", "\N{GREEK SMALL LETTER ALPHA}@x"],
    "idn-email": ["a@\N{LATIN SMALL LETTER U WITH DIAERESIS}.example"],
    "idn-hostname": ["example.org", "m\N{LATIN SMALL LETTER U WITH DIAERESIS}nchen.example"],
    "ipv4": ["127.0.0.1"],
    "ipv6": ["::1", "fe80::1", "::ffff:192.0.2.1"],
    "regex": ["^a+$", r"(?=a)b", r"(a)\1", r"\w{1000}", "(?i)" + "[b-\U0010fffe]" * 700],
    "uri": ["https://example.org/a?b#c", "mailto:a@b", "urn:x", "http://u@[::1]:80/", "http://[v1.a]/x[1]"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000"],
}
BAD = {
    "date": ["2023-02-29", "2024-2-9", "", "20240229", "2024-02-29T00:00:00Z", "\N{ARABIC-INDIC DIGIT TWO}024-02-29"],
    "date-time": ["2024-02-29", "2024-02-30T00:00:00Z", "2024-02-29T25:00:00Z", "2024-02-29T00:00:00", "x"],
    "email": ["a", "", "a@" + "b" * 254],
    "idn-email": ["a"],
    "idn-hostname": ["", "a..b", "-a.example", "a" * 254, "\N{COMBINING GRAVE ACCENT}a"],
    "ipv4": ["127.0.0", "256.0.0.1", "127.0.0.1/8", "::1", "01.0.0.1"],
    "ipv6": ["1", ":::", "fe80::1%eth0", "12345::"],
    "regex": ["(", "[", "*"],
    "uri": [
        "x",
        "/a",
        "http:",
        "1:a",
        "http://a b",
        "http://[::1",
        "http://a]/",
        "h\N{LATIN SMALL LETTER E WITH ACUTE}:a",
    ],
    "uuid": ["123e4567e89b12d3a456426614174000", "{123e4567-e89b-12d3-a456-426614174000}", "x" * 36],
}
PIECES = (
    "a", ".", "-", ":", "::", "@", "1", "[", "(", "\\w", "\N{COMBINING GRAVE ACCENT}", "xn--",
    "\N{LATIN SMALL LETTER U WITH DIAERESIS}.", "%", "//", "a:", "2024-02-29T00:00:00.1",
    "/", "?", "urn:uuid:", "{", "0",
)  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in GOOD.items() for text in texts])
def test_what_has_the_format_is_taken(name: str, text: str) -> None:
    assert validate_arguments(one(keywords={"format": name}), {"x": text}) == {"x": text}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_what_has_not_is_refused(name: str, text: str) -> None:
    with pytest.raises(ArgumentError, match=f"must be a valid {name}"):
        validate_arguments(one(keywords={"format": name}), {"x": text})


def test_every_format_is_tried_here() -> None:
    assert set(GOOD) == set(BAD) == set(CHECKS)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("name", sorted(CHECKS))
def test_a_megabyte_takes_no_time(name: str, piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    begin = time.thread_time()
    try_out(CHECKS[name], text)
    try_out(CHECKS[name], "a@http://" + text + "!")
    assert time.thread_time() - begin < 2


def try_out(check: Callable[[str], bool], text: str) -> None:
    with suppress(ValueError):
        check(text)


@given(st.sampled_from(sorted(CHECKS)), st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_no_text_makes_a_check_fail(name: str, text: str) -> None:
    with suppress(ArgumentError):
        validate_arguments(one(keywords={"format": name}), {"x": text})


def test_a_thousand_regular_expressions_keep_the_server_busy_for_a_moment_only() -> None:
    contract = one(type="array", keywords={"items": {"type": "string", "format": "regex"}})
    begin = time.thread_time()
    with pytest.raises(ArgumentError, match="takes too long"):
        validate_arguments(contract, {"x": [r"\w{3}" + str(index) for index in range(100_000)]})
    assert time.thread_time() - begin < 4
