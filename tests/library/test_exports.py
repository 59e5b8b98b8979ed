"""What `praxis_mcp` promises by its names is there, is light, and is what its pages say."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import version

import praxis_mcp
import praxis_mcp.errors
from scripts import exports


def test_the_imports_for_type_checkers_are_those_of_the_table() -> None:
    text = exports.FILE.read_text(encoding="utf-8")
    assert text == exports.expected(), "run python scripts/exports.py --write"


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    for name in praxis_mcp.__all__:
        assert getattr(praxis_mcp, name) is not None
        assert name in dir(praxis_mcp)
    assert praxis_mcp.__version__ == version("praxis-mcp")
    assert not hasattr(praxis_mcp, "NoSuchName")


def _exceptions() -> dict[str, type[BaseException]]:
    """Every exception that derives from `PraxisError`, wherever it is defined in the package."""
    for module in pkgutil.walk_packages(praxis_mcp.__path__, "praxis_mcp."):
        if not module.name.endswith("__main__") and ".testing" not in module.name:
            importlib.import_module(module.name)
    found: dict[str, type[BaseException]] = {}
    todo: list[type[BaseException]] = [praxis_mcp.errors.PraxisError]
    while todo:
        kind = todo.pop()
        if kind.__module__.startswith("praxis_mcp."):
            found[kind.__name__] = kind
            todo += kind.__subclasses__()
    return found


def test_every_exception_is_exported_or_is_caught_by_one_that_is() -> None:
    kinds = _exceptions()
    public = {name: kind for name, kind in kinds.items() if kind.__module__ == "praxis_mcp.errors"}
    assert {name: getattr(praxis_mcp, name, None) for name in public} == public
    assert "RunNotFoundError" in public
    own = [kind for kind in kinds.values() if kind not in public.values()]
    assert [kind for kind in own if kind.__base__ is praxis_mcp.PraxisError] == []


def test_the_tree_of_exceptions_in_the_docstring_is_the_one_of_the_code() -> None:
    drawn: dict[str, str | None] = {}
    ancestors: list[str] = []
    for line in inspect.getdoc(praxis_mcp.errors).splitlines():  # pyright: ignore[reportOptionalMemberAccess]
        match = re.match(r"^    ([│ ├└─]*)([A-Z]\w+)(?:\s{2,}|$)", line)
        if match:
            depth = len(match[1]) // 4
            ancestors[depth:] = [match[2]]
            drawn[match[2]] = ancestors[depth - 1] if depth else None
    coded = {
        name: None if name == "PraxisError" else kind.__bases__[0].__name__
        for name, kind in vars(praxis_mcp.errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert drawn == coded


def _loaded_by(code: str) -> set[str]:
    program = f"import sys; before = set(sys.modules); {code}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_none_of_its_modules_and_no_dependency() -> None:
    loaded = _loaded_by("import praxis_mcp")
    assert {name for name in loaded if name.startswith("praxis_mcp")} == {"praxis_mcp"}
    others = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"praxis_mcp"}
    assert others == set()


def test_an_error_is_caught_without_importing_an_engine() -> None:
    loaded = _loaded_by("from praxis_mcp import ExecutionError, SettingsError")
    assert {name for name in loaded if name.startswith("praxis_mcp.")} == {"praxis_mcp.errors"}


def test_every_engine_can_be_made_without_settings() -> None:
    for name in praxis_mcp.EngineRegistry(praxis_mcp.Settings()).names():
        registry = praxis_mcp.EngineRegistry(praxis_mcp.Settings())
        assert type(registry.get(name))().name == name
