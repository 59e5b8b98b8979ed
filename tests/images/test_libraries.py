"""Libraries are found where the loader of this machine finds them."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from praxis_mcp.errors import ImageError
from praxis_mcp.images.executables import (
    CacheEntry,
    Elf,
    Libraries,
    Loaded,
    interpreters_of,
    read_cache,
    read_elf,
    write_cache,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's loader")


@pytest.mark.parametrize(
    ("first", "programs"),
    [
        (b"#!/bin/sh\ntrue\n", ["/bin/sh"]),
        (b"#! /bin/sh -e\n", ["/bin/sh"]),
        (b"#!/usr/bin/env python3\n", ["/usr/bin/env", "python3"]),
        (b"#!\t/usr/bin/env\tpython3", ["/usr/bin/env", "python3"]),
        (b"#!/usr/bin/env -S LC_ALL=C sh -e\n", ["/usr/bin/env", "sh"]),
        (b"#!/usr/bin/env -S -u HOME -i 'my sh' -e\n", ["/usr/bin/env", "my sh"]),
        (b"#!/usr/bin/env\n", ["/usr/bin/env"]),
        (b"#!/usr/bin/env -S 'open\n", []),
        (b"#!\n", []),
        (b"# !/bin/sh\n", []),
        (b"", []),
    ],
)
def test_a_scripts_first_line_names_its_interpreter_and_what_env_looks_for(first: bytes, programs: list[str]) -> None:
    assert interpreters_of(first) == programs


def elf_of(path: str) -> Elf | None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_elf(descriptor, path)
    finally:
        os.close(descriptor)


def loaded(path: str) -> Loaded:
    elf = elf_of(path)
    assert elf is not None
    return Loaded(os.path.realpath(path), elf)


def libraries_of(path: str) -> set[str]:
    """Real paths of all that a program needs."""
    found: set[str] = set()
    program = loaded(path)
    waiting = [program]
    while waiting:
        at = waiting.pop(0)
        for name in at.elf.needed:
            place = Libraries().find(name, at, is_musl="musl" in str(program.elf.interpreter))
            assert place is not None, f"{name}, which {at.path} needs"
            real = os.path.realpath(place)
            if real not in found:
                found.add(real)
                elf = elf_of(real)
                assert elf is not None
                waiting.append(Loaded(real, elf, at))
    return found


def compile_c(text: str, output: Path, *options: str) -> None:
    if (cc := shutil.which("cc")) is None:
        pytest.skip("needs a C compiler")
    command = [cc, "-x", "c", "-", "-o", str(output), *options]
    subprocess.run(command, input=text, text=True, check=True, timeout=60)


def test_they_are_those_that_the_loader_itself_lists() -> None:
    compared = 0
    for program in {sys.executable, *filter(None, map(shutil.which, ("env", "git", "bash", "sh", "cc", "tar")))}:
        elf = elf_of(program)
        if elf is None or elf.interpreter is None:
            continue
        done = subprocess.run(
            [elf.interpreter, "--list", program], capture_output=True, text=True, timeout=60, check=False,
            env={key: value for key, value in os.environ.items() if not key.startswith("LD_")},
        )  # fmt: skip
        listed = {os.path.realpath(path) for path in re.findall(r"=> (/\S+)", done.stdout)}
        own = {os.path.realpath(elf.interpreter)}
        assert libraries_of(program) - own == listed - own, program
        compared += 1
    assert compared


@pytest.mark.parametrize("tags", ["--enable-new-dtags", "--disable-new-dtags"])
def test_directories_that_a_program_names_are_searched_by_the_loaders_rules(tmp_path: Path, tags: str) -> None:
    (tmp_path / "lib").mkdir()
    inner, outer, program = tmp_path / "lib/libinner.so", tmp_path / "lib/libouter.so", tmp_path / "program"
    compile_c("int inner(void) { return 7; }", inner, "-shared", "-fPIC", "-Wl,-soname,libinner.so")
    compile_c(
        "int inner(void); int outer(void) { return inner(); }", outer,
        "-shared", "-fPIC", f"-L{tmp_path}/lib", "-linner", "-Wl,-soname,libouter.so",
    )  # fmt: skip
    compile_c(
        "int outer(void); int main(void) { return outer(); }", program,
        f"-L{tmp_path}/lib", "-louter", f"-Wl,{tags},-rpath,$ORIGIN/lib,-rpath-link,{tmp_path}/lib",
    )  # fmt: skip
    top = loaded(str(program))
    assert Libraries().find("libouter.so", top, is_musl=False) == str(outer)
    elf = elf_of(str(outer))
    assert elf is not None
    # RPATH counts for the libraries of libraries as well, RUNPATH only for the program's own.
    found = Libraries().find("libinner.so", Loaded(str(outer), elf, top), is_musl=False)
    runs = subprocess.run([program], timeout=60, check=False, capture_output=True).returncode
    assert (found, runs) == ((str(inner), 7) if tags == "--disable-new-dtags" else (None, 127))
    assert Libraries().find("libinner.so", Loaded(str(outer), elf, top), is_musl=True) == str(inner)


def test_a_library_for_another_machine_is_passed_over(tmp_path: Path) -> None:
    compile_c("int x;", tmp_path / "libx.so", "-shared", "-fPIC", "-Wl,-soname,libx.so")
    compile_c("int main(void) { return 0; }", tmp_path / "program", f"-Wl,-rpath,{tmp_path}")
    top = loaded(str(tmp_path / "program"))
    assert Libraries().find("libx.so", top, is_musl=False) is not None
    with (tmp_path / "libx.so").open("r+b") as file:
        file.seek(18)
        file.write(struct.pack("<H", 8))  # MIPS
    assert Libraries().find("libx.so", top, is_musl=False) is None


def test_a_table_of_some_libraries_is_the_loaders_own_with_the_others_left_out(tmp_path: Path) -> None:
    own = Path("/etc/ld.so.cache")
    entries = read_cache(own.read_bytes()) if own.is_file() else []
    if not entries:
        pytest.skip("the loader of this machine has no such table")
    assert read_cache(write_cache(entries)) == entries
    wanted = entries[:: max(1, len(entries) // 5)]
    file = tmp_path / "cache"
    written = Libraries().cache_of([entry.path for entry in wanted])
    assert written is not None
    file.write_bytes(written)
    if (ldconfig := shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")) is not None:
        done = subprocess.run([ldconfig, "-p", "-C", str(file)], capture_output=True, text=True, timeout=60, check=True)
        assert all(entry.path in done.stdout for entry in wanted)
    assert Libraries().cache_of(["/nowhere/libx.so"]) is None


def test_a_damaged_table_counts_as_empty() -> None:
    whole = write_cache([CacheEntry(0x303, "liba.so", "/lib/liba.so"), CacheEntry(0x303, "libb.so", "/lib/libb.so")])
    assert [entry.name for entry in read_cache(b"ld.so-1.7.0 and more " + whole)] == ["liba.so", "libb.so"]
    for end in range(len(whole) - 1):
        assert read_cache(whole[:end]) == []


def test_a_damaged_program_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    whole = Path(os.path.realpath(sys.executable)).read_bytes()[:8192]
    chance = random.Random(7)
    place = tmp_path / "program"
    for _ in range(500):
        data = bytearray(whole[: chance.randrange(4, len(whole))])
        for _ in range(chance.randrange(1, 40)):
            data[chance.randrange(min(len(data), 1024))] = chance.randrange(256)
        place.write_bytes(data)
        with suppress(ImageError):
            elf_of(str(place))
    place.write_bytes(b"#!/bin/sh\n")
    assert elf_of(str(place)) is None
