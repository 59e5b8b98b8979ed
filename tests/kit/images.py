"""The images that tests use, on the local Docker daemon: `python -m tests.kit.images`.

An image that is there already is left alone. A missing one is pulled; where no image registry can be reached (or
`PRAXIS_TEST_PULL=never`), a stand-in of the same name is made from what a Debian machine has:

    busybox:1.36, busybox:latest   the applets of Debian's busybox-static
    python:3.11-slim               Debian 12 with its Python 3.11 and full standard library, by debootstrap (as root)
    scratch-tool:latest            one static program, /tool, and nothing else: no shell, no /etc, no /tmp

Stand-ins carry the label `org.praxis-mcp.stand-in`; `--remove` removes them, and only them.
"""

import argparse
import functools
import io
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.kit.cache import cache_dir, exclusive
from tests.kit.requirements import missing

LABEL = "org.praxis-mcp.stand-in"
DEBIAN = "bookworm"
PULL_TIMEOUT = 300.0
BUILD_TIMEOUT = 900.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ImageUnavailable(Exception):
    """An image is missing and cannot be had or made here; the message says why and what would fix it."""


@dataclass(frozen=True)
class Recipe:
    """How a stand-in is made. A higher `version` makes it again where an older one is found."""

    name: str
    version: int
    write: Callable[[Path], None]
    path: str
    command: tuple[str, ...]
    pull: bool = True

    @property
    def label(self) -> str:
        return f"{self.name}.{self.version}"

    @property
    def changes(self) -> list[str]:
        return [f"ENV PATH={self.path}", f"CMD {json.dumps(self.command)}", f"LABEL {LABEL}={self.label}"]


def _run(*command: str, timeout: float = BUILD_TIMEOUT, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd)
    except FileNotFoundError as exc:
        raise ImageUnavailable(f"{command[0]} is not on the PATH") from exc
    except subprocess.TimeoutExpired as exc:
        raise ImageUnavailable(f"{command[0]} gave no answer in {timeout:.0f} s") from exc
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise ImageUnavailable(f"`{' '.join(command[:4])} …` failed with {done.returncode}: {tail}")
    return done.stdout


# --- root file systems ------------------------------------------------------------------------------------------------


def _add_directory(tar: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _add_link(tar: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, target, 0o755
    tar.addfile(entry)


def is_static(program: Path) -> bool:
    """Whether an ELF file needs no interpreter, so that it runs in an empty image."""
    data = program.read_bytes()
    if data[:4] != b"\x7fELF" or data[4] != 2 or data[5] != 1:  # 64 bits, little-endian
        return False
    (table,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    interpreter = 3
    return all(struct.unpack_from("<I", data, table + i * size)[0] != interpreter for i in range(count))


def _static_busybox(scratch: Path) -> Path:
    found = shutil.which("busybox")
    if found and is_static(Path(found).resolve()):
        return Path(found).resolve()
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):  # downloading and unpacking need no root
        _run("apt-get", "download", "busybox-static", cwd=scratch)
        package = next(scratch.glob("busybox-static_*.deb"))
        _run("dpkg-deb", "-x", str(package), str(scratch / "unpacked"))
        for candidate in ("bin/busybox", "usr/bin/busybox"):
            if (scratch / "unpacked" / candidate).exists():
                return scratch / "unpacked" / candidate
    raise ImageUnavailable("a static busybox is needed: apt-get install busybox-static")


def _write_busybox(tarball: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        busybox = _static_busybox(Path(scratch))
        applets = _run(str(busybox), "--list").split()
        with tarfile.open(tarball, "w") as tar:
            for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "usr/sbin", "var"):
                _add_directory(tar, name, 0o700 if name == "root" else 0o755)
            for name in ("tmp", "var/tmp"):
                _add_directory(tar, name, 0o1777)
            _add_file(tar, "bin/busybox", busybox.read_bytes(), 0o755)
            for applet in applets:
                if applet != "busybox":
                    _add_link(tar, f"bin/{applet}", "bin/busybox", tarfile.LNKTYPE)
            _add_link(tar, "usr/bin/env", "../../bin/env", tarfile.SYMTYPE)
            passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
            _add_file(tar, "etc/passwd", passwd)
            _add_file(tar, "etc/group", b"root:x:0:\nnobody:x:65534:\n")


def _write_python(tarball: Path) -> None:
    if shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        raise ImageUnavailable("debootstrap is needed: apt-get install debootstrap")
    if os.geteuid() != 0:
        raise ImageUnavailable("debootstrap needs root: run `sudo make test-images` once")
    with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
        root = Path(scratch) / "root"
        # A mount namespace of its own: what debootstrap mounts below `root` goes with it, even when it is killed.
        _run("unshare", "--mount", "debootstrap", "--variant=minbase", "--include=python3", DEBIAN, str(root))
        for name in ("python", "python3", "python3.11"):
            (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
        left_out = ("var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "usr/share/doc/*", "usr/share/man/*")
        left_out += ("usr/share/locale/*", "dev/*", "proc/*", "sys/*")
        excludes = [f"--exclude=./{pattern}" for pattern in left_out]
        _run("tar", "-C", str(root), "--one-file-system", "--numeric-owner", *excludes, "-cf", str(tarball), ".")


TOOL = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int words = 0;

static void end_line(void) {
    if (words) putchar('\n');
    words = 0;
    fflush(stdout);
}

/* Prints its words on a line; --env NAME prints a variable, --stdin copies the input, --err WORD writes to stderr,
   --sleep SECONDS waits, --exit STATUS ends. Actions run in their order. */
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        if (strncmp(argv[i], "--", 2)) { printf("%s%s", words++ ? " " : "", argv[i]); continue; }
        end_line();
        if (!strcmp(argv[i], "--stdin")) {
            char buffer[4096]; size_t n;
            while ((n = fread(buffer, 1, sizeof buffer, stdin)) > 0) fwrite(buffer, 1, n, stdout);
            continue;
        }
        i++;
        if (!strcmp(argv[i - 1], "--env")) { const char *v = getenv(next); puts(v ? v : ""); }
        else if (!strcmp(argv[i - 1], "--err")) fprintf(stderr, "%s\n", next);
        else if (!strcmp(argv[i - 1], "--sleep")) sleep((unsigned) atoi(next));
        else if (!strcmp(argv[i - 1], "--exit")) return atoi(next);
        else return 64;
        fflush(stdout);
    }
    end_line();
    return 0;
}
"""


def _compilers() -> list[list[str]]:
    found = [[name, "-static"] for name in ("cc", "gcc", "clang", "musl-gcc") if shutil.which(name)]
    if platform.system() != "Linux":
        found = []
    if find_spec("ziglang"):
        machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
        found.append([sys.executable, "-m", "ziglang", "cc", "-static", "-target", f"{machine}-linux-musl"])
    return found


def _write_tool(tarball: Path) -> None:
    reasons: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        source, program = Path(scratch) / "tool.c", Path(scratch) / "tool"
        source.write_text(TOOL)
        for compiler in _compilers():
            try:
                _run(*compiler, "-Os", "-s", "-o", str(program), str(source))
            except ImageUnavailable as exc:  # a compiler without the static C library; the next one may have it
                reasons.append(str(exc))
                continue
            with tarfile.open(tarball, "w") as tar:
                _add_file(tar, "tool", program.read_bytes(), 0o755)
            return
    raise ImageUnavailable("; ".join(["a C compiler is needed: apt-get install gcc libc6-dev", *reasons]))


_BUSYBOX = Recipe("busybox", 1, _write_busybox, SYSTEM_PATH, ("sh",))
_PYTHON = Recipe("python", 1, _write_python, SYSTEM_PATH, ("python3",))
_TOOL = Recipe("scratch-tool", 3, _write_tool, "/", ("/tool",), pull=False)

IMAGES: dict[str, Recipe] = {
    "busybox:1.36": _BUSYBOX,
    "busybox:latest": _BUSYBOX,
    "scratch-tool:latest": _TOOL,
    "python:3.11-slim": _PYTHON,
}


# --- the daemon -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    id: str
    label: str | None  # which recipe made it; None for a real image


def find(reference: str) -> Image | None:
    command = ("docker", "image", "inspect", "--format", "{{json .Id}} {{json .Config.Labels}}", reference)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    image_id, _, labels = done.stdout.partition(" ")
    return Image(json.loads(image_id), (json.loads(labels) or {}).get(LABEL))


_refused: list[str] = []  # one refusal is enough: the next image is not asked for


def _pull(reference: str) -> bool:
    if _refused or os.environ.get("PRAXIS_TEST_PULL") == "never":
        return False
    try:
        _run("docker", "pull", "--quiet", reference, timeout=PULL_TIMEOUT)
    except ImageUnavailable as exc:
        _refused.append(str(exc))
        return False
    return True


def layer_of(reference: str) -> bytes:
    """The file system of a stand-in, as a tar archive: for engines that need no daemon.

    Raises:
        ImageUnavailable: it cannot be made.
    """
    with exclusive("images"):
        return layer_file(IMAGES[reference]).read_bytes()


def layer_file(recipe: Recipe) -> Path:
    """The file system of a stand-in, as a tar archive in the cache; for who holds the lock `images`."""
    kept = cache_dir() / f"{recipe.label}.{platform.machine()}.tar"
    if not kept.exists():
        half = kept.with_suffix(".half")
        try:
            recipe.write(half)
            half.replace(kept)
        finally:
            half.unlink(missing_ok=True)
    return kept


def ensure(reference: str) -> tuple[Image, str]:
    """See to it that `reference` is on the daemon; return it and how that came about."""
    recipe = IMAGES[reference]
    with exclusive("images"):
        image = find(reference)
        if image is not None and image.label in (None, recipe.label):
            return image, "a real image, left alone" if image.label is None else "a stand-in, made before"
        if image is None and recipe.pull and _pull(reference):
            how = "pulled"
        else:
            changes = [word for change in recipe.changes for word in ("--change", change)]
            _run("docker", "import", *changes, str(layer_file(recipe)), reference)
            if image is not None:  # an older stand-in, which has lost its name
                subprocess.run(("docker", "image", "rm", image.id), capture_output=True, check=False)
            how = "a stand-in, just made"
        image = find(reference)
    if image is None:
        raise ImageUnavailable(f"{reference} was made and is not there")
    return image, how


@functools.cache
def ensure_all() -> dict[str, str]:
    """Every image of the tests by reference, with its id. Raises ImageUnavailable for the first that cannot be had."""
    return {reference: ensure(reference)[0].id for reference in IMAGES}


def remove() -> None:
    for reference in IMAGES:
        image = find(reference)
        if image is not None and image.label is not None:
            _run("docker", "image", "rm", reference)
            print(f"{reference:<22} removed")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kit.images", description="The images that tests use.")
    parser.add_argument("--if-possible", action="store_true", help="exit with 0 where an image cannot be had")
    parser.add_argument("--remove", action="store_true", help="remove the stand-ins (never a real image)")
    options = parser.parse_args(arguments)
    if (reason := missing("docker")) is not None:
        print(f"images: no Docker daemon, tests marked docker will be skipped ({reason})")
        return 0 if options.if_possible else 1
    if options.remove:
        remove()
        return 0
    failed = False
    for reference in IMAGES:
        start = time.monotonic()
        try:
            outcome = ensure(reference)[1]
        except ImageUnavailable as exc:
            failed, outcome = True, f"missing: {exc}"
        print(f"{reference:<22} {outcome} ({time.monotonic() - start:.1f} s)", flush=True)
    return 1 if failed and not options.if_possible else 0


if __name__ == "__main__":
    raise SystemExit(main())
