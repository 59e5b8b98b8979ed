"""Builds praxis-init for every architecture that a container may have, on whichever machine this is.

Run by hatch_build.py when a wheel or an editable install is made, and by hand (`python native/build.py`) after a
change to the C sources. Needs the `ziglang` package, which is a C compiler with a libc for both targets in it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MACHINES = ("x86_64", "aarch64")
FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-Os", "-flto", "-static", "-s"),
    # The last two: what a .c file shows to others stands in its header.
    *("-Wall", "-Wextra", "-Werror", "-Wmissing-prototypes", "-Wmissing-variable-declarations"),
)
COMPILE_SECONDS = 900  # the first build also compiles musl; slow machines take minutes for it
STAMP = "sources.sha256"
FAILED = "failed.txt"  # for `praxis_mcp.support.praxis_init`, which tells it


class NativeBuildError(Exception):
    """praxis-init could not be built; the message says what was missing or what the compiler said."""


def build(root: Path) -> bool:
    """Brings `praxis_mcp/_native/` below `root` up to date with `native/`; False if it was already.

    Raises NativeBuildError; binaries of older sources are then gone, rather than passing for these, and why there are
    none stands in their place.
    """
    failed = root / "praxis_mcp" / "_native" / FAILED
    try:
        rebuilt = _build(root)
    except NativeBuildError as error:
        failed.parent.mkdir(exist_ok=True)
        failed.write_text(str(error).splitlines()[0])
        raise
    failed.unlink(missing_ok=True)
    return rebuilt


def _build(root: Path) -> bool:
    sources = sorted((root / "native").glob("*.c"))
    digest = _digest([*sources, *sorted((root / "native").glob("*.h"))])
    folder = root / "praxis_mcp" / "_native"
    stamp = folder / STAMP
    binaries = {machine: folder / f"praxis-init-{machine}" for machine in MACHINES}
    if all(map(Path.is_file, binaries.values())) and stamp.is_file() and stamp.read_text() == digest:
        return False
    stamp.unlink(missing_ok=True)
    for binary in binaries.values():
        binary.unlink(missing_ok=True)
    if importlib.util.find_spec("ziglang") is None:
        raise NativeBuildError("the C compiler is missing: the package `ziglang`, which has no wheel for some systems")
    folder.mkdir(exist_ok=True)
    # Moved into place when all are there: another build, or a running server, may be looking.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as scratch:
        for machine in MACHINES:
            _compile(sources, machine, Path(scratch) / machine, Path(scratch))
        for machine, binary in binaries.items():
            (Path(scratch) / machine).replace(binary)
    stamp.write_text(digest)
    return True


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256(repr((MACHINES, FLAGS)).encode())
    for file in files:
        digest.update(b"\0" + file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _compile(sources: list[Path], machine: str, output: Path, scratch: Path) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-musl", *FLAGS]
    command += ["-o", str(output), *map(str, sources)]
    # Objects go to the scratch folder; the compiled libc stays in zig's own cache, where the next build finds it.
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(scratch / "cache")}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeBuildError(f"the compiler did not finish for {machine}: {error}") from error
    if done.returncode != 0:
        raise NativeBuildError(f"the compiler failed for {machine}:\n{done.stderr.strip()}")
    output.chmod(0o755)


if __name__ == "__main__":
    try:
        rebuilt = build(Path(__file__).resolve().parent.parent)
    except NativeBuildError as error:
        sys.exit(f"praxis-init: {error}")
    sys.stdout.write("praxis-init: built\n" if rebuilt else "praxis-init: already up to date\n")
