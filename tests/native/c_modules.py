"""native/ read as modules: what each .c file includes, shows to others, and takes from them."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

COMPILE_SECONDS = 300.0
"""The first use of a compiler on a machine builds its C library as well."""

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_INCLUDE = re.compile(r'^#include "(\w+)\.h"$', re.MULTILINE)
_FUNCTION = re.compile(r"^\w[\w \t*]*?\b(\w+)\([^;{]*\);", re.MULTILINE)
_VARIABLE = re.compile(r"^extern [\w \t*]*?\b(\w+)(?:\[\])?;", re.MULTILINE)
_SYMTAB, _UNDEFINED, _LOCAL = 2, 0, 0


@dataclass
class Module:
    """A .c file and the header of its name."""

    name: str
    includes: list[str]
    """What its .c file includes itself, in order."""
    header_includes: list[str]
    declares: set[str]
    """What its header declares for others."""
    defines: set[str] = field(default_factory=set, repr=False)
    """What its object file shows to others."""
    needs: set[str] = field(default_factory=set, repr=False)
    """What its object file takes from others, the C library among them."""


def read_modules(folder: Path, scratch: Path) -> dict[str, Module]:
    """The modules of a folder, compiled into `scratch`."""
    modules = {}
    for source in sorted(folder.glob("*.c")):
        header = source.with_suffix(".h")
        code = _COMMENT.sub("", header.read_text()) if header.is_file() else ""
        modules[source.stem] = Module(
            source.stem,
            _INCLUDE.findall(source.read_text()),
            _INCLUDE.findall(code),
            {*_FUNCTION.findall(code), *_VARIABLE.findall(code)},
        )
    _compile([folder / f"{name}.c" for name in modules], scratch)
    for name, module in modules.items():
        module.defines, module.needs = _symbols((scratch / f"{name}.o").read_bytes())
    return modules


def calls(modules: dict[str, Module]) -> dict[str, set[str]]:
    """Each module, and the others whose functions or variables it uses."""
    return {
        module.name: {other.name for other in modules.values() if other is not module and module.needs & other.defines}
        for module in modules.values()
    }


def find_circle(uses: dict[str, set[str]]) -> list[str] | None:
    """Modules that use one another in a circle, the first of them again at the end; None if there are none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        for other in sorted(uses.get(name, ())):
            if (found := visit(other, [*path, name])) is not None:
                return found
        done.add(name)
        return None

    return next((found for name in sorted(uses) if (found := visit(name, []))), None)


def _compile(sources: list[Path], scratch: Path) -> None:
    compiler = [shutil.which("cc") or ""] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]
    command = [*compiler, "-c", "-std=c11", "-D_GNU_SOURCE", "-Os", *map(str, sources)]
    subprocess.run(command, cwd=scratch, check=True, timeout=COMPILE_SECONDS)


def _symbols(data: bytes) -> tuple[set[str], set[str]]:
    """The names that an object file (ELF, 64 bits, little-endian) defines for others, and those that it lacks."""
    defined, undefined = set[str](), set[str]()
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * index) for index in range(count)]
    for section in sections:
        if section[1] != _SYMTAB:
            continue
        names = sections[section[6]][4]
        for place in range(section[4], section[4] + section[5], section[9]):
            name, info, _, where = struct.unpack_from("<IBBH", data, place)
            if name and info >> 4 != _LOCAL:
                text = data[names + name : data.index(b"\0", names + name)].decode()
                (undefined if where == _UNDEFINED else defined).add(text)
    return defined, undefined
