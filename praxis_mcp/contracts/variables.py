"""Environment variables by name: which ones a parameter arrives in, and what their names mean to others.

No argument may set a *reserved* one: it would steer the loader, a shell, an interpreter or a well-known program before
the tool's first line runs (``TAR_OPTIONS`` can hold a command). A program *reads* others for itself: a parameter
``seconds`` is set as ``SECONDS`` too, which counts seconds in bash. The names, and where they are documented, stand in
``reserved_variables.txt`` and ``read_variables.txt``. A variable *of the host* describes the machine that it is set on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from praxis_mcp.contracts.model import ToolParameter
from praxis_mcp.contracts.values import is_variable_name

RESERVED_VARIABLES = Path(__file__).with_name("reserved_variables.txt")
READ_VARIABLES = Path(__file__).with_name("read_variables.txt")

_VERSION = re.compile(r"(_\d+)+$", re.ASCII)
_PROGRAM = re.compile(r"[A-Za-z0-9_+-]+")

# POSIX (Base Definitions, 8.3), environ(7), ld.so(8), the XDG base directory specification, and the installation
# directories of interpreters and toolchains.
_NAMES_OF_THE_HOST = """
PATH HOME SHELL PWD OLDPWD TMPDIR TMP TEMP HOSTNAME ENV BASH_ENV MANPATH INFOPATH TERMINFO TERMINFO_DIRS LOCPATH NLSPATH
GCONV_PATH XDG_CACHE_HOME XDG_CONFIG_DIRS XDG_CONFIG_HOME XDG_DATA_DIRS XDG_DATA_HOME XDG_RUNTIME_DIR XDG_STATE_HOME
DBUS_SESSION_BUS_ADDRESS VIRTUAL_ENV CONDA_PREFIX PYENV_ROOT PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONUSERBASE
PYTHONEXECUTABLE NODE_PATH NVM_DIR PERL5LIB PERLLIB RUBYLIB GEM_HOME GEM_PATH JAVA_HOME CLASSPATH GOPATH GOROOT GOBIN
CARGO_HOME RUSTUP_HOME LUA_PATH LUA_CPATH GIT_EXEC_PATH
USERPROFILE HOMEDRIVE HOMEPATH APPDATA LOCALAPPDATA PROGRAMDATA PROGRAMFILES SYSTEMROOT WINDIR COMSPEC PATHEXT
"""
_OF_THE_HOST = frozenset(_NAMES_OF_THE_HOST.split())


def all_variable_names(parameter: ToolParameter) -> tuple[str, ...]:
    """The variables an env-bound parameter is meant for: the one its binding names, else its own name, the upper
    case, and the upper case with underscores where a shell could not read the name."""
    if parameter.bind.target is not None:
        return (str(parameter.bind.target),)
    upper = parameter.name.upper()
    return tuple(dict.fromkeys((parameter.name, upper, re.sub(r"\W", "_", upper, flags=re.ASCII))))


def variable_names(parameter: ToolParameter) -> tuple[str, ...]:
    """The variables an env-bound parameter arrives in: `all_variable_names`, without those that are reserved
    or cannot be names of variables."""
    return tuple(name for name in all_variable_names(parameter) if is_variable_name(name) and not is_reserved(name))


def is_of_the_host(name: str) -> bool:
    """Whether a variable of this name says where programs, libraries and directories of its machine are; ``Path`` is
    PATH on Windows.

    Inside an image such a value is wrong, and hides the image's own, so `env_passthrough` does not carry it there.
    `env` may set it all the same: that value was written for the image.
    """
    name = name.upper()
    return name in _OF_THE_HOST or name.startswith(("LD_", "DYLD_"))


def is_reserved(name: str) -> bool:
    """Whether no argument may set this variable."""
    names = _reserved()
    plain = _VERSION.sub("", name.partition("=")[0])
    return (
        plain in names.exact
        or plain.startswith(names.families)
        or plain.upper() in names.exact_in_any_case
        or plain.upper().startswith(names.families_in_any_case)
    )


def programs_in(texts: Iterable[str]) -> frozenset[str]:
    """Which programs of the list are named in a command's words, a shell's text among them, or in an image's name."""
    known = _read()
    return frozenset(word for text in texts for word in _PROGRAM.findall(text) if word in known)


def reader_of(name: str, programs: Iterable[str]) -> str | None:
    """The first of these programs, by name, that reads a variable; None where none does."""
    known = _read()
    return next((program for program in sorted(programs) if name in known[program]), None)


class _Reserved(NamedTuple):
    exact: frozenset[str]
    families: tuple[str, ...]
    exact_in_any_case: frozenset[str]
    families_in_any_case: tuple[str, ...]


@functools.cache
def _reserved() -> _Reserved:
    text = RESERVED_VARIABLES.read_text(encoding="utf-8")
    words = [word for line in text.splitlines() if not line.startswith("#") for word in line.split()]
    any_case = [word.removesuffix("~") for word in words if word.endswith("~")]
    written = [word for word in words if not word.endswith("~")]
    return _Reserved(
        frozenset(word for word in written if not word.endswith("*")),
        tuple(word[:-1] for word in written if word.endswith("*")),
        frozenset(word for word in any_case if not word.endswith("*")),
        tuple(word[:-1] for word in any_case if word.endswith("*")),
    )


@functools.cache
def _read() -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for line in READ_VARIABLES.read_text(encoding="utf-8").splitlines():
        programs, colon, names = line.partition(" : ")
        if colon and not line.startswith("#"):
            for program in programs.split():
                found[program] = found.get(program, frozenset()) | frozenset(names.split())
    return found
