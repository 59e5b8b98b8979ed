"""What an image says of itself is believed only as far as it has the form of an image that can be run here."""

from __future__ import annotations

from typing import Any

import pytest

from praxis_mcp.errors import ImageError
from praxis_mcp.images.manifests import (
    MAX_DOCUMENT,
    MAX_LAYERS,
    choose_manifest,
    read_document,
    read_manifest,
)

PART = {"digest": f"sha256:{'a' * 64}", "size": 1}
OTHER = {"digest": f"sha256:{'b' * 64}", "size": 1}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b" " * (MAX_DOCUMENT + 1), f"x is larger than {MAX_DOCUMENT} bytes"),
        (b"{", "x is not JSON"),
        (b"[" * 100_000, "x is not JSON"),
        (b"[]", "x holds no JSON object"),
    ],
)
def test_a_document_is_a_json_object_of_bounded_size(data: bytes, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        read_document(data, "x")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"schemaVersion": 1}, "x is not an image manifest of version 2"),
        ({"config": {**PART, "mediaType": "application/vnd.acme"}}, "x is not an image: it holds 'application/vnd.acm"),
        ({"layers": [PART] * (MAX_LAYERS + 1)}, f"x has {MAX_LAYERS + 1} layers; {MAX_LAYERS} are the most"),
        ({"layers": ["no mapping"]}, "x names a part without a sha256 digest and a size"),
        ({"layers": [{**PART, "digest": "md5:abc"}]}, "x names a part without a sha256 digest and a size"),
        ({"layers": [{**PART, "size": -1}]}, "x names a part without a sha256 digest and a size"),
        ({"layers": [{**PART, "urls": ["http://elsewhere"]}]}, "a layer that its registry may not hand out"),
    ],
)
def test_a_manifest_that_is_malformed_or_of_another_kind_is_refused(fields: dict[str, Any], problem: str) -> None:
    whole = {"schemaVersion": 2, "config": PART, "layers": [PART]}
    assert len(read_manifest(whole, "x").layers) == 1
    with pytest.raises(ImageError, match=problem):
        read_manifest({**whole, **fields}, "x")


def test_of_an_index_that_names_no_platform_the_first_image_is_taken() -> None:
    index = {"manifests": [{**OTHER, "artifactType": "application/vnd.acme"}, PART, OTHER]}
    assert choose_manifest(index, "x").digest == PART["digest"]
    with pytest.raises(ImageError, match="nothing at all"):
        choose_manifest({"manifests": []}, "x")
