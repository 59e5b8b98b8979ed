"""What a program or library says of how it is loaded (ELF; System V ABI, "Program Loading and Dynamic Linking"), where
the loader of this machine finds its libraries (ld.so(8); for musl, ldso/dynlink.c), and what runs a script."""

# Paths of programs, as text.
# ruff: noqa: PTH117, PTH118, PTH120

from __future__ import annotations

import os
import platform
import shlex
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from praxis_mcp.errors import ImageError

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 15, 29
_MACHINES = {"x86_64": 62, "amd64": 62, "aarch64": 183, "arm64": 183, "riscv64": 243, "ppc64le": 21, "s390x": 22}
_MAX_HEADERS = 512
_MAX_DYNAMIC = 64 * 1024
_MAX_STRINGS = 16 * 1024 * 1024
_MAX_NAME = 4096

MAX_FIRST_LINE = 512
"""Bytes of a script's first line that are read, twice as many as Linux reads (BINPRM_BUF_SIZE)."""
_ENV_VALUES = frozenset({"-u", "--unset", "-C", "--chdir"})
"""Options of env(1) whose value is the word that follows."""


def interpreters_of(script: bytes) -> list[str]:
    """The programs that a script's first line names: its interpreter, and where that is env(1), what env looks for.

    Args:
        script: how the file begins.

    Returns:
        nothing where it is not a script, or its first line is not valid (execve(2), "Interpreter scripts").
    """
    line = script[:MAX_FIRST_LINE].partition(b"\n")[0]
    if not line.startswith(b"#!"):
        return []
    path, *argument = os.fsdecode(line[2:]).strip(" \t\r").split(maxsplit=1) or [""]
    if os.path.basename(path) != "env" or not argument:  # noqa: PTH119
        return [path] if path else []
    try:
        words = shlex.split(argument[0])
    except ValueError:
        return []
    while words and (words[0].startswith("-") or "=" in words[0]):
        del words[: 2 if words[0] in _ENV_VALUES else 1]
    return [path, *words[:1]]


@dataclass(frozen=True, slots=True)
class Elf:
    """One program or library.

    Attributes:
        kind: its class (32 or 64 bits), byte order and machine: only what has the same can be loaded together.
        interpreter: the loader that a program names; None for a static program or a library.
        needed: the libraries that it names.
        rpath, runpath: where these are looked for, as they are written, with ``$ORIGIN``.
    """

    kind: tuple[int, int, int]
    interpreter: str | None = None
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()

    @property
    def runs_here(self) -> bool:
        """Whether it is made for this machine, as far as that is known."""
        wanted = _MACHINES.get(platform.machine().lower())
        return wanted is None or self.kind[2] == wanted


def read_elf(descriptor: int, what: str) -> Elf | None:
    """Read the headers of an open file; None for a file of any other format.

    Raises:
        ImageError: it is damaged.
        OSError: it cannot be read.
    """
    ident = os.pread(descriptor, 16, 0)
    if ident[:4] != MAGIC:
        return None
    try:
        return _Reader(descriptor, ident).read()
    except (struct.error, ValueError, IndexError, KeyError, OverflowError) as exc:
        raise ImageError(f"{what} is not a sound program or library: its headers are damaged.") from exc


def read_elf_at(path: str) -> Elf | None:
    """As `read_elf`, of what is at a path; does not wait for the writer of a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return read_elf(descriptor, path)
    finally:
        os.close(descriptor)


class _Reader:
    def __init__(self, descriptor: int, ident: bytes) -> None:
        self._descriptor = descriptor
        self._is_64 = {1: False, 2: True}[ident[4]]
        self._order = {1: "<", 2: ">"}[ident[5]]
        (machine,) = self._unpack("H", 18)
        self._kind = (ident[4], ident[5], machine)

    def read(self) -> Elf:
        segments = self._segments()
        interpreter = None
        for kind, offset, _, size in segments:
            if kind == _PT_INTERP:
                interpreter = self._pread(min(size, _MAX_NAME), offset).partition(b"\0")[0].decode(errors="strict")
        tags = self._dynamic(segments)
        if _DT_STRTAB not in dict(tags):
            return Elf(self._kind, interpreter)
        strings = self._strings(dict(tags), segments)

        def texts(tag: int) -> list[str]:
            return [os.fsdecode(strings[value : strings.index(b"\0", value)]) for name, value in tags if name == tag]

        def paths(tag: int) -> tuple[str, ...]:
            return tuple(path for text in texts(tag) for path in text.split(":") if path)

        return Elf(self._kind, interpreter, tuple(texts(_DT_NEEDED)), paths(_DT_RPATH), paths(_DT_RUNPATH))

    def _segments(self) -> list[tuple[int, int, int, int]]:
        """Kind, offset in the file, address and size in the file of each segment."""
        (start,) = self._unpack("Q" if self._is_64 else "I", 32 if self._is_64 else 28)
        size, count = self._unpack("HH", 54 if self._is_64 else 42)
        if count > _MAX_HEADERS:
            raise ValueError("too many headers")
        found: list[tuple[int, int, int, int]] = []
        for place in range(start, start + size * count, size) if count else ():
            if self._is_64:
                kind, _, offset, address, _, length = self._unpack("IIQQQQ", place)
            else:
                kind, offset, address, _, length = self._unpack("IIIII", place)
            found.append((kind, offset, address, length))
        return found

    def _dynamic(self, segments: list[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
        tags: list[tuple[int, int]] = []
        form = self._order + ("qQ" if self._is_64 else "iI")
        for kind, offset, _, size in segments:
            if kind != _PT_DYNAMIC:
                continue
            data = self._pread(min(size, _MAX_DYNAMIC), offset)
            for tag, value in struct.iter_unpack(form, data[: len(data) - len(data) % struct.calcsize(form)]):
                if tag == _DT_NULL:
                    break
                tags.append((tag, value))
        return tags

    def _strings(self, tags: dict[int, int], segments: list[tuple[int, int, int, int]]) -> bytes:
        address = tags[_DT_STRTAB]
        for kind, offset, start, size in segments:
            if kind == _PT_LOAD and start <= address < start + size:
                return self._pread(min(tags[_DT_STRSZ], _MAX_STRINGS), offset + address - start)
        raise ValueError("its strings are nowhere")

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        form = self._order + form
        return struct.unpack(form, self._pread(struct.calcsize(form), offset))

    def _pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise ValueError("it is cut short")
        return data


CACHE_FILE = "/etc/ld.so.cache"

_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER = struct.Struct("<20sIIB3xI12x")
_CACHE_ENTRY = struct.Struct("<iIIIQ")
_MAX_CACHE = 64 * 1024 * 1024
_MUSL_DIRECTORIES = ("/lib", "/usr/local/lib", "/usr/lib")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program or library by its real path, and what loaded it: None for the program itself."""

    path: str
    elf: Elf
    loader: Loaded | None = None

    @property
    def chain(self) -> Iterator[Loaded]:
        """It, and all that lead to it."""
        at: Loaded | None = self
        while at is not None:
            yield at
            at = at.loader


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One line of ld.so.cache: a library's name and path, and the kind that the loader compares."""

    kind: int
    name: str
    path: str


@dataclass(slots=True)
class Libraries:
    """Finds libraries; remembers what ld.so.cache says.

    Attributes:
        cache_file: glibc's table of them.
    """

    cache_file: str = CACHE_FILE
    _cache: Mapping[str, Sequence[CacheEntry]] | None = field(default=None, repr=False)

    def find(self, name: str, by: Loaded, *, is_musl: bool) -> str | None:
        """The path of a library that a program or library names, as the loader would find it without variables that
        steer it; None where there is none.

        Args:
            name: as it stands in the file.
            by: what names it.
            is_musl: whether the program's loader is musl's, which has no cache and takes RPATH for RUNPATH.
        """
        if "/" in name:
            return name if os.path.isabs(name) and self._fits(name, by.elf) else None
        for place in self._candidates(name, by, is_musl=is_musl):
            if self._fits(place, by.elf):
                return place
        return None

    def cache_of(self, paths: Sequence[str]) -> bytes | None:
        """An ld.so.cache for these libraries alone; None where this machine's names none of them."""
        wanted = set(paths)
        kept = [entry for entries in self._entries().values() for entry in entries if entry.path in wanted]
        return write_cache(kept) if kept else None

    def _candidates(self, name: str, by: Loaded, *, is_musl: bool) -> Iterator[str]:
        if is_musl:
            for loaded in by.chain:
                for directory in (*loaded.elf.runpath, *loaded.elf.rpath):
                    yield from self._in(directory, name, loaded)
            for directory in self._musl_directories():
                yield os.path.join(directory, name)
            return
        if not by.elf.runpath:
            for loaded in by.chain:
                for directory in loaded.elf.rpath if not loaded.elf.runpath else ():
                    yield from self._in(directory, name, loaded)
        for directory in by.elf.runpath:
            yield from self._in(directory, name, by)
        for entry in self._entries().get(name, ()):
            yield entry.path
        triplet = f"{platform.machine()}-linux-gnu"
        for directory in (f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib64", "/usr/lib64", "/lib", "/usr/lib"):
            yield os.path.join(directory, name)

    @staticmethod
    def _in(directory: str, name: str, by: Loaded) -> Iterator[str]:
        machine = platform.machine()
        for library in ("lib64", "lib", f"lib/{machine}-linux-gnu") if "LIB" in directory else ("",):
            place = directory
            for token, value in (("ORIGIN", os.path.dirname(by.path)), ("LIB", library), ("PLATFORM", machine)):
                place = place.replace(f"${{{token}}}", value).replace(f"${token}", value)
            if os.path.isabs(place):  # any other depends on the directory that the program is started in
                yield os.path.join(os.path.normpath(place) if ".." not in place else place, name)

    def _fits(self, path: str, wanted: Elf) -> bool:
        """Whether the loader would take it: it passes over libraries for other machines."""
        try:
            found = read_elf_at(path)
        except OSError:  # it is not there, or a directory
            return False
        return found is not None and found.kind == wanted.kind

    def _musl_directories(self) -> tuple[str, ...]:
        try:
            text = Path(f"/etc/ld-musl-{platform.machine()}.path").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return _MUSL_DIRECTORIES
        return tuple(text.replace("\n", ":").split(":"))

    def _entries(self) -> Mapping[str, Sequence[CacheEntry]]:
        if self._cache is None:
            try:
                with Path(self.cache_file).open("rb") as file:
                    found = read_cache(file.read(_MAX_CACHE))
            except OSError:
                found = []
            by_name: dict[str, list[CacheEntry]] = {}
            for entry in found:
                by_name.setdefault(entry.name, []).append(entry)
            self._cache = by_name
        return self._cache


def read_cache(data: bytes) -> list[CacheEntry]:
    """The entries of an ld.so.cache, in its order; nothing of one that is damaged. Libraries for newer processors
    (glibc-hwcaps) are left aside: what runs everywhere stands there as well."""
    start = data.find(_CACHE_MAGIC)  # behind the older format, where both are there
    if start < 0:
        return []
    data = data[start:]
    try:
        _, count, *_ = _CACHE_HEADER.unpack_from(data)
        found: list[CacheEntry] = []
        for number in range(count):
            kind, name, path, _, hwcap = _CACHE_ENTRY.unpack_from(data, _CACHE_HEADER.size + number * _CACHE_ENTRY.size)
            if not hwcap:
                found.append(CacheEntry(kind, *(os.fsdecode(data[at : data.index(b"\0", at)]) for at in (name, path))))
    except (struct.error, ValueError):
        return []
    return found


def write_cache(entries: Sequence[CacheEntry]) -> bytes:
    """An ld.so.cache of these entries, which stand in the order of the cache that they come from: the loader searches
    by halves."""
    start = _CACHE_HEADER.size + len(entries) * _CACHE_ENTRY.size
    lines, strings = bytearray(), bytearray()
    for entry in entries:
        places: list[int] = []
        for text in (entry.name, entry.path):
            places.append(start + len(strings))
            strings += os.fsencode(text) + b"\0"
        lines += _CACHE_ENTRY.pack(entry.kind, *places, 0, 0)
    return _CACHE_HEADER.pack(_CACHE_MAGIC, len(entries), len(strings), 2, 0) + bytes(lines) + bytes(strings)
