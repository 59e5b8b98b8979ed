"""praxis-init's C as modules: each shows exactly what its header declares, and uses only what stands below it."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.native.c_modules import Module, calls, find_circle, read_modules

NATIVE = Path(__file__).resolve().parents[2] / "native"
MAIN = "praxis_init"


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    if sys.platform != "linux" or not (shutil.which("cc") or importlib.util.find_spec("ziglang")):
        pytest.skip("needs a C compiler for Linux")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Module]:
    return read_modules(NATIVE, tmp_path_factory.mktemp("objects"))


def test_each_module_is_a_source_and_a_header_of_its_name(modules: dict[str, Module]) -> None:
    headers = {header.stem for header in NATIVE.glob("*.h")}
    assert headers == modules.keys() - {MAIN}
    for name in headers:  # first, so that the header is known to stand by itself
        assert modules[name].includes[0] == name


def test_a_header_declares_what_its_source_shows_and_others_use(modules: dict[str, Module]) -> None:
    needed = {name for module in modules.values() for name in module.needs}
    for module in modules.values():
        if module.name == MAIN:
            continue
        assert module.declares == module.defines, module.name
        assert module.defines <= needed, f"nobody but {module.name} uses {module.defines - needed}"


def test_a_file_that_uses_a_module_includes_its_header(modules: dict[str, Module]) -> None:
    for name, others in calls(modules).items():
        assert others <= {*modules[name].includes, *modules[name].header_includes}, name


def test_no_modules_use_one_another_in_a_circle(modules: dict[str, Module]) -> None:
    included = {module.name: {*module.includes, *module.header_includes} - {module.name} for module in modules.values()}
    assert find_circle(calls(modules)) is None
    assert find_circle(included) is None


def test_modules_use_only_what_the_list_in_the_main_file_has_above_them(modules: dict[str, Module]) -> None:
    listed = re.findall(r"^ \* (\w+) {2,}\S", (NATIVE / f"{MAIN}.c").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(modules.keys() - {MAIN})
    for place, name in enumerate(listed):
        module = modules[name]
        assert {*module.includes, *module.header_includes} - {name} <= set(listed[:place]), name


def test_a_source_is_neither_a_scrap_nor_a_heap() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in NATIVE.glob("*.c")}
    assert not {name: length for name, length in lengths.items() if not 25 <= length <= 450}


def test_a_circle_through_calls_alone_is_found(tmp_path: Path) -> None:
    """As it stood in one header once, through which every file saw every other."""
    (tmp_path / "all.h").write_text("int upper(int); int middle(int); int lower(int);\n")
    for name, other in (("upper", "middle"), ("middle", "lower"), ("lower", "upper")):
        text = f'#include "all.h"\nint {name}(int value)\n{{\n    return value == 0 ? 0 : 1 + {other}(value - 1);\n}}\n'
        (tmp_path / f"{name}.c").write_text(text)
    modules = read_modules(tmp_path, tmp_path)
    assert find_circle(calls(modules)) == ["lower", "upper", "middle", "lower"]
    (tmp_path / "lower.c").write_text("int lower(int value) { return value; }\n")
    assert find_circle(calls(read_modules(tmp_path, tmp_path))) is None
