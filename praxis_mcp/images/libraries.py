"""Where the loader of this machine finds the libraries of a program (ld.so(8); for musl, ldso/dynlink.c)."""

# Paths of programs, as text.
# ruff: noqa: PTH117, PTH118, PTH120

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from praxis_mcp.images.executables import Elf, read_elf_at

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
