"""A Python of this machine: where its standard library is, and that library compiled for an image."""

# Paths of the whole file system, as text.
# ruff: noqa: PTH117, PTH119

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from praxis_mcp.errors import ImageError

_NAME = re.compile(r"(?:python|pypy)[0-9.]*t?")
_ASK_TIMEOUT = 30.0
_COMPILE_TIMEOUT = 600.0

_LEFT_OUT = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "ensurepip"}
)
"""Of a standard library: compiled modules, packages that are installed, its own tests, and programs with windows
or that install packages."""
_STATIC_LIBRARY = re.compile(r"config-[0-9.]+t?-.*|.*\.a")

_ASK = """
import json, sys
print(json.dumps([getattr(sys, "_base_executable", None) or sys.executable, sys.path, list(sys.version_info[:3])]))
"""

# Reads modules from standard input, each as two lengths, its path and its source; answers each with the length of its
# compiled form, the place for that, and the form, "unchecked hash-based" (PEP 552): no time of the source is in it.
_COMPILE = """
import importlib.util, marshal, struct, sys, warnings
warnings.simplefilter("ignore")
source, out = sys.stdin.buffer, sys.stdout.buffer
while head := source.read(8):
    sizes = struct.unpack("<II", head)
    path, text = (source.read(size) for size in sizes)
    try:
        code = compile(text, path.decode(errors="surrogateescape"), "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        out.write(struct.pack("<II", 0, 0))
        continue
    place = importlib.util.cache_from_source(path.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    data = importlib.util.MAGIC_NUMBER + b"\\1\\0\\0\\0" + importlib.util.source_hash(text) + marshal.dumps(code)
    out.write(struct.pack("<II", len(place), len(data)) + place + data)
"""


@dataclass(frozen=True, slots=True)
class HostPython:
    """A Python as it describes itself.

    Attributes:
        program: the executable itself; of a virtual environment, that of the Python below it.
        library: the directories and archives of its standard library.
        version: such as ``3.11.7``.
    """

    program: str
    library: tuple[str, ...]
    version: str


def is_python_name(path: str) -> bool:
    """Whether a program is called like a Python."""
    return _NAME.fullmatch(os.path.basename(path)) is not None


def ask_python(program: str) -> HostPython:
    """Ask a Python where it is and where its standard library is: it may be a shim, or one of a virtual environment.

    Raises:
        ImageError: it does not answer.
    """
    try:
        done = subprocess.run(
            [program, "-I", "-S", "-c", _ASK],
            env=_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_TIMEOUT,
            check=True,
        )
        executable, path, version = json.loads(done.stdout)
        found = HostPython(str(executable), tuple(map(str, path)), ".".join(map(str, version)))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as exc:
        raise ImageError(
            f"{program} is called like a Python and does not say where its standard library is.",
            remedy=f"Check it: {program} -I -c 'import sys; print(sys.path)'.",
        ) from exc
    if not os.path.isabs(found.program):
        raise ImageError(f"{program} does not say where it is itself.", remedy="Name the executable by its full path.")
    return found


def is_left_out(path: str) -> bool:
    """Whether an image does without something in a standard library: see `_LEFT_OUT`."""
    name = os.path.basename(path)
    return name in _LEFT_OUT or _STATIC_LIBRARY.fullmatch(name) is not None


def compiled(python: HostPython, sources: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Compile modules, as a read-only image needs that nobody can do later; gives the place and content of each.

    The same sources give the same bytes: they are compiled in one process, in this order.

    Args:
        python: by which.
        sources: path and content of each; what is not Python has no compiled form.

    Raises:
        ImageError: it does not do it.
    """
    given = bytearray()
    count = 0
    for path, text in sources:
        name = os.fsencode(path)
        given += struct.pack("<II", len(name), len(text)) + name + text
        count += 1
    command = [python.program, "-S", "-s", "-X", "utf8", "-c", _COMPILE]
    try:
        done = subprocess.run(
            command, env=_environment(), cwd="/", input=given, capture_output=True, timeout=_COMPILE_TIMEOUT, check=True
        )
        yield from _answers(done.stdout, count)
    except (OSError, subprocess.SubprocessError, struct.error) as exc:
        raise ImageError(f"{python.program} could not compile its standard library.") from exc


def _answers(data: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    at = 0
    for _ in range(count):
        place, size = struct.unpack_from("<II", data, at)
        at += 8
        if place:
            yield os.fsdecode(data[at : at + place]), data[at + place : at + place + size]
        at += place + size


def _environment() -> dict[str, str]:
    # The order of sets is in compiled modules; and no variable of the user's may lead it elsewhere.
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/"), "PYTHONHASHSEED": "0"}
