"""A tool with a writable mount of the project cannot write what steers the server, on any engine."""

from pathlib import Path

import pytest

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing.bench import Bench

pytestmark = pytest.mark.anyio


@pytest.fixture
def project(bench: Bench, tmp_path: Path) -> Settings:
    (tmp_path / "deep/config/tools/own").mkdir(parents=True)
    (tmp_path / "deep/config/tools/own/contract.yaml").write_text("name: own")
    (tmp_path / "praxis.yaml").write_text("reload: true")
    (tmp_path / "notes").write_text("before")
    return bench.settings.model_copy(update={"root": tmp_path, "tools": (tmp_path / "deep/config/tools",)})


async def test_a_tool_writes_no_contract_and_no_settings(bench: Bench, project: Settings) -> None:
    script = """
        cd /praxis-p
        for each in deep/config/tools/evil deep/config/tools/own/evil; do mkdir $each && echo made $each; done
        echo evil > deep/config/tools/own/contract.yaml && echo changed a contract
        echo evil > praxis.yaml && echo changed the settings
        rm -f praxis.yaml 2>/dev/null; mv notes praxis.yaml 2>/dev/null && echo replaced the settings
        echo after > notes; echo x > deep/config/new
    """
    contract = bench.case.sh(script, mounts={".": "/praxis-p:rw"})
    if await bench.refuses(contract):
        return
    tools = project.root / "deep/config/tools"
    if bench.engine.name == "kubernetes":  # all of the tool's directory is a copy
        with pytest.raises(ExecutionError, match="none of it"):
            await bench.run_plan(build_plan(contract, {}, project))
        assert (project.root / "notes").read_text() == "before"
        assert (project.root / "praxis.yaml").read_text() == "reload: true"
        assert sorted(str(path.relative_to(tools)) for path in tools.rglob("*")) == ["own", "own/contract.yaml"]
        return
    result = await bench.run_plan(build_plan(contract, {}, project))
    # A single file is a copy on Dagger: the tool writes to it, and nothing of that comes back.
    seen = "changed the settings\n" if bench.engine.name == "dagger" else ""
    assert (result.exit_code, result.output) == (0, seen), result.stderr.text
    assert (project.root / "notes").read_text() == "after\n"
    assert (project.root / "deep/config/new").read_text() == "x\n"
    assert (project.root / "praxis.yaml").read_text() == "reload: true"
    assert sorted(str(path.relative_to(tools)) for path in tools.rglob("*")) == ["own", "own/contract.yaml"]
    assert {path.name for path in result.changed_files} == {"notes", "new"}


async def test_the_directories_around_contracts_cannot_be_moved_away(bench: Bench, project: Settings) -> None:
    script = (
        "cd /praxis-p; mv deep gone && mkdir -p deep/config/tools/evil; mv deep/config deep/gone && mkdir deep/config"
    )
    contract = bench.case.sh(script, mounts={".": "/praxis-p:rw"})
    if await bench.refuses(contract):
        return
    refusal = ""
    try:
        await bench.run_plan(build_plan(contract, {}, project))
    except ExecutionError as exc:
        refusal = exc.message
    # Dagger's double lets the tool move its copy, and nothing is written back. On a real engine mv can only copy.
    assert not refusal or (bench.engine.name in ("dagger", "kubernetes") and "none of it" in refusal)
    found = sorted(str(path.relative_to(project.root)) for path in project.root.rglob("*"))
    if bench.engine.name == "dagger":
        found = [path for path in found if "gone" not in Path(path).parts]
    assert found == [
        "deep",
        "deep/config",
        "deep/config/tools",
        "deep/config/tools/own",
        "deep/config/tools/own/contract.yaml",
        "notes",
        "praxis.yaml",
    ]
