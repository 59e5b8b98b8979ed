"""Indexes of every form: the image for this machine is found among attestations, artifacts and other platforms."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.errors import ImageError
from praxis_mcp.images.archives import import_file
from praxis_mcp.images.manifests import INDEX_TYPES, MANIFEST_TYPES, architecture, digest_of
from praxis_mcp.images.store import ImageStore
from praxis_mcp.support.logs import logger
from tests.images.tars import MadeImage, descriptor, file, image, layer, packed

HERE = {"os": "linux", "architecture": architecture()}
ELSEWHERE = {"os": "linux", "architecture": "s390x"}
ATTESTATION = {"vnd.docker.reference.type": "attestation-manifest"}


class Layout:
    """A layout on the disk; every `add…` puts blobs there and gives the entry of an index for them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "blobs/sha256").mkdir(parents=True)
        (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def add_blob(self, data: bytes, media_type: str, **fields: Any) -> dict[str, Any]:
        (self.place / "blobs/sha256" / digest_of(data).removeprefix("sha256:")).write_bytes(data)
        return descriptor(data, media_type, **fields)

    def add_image(self, text: str = "here", machine: str | None = None, **fields: Any) -> dict[str, Any]:
        made: MadeImage = image(layer(file("said", text.encode())), machine=machine)
        for data in (*made.layers, made.config):
            self.add_blob(data, "")
        return self.add_blob(made.manifest, MANIFEST_TYPES[0], **fields)

    def add_index(self, *entries: dict[str, Any], **fields: Any) -> dict[str, Any]:
        document = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": entries}
        return self.add_blob(json.dumps(document).encode(), INDEX_TYPES[0], **fields)

    def add_attestation(self, **fields: Any) -> dict[str, Any]:
        """As BuildKit writes it: with an image's types, for a platform that there is not."""
        config = self.add_blob(
            b'{"architecture": "unknown", "os": "unknown"}', "application/vnd.oci.image.config.v1+json"
        )
        statement = self.add_blob(b"{}", "application/vnd.in-toto+json")
        manifest = {"schemaVersion": 2, "config": config, "layers": [statement]}
        return self.add_blob(json.dumps(manifest).encode(), MANIFEST_TYPES[0], **fields)

    def add_artifact(self, **fields: Any) -> dict[str, Any]:
        """An SBOM, say: only its manifest says that it is not an image."""
        empty = self.add_blob(b"{}", "application/vnd.oci.empty.v1+json")
        manifest = {"schemaVersion": 2, "artifactType": "application/spdx+json", "config": empty, "layers": [empty]}
        return self.add_blob(json.dumps(manifest).encode(), MANIFEST_TYPES[0], **fields)

    def write(self, *entries: dict[str, Any]) -> Path:
        (self.place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        return self.place


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def said(store: ImageStore, name: str) -> str:
    found = store.find(name)
    assert found is not None
    return (found.image.root / "said").read_text()


FORMS = {
    "attestation": lambda it: [it.add_image(platform=HERE), it.add_attestation(annotations=ATTESTATION)],
    "attestation first, by its platform": lambda it: [
        it.add_attestation(platform={"os": "unknown", "architecture": "unknown"}),
        it.add_image(platform=HERE),
    ],
    "artifact that only its manifest tells": lambda it: [it.add_artifact(), it.add_image(platform=HERE)],
    "artifact that its entry tells": lambda it: [
        it.add_artifact(artifactType="application/spdx+json"),
        it.add_image(),
    ],
    "another platform first": lambda it: [
        it.add_image("other", "s390x", platform=ELSEWHERE),
        it.add_image(platform=HERE),
    ],
    "another platform that only its configuration tells": lambda it: [it.add_image("other", "s390x"), it.add_image()],
    "several systems": lambda it: [
        it.add_image("other", platform={**HERE, "os": "windows", "os.version": "10.0"}),
        it.add_image(platform=HERE),
    ],
    "the most common variant": lambda it: [
        it.add_image("v4", platform={**HERE, "variant": "v4"}),
        it.add_image(platform=HERE),
        it.add_image("v3", platform={**HERE, "variant": "v3"}),
    ],
    "indexes in indexes, the first for others": lambda it: [
        it.add_index(it.add_image("other", "s390x", platform=ELSEWHERE)),
        it.add_index(it.add_index(it.add_artifact(), it.add_image(platform=HERE), it.add_attestation(platform={}))),
    ],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("as_archive", [False, True])
def test_the_image_for_this_machine_is_found_in_an_index_of_any_form(
    layout: Layout, store: ImageStore, tmp_path: Path, form: str, as_archive: bool
) -> None:
    if form == "the most common variant" and architecture() != "amd64":
        pytest.skip("variants are another architecture's")
    place = layout.write(*FORMS[form](layout))
    source = packed(place, tmp_path / "image.tar") if as_archive else place
    import_file(store, source, "tool:1")
    assert said(store, "tool:1") == "here"


def test_what_is_for_another_platform_may_lack_its_files(layout: Layout, store: ImageStore) -> None:
    absent = {"digest": "sha256:" + "0" * 64, "size": 3}
    import_file(store, layout.write({**absent, "platform": ELSEWHERE}, layout.add_image(platform=HERE)), "tool:1")
    assert said(store, "tool:1") == "here"


def test_an_index_without_an_image_for_this_machine_says_which_platforms_it_has(
    layout: Layout, store: ImageStore
) -> None:
    windows = layout.add_image("w", platform={"os": "windows", "architecture": "amd64"})
    place = layout.write(windows, layout.add_image("z", "s390x"), layout.add_attestation(annotations=ATTESTATION))
    with pytest.raises(ImageError, match=f"nothing for linux/{architecture()}, only windows/amd64, linux/s390x"):
        import_file(store, place, "tool:1")


def test_of_several_images_a_name_is_given_to_the_one_that_has_it_and_to_no_other(
    layout: Layout, store: ImageStore
) -> None:
    key = "org.opencontainers.image.ref.name"
    place = layout.write(
        layout.add_image("a", annotations={key: "example.org/a:1"}),
        layout.add_image("b", annotations={key: "example.org/b:1"}),
    )
    import_file(store, place, "example.org/b:1")
    assert said(store, "example.org/b:1") == "b"
    with pytest.raises(ImageError, match="2 images for this machine") as failure:
        import_file(store, place, "tool:1")
    assert "example.org/a:1, example.org/b:1" in str(failure.value.remedy)


def test_one_name_for_several_platforms_is_the_image_for_this_machine(layout: Layout, store: ImageStore) -> None:
    notes = {"io.containerd.image.name": "example.org/tool:1"}
    import_file(
        store,
        layout.write(
            layout.add_image("other", "s390x", platform=ELSEWHERE, annotations=notes),
            layout.add_image(platform=HERE, annotations=notes),
        ),
    )
    assert said(store, "example.org/tool:1") == "here"


def test_a_name_that_is_only_for_other_machines_is_left_aside_with_a_warning(layout: Layout, store: ImageStore) -> None:
    key = "io.containerd.image.name"
    place = layout.write(
        layout.add_image(annotations={key: "example.org/here:1"}),
        layout.add_image("z", "s390x", annotations={key: "example.org/there:1"}),
    )
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    try:
        import_file(store, place)
    finally:
        logger.remove(sink)
    assert [item.reference for item in store.names()] == ["example.org/here:1"]
    assert "example.org/there:1" in "".join(lines)


def test_indexes_that_list_one_another_many_times_are_refused_soon(layout: Layout, store: ImageStore) -> None:
    entry = layout.add_image()
    for _ in range(4):
        entry = layout.add_index(*[entry] * 100)
    with pytest.raises(ImageError, match="lists more than"):
        import_file(store, layout.write(entry), "tool:1")


@pytest.mark.parametrize("way", ["dots", "link", "link on the way", "pipe"])
def test_a_directory_in_dockers_format_leads_to_no_file_outside(store: ImageStore, tmp_path: Path, way: str) -> None:
    secret, place = layer(file("said", b"secret")), tmp_path / "in" / "image"
    (tmp_path / "in" / "outside").mkdir(parents=True)
    (tmp_path / "in" / "outside" / "layer.tar").write_bytes(secret)
    place.mkdir()
    path = "layer.tar"
    if way == "dots":
        path = "../outside/layer.tar"
    elif way == "link":
        (place / path).symlink_to(tmp_path / "in" / "outside" / path)
    elif way == "link on the way":
        (place / "sub").symlink_to("../outside")
        path = "sub/layer.tar"
    else:  # nobody writes to it: to open it would wait for ever
        os.mkfifo(place / path)
    (place / "config.json").write_bytes(image(secret).config)
    manifest = [{"Config": "config.json", "RepoTags": ["tool:1"], "Layers": [path]}]
    (place / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ImageError, match="lacks the layer"):
        import_file(store, place)
    assert store.names() == ()


def test_links_inside_a_directory_of_an_image_are_followed(store: ImageStore, tmp_path: Path) -> None:
    data, place = layer(file("said", b"x")), tmp_path / "image"
    (place / "0").mkdir(parents=True)
    (place / "first.tar").write_bytes(data)
    (place / "0" / "layer.tar").symlink_to("../first.tar")
    (place / "config.json").write_bytes(image(data).config)
    manifest = [{"Config": "config.json", "RepoTags": ["tool:1"], "Layers": ["0/layer.tar"]}]
    (place / "manifest.json").write_text(json.dumps(manifest))
    import_file(store, place)
    assert said(store, "tool:1") == "x"
