"""Changes brought to the host: all or none whichever step fails, only what the tool saw removed, no link followed."""

import errno
import io
import itertools
import os
import resource
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.engines.mounts import write_back
from praxis_mcp.engines.mounts.write_back import Changes, Conflict, NotUndone, WriteBack, identity_of
from praxis_mcp.support.rooted import HeldDirectory

CALLS = (
    *("open", "mkdir", "symlink", "link", "replace", "unlink", "rmdir", "chmod", "fchmod", "fchown", "utime"),
    *("scandir", "stat", "fstat", "readlink", "fdopen"),
)
"""What write-back asks of the system, and may be refused; and so may each piece that it writes to a file."""


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


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Not pytest's own: any other run of pytest closes that to other users, and a test becomes one."""
    place = Path(tempfile.mkdtemp(prefix="praxis-write-back-"))
    yield place
    gone(place)


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


@pytest.fixture
def plain_user(tmp_path: Path) -> Iterator[None]:
    """The test's own files are a plain user's, and so is the process as far as files go."""
    if os.geteuid() != 0:
        yield
        return
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


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


class Faults:
    """Lets the system refuse one of the calls of write-back, or one kind of call from then on.

    Attributes:
        count: how many calls there were.
    """

    def __init__(self, number: int, error: int, lasting: str = "") -> None:
        """`number`: of the call that is refused, from 1; `lasting`: of the calls of this name, and all after it."""
        self.count = 0
        self._number, self._error, self._lasting = number, error, lasting
        self._thread = threading.get_ident()

    @contextmanager
    def active(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name in (self._lasting,) if self._lasting else CALLS:
                monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))
            yield

    def meet(self) -> None:
        """A call is made; those of other threads, which earlier tests may have left, are none of it."""
        if threading.get_ident() != self._thread:
            return
        self.count += 1
        if self.count == self._number or (self._lasting and self.count > self._number):
            raise OSError(self._error, os.strerror(self._error))

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.meet()
            made = function(*arguments, **keywords)
            return Disk(made.detach(), self) if isinstance(made, io.BufferedWriter) else made

        return call


class Disk(io.BufferedWriter):
    """A file for whose content the disk may have no room, or only for half of it."""

    def __init__(self, raw: Any, faults: Faults) -> None:
        super().__init__(raw)
        self._faults = faults

    def write(self, data: Any, /) -> int:
        try:
            self._faults.meet()
        except OSError:
            super().write(data[: len(data) // 2])
            raise
        return super().write(data)


def bring_all(base: Path) -> None:
    """All of the one workspace's changes, and few of another's."""
    with ExitStack() as held, WriteBack() as back:
        for name, changes in (("work", CHANGES), ("other", Changes(added=("fresh",), modified=("keep",)))):
            top = held.enter_context(HeldDirectory.at(base / name))
            back.add(top, held.enter_context(HeldDirectory.at(base / f"{name}-staged")), changes)
        back.commit()


def bring_closed(base: Path) -> None:
    """Changes in a directory that is closed to the server, and in one that is not."""
    bring(base / "closed", base / "closed-staged", Changes(added=("zz",), modified=("edit", "sub/edit", "sub/other")))


@pytest.fixture
def ground(tmp_path: Path, root: Path, staged: Path) -> Path:
    """Workspaces, and what tools did in them."""
    base = tmp_path / "ground"
    base.mkdir()
    root.rename(base / "work")
    staged.rename(base / "work-staged")
    for place, text in (("other", "old"), ("other-staged", "new")):
        (base / place).mkdir()
        (base / place / "keep").write_text(f"{text} keep")
    (base / "other-staged" / "fresh").write_text("new fresh")
    for place, text in (("closed", "old"), ("closed-staged", "new")):
        (base / place / "sub").mkdir(parents=True)
        for name in ("edit", "sub/edit", "sub/other"):
            (base / place / name).write_text(f"{text} {name}")
        (base / place / "sub").chmod(0o555)
    (base / "closed-staged" / "zz").write_text("new zz")
    (base / "closed-staged" / "sub" / "edit").chmod(0o755)
    return base


def without_ours(found: dict[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
    return {name: held for name, held in found.items() if write_back.STAGING not in name}


@pytest.mark.parametrize(
    ("act", "error"),
    [(bring_all, errno.EIO), (bring_all, errno.EPERM), (bring_closed, errno.EIO), (bring_closed, errno.ENOSPC)],
)
def test_whichever_step_fails_it_is_all_or_none(
    tmp_path: Path, ground: Path, plain_user: None, act: Callable[[Path], None], error: int
) -> None:
    places = ["work", "other"] if act is bring_all else ["closed"]
    for path in ground.iterdir():
        if path.name.removesuffix("-staged") not in places:
            gone(path)
    act(complete := copied(ground, tmp_path / "complete"))
    before, wanted = ([state(base / name) for name in places] for base in (ground, complete))
    failures = 0
    for number in itertools.count(1):
        base = copied(ground, tmp_path / "try")
        faults = Faults(number, error)
        failed = False
        with faults.active():
            try:
                act(base)
            except OSError:
                failed = True
        failures += failed
        after = [without_ours(state(base / name)) for name in places]
        assert after == (before if failed else wanted), f"call {number} failed"
        gone(base)
        if faults.count < number:
            break
    assert failures > 50


@pytest.mark.parametrize("name", ["open", "link", "replace", "unlink", "rmdir", "mkdir", "chmod"])
def test_however_much_fails_nothing_of_the_hosts_is_lost(
    tmp_path: Path, ground: Path, plain_user: None, name: str
) -> None:
    gone(ground / "closed")
    gone(ground / "closed-staged")
    for number in itertools.count(1):
        base = copied(ground, tmp_path / "try")
        faults = Faults(number, errno.EMFILE, lasting=name)
        failed = False
        with faults.active():
            try:
                bring_all(base)
            except OSError:
                failed = True
        if failed:
            kept = {held for held, _ in state(base / "work").values()}
            lost = {held for held, _ in state(ground / "work").values()} - kept
            assert not lost, f"call {number} of {name} and all after it failed"
        gone(base)
        if faults.count < number:
            break


def gone(base: Path) -> None:
    for path in (base, *base.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(base)


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


def test_a_files_attributes_stay_when_its_content_is_replaced(root: Path, little: Path) -> None:
    try:
        os.setxattr(root / "edit", "user.origin", b"here")
    except OSError:
        pytest.skip("this file system keeps no attributes")
    bring(root, little, Changes(modified=("edit",)))
    assert (root / "edit").read_text() == "new edit"
    assert os.getxattr(root / "edit", "user.origin") == b"here"


def test_zeros_of_a_file_take_no_room(root: Path, little: Path) -> None:
    size = 8 * 1024 * 1024
    content = bytes(size) + b"x" + bytes(size)
    (little / "edit").write_bytes(content)
    bring(root, little, Changes(modified=("edit",)))
    assert (root / "edit").read_bytes() == content
    assert (root / "edit").stat().st_blocks * 512 < size


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
    (staged / "/".join("d" * (write_back.MAX_WALK_DEPTH + 5))).mkdir(parents=True)
    before = state(root)
    with pytest.raises(OSError, match="is deeper"):
        bring(root, staged, Changes(added=tuple("d/" * n for n in range(1, write_back.MAX_WALK_DEPTH + 6))))
    assert state(root) == before


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


def test_many_files_in_a_closed_directory_take_few_descriptors(tmp_path: Path, plain_user: None) -> None:
    names = [f"f{number:03d}" for number in range(200)]
    for place, text in (("work", "old"), ("staged", "new")):
        (tmp_path / place / "sub").mkdir(parents=True)
        for name in names:
            (tmp_path / place / "sub" / name).write_text(f"{text} {name}")
        (tmp_path / place / "sub").chmod(0o555)
    (tmp_path / "staged" / "zz").write_text("x")
    before = state(tmp_path / "work")
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The tests of refused calls leave some open, which only a call that cannot be refused (fstat) could close.
    used = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(used + 100, usual[0]), usual[1]))
    try:
        changes = Changes(added=("zz",), modified=tuple(f"sub/{name}" for name in names))
        with HeldDirectory.at(tmp_path / "work") as top, HeldDirectory.at(tmp_path / "staged") as held:
            with WriteBack() as back:
                back.add(top, held, changes)
                (tmp_path / "work" / "zz").mkdir()  # the last step
                with pytest.raises(Conflict):
                    back.commit()
            (tmp_path / "work" / "zz").rmdir()
            assert state(tmp_path / "work") == before
            with WriteBack() as back:
                back.add(top, held, changes)
                back.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    assert {(tmp_path / "work" / "sub" / name).read_text() for name in names} == {f"new {name}" for name in names}


def test_a_directory_is_known_by_device_and_inode(root: Path) -> None:
    status = root.stat()
    with HeldDirectory.at(root) as top:
        assert identity_of(top.status) == (status.st_dev, status.st_ino)
