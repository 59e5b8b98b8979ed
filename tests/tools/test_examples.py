"""The sample tools do what the examples in their contracts say."""

import json
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from praxis_mcp.contracts.model import EngineType, ToolContract
from praxis_mcp.contracts.reading.loading import LoadedContract, load_contract
from praxis_mcp.execution.result_checks import run_example
from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.settings.model import Settings

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
LIMIT = 60.0

pytestmark = pytest.mark.anyio

LOADED: dict[Path, LoadedContract] = {path: load_contract(path) for path in sorted(TOOLS.rglob("contract.yaml"))}
CONTRACTS: list[ToolContract] = [loaded.contract for loaded in LOADED.values() if loaded.contract is not None]


def marks_of(contract: ToolContract) -> list[pytest.MarkDecorator]:
    return [] if contract.engine is EngineType.LOCAL else [pytest.mark.docker]


def examples() -> Iterator[object]:
    for contract in CONTRACTS:
        for number, example in enumerate(contract.examples):
            title = example.name.replace(" ", "-")
            yield pytest.param(contract.name, number, marks=marks_of(contract), id=f"{contract.name}-{title}")


@pytest.fixture(scope="module")
async def toolbox(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toolbox]:
    """The sample tools, copied so that notes which tests write are not left in the work tree."""
    copy = tmp_path_factory.mktemp("samples") / "tools"
    shutil.copytree(TOOLS, copy)
    settings = Settings.model_validate({"root": ROOT, "tools": [copy], "engines": {"order": ["docker"]}})
    async with open_toolbox(settings) as opened:
        yield opened


@pytest.mark.parametrize(("tool", "number"), list(examples()))
async def test_a_sample_tool_does_what_its_example_says(toolbox: Toolbox, tool: str, number: int) -> None:
    if tool == "git_log":
        needs_history()
    with anyio.fail_after(LIMIT):
        outcome = await run_example(toolbox.runner, toolbox.catalog.get(tool).contract, number)
    assert outcome.problems == ()


def needs_history() -> None:
    """A source archive has no history, and git refuses a repository of another user."""
    done = subprocess.run(["git", "-C", str(ROOT), "log", "-1"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("git shows no history here")


@pytest.mark.parametrize("path", LOADED, ids=lambda path: path.parent.name)
def test_a_sample_contract_is_faultless(path: Path) -> None:
    loaded = LOADED[path]
    assert loaded.contract is not None, [str(item) for item in loaded.diagnostics]
    if "legacy" not in path.parts:
        assert [str(item) for item in loaded.diagnostics] == []
    assert loaded.contract.description
    assert len(loaded.contract.description) < 300, "every client pays for it in every conversation"
    assert len(loaded.contract.examples) >= 2


def test_the_samples_are_of_all_kinds() -> None:
    bindings = {parameter.bind.kind.value for contract in CONTRACTS for parameter in contract.parameters}
    assert bindings == {"env", "flag", "position", "stdin", "file"}
    assert len(CONTRACTS) >= 12
    assert any(contract.artifacts for contract in CONTRACTS)
    assert sum(contract.output_schema is not None for contract in CONTRACTS) >= 3
    assert {contract.engine for contract in CONTRACTS} == {EngineType.DAGGER, EngineType.LOCAL}


def test_one_local_sample_runs_where_nothing_can_take_the_network_away() -> None:
    system_info = next(contract for contract in CONTRACTS if contract.name == "system_info")
    assert getattr(system_info.engine_spec, "network", None) == "host"


@pytest.mark.docker
async def test_the_chart_is_a_whole_png_with_the_bars_in_it(toolbox: Toolbox) -> None:
    with anyio.fail_after(LIMIT):
        result = await toolbox.runner.call("chart", {"bars": {"a": 1, "b": -2}, "color": "#ff0000"})
    (picture,) = result.artifacts
    assert picture.name == "chart.png"
    data = picture.file.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    size = struct.unpack(">I", data[33:37])[0]
    pixels = zlib.decompress(data[41 : 41 + size])
    assert (data[:8], len(pixels)) == (b"\x89PNG\r\n\x1a\n", height * (1 + 3 * width))
    assert data.endswith(b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))
    assert bytes((255, 0, 0)) * 100 in pixels


@pytest.mark.docker
async def test_notes_says_which_files_it_changed(toolbox: Toolbox) -> None:
    with anyio.fail_after(LIMIT):
        result = await toolbox.runner.call("notes", {"action": "write", "note": "told", "text": "x"})
    assert [path.name for path in result.changed_files] == ["told.md"]
    assert result.changed_files[0].read_text() == "x"


@pytest.mark.docker
async def test_slow_report_reports_its_progress_on_standard_error(toolbox: Toolbox) -> None:
    with anyio.fail_after(LIMIT):
        result = await toolbox.runner.call("slow_report", {"steps": 2, "seconds": 0})
    assert result.stderr.text.splitlines() == ["progress: 1/2 measuring", "progress: 2/2 measuring"]


async def test_system_info_tells_the_host_and_not_a_container(toolbox: Toolbox) -> None:
    with anyio.fail_after(LIMIT):
        result = await toolbox.runner.call("system_info", {})
    assert json.loads(result.output)["cores"] == os.cpu_count()
