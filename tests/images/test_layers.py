"""Layers become a root file system, and nothing in them reaches beyond it."""

import gzip
import io
import multiprocessing
import os
import stat
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from praxis_mcp.errors import ImageError
from praxis_mcp.images.layers import Bounds, RootBuilder
from praxis_mcp.images.manifests import digest_of
from tests.images.tars import Entry, device, directory, fifo, file, hard_link, header, layer, pax_record, symlink


def build(root: Path, *layers: bytes, bounds: Bounds | None = None) -> RootBuilder:
    root.mkdir()
    builder = RootBuilder(root, bounds or Bounds())
    for data in layers:
        builder.apply(io.BytesIO(data), diff_id=digest_of(data), digest=None, what="The layer")
    builder.finish()
    return builder


def tree(root: Path) -> dict[str, str]:
    """Every file and link below, with its content or target, but for what is there in every image."""
    found: dict[str, str] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if name != "etc/hosts" and (path.is_symlink() or not path.is_dir()):
            found[name] = f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
    return found


# What must not get out


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([file("../escaped", b"x")], id="dot-dot"),
        pytest.param([file("a/../../escaped", b"x")], id="dot-dot further in"),
        pytest.param([directory("../escaped")], id="a directory"),
        pytest.param([hard_link("inside", "../outside")], id="hard link by dot-dot"),
        pytest.param([hard_link("inside", "/etc/passwd")], id="hard link to an absolute path that the image lacks"),
        pytest.param([symlink("up", ".."), hard_link("inside", "up/outside")], id="hard link through a link"),
    ],
)
def test_an_entry_that_leads_out_of_the_image_is_refused(tmp_path: Path, entries: list[Entry]) -> None:
    (tmp_path / "outside").write_text("of the host")
    with pytest.raises(ImageError, match=r"leads out of|not a file of the image"):
        build(tmp_path / "root", layer(*entries))
    assert not (tmp_path / "escaped").exists()
    assert os.stat(tmp_path / "outside").st_nlink == 1


def test_an_absolute_name_is_below_the_root(tmp_path: Path) -> None:
    build(tmp_path / "root", layer(file("/etc/motd", b"hello")))
    assert tree(tmp_path / "root") == {"etc/motd": "hello"}


@pytest.mark.parametrize("target", ["/outside", "../../../../outside", "up/up/up/outside"])
@pytest.mark.parametrize("in_one_layer", [True, False])
def test_what_is_written_through_a_link_stays_inside(tmp_path: Path, target: str, in_one_layer: bool) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link, write = [symlink("up", ".."), symlink("door", target)], file("door/planted", b"x")
    layers = [layer(*link, write)] if in_one_layer else [layer(*link), layer(write)]
    build(tmp_path / "root", *layers)
    assert list(outside.iterdir()) == []
    assert (tmp_path / "root/outside/planted").read_text() == "x"


def test_a_file_never_goes_through_a_link_of_its_own_name(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("of the host")
    build(tmp_path / "root", layer(symlink("note", str(victim)), file("note", b"of the image")))
    assert victim.read_text() == "of the host"
    assert tree(tmp_path / "root") == {"note": "of the image"}


def test_a_whiteout_removes_nothing_outside(tmp_path: Path) -> None:
    victim = tmp_path / "outside" / "victim"
    victim.parent.mkdir()
    victim.write_text("of the host")
    build(
        tmp_path / "root",
        layer(symlink("door", str(victim.parent))),
        layer(file("door/.wh.victim"), file("door/.wh..wh..opq")),
    )
    assert victim.exists()


@pytest.mark.parametrize("in_one_layer", [True, False])
@pytest.mark.parametrize("replaced", ["a", "a/b", "a/b/inner"])
def test_a_directory_that_becomes_a_link_gives_its_mode_and_time_to_nothing_outside(
    tmp_path: Path, replaced: str, in_one_layer: bool
) -> None:
    outside = tmp_path / "outside"
    for place in ("a/b/inner", "b/inner", "inner", ""):
        (outside / place).mkdir(parents=True, exist_ok=True)
        (outside / place).chmod(0o700)
    before = {str(path): (path.stat().st_mode, path.stat().st_mtime) for path in (outside, *outside.rglob("*"))}
    first = [directory(name, 0o777) for name in ("a", "a/b", "a/b/inner")]
    link = symlink(replaced, str(outside))
    build(tmp_path / "root", *([layer(*first, link)] if in_one_layer else [layer(*first), layer(link)]))
    assert {str(path): (path.stat().st_mode, path.stat().st_mtime) for path in (outside, *outside.rglob("*"))} == before
    assert (tmp_path / "root" / replaced).is_symlink()


@pytest.mark.parametrize("name", [".wh...", ".wh..", ".wh."])
def test_a_whiteout_of_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="which is not a file"):
        build(tmp_path / "root", layer(file(f"sub/{name}")))


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="in circles"):
        build(tmp_path / "root", layer(symlink("a", "b"), symlink("b", "a"), file("a/x")))


def test_devices_are_left_out(tmp_path: Path) -> None:
    build(tmp_path / "root", layer(device("disk"), file("kept", b"x")))
    assert tree(tmp_path / "root") == {"kept": "x"}


def test_set_user_id_bits_are_dropped_and_everything_belongs_to_us(tmp_path: Path) -> None:
    build(tmp_path / "root", layer(file("su", b"x", mode=0o6755), directory("shared", 0o3777)))
    found = (tmp_path / "root/su").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o755, os.getuid())
    assert stat.S_IMODE((tmp_path / "root/shared").stat().st_mode) == 0o1777


# What is too much, or broken


def test_a_layer_of_too_many_bytes_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(layer(file("zeros", bytes(4_000_000))))
    assert len(data) < 10_000
    root = tmp_path / "root"
    root.mkdir()
    builder = RootBuilder(root, Bounds(size=1_000_000))
    with pytest.raises(ImageError, match="larger than 1000000 bytes") as failure:
        builder.apply(io.BytesIO(data), diff_id="", digest=None, what="The layer")
    assert "max_image_size" in str(failure.value.remedy)


def test_a_layer_that_goes_on_behind_its_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="larger than 1000000 bytes"):
        build(tmp_path / "root", layer(file("small")) + bytes(4_000_000), bounds=Bounds(size=1_000_000))


def test_a_sparse_file_counts_by_what_it_claims(tmp_path: Path) -> None:
    info, _ = file("sparse")
    info.pax_headers = {"GNU.sparse.size": "1000000000000", "GNU.sparse.map": "0,0", "GNU.sparse.numblocks": "1"}
    with pytest.raises(ImageError, match="larger than"):
        build(tmp_path / "root", layer((info, b"")), bounds=Bounds(size=1_000_000))


def test_layers_of_too_many_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="more than 100 files"):
        build(
            tmp_path / "root",
            layer(*(file(f"a{number}") for number in range(60))),
            layer(*(file(f"b{number}") for number in range(60))),
            bounds=Bounds(entries=100),
        )


def test_names_that_no_file_system_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be unpacked"):
        build(tmp_path / "root", layer(file("n" * 300)))
    with pytest.raises(ImageError, match="deep"):
        build(tmp_path / "deep", layer(file("d/" * 200 + "x")))


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info, _ = file("x")
    info.pax_headers = {"comment": "c" * 1_000_000}
    with pytest.raises(ImageError, match="header that is too large"):
        build(tmp_path / "root", layer((info, b"")))


@pytest.mark.parametrize("size", [0, 40_000], ids=["many", "large"])
@pytest.mark.parametrize("kind", [tarfile.XGLTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_lead_to_ever_more_headers_are_refused(tmp_path: Path, kind: bytes, size: int) -> None:
    with pytest.raises(ImageError, match=r"header that is too large|headers lead from one to the next"):
        build(tmp_path / "root", header(kind, b"n" * size) * 1000 + layer(file("x")))


def test_the_map_of_a_sparse_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    info, _ = file("sparse")
    info.type = tarfile.GNUTYPE_SPARSE
    first = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    first[482] = 1  # it goes on in the next block
    first[148:156] = b"%06o\0 " % (sum(first) - sum(first[148:156]) + 8 * ord(" "))
    block = (b"00000000001\0" * 2) * 21 + b"\1" + bytes(7)
    with pytest.raises(ImageError, match="header that is too large"):
        build(tmp_path / "root", bytes(first) + block * 5000)
    with pytest.raises(ImageError, match="damaged"):
        build(tmp_path / "other", bytes(first) + block * 5)


def test_global_headers_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    def entries(count: int) -> bytes:
        return b"".join(
            header(tarfile.XGLTYPE, pax_record(f"key{number}", "v" * 20_000)) + layer(file(f"f{number}"))[:512]
            for number in range(count)
        ) + bytes(1024)

    data = entries(300)
    tracemalloc.start()
    try:
        build(tmp_path / "root", data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(tree(tmp_path / "root")) == 300
    assert peak < 3_000_000


def test_links_do_not_make_a_tree_deeper_than_names_may(tmp_path: Path) -> None:
    hundred = "/".join(["d"] * 100)
    with pytest.raises(ImageError, match="more than 128 deep"):
        build(tmp_path / "root", layer(directory(hundred), symlink("l", hundred), directory(f"l/{hundred}")))
    with pytest.raises(ImageError, match="more than 128 deep"):
        build(tmp_path / "other", layer(symlink("tmp", "d/" * 2000 + "d")))


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_layer_that_was_cut_short_is_refused(tmp_path: Path, compress: bool, part: float) -> None:
    whole = layer(file("big", os.urandom(100_000)), file("last", b"x"))
    data = gzip.compress(whole) if compress else whole
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ImageError, match=r"damaged|its digest is"):
        RootBuilder(root, Bounds()).apply(
            io.BytesIO(data[: int(part * len(data))]), diff_id=digest_of(whole), digest=None, what="The layer"
        )


@pytest.mark.parametrize("wrong", ["diff_id", "digest"])
def test_a_layer_with_another_digest_is_refused(tmp_path: Path, wrong: str) -> None:
    whole = layer(file("x"))
    data = gzip.compress(whole)
    digests = {"diff_id": digest_of(whole), "digest": digest_of(data)} | {wrong: digest_of(b"something else")}
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ImageError, match="not what the image names"):
        RootBuilder(root, Bounds()).apply(io.BytesIO(data), what="The layer", **digests)


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive at all", os.urandom(5000), gzip.compress(b"neither"), b"BZh91AY"],
    ids=["nothing", "text", "noise", "compressed text", "the head of bzip2"],
)
def test_what_is_not_a_layer_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ImageError):
        build(tmp_path / "root", data)


# What layers mean


def test_later_layers_win_and_whiteouts_remove(tmp_path: Path) -> None:
    build(
        tmp_path / "root",
        layer(
            file("etc/a", b"1"), file("etc/b", b"1"), file("opt/x/y", b"1"), file("kind", b"1"), file("dir/in", b"1")
        ),
        layer(file("etc/.wh.a"), file("etc/b", b"2"), file(".wh.opt"), directory("kind"), file("dir", b"2")),
    )
    assert tree(tmp_path / "root") == {"etc/b": "2", "dir": "2"}
    assert (tmp_path / "root/kind").is_dir()


@pytest.mark.parametrize("marker_first", [True, False])
def test_an_opaque_directory_hides_what_is_below_and_not_what_it_brings(tmp_path: Path, marker_first: bool) -> None:
    marker, fresh = file("etc/.wh..wh..opq"), [file("etc/new", b"2"), file("etc/sub/new", b"2")]
    build(
        tmp_path / "root",
        layer(file("etc/old", b"1"), file("etc/sub/old", b"1")),
        layer(*([marker, *fresh] if marker_first else [*fresh, marker])),
    )
    assert tree(tmp_path / "root") == {"etc/new": "2", "etc/sub/new": "2"}


@pytest.mark.parametrize("marker_first", [True, False])
def test_a_whiteout_next_to_a_new_entry_of_that_name_removes_the_old_one_only(
    tmp_path: Path, marker_first: bool
) -> None:
    entries = [file(".wh.data"), file("data/new", b"2")]
    build(tmp_path / "root", layer(file("data/old", b"1")), layer(*(entries if marker_first else reversed(entries))))
    assert tree(tmp_path / "root") == {"data/new": "2"}


def test_an_image_whose_lib_is_a_link_gets_files_of_later_layers_where_it_leads(tmp_path: Path) -> None:
    build(tmp_path / "root", layer(directory("usr/lib"), symlink("lib", "usr/lib")), layer(file("lib/x.so", b"x")))
    assert tree(tmp_path / "root") == {"lib": "-> usr/lib", "usr/lib/x.so": "x"}


def test_hard_links_share_and_are_cut_when_one_is_replaced(tmp_path: Path) -> None:
    root = tmp_path / "root"
    build(root, layer(file("a", b"1"), hard_link("b", "a"), hard_link("sub/c", "/a")), layer(file("a", b"2")))
    assert tree(root) == {"a": "2", "b": "1", "sub/c": "1"}
    assert os.path.samefile(root / "b", root / "sub/c")


def test_times_are_kept_because_python_trusts_its_bytecode_by_them(tmp_path: Path) -> None:
    build(tmp_path / "root", layer(directory("pkg"), file("pkg/m.py", b"x", mtime=1_234_567_890)))
    assert (tmp_path / "root/pkg/m.py").stat().st_mtime == 1_234_567_890
    assert (tmp_path / "root/pkg").stat().st_mtime == 1_000_000_000


def test_an_image_of_one_file_gets_what_sandboxes_mount_on(tmp_path: Path) -> None:
    root = tmp_path / "root"
    build(root, layer(file("tool", b"x", mode=0o755), symlink("proc", "/etc"), file("dev", b"")))
    assert all(stat.S_ISDIR(os.lstat(root / name).st_mode) for name in ("proc", "dev", "sys", "tmp", "etc"))
    assert "localhost" in (root / "etc/hosts").read_text()


@pytest.mark.parametrize("link", [[], [symlink("etc/hosts", "../pipe")]])
def test_a_pipe_in_place_of_the_file_of_hosts_is_not_waited_for(tmp_path: Path, link: list[Entry]) -> None:
    root = tmp_path / "root"
    data = layer(fifo("pipe"), *link) if link else layer(fifo("etc/hosts"))
    # In a process of its own: an open that waits for a reader cannot be stopped in this one.
    child = multiprocessing.get_context("spawn").Process(target=build, args=(root, data))
    child.start()
    child.join(60)
    stuck = child.exitcode is None
    child.kill()
    assert not stuck
    assert child.exitcode == 0
    assert stat.S_ISFIFO((root / "etc/hosts").stat().st_mode)


def test_an_empty_file_of_hosts_is_filled_and_no_other_name_of_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    build(root, layer(file("etc/hosts"), hard_link("empty", "etc/hosts")))
    assert "localhost" in (root / "etc/hosts").read_text()
    assert (root / "empty").read_text() == ""


def test_a_stopped_unpacking_ends_soon(tmp_path: Path) -> None:
    data = layer(*(file(f"a{number}") for number in range(1000)))
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ImageError, match="cancelled"):
        RootBuilder(root, Bounds(), lambda: True).apply(io.BytesIO(data), diff_id="", digest=None, what="The layer")
    assert len(list(root.iterdir())) < 100


# What unpacking costs


@pytest.mark.parametrize(
    "again",
    [
        pytest.param([file("d/.wh..wh..opq")], id="one opaque directory"),
        pytest.param([file(".wh.d")], id="one whiteout of a directory that the layer brings"),
        pytest.param([file("d/.wh..wh..opq"), file(".wh..wh..opq"), file(".wh.d")], id="nested"),
    ],
)
def test_whiteouts_that_repeat_look_at_a_directory_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: list[Entry]
) -> None:
    looks: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda place: looks.append(os.fspath(place)) or listdir(place))
    data = layer(*(file(f"d/{number}") for number in range(50)), *again * 50)
    build(tmp_path / "root", layer(file("d/old"), file("old")), data)
    assert len(looks) <= 2
    assert {place.name for place in (tmp_path / "root/d").iterdir()} == {str(number) for number in range(50)}


def test_an_opaque_directory_within_an_opaque_one_hides_nothing_of_its_own_layer(tmp_path: Path) -> None:
    build(
        tmp_path / "root",
        layer(file("a/b/old"), file("a/old")),
        layer(file("a/b/new"), file("a/b/.wh..wh..opq"), file("a/new"), file("a/.wh..wh..opq"), file("a/b/.wh.new")),
    )
    assert set(tree(tmp_path / "root")) == {"a/b/new", "a/new"}


def test_links_that_lead_a_long_way_around_are_refused(tmp_path: Path) -> None:
    around = "x/../" * 800
    links = [symlink(f"l{number}", f"{around}l{number + 1}") for number in range(39)]
    with pytest.raises(ImageError, match="a long way around"):
        build(tmp_path / "root", layer(directory("x"), *links, directory("l39"), file("l0/f")))


def test_paths_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    entries = [file("/".join([f"{number}", *(["d" * 200] * 15), "f"])) for number in range(50)]
    with pytest.raises(ImageError, match="paths that are too long"):
        build(tmp_path / "root", layer(*entries), bounds=Bounds(entries=2000))


@pytest.mark.parametrize("what", ["one large file", "a sparse file", "what follows the last entry", "directories"])
def test_unpacking_can_be_stopped_wherever_it_is(tmp_path: Path, what: str) -> None:
    """Each spends its time where no next entry comes that could ask."""
    size = 64 * 1024 * 1024
    if what == "one large file":
        data = layer(file("large", bytes(size)))
    elif what == "a sparse file":
        info = file("large")[0]
        info.pax_headers = {"GNU.sparse.map": f"{size},0", "GNU.sparse.size": str(size), "GNU.sparse.name": "large"}
        data = info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    elif what == "what follows the last entry":
        data = layer(file("small")) + bytes(size)
    else:
        data = layer(*(directory(f"d{number}") for number in range(1000)))
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 50

    def work() -> None:
        (tmp_path / "root").mkdir()
        builder = RootBuilder(tmp_path / "root", Bounds(), is_stopped)
        builder.apply(io.BytesIO(data), diff_id=digest_of(data), digest=None, what="The layer")
        builder.finish()

    with pytest.raises(ImageError, match="cancelled"):
        work()
    assert asked == 51
