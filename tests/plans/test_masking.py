"""Secrets in a stream are masked wherever its pieces end, and whatever the secrets have in common."""

import base64
import html
import json
import time
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

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
    for secret in map(str.encode, secrets):
        for start in range(len(whole)):
            if whole.startswith(secret, start):
                hidden[start : start + len(secret)] = [True] * len(secret)
    shown = bytes(byte for byte, is_hidden in zip(whole, hidden, strict=True) if not is_hidden)
    assert in_pieces(masker, pieces) == masker.data(whole)
    assert masker.data(whole).replace(b"***", b"") == shown


def test_a_stream_holds_back_no_more_than_could_be_a_secret() -> None:
    stream = MaskedStream(Masker(("abcd", "ab\nxyz")))
    assert stream.feed(b"step 1 of 4\n") == b"step 1 of 4\n"
    assert stream.feed(b"0123456789abc") == b"0123456789"
    assert stream.feed(b"ab") == b"abc"
    assert stream.feed(b"\\") == b""
    assert stream.feed(b"nxyz.ab\\t") == b"***.ab\\t"


def test_text_keeps_what_is_not_utf_8() -> None:
    assert Masker(("schlüssel",)).text("ein schlüssel \udcff") == "ein *** \udcff"
    assert Masker(("key\udcff",)).text("a key\udcff") == "a ***"
    assert Masker(("key\udcff",)).data(b"a key\xff") == b"a ***"


ODD = 'pa"ss\\w\u00f6rd/\n\U0001f511&<1'
"""What JSON, URLs and XML all have to escape something of."""


def numbered(text: str) -> str:
    """Every character as JSON's escapes by number."""
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def ways_to_write(secret: str) -> dict[str, str]:
    inner = json.dumps(secret)[1:-1]
    return {
        "as it is": secret,
        "JSON in ASCII": inner,
        "JSON in UTF-8": json.dumps(secret, ensure_ascii=False)[1:-1],
        "JSON with slashes escaped": json.dumps(secret)[1:-1].replace("/", "\\/"),
        "JSON by numbers": numbered(secret),
        "JSON by numbers in capitals": numbered(secret).upper().replace("\\U", "\\u"),
        "JSON, each second by number": "".join(
            numbered(each) if at % 2 else json.dumps(each)[1:-1] for at, each in enumerate(secret)
        ),
        "JSON in JSON": json.dumps(inner)[1:-1],
        "JSON in JSON in UTF-8": json.dumps(json.dumps(secret, ensure_ascii=False), ensure_ascii=False)[3:-3],
        "JSON by numbers in JSON": json.dumps(numbered(secret))[1:-1],
        "JSON in JSON in JSON": json.dumps(json.dumps(inner)[1:-1])[1:-1],
        "URL, path": quote(secret),
        "URL, component": quote(secret, safe=""),
        "URL, form": quote_plus(secret),
        "URL in lower case": quote(secret, safe="").replace("%C3%B6", "%c3%b6"),
        "XML": escape(secret),
        "XML attribute": escape(secret, {'"': "&quot;", "'": "&apos;"}),
        "HTML": html.escape(secret),
        "XML in ASCII": escape(secret).encode("ascii", "xmlcharrefreplace").decode(),
        **{f"Base64 after {n}": base64.b64encode(b"u" * n + secret.encode() + b":x").decode() for n in range(4)},
        **{
            f"Base64 of URLs after {n}": base64.urlsafe_b64encode(b"\xff" * n + secret.encode()).decode()
            for n in range(3)
        },
    }


@pytest.mark.parametrize(
    "secret", [ODD, "plain-token-0123456789", "with a blank + plus", "'q' \"Q\" `$x`", '\\\\"\\', "%41%", "ключ 鍵"]
)
def test_a_secret_is_masked_however_a_program_escapes_it(secret: str) -> None:
    masker = Masker((secret,))
    for way, written in ways_to_write(secret).items():
        if way.startswith("Base64") and len(secret.encode()) < 7:
            continue
        masked = masker.text(f"<{written}>")
        assert "***" in masked, way
        if not way.startswith("Base64"):
            assert masked == "<***>", way
        whole = f"before {written} after".encode()
        assert in_pieces(masker, [whole[at : at + 1] for at in range(len(whole))]) == masker.data(whole), way


@given(st.text(min_size=4, max_size=12), st.data())
def test_any_secret_in_json_is_masked_wherever_the_pieces_end(secret: str, data: st.DataObject) -> None:
    masker = Masker((secret,))
    document = json.dumps({"k": [f"x{secret}y", {secret: 1}]}, ensure_ascii=data.draw(st.booleans())).encode(
        errors="surrogatepass"
    )
    cut = data.draw(st.integers(0, len(document)))
    masked = in_pieces(masker, [document[:cut], document[cut:]])
    assert masked == masker.data(document)
    assert (
        secret not in str(json.loads(masked.decode(errors="surrogatepass"))) or secret in "{'k': ['x***y', {'***': 1}]}"
    )


def test_a_long_secret_costs_no_more_than_its_length() -> None:
    secret = "".join(chr(33 + at * 7 % 90) for at in range(20_000))
    masker = Masker((secret,))
    began = time.process_time()
    assert masker.data(b"x" * 1_000_000 + secret.encode() + b"y") == b"x" * 1_000_000 + b"***y"
    assert masker.data((secret[:-1] * 5).encode()) == (secret[:-1] * 5).encode()
    assert time.process_time() - began < 10


@pytest.mark.parametrize("pieces", [1, 5])
def test_a_long_secret_that_repeats_itself_costs_a_moment_and_none_of_it_passes(pieces: int) -> None:
    size = 65536
    data = [b"a" * 29_000 + b"b" + b"a" * (size - 29_001)] * pieces
    before = time.process_time()
    masked = in_pieces(Masker(("a" * 30_000,)), data)
    assert time.process_time() - before < 20  # it took a minute for each piece
    assert b"aaaa" not in masked


def test_a_long_secret_is_found_by_itself_in_much_that_begins_as_it_does() -> None:
    secret = "-----BEGIN PRIVATE KEY-----\n" + "".join(f"{number:05d}" for number in range(400))
    begun = secret[:1500].encode() + b"!\n"
    assert Masker((secret,)).data(begun * 50 + secret.encode() + begun) == begun * 50 + b"***" + begun
