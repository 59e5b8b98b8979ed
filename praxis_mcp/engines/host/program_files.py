"""What a program of the host needs to run where its surroundings are hidden: itself, its interpreter, its installation.

Interpreters and tools often lie in a home directory (pyenv, nvm, uv, pipx, cargo, a project's virtual environment). Of
these exactly the installation is shown, never the directory that it happens to lie in: ``~/.cargo/bin`` without
``~/.cargo/credentials.toml``, ``~/.local/bin`` and ``~/.local/lib`` without ``~/.local/share``.
"""

# Paths as text, whose links are followed one by one.
# ruff: noqa: PTH118, PTH119, PTH120

from __future__ import annotations

import os
import shutil

from praxis_mcp.images.executables import MAX_FIRST_LINE, interpreters_of
from praxis_mcp.support.files import follow_links, home, link_target, read_regular

_MAX_PROGRAMS = 8
"""Interpreters of interpreters that are followed."""
_PROGRAM_FOLDERS = ("bin", "sbin", "libexec", "Scripts")
_CODE = ("bin", "sbin", "lib", "lib32", "lib64", "libexec")
_INSTALLATION = (*_CODE, "include", "share", "etc", "ssl", "conda-meta", "pyvenv.cfg")
"""What belongs to a program in the directory above its ``bin`` (Filesystem Hierarchy Standard; venv, conda)."""
_SIGNS = ("pyvenv.cfg", "conda-meta", "lib/node_modules", "lib/ruby", "lib/perl5", "lib/pkgconfig")
"""What only an installation's own directory has."""


class ProgramFiles:
    """What a command needs, found link by link.

    Attributes:
        links: every link on the way, with what it holds: a reader that sees only their ends could not follow them.
        places: files and directories, links resolved.
    """

    def __init__(self) -> None:
        self.links: dict[str, str] = {}
        self.places: dict[str, None] = {}
        self._programs: set[str] = set()

    def add_program(self, word: str, path: str, directory: str) -> None:
        """A program as a command names it.

        Args:
            word: its name, or its path.
            path: where it is looked for (``PATH``).
            directory: where a relative path begins.
        """
        found = os.path.join(directory, word) if "/" in word else shutil.which(word, path=path)
        if found is None or len(self._programs) >= _MAX_PROGRAMS:
            return
        real = self._follow(found)
        if real in self._programs or not os.path.isfile(real):  # noqa: PTH113
            return
        self._programs.add(real)
        self.places[real] = None
        called = os.path.join(os.path.realpath(os.path.dirname(found)), os.path.basename(found))
        for place in dict.fromkeys((*self.links, called, real)):
            self._add_installation(place)
        for name in interpreters_of(_beginning(real)):
            self.add_program(name, path, directory)

    def add_place(self, place: str) -> None:
        """A file or directory, wherever its links lead."""
        real = self._follow(place)
        if os.path.exists(real):  # noqa: PTH110
            self.places[real] = None

    def _follow(self, path: str) -> str:
        """Where a path leads, its links noted; itself where they lead nowhere."""

        def note(place: str) -> str | None:
            target = link_target(place)
            if target is not None:
                self.links[place] = target
            return target

        try:
            return follow_links(path, note)
        except OSError:  # in circles
            return path

    def _add_installation(self, program: str) -> None:
        folder, top = os.path.dirname(program), os.path.dirname(os.path.dirname(program))
        if os.path.basename(folder) == "shims" and not _is_shared(top):
            self.add_place(top)  # pyenv, rbenv, asdf: the shim asks the manager which version to run
        if os.path.basename(folder) not in _PROGRAM_FOLDERS or top == "/":
            return
        for name in _INSTALLATION if _is_installation(top) else _CODE:
            if os.path.lexists(place := os.path.join(top, name)) and place not in self.places:
                self.add_place(place)
        for line in os.fsdecode(_beginning(os.path.join(top, "pyvenv.cfg"))).splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home" and (base := value.strip()).startswith("/"):
                # The installation that a virtual environment is of (PEP 405).
                self._add_installation(os.path.join(self._follow(base), "python"))


def _is_installation(top: str) -> bool:
    return not _is_shared(top) and any(os.path.lexists(os.path.join(top, sign)) for sign in _SIGNS)


def _is_shared(top: str) -> bool:
    """Whether it is not an installation's own directory but a home, or that of all that one user has installed."""
    where = home()
    shared = {os.path.realpath(place) for place in (where, where / ".local", where / ".config")} if where else set()
    return top in shared or os.path.basename(top) == ".local" or os.path.dirname(top) in ("/", "/home")


def _beginning(file: str) -> bytes:
    """Of a regular file; nothing where it cannot be read."""
    try:
        return read_regular(file, MAX_FIRST_LINE)
    except OSError:
        return b""
