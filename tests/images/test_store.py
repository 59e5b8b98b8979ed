"""The image store: unpacked once, found by name and id, shared, never half there."""

import json
import multiprocessing
import os
import stat
import subprocess
import sys
import tarfile
import tracemalloc
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.errors import ImageError
from praxis_mcp.images import shared_files
from praxis_mcp.images.archives import import_file
from praxis_mcp.images.layers import Bounds
from praxis_mcp.images.manifests import digest_of
from praxis_mcp.images.model import Reference
from praxis_mcp.images.store import ImageStore, default_directory
from tests.images.tars import (
    MadeImage,
    docker_archive,
    file,
    header,
    image,
    layer,
    packed,
    pax_record,
    symlink,
    write_layout,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def hello(text: str = "hello", **config: Any) -> MadeImage:
    return image(layer(file("hello.txt", text.encode())), **config)


def test_an_image_that_a_tag_has_brought_is_found_by_its_digest_in_that_repository_alone(store: ImageStore) -> None:
    made = hello()
    store.install(made.content(), ["tool:1"])
    found = store.find(f"tool@{made.digest}")
    assert found is not None
    assert (found.image.id, found.pinned) == (digest_of(made.config), f"tool@{made.digest}")
    assert store.find(f"other@{made.digest}") is None
    assert store.find(f"tool@sha256:{'0' * 64}") is None


def everything(place: Path) -> list[str]:
    """What images and unfinished work there are."""
    return [f"{name}/{item.name}" for name in ("images", "tmp", "downloads") for item in (place / name).glob("*")]


# References


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("python", ("docker.io", "library/python", "latest", None)),
        ("python:3.11-slim", ("docker.io", "library/python", "3.11-slim", None)),
        ("owner/tool:1", ("docker.io", "owner/tool", "1", None)),
        ("docker.io/library/python", ("docker.io", "library/python", "latest", None)),
        ("localhost/tool", ("localhost", "tool", "latest", None)),
        ("localhost:5000/a/b:c", ("localhost:5000", "a/b", "c", None)),
        ("ghcr.io/o/t@sha256:" + "a" * 64, ("ghcr.io", "o/t", None, "sha256:" + "a" * 64)),
        ("[::1]:5000/t:1", ("[::1]:5000", "t", "1", None)),
    ],
)
def test_references_are_read_as_docker_does(text: str, whole: tuple[str, str, str | None, str | None]) -> None:
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag, found.digest) == whole
    assert Reference.parse(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "Upper/case", "a//b", "../../etc", "a b", "tool:", "tool@sha256:12", "t@md5:x", "a" * 600, "tool:-x"]
)
def test_what_is_not_a_reference_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="not an image reference") as failure:
        Reference.parse(text)
    assert failure.value.remedy


# The store


def test_an_image_is_found_by_every_spelling_of_its_name_and_by_id(store: ImageStore) -> None:
    made = hello(Env=["A=b=c"], Entrypoint=["/e"], Cmd=["c"], WorkingDir="/w", User="app", Volumes={"/v": {}})
    stored = store.install(made.content(), ["python:3"])
    for name in ("python:3", "docker.io/library/python:3", stored.id):
        found = store.find(name)
        assert found is not None
        assert found.image == stored
    assert (stored.env, stored.entrypoint, stored.command) == ({"A": "b=c"}, ("/e",), ("c",))
    assert (stored.working_dir, stored.user, stored.volumes) == ("/w", "app", ("/v",))
    assert (stored.root / "hello.txt").read_text() == "hello"
    assert store.find("python:4") is None


def test_an_image_is_pinned_by_its_manifest_where_that_is_known(store: ImageStore) -> None:
    made = hello()
    store.install(made.content(), ["ghcr.io/o/t:1"])
    found = store.find("ghcr.io/o/t:1")
    assert found is not None
    assert found.pinned == f"ghcr.io/o/t@{made.digest}"


def test_a_name_moves_to_another_image_and_garbage_collection_takes_the_old_one(store: ImageStore) -> None:
    old = store.install(hello("old").content(), ["tool:1"])
    new = store.install(hello("new").content(), ["tool:1"])
    assert [item.image.id for item in store.names()] == [new.id]
    assert store.collect_garbage() == (f"images/{old.id.removeprefix('sha256:')}",)
    assert store.collect_garbage() == ()
    found = store.find("tool:1")
    assert found is not None
    assert (found.image.root / "hello.txt").read_text() == "new"


def test_an_image_goes_with_its_last_name(store: ImageStore) -> None:
    stored = store.install(hello().content(), ["tool:1", "tool:2"])
    assert store.remove("tool:1")
    assert stored.root.exists()
    assert store.remove("tool:2")
    assert everything(store.directory) == []
    assert not store.remove("tool:2")


def test_an_image_goes_with_all_its_names_when_it_is_removed_by_id(store: ImageStore) -> None:
    stored = store.install(hello().content(), ["tool:1", "tool:2"])
    assert store.remove(stored.id)
    assert (store.names(), everything(store.directory)) == ((), [])


def test_an_image_in_use_is_not_removed_even_by_another_process(store: ImageStore) -> None:
    stored = store.install(hello().content(), ["tool:1"])
    source = f"""
from contextlib import nullcontext
from pathlib import Path
from praxis_mcp.errors import ImageError
from praxis_mcp.images.store import ImageStore
store = ImageStore(Path({str(store.directory)!r}))
for work in (lambda: store.remove("tool:1"), store.collect_garbage):
    try:
        print(work())
    except ImageError as exc:
        print(exc.message)
"""
    with store.use(stored):
        store.install(hello("another").content(), ["tool:1"])  # the image has no name any more
        store.install(hello().content(), ["tool:1"])
        done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
        assert "is in use" in done.stdout.splitlines()[0]
        assert stored.root.exists()
    assert store.remove("tool:1")
    with pytest.raises(ImageError, match="removed just now"), store.use(stored):
        pass


def test_two_processes_that_want_one_image_unpack_it_once(tmp_path: Path) -> None:
    entries = [file(f"f{number}", os.urandom(100)) for number in range(2000)]
    archive = docker_archive(tmp_path / "image.tar", image(layer(*entries)), "tool:1")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        seen = pool.starmap(_import_and_count, [(str(tmp_path / "store"), str(archive))] * 2)
    assert sorted(told > 0 for told, _ in seen) == [False, True]
    assert [count for _, count in seen] == [2000, 2000]
    assert len(everything(tmp_path / "store")) == 1


def _import_and_count(store: str, archive: str) -> tuple[int, int]:
    told: list[str] = []
    ((_, stored),) = import_file(ImageStore(Path(store)), Path(archive), on_progress=told.append)
    return len(told), len(list(stored.root.glob("f*")))


def test_what_fails_leaves_nothing_and_what_was_killed_goes_at_the_next_try(store: ImageStore) -> None:
    bad = image(layer(file("first")), layer(file("../escaped")))
    with pytest.raises(ImageError, match="layer 2"):
        store.install(bad.content(), ["tool:1"])
    assert (everything(store.directory), store.names()) == ([], ())
    made = hello()
    stale = store.directory / "tmp" / (digest_of(made.config).removeprefix("sha256:") + ".killed")
    (stale / "rootfs").mkdir(parents=True)
    (stale / "rootfs").chmod(0o500)
    store.install(made.content(), ["tool:1"])
    assert not stale.exists()


def test_an_image_with_directories_deeper_than_python_recurses_can_be_removed(store: ImageStore) -> None:
    stored = store.install(hello().content(), ["tool:1"])
    deep = str(stored.root)
    for _ in range(1500):
        deep += "/d"
        os.mkdir(deep)
    assert store.remove("tool:1")
    assert everything(store.directory) == []


def test_garbage_that_a_killed_process_left_goes_whatever_its_depth(store: ImageStore) -> None:
    store.install(hello().content(), ["tool:1"])
    deep = str(store.directory / "tmp" / f"{'0' * 64}.killed")
    for _ in range(1500):
        os.mkdir(deep)
        deep += "/d"
    assert store.collect_garbage() == (f"tmp/{'0' * 64}.killed",)


def test_images_are_nobody_elses(store: ImageStore) -> None:
    store.install(hello().content(), ["tool:1"])
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"os": "windows"}, "made for windows/"),
        ({"architecture": "sparc"}, "made for linux/sparc"),
        ({"rootfs": {"diff_ids": []}}, "1 layers and names 0"),
        ({"rootfs": {"diff_ids": ["md5:1"]}}, "sha256"),
        ({"config": {"Env": "A=b"}}, "Env"),
        ({"config": {"Entrypoint": [1]}}, "Entrypoint"),
        ({"config": {"Entrypoint": ["a\0--bind"]}}, "Entrypoint"),
        ({"config": {"Cmd": ["a\0--bind"]}}, "Cmd"),
        ({"config": {"Env": ["A=\0--bind"]}}, "Env"),
        ({"config": {"Env": ["A=\ud800"]}}, "Env"),
        ({"config": {"WorkingDir": "/\0--bind\0/\0/mnt"}}, "WorkingDir"),
        ({"config": {"WorkingDir": ["/"]}}, "WorkingDir"),
        ({"config": {"User": "root\0--bind"}}, "User"),
        ({"config": {"User": "\ud800"}}, "User"),
        ({"config": {"Volumes": {"/a\0b": {}}}}, "Volumes"),
        ({"config": {"Volumes": {"/" + "a" * 5000: {}}}}, "Volumes"),
        ({"config": {"Volumes": {f"/{number}": {} for number in range(129)}}}, "129 volumes; 128 are the most"),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * 513}}, "513 layers; 512 are the most"),
    ],
)
def test_a_configuration_that_cannot_be_run_here_is_refused(
    store: ImageStore, change: dict[str, object], said: str
) -> None:
    made = hello()
    config = json.dumps(json.loads(made.config) | change).encode()
    with pytest.raises(ImageError, match=said):
        store.install(MadeImage(made.layers, config, made.manifest).content(), ["tool:1"])


def test_the_default_place_follows_the_xdg_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "praxis-mcp/images"
    monkeypatch.setenv("XDG_DATA_HOME", "relative, which the specification says to ignore")
    assert default_directory() == Path.home() / ".local/share/praxis-mcp/images"


def test_a_user_without_a_home_learns_what_to_set_once_the_store_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    nowhere = ImageStore(default_directory())
    for work in (lambda: nowhere.find("tool:1"), nowhere.names, lambda: nowhere.install(hello().content(), ["tool:1"])):
        with pytest.raises(ImageError, match="no home directory") as failure:
            work()
        assert "engines.sandbox.store" in str(failure.value.remedy)


# Archives


def test_what_docker_saves_is_imported(store: ImageStore, tmp_path: Path) -> None:
    one = layer(file("a", b"1"))
    made = image(one, layer(file("b", b"2")), one, compress=False)
    found = import_file(store, docker_archive(tmp_path / "saved.tar", made, "tool:1", "other:2"))
    assert [name for name, _ in found] == ["tool:1"]
    assert {item.reference for item in store.names()} == {"tool:1", "other:2"}
    assert (found[0][1].root / "b").read_text() == "2"


@pytest.mark.parametrize("way", ["directory", "tar", "gzip", "open"])
def test_oci_layouts_and_archives_are_imported_with_their_digest(store: ImageStore, tmp_path: Path, way: str) -> None:
    made = hello()
    place = write_layout(tmp_path / "layout", [(made, "example.org/tool:1"), (hello("two"), "example.org/tool:2")])
    source: object = place
    if way != "directory":
        source = packed(place, tmp_path / "image.tar", "w:gz" if way == "gzip" else "w")
    with (tmp_path / "image.tar").open("rb") if way == "open" else nullcontext(source) as source:
        import_file(store, source)  # pyright: ignore[reportArgumentType]
    found = store.find("example.org/tool:1")
    assert found is not None
    assert found.pinned == f"example.org/tool@{made.digest}"
    assert store.find("example.org/tool:2") is not None


def test_a_name_can_be_given_and_must_be_where_the_file_has_none(store: ImageStore, tmp_path: Path) -> None:
    place = write_layout(tmp_path / "layout", [(hello(), "1.0")])
    with pytest.raises(ImageError, match="without a name") as failure:
        import_file(store, place)
    assert "--name" in str(failure.value.remedy)
    assert import_file(store, place, "tool:9")[0][0] == "tool:9"
    two = write_layout(tmp_path / "two", [(hello(), "a:1"), (hello("x"), "a:2")])
    with pytest.raises(ImageError, match="2 images"):
        import_file(store, two, "tool:9")


def test_an_altered_blob_is_refused(store: ImageStore, tmp_path: Path) -> None:
    made = hello()
    for number, data in enumerate((made.layers[0], made.config, made.manifest)):
        place = write_layout(tmp_path / str(number), [(made, "tool:1")])
        blob = place / "blobs/sha256" / digest_of(data).removeprefix("sha256:")
        blob.write_bytes(data.replace(b"l", b"1", 1) if number else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        with pytest.raises(ImageError, match=r"altered|digest|damaged"):
            import_file(store, place)
    assert everything(store.directory) == []


@pytest.mark.parametrize("content", [b"", b"text", layer(file("etc/passwd")), layer(symlink("manifest.json", "x"))])
def test_a_file_that_is_not_an_archive_of_images_is_named(store: ImageStore, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "what.tar"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"what\.tar"):
        import_file(store, path)
    with pytest.raises(ImageError, match="missing"):
        import_file(store, tmp_path / "missing.tar")


@pytest.mark.parametrize("size", [0, 40_000], ids=["many", "large"])
@pytest.mark.parametrize("kind", [tarfile.XGLTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_archive_of_headers_without_end_is_refused(
    store: ImageStore, tmp_path: Path, kind: bytes, size: int
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(header(kind, b"n" * size) * 1000 + layer(file("x")))
    with pytest.raises(ImageError, match=r"image\.tar"):
        import_file(store, path)


def test_headers_of_an_archive_do_not_fill_the_memory(store: ImageStore, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    with path.open("wb") as out:
        for number in range(1000):
            out.write(header(tarfile.XHDTYPE, pax_record(f"key{number}", "v" * 40_000)) + layer(file("x"))[:512])
        out.write(bytes(1024))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="not an archive of images"):
            import_file(store, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 25_000_000


def test_an_image_too_large_for_the_settings_is_refused(tmp_path: Path) -> None:
    small = ImageStore(tmp_path / "store", Bounds(size=1000))
    with pytest.raises(ImageError, match="larger than 1000 bytes"):
        small.install(hello("x" * 5000).content(), ["tool:1"])
    assert everything(small.directory) == []


# Caches


def test_a_cache_is_kept_for_its_key_and_nobody_elses(store: ImageStore) -> None:
    with store.use_cache("a" * 64) as place:
        (place / "x").write_text("said")
    with store.use_cache("a" * 64) as again, store.use_cache("b" * 64) as other:
        assert (again / "x").read_text() == "said"
        assert list(other.iterdir()) == []


def test_caches_are_bounded_by_their_last_use_and_none_goes_that_is_in_use(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_files, "MAX_CACHE_DIRECTORIES", 4)
    with store.use_cache("in-use") as held:
        for number in range(5):
            with store.use_cache(f"c{number}") as place:
                (place / "x").write_text("x")
            os.utime(place, (1_700_000_000, 1_700_000_000 + number))
        os.utime(held, (1, 1))
        monkeypatch.setattr(shared_files, "CACHE_MAX_AGE", 1e12)
        with store.use_cache("c1"):
            pass
        with store.use_cache("new"):
            pass
        kept = {place.name for place in (store.directory / "caches").iterdir()}
        assert kept == {"in-use", "c1", "c4", "new"}
        monkeypatch.setattr(shared_files, "CACHE_MAX_AGE", 0.0)
        assert set(store.collect_garbage()) == {"caches/c1", "caches/c4", "caches/new"}
    assert everything(store.directory) == []


# A store that cannot be written


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a directory read-only")
def test_images_of_a_store_that_is_mounted_read_only_can_be_used_and_the_rest_says_what_is_wrong(
    store: ImageStore,
) -> None:
    stored = store.install(hello().content(), ["tool:1"])
    (store.directory / "locks" / stored.id.removeprefix("sha256:")).unlink()
    source = f"""
from contextlib import nullcontext
from pathlib import Path
from praxis_mcp.errors import ImageError
from praxis_mcp.images.archives import import_file
from praxis_mcp.images.store import ImageStore
store = ImageStore(Path({str(store.directory)!r}))
found = store.find("tool:1")
with store.use(found.image) as held:
    print(held, (found.image.root / "hello.txt").read_text())
try:
    store.remove("tool:1")
except ImageError as exc:
    print("cannot be written" in exc.message, exc.remedy is not None)
"""
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(store.directory), sys.executable, source],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if "Operation not permitted" in done.stderr or "ermission denied" in done.stderr:
        pytest.skip("this root may mount nothing")
    assert done.stdout.splitlines() == ["True hello", "True True"], done.stderr
    assert store.find("tool:1") is not None
