"""What the double's engine keeps on disk, across sessions: contents by digest, results of execs, caches."""

import fnmatch
import hashlib
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

LARGE = 16 * 1024 * 1024


@dataclass(frozen=True)
class Content:
    """A file or directory, unchanging. `owner`: ``uid:gid`` that it belongs to where it is mounted."""

    path: Path
    digest: str
    owner: str = ""

    @property
    def is_directory(self) -> bool:
        return self.path.is_dir()


class Store:
    def __init__(self, state: Path) -> None:
        self.state = state
        for name in ("contents", "execs", "caches", "work"):
            (state / name).mkdir(parents=True, exist_ok=True)

    def add(self, source: Path, exclude: list[str] | None = None) -> Content:
        """A copy of what a host path holds now; of a large file (an image) one for all sessions."""
        status = source.stat()
        if source.is_file() and status.st_size > LARGE:
            name = f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
            known = self.state / "contents" / f"{name}.digest"
            if not known.exists():
                copy(source, self.state / "contents" / name, [])
                known.write_text(digest_of(self.state / "contents" / name))
            return Content(self.state / "contents" / name, known.read_text())
        place = self.state / "contents" / uuid4().hex
        _copy_as_it_is(source, place, exclude or [])
        return Content(place, digest_of(place))

    def add_bytes(self, data: bytes, mode: int = 0o644) -> Content:
        place = self.state / "contents" / uuid4().hex
        place.write_bytes(data)
        place.chmod(mode)
        return Content(place, digest_of(place))

    def add_entry(self, content: Content, path: str, mode: int, text: str | None) -> Content:
        """A directory's content with one more: a file of this text, or with None a directory."""
        place = self.state / "contents" / uuid4().hex
        copy(content.path, place, [])
        entry = place / path
        (entry if text is None else entry.parent).mkdir(parents=True, exist_ok=True)
        if text is not None:
            entry.write_text(text)
        entry.chmod(mode)
        return Content(place, digest_of(place), content.owner)

    def empty(self) -> Content:
        place = self.state / "contents" / uuid4().hex
        place.mkdir()
        return Content(place, "empty")

    def work(self, content: Content) -> Path:
        """A copy that an exec may change, owned as the content says."""
        place = self.state / "work" / uuid4().hex
        copy(content.path, place, [])
        uid, gid = ids(content.owner or "0:0")
        for path in (place, *place.rglob("*")) if place.is_dir() else (place,):
            os.chown(path, uid, gid, follow_symlinks=False)
        return place


def ids(owner: str) -> tuple[int, int]:
    """An owner by numbers; a name is looked up on this machine, where Dagger looks into the container."""
    uid, _, gid = owner.partition(":")
    if not uid.isdecimal():
        known = pwd.getpwnam(uid)
        return known.pw_uid, known.pw_gid
    return int(uid), int(gid or uid)


def copy(source: Path, target: Path, exclude: list[str]) -> None:
    names = [pattern.rpartition("/")[2] for pattern in exclude]

    def ignored(_: str, found: list[str]) -> set[str]:
        return {name for name in found if any(fnmatch.fnmatch(name, pattern) for pattern in names)}

    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=ignored, copy_function=_copy_one)
    else:
        shutil.copy2(source, target)


def _copy_as_it_is(source: Path, target: Path, exclude: list[str]) -> None:
    """As `copy`, of files that come and go: Dagger leaves out what vanishes while it reads."""
    try:
        copy(source, target, exclude)
    except shutil.Error as exc:
        if any("No such file" not in reason for _, _, reason in exc.args[0]):
            raise


def _copy_one(source: str, target: str) -> None:
    if stat.S_ISFIFO(os.lstat(source).st_mode):
        os.mkfifo(target)
    elif stat.S_ISSOCK(os.lstat(source).st_mode):
        Path(target).touch()
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def describe(path: Path) -> bytes:
    """All that distinguishes one entry of a tree from another of the same name."""
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    head = f"{kind:o} {stat.S_IMODE(status.st_mode):o} ".encode()
    if stat.S_ISLNK(status.st_mode):
        return head + os.fsencode(os.readlink(path))
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            return head + hashlib.file_digest(file, "sha256").digest()
    return head


def as_git_sees(description: bytes) -> bytes:
    """What counts as a modification: of a file's permissions only whether it can be executed."""
    kind, mode, content = description.split(b" ", 2)
    return b"%s %o %s" % (kind, int(mode, 8) & 0o100, content)


def entries(root: Path) -> dict[str, bytes]:
    """Every entry below a directory by its path, directories with a slash, and its description."""
    found: dict[str, bytes] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root)) + ("/" if path.is_dir() and not path.is_symlink() else "")
        found[name] = describe(path)
    return found


def digest_of(path: Path) -> str:
    whole = hashlib.sha256(describe(path))
    if path.is_dir():
        for name, description in sorted(entries(path).items()):
            whole.update(os.fsencode(name) + b"\0" + description + b"\0")
    return f"sha256:{whole.hexdigest()}"
