"""Changes brought to the host: all or none whichever step fails, only what the tool saw removed, no link followed."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.engines import write_back
from praxis_mcp.engines.held import HeldDirectory
from praxis_mcp.engines.write_back import Changes, Conflict, NotUndone, WriteBack, identity_of

CALLS = ("open", "mkdir", "symlink", "link", "replace", "unlink", "rmdir", "chmod", "fchmod", "utime", "scandir")
"""What write-back asks of the system, and may be refused."""


def bring(root: Path, staged: Path, changes: Changes) -> tuple[Path, ...]:
    with HeldDirectory.at(root) as top, HeldDirectory.at(staged) as held, WriteBack() as back:
        back.add(top, held, changes)
        return back.commit()


def state(root: Path) -> dict[str, tuple[str, int]]:
    """Every entry: what it holds, and its permissions."""
    found: dict[str, tuple[str, int]] = {".": ("", stat.S_IMODE(root.stat().st_mode))}
    for path in root.rglob("*"):
        held = f"-> {path.readlink()}" if path.is_symlink() else path.read_text() if path.is_file() else "/"
        found[str(path.relative_to(root))] = (held, stat.S_IMODE(path.lstat().st_mode))
    return found


@pytest.fixture(autouse=True)
def usual_permissions() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace."""
    place = tmp_path / "work"
    for name in ("keep", "edit", "gone", "sub/edit", "old/a", "old/deep/b", "file-to-directory", "directory-to-file/x"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"old {name}")
    (place / "link").symlink_to("keep")
    return place


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """What a tool added and changed in it."""
    place = tmp_path / "staged"
    for name in ("edit", "sub/edit", "new/deep/c", "new/d", "fresh", "file-to-directory/y", "directory-to-file"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"new {name}")
    (place / "new" / "deep" / "link").symlink_to("../d")
    (place / "link").symlink_to("edit")
    (place / "edit").chmod(0o755)
    (place / "sub").chmod(0o700)
    (place / "new" / "deep").chmod(0o500)
    return place


@pytest.fixture
def little(tmp_path: Path) -> Path:
    """Two files that a tool changed, and nothing else."""
    place = tmp_path / "staged"
    (place / "sub").mkdir(parents=True)
    for name in ("edit", "sub/edit"):
        (place / name).write_text(f"new {name}")
    return place


CHANGES = Changes(
    added=(
        *("new/", "new/d", "new/deep/", "new/deep/c", "new/deep/link", "fresh", "file-to-directory/"),
        *("file-to-directory/y", "directory-to-file"),
    ),
    modified=("edit", "sub/edit", "link"),
    removed=("gone", "old/", "file-to-directory", "directory-to-file/"),
    seen=frozenset({"old/a", "old/deep", "old/deep/b", "directory-to-file/x"}),
)


def test_what_a_tool_did_is_done_to_the_host(root: Path, staged: Path) -> None:
    touched = bring(root, staged, CHANGES)
    assert state(root) == {
        ".": ("", 0o755),
        "keep": ("old keep", 0o644),
        "edit": ("new edit", 0o755),
        "link": ("-> edit", 0o777),
        "sub": ("/", 0o700),
        "sub/edit": ("new sub/edit", 0o644),
        "new": ("/", 0o755),
        "new/d": ("new new/d", 0o644),
        "new/deep": ("/", 0o500),
        "new/deep/c": ("new new/deep/c", 0o644),
        "new/deep/link": ("-> ../d", 0o777),
        "fresh": ("new fresh", 0o644),
        "file-to-directory": ("/", 0o755),
        "file-to-directory/y": ("new file-to-directory/y", 0o644),
        "directory-to-file": ("new directory-to-file", 0o644),
    }
    assert {str(path.relative_to(root)) for path in touched} == {
        *("edit", "link", "sub/edit", "new/d", "new/deep/c", "new/deep/link", "fresh", "file-to-directory"),
        *("file-to-directory/y", "directory-to-file", "gone", "old"),
    }


def failing(monkeypatch: pytest.MonkeyPatch, number: int, error: int) -> Callable[[], int]:
    """Let the system refuse one call, the `number`-th of all; how many there were."""
    count = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise OSError(error, os.strerror(error))
            return function(*arguments, **keywords)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return lambda: count


@pytest.mark.parametrize("error", [errno.EIO, errno.EPERM])
def test_whichever_step_fails_it_is_all_or_none(tmp_path: Path, error: int, request: pytest.FixtureRequest) -> None:
    number, calls, failures = 0, 1, 0
    while number <= calls:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        root, staged = (request.getfixturevalue(name) for name in ("root", "staged"))
        ours, theirs = copied(root, place / "work"), copied(staged, place / "staged")
        before = state(ours)
        with pytest.MonkeyPatch.context() as monkeypatch:
            counted = failing(monkeypatch, number, error)
            try:
                bring(ours, theirs, CHANGES)
                failed = False
            except OSError:
                failed = True
            calls = counted()
        failures += failed
        after = {name: held for name, held in state(ours).items() if write_back.STAGING not in name}
        if failed:
            assert after == before, f"call {number} failed"
        else:
            assert after["edit"] == ("new edit", 0o755), f"call {number} failed unheard"
            assert "old" not in after
            assert after["sub"] == ("/", 0o700)
    assert failures > 50


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_symlink():
            place.symlink_to(path.readlink())
        elif path.is_dir():
            place.mkdir()
        else:
            place.write_bytes(path.read_bytes())
            place.chmod(stat.S_IMODE(path.stat().st_mode))
    for path in sorted(source.rglob("*"), reverse=True):
        if path.is_dir():
            (target / path.relative_to(source)).chmod(stat.S_IMODE(path.stat().st_mode))
    return target


def test_nothing_of_ours_stays_when_a_step_fails(
    root: Path, staged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = state(root)
    (root / "gone").unlink()
    (root / "gone").mkdir()  # not what the tool saw: it stays
    (root / "directory-to-file" / "made-meanwhile").write_text("mine")
    with pytest.raises(Conflict, match="is not empty"):
        bring(root, staged, CHANGES)
    assert state(root).keys() == before.keys() | {"directory-to-file/made-meanwhile"}
    assert list(tmp_path.rglob(f"{write_back.STAGING}*")) == []


def test_what_others_wrote_meanwhile_into_a_removed_directory_stays(root: Path, staged: Path) -> None:
    (root / "old" / "deep" / "made-meanwhile").write_text("mine")
    bring(root, staged, CHANGES)
    assert [str(path.relative_to(root)) for path in sorted((root / "old").rglob("*"))] == [
        "old/deep",
        "old/deep/made-meanwhile",
    ]


def test_a_directory_that_was_removed_meanwhile_is_not_made_again_in_half(root: Path, staged: Path) -> None:
    (root / "sub" / "edit").unlink()
    (root / "sub").rmdir()
    before = state(root)
    with pytest.raises(Conflict) as caught:
        bring(root, staged, CHANGES)
    assert (caught.value.filename, caught.value.strerror) == (
        str(root / "sub"),
        "is not the directory that the tool saw",
    )
    assert state(root) == before


@pytest.mark.parametrize("name", ["sub", "old", "directory-to-file"])
def test_a_link_in_the_place_of_a_directory_leads_nowhere(name: str, root: Path, staged: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (root / name).rename(outside)
    (root / name).symlink_to(outside)
    before = state(outside)
    try:
        bring(root, staged, CHANGES)
    except Conflict:
        assert (root / "edit").read_text() == "old edit"
    assert state(outside) == before


def test_a_directory_that_is_swapped_for_a_link_between_judging_and_moving_is_not_followed(
    root: Path, staged: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with HeldDirectory.at(root) as top, HeldDirectory.at(staged) as held, WriteBack() as back:
        back.add(top, held, CHANGES)
        (root / "sub").rename(root / "sub-moved")
        (root / "sub").symlink_to(outside)
        with pytest.raises(OSError, match="sub"):
            back.commit()
    assert list(outside.iterdir()) == []
    assert (root / "edit").read_text() == "old edit"


def test_what_cannot_be_put_back_is_named_and_kept(root: Path, little: Path) -> None:
    with HeldDirectory.at(root) as top, HeldDirectory.at(little) as held, WriteBack() as back:
        back.add(top, held, Changes(modified=("edit", "sub/edit")))
        (root / "sub").rename(root / "elsewhere")  # the second step fails …

        with pytest.MonkeyPatch.context() as monkeypatch:
            real, calls = os.replace, 0

            def replace(*arguments: Any, **keywords: Any) -> None:
                nonlocal calls
                calls += 1
                if calls > 1:  # … and so does putting back the first
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                real(*arguments, **keywords)

            monkeypatch.setattr(os, "replace", replace)
            with pytest.raises(NotUndone, match=r"not put back: .*edit"):
                back.commit()
    kept = [path.read_text() for path in root.iterdir() if path.name.startswith(write_back.STAGING)]
    assert "old edit" in kept


def test_names_of_any_bytes_come_back(root: Path, little: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (little / name).mkdir()
    (little / name / name).write_text("x")
    bring(root, little, Changes(added=(f"{name}/", f"{name}/{name}")))
    assert os.listdir(os.fsencode(root / name)) == [b"caf\xe9"]


def test_only_permissions_and_only_times(root: Path, little: Path) -> None:
    (little / "keep").write_text("as the tool saw it")
    (little / "keep").chmod(0o600)
    (root / "keep").write_text("changed meanwhile")
    (root / "keep").chmod(0o644)
    bring(root, little, Changes(modified=("edit",)))
    assert state(root)["keep"] == ("changed meanwhile", 0o600)


def test_set_user_id_and_devices_do_not_come_back(root: Path, staged: Path) -> None:
    (staged / "new" / "d").chmod(0o4755)
    os.mkfifo(staged / "new" / "pipe")
    bring(root, staged, CHANGES)
    assert stat.S_IMODE((root / "new" / "d").stat().st_mode) == 0o755
    assert not (root / "new" / "pipe").exists()


def test_the_time_of_a_file_comes_back(root: Path, little: Path) -> None:
    os.utime(little / "edit", (1_000_000_000, 1_000_000_000))
    bring(root, little, Changes(modified=("edit",)))
    assert (root / "edit").stat().st_mtime == 1_000_000_000


def test_a_tree_that_is_too_deep_is_refused(root: Path, tmp_path: Path) -> None:
    staged = tmp_path / "deep"
    (staged / "/".join("d" * (write_back.MAX_DEPTH + 5))).mkdir(parents=True)
    before = state(root)
    with pytest.raises(OSError, match="lies deeper"):
        bring(root, staged, Changes(added=tuple("d/" * n for n in range(1, write_back.MAX_DEPTH + 6))))
    assert state(root) == before


@pytest.fixture
def plain_user(tmp_path: Path) -> Iterator[None]:
    """The test's own files are a plain user's, and so is the process as far as files go."""
    if os.geteuid() != 0:
        yield
        return
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    mode = stat.S_IMODE(tmp_path.parent.stat().st_mode)
    tmp_path.parent.chmod(0o755)
    tmp_path.parent.parent.chmod(0o755)
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        tmp_path.parent.chmod(mode)


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_in_a_directory_that_is_closed_to_the_server_is_overwritten(
    root: Path, little: Path, plain_user: None, *, fails: bool
) -> None:
    (little / "zz").write_text("x")
    for place in (root, little):
        (place / "sub").chmod(0o555)
    number = (root / "sub" / "edit").stat().st_ino
    with HeldDirectory.at(root) as top, HeldDirectory.at(little) as held, WriteBack() as back:
        back.add(top, held, Changes(added=("zz",), modified=("sub/edit",)))
        if fails:
            (root / "zz").mkdir()
            with pytest.raises(Conflict):
                back.commit()
        else:
            back.commit()
    assert (root / "sub" / "edit").read_text() == ("old sub/edit" if fails else "new sub/edit")
    assert (root / "sub" / "edit").stat().st_ino == number
    assert (root / "edit").read_text() == "old edit"


def test_a_directory_is_known_by_device_and_inode(root: Path) -> None:
    status = root.stat()
    with HeldDirectory.at(root) as top:
        assert identity_of(top.status) == (status.st_dev, status.st_ino)
