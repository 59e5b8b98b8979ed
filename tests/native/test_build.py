"""What the build puts into the package, and what it does where it cannot."""

import os
import runpy
import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from praxis_mcp.support.praxis_init import praxis_init_path
from tests.native.harness import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
PT_DYNAMIC, PT_INTERP = 2, 3


@pytest.fixture
def tree(built: Path, tmp_path: Path) -> Path:
    """A copy of what the build reads and writes, with binaries that are up to date."""
    shutil.copytree(built / "native", tmp_path / "native")
    shutil.copytree(built / "praxis_mcp" / "_native", tmp_path / "praxis_mcp" / "_native")
    return tmp_path


@pytest.fixture
def native() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "native" / "build.py"))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.parametrize("machine", ELF_MACHINES)
def test_each_binary_is_a_small_static_program_for_its_machine(built: Path, machine: str) -> None:
    path = praxis_init_path(machine)
    assert path is not None
    assert os.access(path, os.X_OK)
    data = path.read_bytes()
    assert len(data) < 96 * 1024
    assert data[:7] == b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
    kind, elf_machine = struct.unpack_from("<HH", data, 16)
    assert (kind, elf_machine) == (2, ELF_MACHINES[machine])
    (program_headers,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    types = {struct.unpack_from("<I", data, program_headers + size * index)[0] for index in range(count)}
    assert not types & {PT_DYNAMIC, PT_INTERP}


def test_the_arm64_binary_runs(built: Path) -> None:
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    path = praxis_init_path("arm64")
    if emulator is None or path is None:
        pytest.skip("needs qemu's user emulation")
    done = subprocess.run([emulator, path, "run", "sh", "-c", "exit 7"], timeout=PATIENCE)
    assert done.returncode == 7


@pytest.mark.usefixtures("no_compiler")
def test_unchanged_sources_are_not_built_again(tree: Path, native: dict[str, Any]) -> None:
    assert native["build"](tree) is False


@pytest.mark.usefixtures("no_compiler")
def test_binaries_of_older_sources_do_not_pass_for_new_ones(tree: Path, native: dict[str, Any]) -> None:
    with (tree / "native" / "run.c").open("a") as source:
        source.write("/* changed */\n")
    with pytest.raises(native["NativeBuildError"], match="ziglang"):
        native["build"](tree)
    left = {path.name: path.read_text() for path in (tree / "praxis_mcp" / "_native").iterdir()}
    assert left.keys() == {"failed.txt"}
    assert "ziglang" in left["failed.txt"]


def test_what_the_compiler_said_is_reported(tree: Path, native: dict[str, Any]) -> None:
    pytest.importorskip("ziglang")
    (tree / "native" / "tree.c").write_text("int broken(void) { return nonsense; }\n")
    with pytest.raises(native["NativeBuildError"], match="nonsense"):
        native["build"](tree)
    assert [path.name for path in (tree / "praxis_mcp" / "_native").iterdir()] == ["failed.txt"]


class TestHook:
    """The same through hatchling, where it is installed."""

    @pytest.fixture
    def hook(self, tree: Path) -> Any:
        pytest.importorskip("hatchling")
        warnings: list[str] = []
        hook_class = runpy.run_path(str(ROOT / "hatch_build.py"))["NativeBuildHook"]
        app = SimpleNamespace(display_warning=warnings.append, warnings=warnings)
        hook = hook_class(str(tree), {}, None, None, str(tree), "wheel", app)
        (tree / "native" / "run.c").write_text("changed")
        return hook

    @pytest.mark.usefixtures("no_compiler")
    def test_a_package_is_made_without_the_binaries_and_says_so(
        self, hook: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PRAXIS_REQUIRE_NATIVE", raising=False)
        hook.initialize("standard", {})
        assert "WITHOUT praxis-init" in hook.app.warnings[0]

    @pytest.mark.usefixtures("no_compiler")
    def test_a_package_that_must_have_them_is_not_made(self, hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PRAXIS_REQUIRE_NATIVE", "1")
        with pytest.raises(Exception, match="ziglang"):
            hook.initialize("standard", {})
