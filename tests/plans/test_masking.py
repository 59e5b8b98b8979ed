"""Secrets in a stream are masked wherever its pieces end, and whatever the secrets have in common."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.plans.secrets import MaskedStream, Masker


def in_pieces(masker: Masker, pieces: list[bytes]) -> bytes:
    stream = MaskedStream(masker)
    return b"".join([stream.feed(piece) for piece in pieces] + [stream.feed(b"", last=True)])


@pytest.mark.parametrize(
    ("secrets", "pieces", "expected"),
    [
        (("abcd", "abcd1234"), [b"x" * 20 + b"abcd", b"1234" + b"y" * 20], b"x" * 20 + b"***" + b"y" * 20),
        (("abcd", "abcd1234"), [b"abcd", b"12", b"abcd"], b"***12***"),
        (("abcd", "cdefgh"), [b"abcdefgh."], b"***."),
        (("abcd", "cdefgh"), [b"abcd", b"efgh."], b"***."),
        (("aaaa",), [b"aa", b"aaaaa", b"ab"], b"***b"),
        (("abcd",), [b"abcdabcd"], b"******"),
        (("abcd",), [b"abc"], b"abc"),
        ((), [b"abcd"], b"abcd"),
    ],
)
def test_no_part_of_a_secret_passes(secrets: tuple[str, ...], pieces: list[bytes], expected: bytes) -> None:
    assert in_pieces(Masker(secrets), pieces) == expected
    assert Masker(secrets).data(b"".join(pieces)) == expected


@given(
    st.lists(st.text("ab", min_size=4, max_size=9), max_size=4),
    st.lists(st.binary(max_size=9).map(lambda data: bytes(97 + byte % 3 for byte in data)), max_size=12),
)
def test_where_the_pieces_end_makes_no_difference(secrets: list[str], pieces: list[bytes]) -> None:
    masker, whole = Masker(tuple(secrets)), b"".join(pieces)
    hidden = [False] * len(whole)
    for secret in masker.secrets:
        for start in range(len(whole)):
            if whole.startswith(secret, start):
                hidden[start : start + len(secret)] = [True] * len(secret)
    shown = bytes(byte for byte, is_hidden in zip(whole, hidden, strict=True) if not is_hidden)
    assert in_pieces(masker, pieces) == masker.data(whole)
    assert masker.data(whole).replace(b"***", b"") == shown


def test_a_stream_holds_back_no_more_than_could_be_a_secret() -> None:
    stream = MaskedStream(Masker(("abcd",)))
    assert stream.feed(b"0123456789") == b"0123456"


def test_text_keeps_what_is_no_utf_8() -> None:
    assert Masker(("schlüssel",)).text("ein schlüssel \udcff") == "ein *** \udcff"
    assert Masker(("key\udcff",)).text("a key\udcff") == "a ***"
    assert Masker(("key\udcff",)).data(b"a key\xff") == b"a ***"
