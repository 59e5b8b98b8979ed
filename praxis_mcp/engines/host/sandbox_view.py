"""An image's file system as a sandboxed command sees it, and as whom.

The image's root, read-only or under a layer of the call's own; a private /tmp; what the contract mounts; and nothing
else of the host. Numbers and home directory of its user are those of the image's own /etc/passwd and /etc/group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.mounts.layout import MountLayout
from praxis_mcp.engines.outcomes import unknown_user
from praxis_mcp.errors import ExecutionError
from praxis_mcp.images.model import StoredImage
from praxis_mcp.images.paths_inside import above, below, open_file
from praxis_mcp.plans.model import Blueprint, Mount, Plan
from praxis_mcp.plans.view import by_depth

SCRATCH_SIZE = 256 * 1024 * 1024
"""Bytes of ``/tmp``, and of each volume, where the root is read-only; they count against the memory limit."""

_TMP = "/tmp"  # noqa: S108 - inside the sandbox
_OF_THE_HOST = ("/etc/resolv.conf", "/etc/hosts")
"""What names are looked up by, where the network is the host's."""
_MAX_USER_FILE = 1024 * 1024
_MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Places:
    """What a call has on the host: `artifacts`, its directory for them; `caches`, one for each of `cache_dirs`."""

    artifacts: Path | None = None
    caches: tuple[tuple[str, Path], ...] = ()


class SandboxView(MountLayout):
    """Lays out the file system of one sandbox.

    Args:
        image: whose root it is.
        layer_size: bytes of the call's own layer, which can be written; None: the root is read-only.
    """

    def __init__(self, image: StoredImage, layer_size: int | None = None) -> None:
        super().__init__(is_fixed=True)
        self._image = image
        self._layer_size = layer_size

    def build(self, plan: Plan, places: Places, working_dir: str) -> str:
        """Lay it all out.

        Args:
            plan: what is to be seen.
            places: what the call has on the host.
            working_dir: as the contract or image has it.

        Returns:
            the working directory, links resolved.

        Raises:
            ExecutionError: a mount or file has no place.
        """
        fixed = plan.blueprint
        self._base()
        laid = [*self._mounts(plan, places), *self._of_the_host(fixed)]
        taken = {self.resolve(mount.target) for mount, _ in laid}
        for path in self._scratch_places(taken) if fixed.read_only is not False else []:
            self.make_room(path, is_directory=True)
            self.empty(path, SCRATCH_SIZE, 0o1777)
        ours = {mount.target for mount, grows in laid if grows}
        for mount in by_depth(mount for mount, _ in laid):
            self.lay(mount, grows=mount.target in ours)
        for file in plan.call.files:
            self.put(file)
        start = self.resolve(working_dir)
        self.directory(start)
        return start

    def _base(self) -> None:
        if self._layer_size is None:
            self.root(str(self._image.root))
        else:
            self.layered_root(str(self._image.root), self._layer_size)
        self.system()

    def _mounts(self, plan: Plan, places: Places) -> Iterator[tuple[Mount, bool]]:
        """What is mounted, and whether its source is the server's own."""
        fixed = plan.blueprint
        for mount in fixed.mounts:
            yield mount, False
        for target, source in places.caches:
            yield Mount(source, target, writable=True), True
        if places.artifacts is not None and fixed.artifact_dir is not None:
            yield Mount(places.artifacts, fixed.artifact_dir, writable=True), True

    def _of_the_host(self, fixed: Blueprint) -> Iterator[tuple[Mount, bool]]:
        taken = {mount.target for mount in fixed.mounts}
        for path in _OF_THE_HOST if fixed.network is not Network.NONE else ():
            if Path(path).exists() and path not in taken:
                yield Mount(Path(path).resolve(), path), False

    def _scratch_places(self, taken: Collection[str]) -> list[str]:
        """What stays writable in a read-only root: /tmp, and volumes of the image that have no content of their own."""
        found = [self.resolve(_TMP)]
        for path in map(self.resolve, self._image.volumes):
            place = Path(below(self._image.root, path))
            if path != "/" and (not place.exists() or (place.is_dir() and not any(place.iterdir()))):
                found.append(path)
        places = set(found)
        return [path for path in dict.fromkeys(found) if path not in taken and places.isdisjoint(above(path))]


@dataclass(frozen=True, slots=True)
class SandboxUser:
    """A user: `uid` and `gid` as the command sees them, `home`, ``/`` where the image does not know the user, and
    `groups`, the others that the image has the user in."""

    uid: int
    gid: int
    home: str
    groups: tuple[int, ...] = ()


def find_user(root: Path, wanted: str, image: str | None) -> SandboxUser:
    """The user that a contract or an image names, read as Docker does.

    Args:
        root: the image's root file system.
        wanted: ``name``, ``uid``, ``name:group``, ``uid:gid``, …; empty is root.
        image: its name, for messages.

    Raises:
        ExecutionError: the image has no user or group of that name, or a number is too large.
    """
    name, colon, group = (wanted or "0").partition(":")
    name = name or "0"
    uid: int | None = _number(name)
    gid, home, login = 0, "/", ""
    for fields in _lines(root, "etc/passwd", 7):
        if name == fields[0] or (uid is not None and fields[2] == name):
            found_uid, found_gid = _number(fields[2]), _number(fields[3])
            if found_uid is not None and found_gid is not None:
                uid, gid, home, login = found_uid, found_gid, fields[5] or "/", fields[0]
                break
    if uid is None:
        raise unknown_user(image, name)
    if colon and group:
        number = _number(group)
        if number is None:
            numbers = (_number(fields[2]) for fields in _lines(root, "etc/group", 4) if fields[0] == group)
            number = next(numbers, None)
        if number is None:
            raise unknown_user(image, group, "group")
        gid = number
    groups = () if colon and group else _groups_of(root, login)
    # A NUL ends a word of bubblewrap's options: what follows it would be an option of the image's own.
    return SandboxUser(uid, gid, home if home.startswith("/") and "\0" not in home else "/", groups)


def _groups_of(root: Path, login: str) -> tuple[int, ...]:
    """The groups that list a name; those whose number is not one are left out."""
    found: dict[int, None] = {}
    for fields in _lines(root, "etc/group", 4):
        number = fields[2]
        is_member = login and login in fields[3].split(",") and number.isascii() and number.isdecimal()
        if is_member and int(number[:11]) <= _MAX_ID:
            found[int(number)] = None
    return tuple(found)


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()):
        return None
    value = int(text[:11])
    if value > _MAX_ID:
        raise ExecutionError(f"The user or group {text[:40]} is above {_MAX_ID}.", remedy="Fix the contract's user.")
    return value


def _lines(root: Path, name: str, count: int) -> Iterator[list[str]]:
    """Entries of passwd(5) or group(5); none where the image has no such file."""
    try:
        file = open_file(root, name)
        if file is None:
            return
        with file:
            text = file.read(_MAX_USER_FILE).decode(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= count:
            yield fields
