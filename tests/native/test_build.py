"""What the build puts into the package, and what it does where it cannot."""

import os
import platform
import runpy
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from praxis_mcp.support.praxis_init import normalize_machine, praxis_init_path
from tests.native.harness import IS_ROOT, NOBODY, PATIENCE

ROOT = Path(__file__).resolve().parents[2]
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
PT_DYNAMIC, PT_INTERP = 2, 3
OWN = normalize_machine(platform.machine()) or "x86_64"
OTHER = next(machine for machine in ELF_MACHINES if machine != OWN)


@pytest.fixture
def tree(built: Path, tmp_path: Path) -> Path:
    """A copy of what the build reads and writes, with binaries that are up to date."""
    place = tmp_path / "tree"
    shutil.copytree(built / "native", place / "native")
    shutil.copytree(built / "praxis_mcp" / "_native", place / "praxis_mcp" / "_native")
    return place


@pytest.fixture
def native() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "native" / "build.py"))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("PRAXIS_NATIVE_COMPILER", raising=False)
    monkeypatch.delenv("PRAXIS_NATIVE_MACHINES", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.fixture
def own_compiler(monkeypatch: pytest.MonkeyPatch, native: dict[str, Any]) -> str:
    """A compiler of this machine that links statically; zig, where it is installed, is out of sight."""
    monkeypatch.delenv("PRAXIS_NATIVE_COMPILER", raising=False)
    monkeypatch.delenv("PRAXIS_NATIVE_MACHINES", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = native["_own_compiler"](OWN)
    if found is None:
        pytest.skip("needs a C compiler that links statically")
    return found


def change(tree: Path, text: str = "/* changed */\n") -> None:
    with (tree / "native" / "run.c").open("a") as source:
        source.write(text)


def left_in(tree: Path) -> dict[str, str]:
    return {path.name: path.read_text(errors="replace") for path in (tree / "praxis_mcp" / "_native").iterdir()}


@pytest.mark.parametrize("machine", ELF_MACHINES)
def test_each_binary_is_a_small_static_program_for_its_machine(built: Path, machine: str) -> None:
    path = praxis_init_path(machine)
    if path is None and machine != OWN and not os.environ.get("PRAXIS_NATIVE_MACHINES"):
        pytest.skip("a checkout builds for its own machine (python native/build.py all builds for both)")
    assert path is not None
    assert os.access(path, os.X_OK)
    data = path.read_bytes()
    # With glibc, which the compiler of most machines links, it has more of what it does not use than with musl.
    by_zig = (path.parent / f"sources-{machine}.txt").read_text().endswith(" zig\n")
    assert len(data) < (112 if by_zig else 1536) * 1024
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
    # As PID 1, which needs to be no subreaper: qemu 7 does not know that call.
    alone = ["unshare", *(() if IS_ROOT else ("--user", "--map-root-user")), "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True, timeout=PATIENCE).returncode != 0:
        pytest.skip("needs a pid namespace")
    done = subprocess.run([*alone, emulator, path, "run", "sh", "-c", "exit 7"], timeout=PATIENCE)
    assert done.returncode == 7


@pytest.mark.usefixtures("no_compiler")
def test_unchanged_sources_are_not_built_again(tree: Path, native: dict[str, Any]) -> None:
    assert native["build"](tree) == ()
    assert native["needs_zig"](tree) is False


@pytest.mark.usefixtures("no_compiler")
def test_binaries_of_older_sources_do_not_pass_for_new_ones(tree: Path, native: dict[str, Any]) -> None:
    change(tree)
    assert native["needs_zig"](tree) is True
    with pytest.raises(native["NativeBuildError"], match="ziglang"):
        native["build"](tree)
    left = left_in(tree)
    assert left.keys() == {"failed.txt"}
    assert "ziglang" in left["failed.txt"]
    assert "gcc libc6-dev" in left["failed.txt"]


@pytest.mark.usefixtures("no_compiler")
def test_where_a_compiler_is_named_zig_is_not_fetched_in_its_place(
    tree: Path, native: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(tree)
    monkeypatch.setenv("PRAXIS_NATIVE_COMPILER", "gcc")
    assert native["needs_zig"](tree) is False
    monkeypatch.setenv("PRAXIS_NATIVE_MACHINES", "all")
    assert native["needs_zig"](tree) is True, "for the other machine there is no other compiler"


@pytest.mark.native
def test_a_compiler_of_this_machine_builds_for_this_machine_and_nothing_is_fetched(
    tree: Path, native: dict[str, Any], own_compiler: str
) -> None:
    change(tree)
    shutil.copy(sys.executable, tree / "praxis_mcp" / "_native" / f"praxis-init-{OTHER}")
    said: list[str] = []
    assert native["needs_zig"](tree) is False
    assert native["build"](tree, say=said.append) == (OWN,)
    assert said == [f"compiling praxis-init for {OWN} by {own_compiler}"]
    place = tree / "praxis_mcp" / "_native"
    assert subprocess.run([place / f"praxis-init-{OWN}", "run", "sh", "-c", "exit 7"], timeout=PATIENCE).returncode == 7
    assert sorted(left_in(tree)) == [f"praxis-init-{OWN}", f"sources-{OWN}.txt"], "an old one of the other went"
    assert native["build"](tree) == ()


@pytest.mark.native
def test_what_the_compiler_said_is_reported(tree: Path, native: dict[str, Any], own_compiler: str) -> None:
    (tree / "native" / "tree.c").write_text("int broken(void) { return nonsense; }\n")
    with pytest.raises(native["NativeBuildError"], match="nonsense"):
        native["build"](tree)
    assert left_in(tree).keys() == {"failed.txt"}


def test_the_machines_to_build_for_are_this_one_or_those_that_are_named(
    native: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRAXIS_NATIVE_MACHINES", raising=False)
    wanted = native["wanted_machines"]
    assert wanted() == (OWN,)
    assert wanted(["arm64"]) == ("aarch64",)
    assert wanted(["all"]) == ("x86_64", "aarch64")
    monkeypatch.setenv("PRAXIS_NATIVE_MACHINES", "all")
    assert wanted() == ("x86_64", "aarch64")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    monkeypatch.delenv("PRAXIS_NATIVE_MACHINES")
    assert wanted() == ("x86_64", "aarch64"), "for containers elsewhere"
    with pytest.raises(native["NativeBuildError"], match="no praxis-init for mips"):
        wanted(["mips"])


class TestHook:
    """The same through hatchling, where it is installed."""

    @pytest.fixture
    def hook(self, tree: Path) -> Any:
        pytest.importorskip("hatchling")
        return self.hook_for(tree)

    @staticmethod
    def hook_for(tree: Path) -> Any:
        warnings: list[str] = []
        hook_class = runpy.run_path(str(ROOT / "hatch_build.py"))["NativeBuildHook"]
        app = SimpleNamespace(display_warning=warnings.append, display_info=lambda text: None, warnings=warnings)
        return hook_class(str(tree), {}, None, None, str(tree), "wheel", app)

    @staticmethod
    def data() -> dict[str, Any]:
        return {"force_include": {}, "force_include_editable": {}}

    @pytest.mark.usefixtures("no_compiler")
    def test_a_package_is_made_without_the_binaries_and_says_so(
        self, hook: Any, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PRAXIS_REQUIRE_NATIVE", raising=False)
        change(tree)
        assert "ziglang" in hook.dependencies()[0]
        data = self.data()
        hook.initialize("standard", data)
        assert "WITHOUT praxis-init" in hook.app.warnings[0]
        assert list(data["force_include"].values()) == ["praxis_mcp/_native/failed.txt"]

    @pytest.mark.usefixtures("no_compiler")
    def test_a_package_that_must_have_them_is_not_made(
        self, hook: Any, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        change(tree)
        monkeypatch.setenv("PRAXIS_REQUIRE_NATIVE", "1")
        with pytest.raises(Exception, match="ziglang"):
            hook.initialize("standard", self.data())

    @pytest.mark.usefixtures("no_compiler")
    def test_what_is_up_to_date_needs_no_compiler_and_goes_into_the_wheel(self, hook: Any) -> None:
        data = self.data()
        assert hook.dependencies() == []
        hook.initialize("standard", data)
        assert f"praxis_mcp/_native/praxis-init-{OWN}" in data["force_include"].values()
        data = self.data()
        hook.initialize("editable", data)
        assert data == self.data(), "an editable install has them where they are"

    @pytest.mark.parametrize("version", ["standard", "editable"])
    def test_a_checkout_that_may_not_be_written_is_built_elsewhere(
        self, built: Path, version: str, own_compiler: str
    ) -> None:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # which other users may enter
            tree = Path(folder)
            tree.chmod(0o755)
            shutil.copytree(built / "native", tree / "native")
            place = tree / "praxis_mcp" / "_native"
            shutil.copytree(built / "praxis_mcp" / "_native", place)
            change(tree)
            before = left_in(tree)
            hook, data = self.hook_for(tree), self.data()
            place.chmod(0o555)
            user = os.geteuid()
            os.seteuid(user or NOBODY)
            try:
                hook.initialize(version, data)
            finally:
                os.seteuid(user)
            assert left_in(tree) == before
        included = data["force_include_editable" if version == "editable" else "force_include"]
        made = next(Path(path) for path, name in included.items() if name.endswith(f"praxis-init-{OWN}"))
        assert subprocess.run([made, "run", "sh", "-c", "exit 7"], timeout=PATIENCE).returncode == 7
        hook.finalize(version, data, "")
        assert not made.exists()
