"""docs/contracts.md tells the truth: its contracts load, it names every key, its diagnostics are the real ones."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from praxis_mcp.contracts.model import Example, ToolContract
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.specs import DaggerEngineSpec, LocalEngineSpec, RemoteMCPEngineSpec
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.engines.init.seccomp import DENIED
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(yaml ?\w*|text)\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
AROUND = {"name": "x", "description": "y", "image": "busybox", "command": "[a]", "parameters": "{text: string}"}


def blocks(kind: str) -> list[str]:
    found = [text for name, text in BLOCKS if name == kind]
    assert found, f"no {kind} blocks: is the pattern right?"
    return found


@pytest.mark.parametrize("text", [*blocks("yaml"), *blocks("yaml older")])
def test_a_contract_of_the_document_loads_without_a_finding(text: str) -> None:
    assert [str(item) for item in load_text(text).diagnostics] == []


@pytest.mark.parametrize("text", blocks("yaml fragment"))
def test_a_piece_of_a_contract_fits_into_one(text: str) -> None:
    rest = [f"{key}: {value}\n" for key, value in AROUND.items() if not re.search(f"^{key}:", text, re.MULTILINE)]
    assert [str(item) for item in load_text("".join(rest) + text).diagnostics] == []


def test_the_three_spellings_of_one_tool_make_one_tool() -> None:
    older = [load_text(text).contract for text in blocks("yaml older")]
    ours = next(load_text(text).contract for text in blocks("yaml") if "name: greet" in text)
    assert ours is not None
    faces = {(tool.name, tool.description, str(tool.parameters)) for tool in (*older, ours) if tool is not None}
    assert len(faces) == 1


def test_the_diagnostics_shown_are_those_of_the_contract_above_them() -> None:
    (wrong,) = blocks("yaml wrong")
    (shown,) = blocks("text")
    assert [str(item) for item in load_text(wrong, Path("contract.yaml")).diagnostics] == shown.splitlines()


def test_every_key_of_the_format_is_in_the_document() -> None:
    models = (DaggerEngineSpec, LocalEngineSpec, RemoteMCPEngineSpec, ToolContract, Example)
    keys = {name for model in models for name in model.model_fields} - {
        "source",
        "input_keywords",
        "engine_spec",
        "is_older",
    }
    assert {key for key in keys if f"`{key}`" not in DOCUMENT and f"`{key}:" not in DOCUMENT} == set()


with_every_power = pytest.mark.skipif(bool(find_cgroups().notes), reason="this user may make no cgroups")


def plain_processes() -> LocalExecutionEngine:
    return LocalExecutionEngine(Settings.model_validate({"engines": {"local": {"sandbox": "off"}}}))


@pytest.mark.anyio
@pytest.mark.native
@pytest.mark.parametrize(
    ("column", "make_engine"),
    [
        pytest.param("dagger", DaggerExecutionEngine, id="dagger"),
        pytest.param("docker", DockerSDKExecutionEngine, id="docker", marks=pytest.mark.docker),
        pytest.param("sandbox", SandboxExecutionEngine, id="sandbox", marks=[pytest.mark.bubblewrap, with_every_power]),
        pytest.param(
            "local, in a sandbox",
            LocalExecutionEngine,
            id="bubblewrap",
            marks=[pytest.mark.bubblewrap, with_every_power],
        ),
        pytest.param("local, plain process", plain_processes, id="process", marks=with_every_power),
    ],
)
async def test_the_table_of_limits_says_what_the_engine_enforces(
    column: str, make_engine: Callable[[], ExecutionEngine]
) -> None:
    async with make_engine() as engine:
        enforced = (await engine.get_capabilities()).enforces
    table = limits_table()
    assert {name for name, cells in table.items() if cells[column].startswith("yes")} == {
        item.value for item in enforced if item.value in table
    }


def limits_table() -> dict[str, dict[str, str]]:
    """Column → cell for each demand, named as engines name it."""
    text = DOCUMENT[DOCUMENT.index("| demand |") :].partition("\n\n")[0]
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    table = {
        name.removesuffix(": true"): dict(zip(columns, row, strict=True))
        for row in rows
        for name in re.findall(r"`([^`]+)`", row[0])
    }
    assert set(table) <= {item.value for item in Capability}
    return table


def test_the_denied_system_calls_are_those_of_the_filter() -> None:
    for group in DENIED:
        calls = ", ".join(f"`{name}`" for name in group.calls)
        assert f"| {group.what}: {calls} | {group.why} |\n" in DOCUMENT
