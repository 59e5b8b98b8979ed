"""praxis-init as the tests run it: built if it is not yet, and where any user can execute it."""

import hashlib
import os
import runpy
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from praxis_mcp.support.praxis_init import praxis_init_path
from tests.kit import requirements
from tests.kit.cache import cache_dir, exclusive
from tests.native.harness import IS_ROOT, NOBODY, PraxisInit, python_for
from tests.native.waiting import PraxisWait

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def built() -> Path:
    """The project's root, after bringing the binaries up to date with the sources."""
    native = runpy.run_path(str(ROOT / "native" / "build.py"))
    try:
        with exclusive("native"):  # of the test processes that find them out of date, the first builds them
            native["build"](ROOT)
    except native["NativeBuildError"] as error:
        if os.environ.get("PRAXIS_REQUIRE_NATIVE") == "1":
            raise
        requirements.give_up("native", f"praxis-init cannot be built here: {error}")
    return ROOT


@pytest.fixture(scope="session")
def binary(built: Path) -> Iterator[Path]:
    own = praxis_init_path()
    if own is None or os.uname().sysname != "Linux":
        pytest.skip("praxis-init is for Linux on x86-64 and arm64")
    # pytest's own temporary folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="praxis-init-") as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copy(own, folder))


@pytest.fixture
def init(binary: Path) -> PraxisInit:
    return PraxisInit(binary)


@pytest.fixture
def init_as_pid_1(binary: Path) -> PraxisInit:
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, timeout=60).returncode != 0:
        pytest.skip("needs unshare and the right to make a pid namespace")
    return PraxisInit(binary, as_pid_1=True)


@pytest.fixture(params=["subreaper", "pid 1"])
def placed(request: pytest.FixtureRequest) -> PraxisInit:
    """One body, both ways of finding the process tree."""
    return request.getfixturevalue("init" if request.param == "subreaper" else "init_as_pid_1")


@pytest.fixture(params=["pipes", "socket", "tcp"])
def wait(request: pytest.FixtureRequest, binary: Path) -> PraxisWait:
    """A waiter over either kind of channel."""
    return PraxisWait(binary, request.param)


@pytest.fixture(params=["pipes", "socket", "pid 1", "tcp pid 1"])
def placed_wait(request: pytest.FixtureRequest, binary: Path) -> PraxisWait:
    """A waiter over any kind of channel, and as PID 1."""
    if "pid 1" in request.param:
        request.getfixturevalue("init_as_pid_1")
        return PraxisWait(binary, "tcp" if "tcp" in request.param else "pipes", as_pid_1=True)
    return PraxisWait(binary, request.param)


@pytest.fixture(params=["root", "nobody"])
def user(request: pytest.FixtureRequest) -> int | None:
    """Whom to run as: None for ourselves. An unprivileged test run is its own "nobody"."""
    if request.param == "root" and not IS_ROOT:
        pytest.skip("needs root")
    return NOBODY if IS_ROOT and request.param == "nobody" else None


@pytest.fixture
def python(user: int | None) -> str:
    found = python_for(user)
    if found is None:
        pytest.skip("no Python that this user can execute")
    return found


@pytest.fixture(scope="session")
def checked_binary(binary: Path) -> Iterator[Path]:
    """praxis-init with every memory access and every arithmetic checked."""
    compiler = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    with tempfile.TemporaryDirectory(prefix="praxis-init-checked-") as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copy(_checked(compiler), folder))


def _checked(compiler: str) -> Path:
    """It takes ten seconds to compile, so one is kept until the sources change."""
    native = ROOT / "native"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    digest = hashlib.sha256(repr((compiler, flags)).encode())
    for source in sorted(native.glob("*.[ch]")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    kept = cache_dir() / f"praxis-init-checked-{digest.hexdigest()[:16]}"
    with exclusive("praxis-init-checked"):
        if not kept.exists():
            for old in kept.parent.glob("praxis-init-checked-*"):
                old.unlink()
            half = kept.with_suffix(".half")
            command = [compiler, *flags, "-o", half, *sorted(native.glob("*.c"))]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode != 0:
                pytest.skip(f"no sanitizers here: {done.stderr.strip()[-200:]}")
            half.replace(kept)
    return kept
