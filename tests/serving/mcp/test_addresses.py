"""Addresses of runs, and what bytes are."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.serving.mcp.media import decode_text, media_type, mime_of_file
from praxis_mcp.serving.mcp.resources import _incomplete, artifact_uri, parse_uri, stream_uri

NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)


@given(NAMES)
def test_any_file_name_survives_the_way_through_an_address(name: bytes) -> None:
    address = parse_uri(artifact_uri("a1", os.fsdecode(name)))
    assert address is not None
    assert os.fsencode(address.artifact or "") == name


def test_an_address_names_the_next_part_of_itself() -> None:
    address = parse_uri(stream_uri("a1", "stderr") + "?offset=5&limit=10")
    assert address is not None
    assert (address.stream, address.offset, address.limit) == ("stderr", 5, 10)
    assert parse_uri(address.at(15)) == parse_uri("praxis://runs/a1/stderr?offset=15&limit=10")


@given(st.text(max_size=50), st.integers(0, 200))
def test_text_cut_anywhere_loses_no_character_and_gains_none(text: str, at: int) -> None:
    data = text.encode()
    at = min(at, len(data))
    cut = data[:at][: at - _incomplete(data[:at])]
    first, second = decode_text(data[:at], cut=True), decode_text(data[len(cut) :])
    assert first is not None
    assert second is not None
    assert first == cut.decode()
    assert first + second == text


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        (b"ID3\x04\0", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"OggS\0", "audio/ogg"),
        (b"%PDF-1.7", "application/pdf"),
        (b"ID3 tags are old", None),
        (b"plain", None),
        (b"", None),
    ],
)
def test_a_type_is_found_by_the_first_bytes(head: bytes, expected: str | None) -> None:
    assert media_type(head) == expected


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.png", b"not an image", "image/png"),
        ("a.txt", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("data.csv", b"a,b", "text/csv"),
        ("data.csv.gz", b"\x1f\x8b\x08", "application/gzip"),
        ("README", b"hello", "text/plain"),
        ("blob", bytes(range(256)), "application/octet-stream"),
    ],
)
def test_a_file_has_the_type_of_its_bytes_or_else_of_its_name(name: str, head: bytes, expected: str) -> None:
    assert mime_of_file(name, head) == expected
