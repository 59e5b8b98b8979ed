"""An image of this machine's own programs, with what they need to run: for where there is no registry to pull from.

The programs, their loader and libraries, the interpreters of scripts, and the standard library of a Python, all under
the paths that they have here. The same files give the same image, byte for byte.
"""

# Paths of the whole file system, as text.
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH114, PTH117, PTH118, PTH119, PTH120

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from praxis_mcp.errors import ImageError
from praxis_mcp.images.executables import (
    CACHE_FILE,
    MAX_FIRST_LINE,
    Elf,
    Libraries,
    Loaded,
    interpreters_of,
    read_elf,
    read_elf_at,
)
from praxis_mcp.images.host_files import HostFile, HostFiles, open_taken
from praxis_mcp.images.host_pythons import HostPython, ask_python, compiled, is_left_out, is_python_name
from praxis_mcp.images.layers import Bounds
from praxis_mcp.images.manifests import architecture
from praxis_mcp.images.model import IMAGE_PATH, ImageContent, Layer, Reference, StoredImage
from praxis_mcp.images.store import ImageStore
from praxis_mcp.images.streams import LAYER_PIECE, Measured

BOUNDS = Bounds(size=1024**3, entries=50_000)
"""What such an image may take, unless its maker allows more."""

_LINKS = "/usr/local/bin"
_ALSO_NAMED = ("/bin", "/sbin")
"""Links here to where programs are, which nothing may lead through but the first line of a tool's own script."""
_MAX_INTERPRETERS = 4
_LOADED_LATER = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")
"""What glibc loads when it is needed, and no program names: to end threads, and to look up names."""
_PASSWD = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"


@dataclass(frozen=True, slots=True)
class HostImage:
    """What was stored.

    Attributes:
        name: in the store.
        image: there.
        files: all that was taken, sorted by path.
        about: what each program brought, a line each.
        notes: what was left out, and what is not as it is here.
    """

    name: str
    image: StoredImage
    files: tuple[HostFile, ...]
    about: tuple[str, ...]
    notes: tuple[str, ...]


def store_from_host(
    store: ImageStore,
    name: str,
    programs: Sequence[str],
    extra: Sequence[Path] = (),
    bounds: Bounds = BOUNDS,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> HostImage:
    """Make an image of programs of this machine, and store it.

    Args:
        store: where to.
        name: the image's, as contracts will name it.
        programs: by their paths, or names that are looked for on the PATH.
        extra: files and directories that they read, taken as they are.
        bounds: what it may take; the store has bounds of its own.
        is_stopped, on_progress: see `ImageStore.install`.

    Raises:
        ImageError: a program is not there, needs what is not there, or may not be read; nothing is stored.
    """
    reference = str(Reference.parse(name))
    limit = min(bounds.size, store.bounds.size)
    files = HostFiles(limit, min(bounds.entries, store.bounds.entries), is_stopped)
    taking = _Taking(files)
    for program in programs:
        on_progress(f"looking what {program} needs")
        taking.take_program(program)
    for place in extra:
        on_progress(f"taking {place}")
        taking.take_extra(os.path.abspath(place))
    on_progress("compiling modules")
    taking.finish()
    try:
        with tempfile.TemporaryFile(dir=store.temporary()) as layer:
            on_progress(f"copying {len(files)} files")
            files.write_layer(layer)  # pyright: ignore[reportArgumentType] - a binary file
            digest = _digest(layer, is_stopped)
            content = ImageContent(_config(digest), (Layer(lambda: _again(layer), digest),))
            image = store.install(content, [reference], is_stopped=is_stopped, on_progress=on_progress)
    except OSError as exc:
        raise store.unwritable(exc) from exc
    return HostImage(reference, image, tuple(files), tuple(taking.about), tuple(files.notes))


@dataclass(slots=True)
class _Taking:
    """The work under way."""

    files: HostFiles
    about: list[str] = field(default_factory=list)
    libraries: Libraries = field(default_factory=Libraries)
    pythons: list[HostPython] = field(default_factory=list)
    _found: set[str] = field(default_factory=set)
    _seen: dict[str, Loaded] = field(default_factory=dict)

    def take_program(self, program: str, depth: int = 0) -> None:
        """Take a program, and what it needs to start.

        Raises:
            ImageError: it is not there, or something that it needs is not.
        """
        path = _find(program)
        if is_python_name(path):
            self._take_python(path, program)
            return
        entry = self.files.take(path)
        if not stat.S_ISREG(entry.mode):
            raise ImageError(f"{path} is not a program.", remedy="Take a directory by --with.")
        if not entry.mode & 0o111:
            raise ImageError(f"{path} is not executable.", remedy=f"chmod +x {shlex.quote(path)}, or --with {path}.")
        elf = self._read(entry)
        if elf is not None:
            self._take_elf(entry, elf, path)
        else:
            self._take_script(entry, path, depth)
        self._link(path)

    def take_extra(self, path: str) -> None:
        """Take a file, or a directory with all that is in it, and the libraries that what is in it needs."""
        if stat.S_ISDIR(self.files.take(path).mode):
            self._take_plugins(self.files.take_tree(path, lambda place: os.path.basename(place) == "__pycache__"))
        else:
            self._take_plugins([self.files.take(path)])

    def finish(self) -> None:
        """Add what is made for the image: compiled modules, the loader's table, and the users."""
        private = [entry.path for entry in self.files if entry.is_private]
        if private:
            others = f" and {len(private) - 1} more" if len(private) > 1 else ""
            self.files.note(f"not everyone may read {private[0]}{others} here, and every tool in the image can")
        sources = [entry for entry in self.files if entry.path.endswith(".py") and stat.S_ISREG(entry.mode)]
        for python in self.pythons:
            # Each its own library, and the first one what is nobody's.
            own = [entry for entry in sources if self._owner(entry) in (python, None)]
            sources = [entry for entry in sources if entry not in own]
            texts = ((entry.path, text) for entry, text in self.files.contents(own))
            for place, data in compiled(python, texts):
                self.files.put(place, data)
        cache = self.libraries.cache_of(sorted(self._found))
        if cache is not None:
            self.files.put(CACHE_FILE, cache)
        for place in _ALSO_NAMED:
            if os.path.islink(place) and any(
                entry.path.startswith(f"{os.path.realpath(place)}/") for entry in self.files
            ):
                self.files.take(place)
        for path, content in (("/etc/passwd", _PASSWD), ("/etc/group", _GROUP)):
            if path not in self.files:
                self.files.put(path, content)

    def _take_python(self, path: str, named: str) -> None:
        python = ask_python(path)
        entry = self.files.take(python.program)
        elf = self._read(entry)
        if elf is None:
            raise ImageError(f"{python.program}, which {named} leads to, is not an ELF program.")
        program = self._take_elf(entry, elf, python.program)
        if os.path.isfile(path) and os.path.realpath(path) == entry.path:
            self.files.take(path)  # the names that lead to it, in a virtual environment too
        before = len(self.files)
        for place in python.library:
            if os.path.isdir(place):
                self._take_plugins(self.files.take_tree(place, is_left_out), program)
            elif os.path.isfile(place):
                self.files.take(place)
        if python not in self.pythons:
            self.pythons.append(python)
            self.about.append(
                f"{python.program}, Python {python.version} with its standard library "
                f"({len(self.files) - before} files); packages that are installed are not taken"
            )
        for name in dict.fromkeys((os.path.basename(path), "python3", "python")):
            self._link(python.program, name)

    def _owner(self, entry: HostFile) -> HostPython | None:
        """The Python whose standard library has it."""
        places = ((python, place) for python in self.pythons for place in python.library)
        return next((python for python, place in places if entry.path.startswith(f"{place}/")), None)

    def _take_elf(self, entry: HostFile, elf: Elf, path: str) -> Loaded:
        if not elf.runs_here:
            raise ImageError(f"{path} is made for another kind of machine.")
        loaded = Loaded(entry.path, elf)
        if elf.interpreter is not None:
            if not os.path.isabs(elf.interpreter):
                raise ImageError(f"{path} names its loader by a relative path, {elf.interpreter!r}.")
            self.files.take(elf.interpreter)
            for name, place in self._needed(loaded, _is_musl(elf)):
                if place is None:
                    raise ImageError(
                        f"{path} needs the library {name}, which is not on this machine.",
                        remedy="Install it, and see that `ldd` finds it without LD_LIBRARY_PATH.",
                    )
            if not _is_musl(elf):
                for name in _LOADED_LATER:
                    if (place := self.libraries.find(name, loaded, is_musl=False)) is not None:
                        self._take_library(place, loaded)
        if not is_python_name(path):
            self.about.append(
                f"{path}, " + ("which is static" if elf.interpreter is None else "with its loader and libraries")
            )
        return loaded

    def _needed(self, by: Loaded, is_musl: bool) -> list[tuple[str, str | None]]:
        """Take the libraries of something, theirs, and so on; gives each with its place, None where there is none."""
        found: list[tuple[str, str | None]] = []
        waiting = [by]
        while waiting:
            at = waiting.pop(0)
            for name in at.elf.needed:
                place = self.libraries.find(name, at, is_musl=is_musl)
                found.append((name, place))
                if place is not None and (library := self._take_library(place, at)) is not None:
                    waiting.append(library)
        return found

    def _take_library(self, place: str, by: Loaded) -> Loaded | None:
        """Take one library; None where that was done before."""
        entry = self.files.take(place)
        self._found.add(place)
        if entry.path in self._seen:
            return None
        elf = self._read(entry)
        assert elf is not None  # `Libraries.find` has looked
        self._seen[entry.path] = Loaded(entry.path, elf, by)
        return self._seen[entry.path]

    def _take_plugins(self, entries: Iterable[HostFile], program: Loaded | None = None) -> None:
        """Take the libraries of what programs load when they run; what has none is left out."""
        for entry in entries:
            if not (entry.mode & 0o111 or ".so" in os.path.basename(entry.path)):
                continue
            elf = self._read(entry)
            if elf is None or not elf.runs_here:
                continue
            if elf.interpreter is not None:
                self.files.take(elf.interpreter)
            is_musl = _is_musl(elf) or (program is not None and _is_musl(program.elf))
            missing = self._missing(Loaded(entry.path, elf, program), is_musl)
            if missing:
                self.files.leave_out(entry, f"its library {missing} is not on this machine")
                continue
            self._needed(Loaded(entry.path, elf, program), is_musl)

    def _missing(self, by: Loaded, is_musl: bool) -> str | None:
        """The first library that something needs, itself or by others, and that is not there; takes nothing."""
        waiting, seen = [by], set[str]()
        while waiting:
            at = waiting.pop()
            for name in at.elf.needed:
                place = self.libraries.find(name, at, is_musl=is_musl)
                if place is None:
                    return name
                real = os.path.realpath(place)
                if real in seen or real in self._seen:
                    continue
                seen.add(real)
                try:
                    elf = read_elf_at(real)
                except OSError:  # removed just now
                    return name
                if elf is not None:
                    waiting.append(Loaded(real, elf, at))
        return None

    def _take_script(self, entry: HostFile, path: str, depth: int) -> None:
        with open_taken(entry) as file:
            words = interpreters_of(file.read(MAX_FIRST_LINE))
        if not words or not os.path.isabs(words[0]):
            raise ImageError(
                f"{path} is neither an ELF program nor a script that names its interpreter (#!/…).",
                remedy="Name its interpreter, and take the file by --with.",
            )
        if depth >= _MAX_INTERPRETERS:
            raise ImageError(f"{path}: its interpreter is a script, and so is that one's, and so on.")
        self.about.append(f"{path}, a script for {words[0]}: name the programs that it calls as well")
        for word in words:
            self.take_program(word, depth + 1)
            if os.path.isabs(word):
                self._take_names(word)

    def _take_names(self, path: str) -> None:
        """Take an interpreter by the very path that a script names: the kernel will look there."""
        if path not in self.files and is_python_name(path):
            if os.path.realpath(path) not in map(os.path.realpath, (python.program for python in self.pythons)):
                raise ImageError(
                    f"{path}, an interpreter of a script, is a shim for another program.",
                    remedy="Name the interpreter itself in the script's first line.",
                )
            self.files.take(path)

    def _link(self, path: str, name: str | None = None) -> None:
        """Make a program known by its name where the image's PATH leads."""
        if name is not None or os.path.dirname(path) not in IMAGE_PATH.split(":"):
            self.files.link(os.path.join(_LINKS, name or os.path.basename(path)), path)

    @staticmethod
    def _read(entry: HostFile) -> Elf | None:
        with open_taken(entry) as file:
            try:
                return read_elf(file.fileno(), entry.path)
            except OSError as exc:
                raise ImageError(f"{entry.path} cannot be read: {exc.strerror}.") from exc


def _find(program: str) -> str:
    found = os.path.abspath(program) if "/" in program else shutil.which(program)
    if found is None or not os.path.exists(found):
        where = "" if "/" in program else " on the PATH"
        raise ImageError(f"There is no program {program!r}{where}.", remedy="Name it by its full path.")
    return os.path.abspath(found)


def _is_musl(elf: Elf) -> bool:
    return elf.interpreter is not None and os.path.basename(elf.interpreter).startswith("ld-musl-")


def _again(layer: BinaryIO) -> BinaryIO:
    """The layer from its beginning; a descriptor of its own, which its reader closes."""
    file = os.fdopen(os.dup(layer.fileno()), "rb")
    file.seek(0)
    return file


def _digest(layer: BinaryIO, is_stopped: Callable[[], bool]) -> str:
    layer.seek(0, os.SEEK_END)
    size = layer.tell()
    layer.seek(0)
    measured = Measured(layer, size, "The layer", is_stopped)
    while measured.read(LAYER_PIECE):
        pass
    return measured.digest


def _config(digest: str) -> bytes:
    document = {
        "architecture": architecture(),
        "config": {"Env": [f"PATH={IMAGE_PATH}"]},
        "created": "1980-01-01T00:00:00Z",
        "os": "linux",
        "rootfs": {"diff_ids": [digest], "type": "layers"},
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
