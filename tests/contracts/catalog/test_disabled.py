"""Tools that somebody has disabled, and contracts that change with what they share."""

from pathlib import Path

import anyio
import pytest

from praxis_mcp.contracts.catalog.approvals import ContractApprovals
from praxis_mcp.contracts.catalog.catalog import Catalog, CatalogChange
from praxis_mcp.contracts.specs import LocalEngineSpec
from praxis_mcp.errors import UnknownToolError
from praxis_mcp.settings.trust import TrustStore
from tests.kit.contracts import write_tool

pytestmark = pytest.mark.anyio

WITHIN = 60
"""Seconds for whatever a test waits for; far more than it takes."""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    directory.mkdir()
    return directory


def names(catalog: Catalog) -> list[str]:
    return [entry.name for entry in catalog.entries()]


async def test_a_disabled_contract_is_not_served_and_says_why(tools: Path, tmp_path: Path) -> None:
    write_tool(tools, "on", ["true"])
    file = write_tool(tools, "off", ["true"], enabled=False)
    write_tool(tools, "old_one", ["true"])
    for _ in range(2):  # read, then from the cache
        catalog = Catalog([tools], cache_dir=tmp_path / "cache", disabled=["old_*"])
        await catalog.load()
        assert names(catalog) == ["on"]
        assert [(item.name, item.by) for item in catalog.disabled] == [
            ("off", "its contract says enabled: false"),
            ("old_one", "disabled_tools has old_*"),
        ]
        assert catalog.disabled[0].source == file
        with pytest.raises(UnknownToolError, match='"off" is disabled: its contract says enabled: false'):
            catalog.get("off")
        assert not catalog.diagnostics


async def test_a_disabled_contract_leaves_its_name_to_another(tools: Path, tmp_path: Path) -> None:
    write_tool(tools / "a", "same", ["true"], enabled=False)
    served = write_tool(tools / "b", "same", ["true"])
    catalog = Catalog([tools], cache_dir=tmp_path / "cache")
    await catalog.load()
    assert catalog.get("same").source == served
    assert not catalog.diagnostics


async def test_a_tool_that_is_disabled_while_it_is_served_goes_and_comes_back(tools: Path, tmp_path: Path) -> None:
    write_tool(tools, "one", ["true"])
    catalog = Catalog([tools], cache_dir=tmp_path / "cache")
    await catalog.load()
    write_tool(tools, "one", ["true"], enabled=False)
    assert await catalog.load() == CatalogChange(removed=("one",))
    write_tool(tools, "one", ["true"])
    assert await catalog.load() == CatalogChange(added=("one",))


async def test_a_directory_is_disabled_by_its_defaults_and_a_contract_takes_itself_out(
    tools: Path, tmp_path: Path
) -> None:
    write_tool(tools / "lab", "a", ["true"])
    write_tool(tools / "lab", "b", ["true"], enabled=True)
    (tools / "lab" / "_defaults.yaml").write_text("enabled: false\n")
    catalog = Catalog([tools], cache_dir=tmp_path / "cache")
    await catalog.load()
    assert names(catalog) == ["b"]


async def test_a_change_of_what_contracts_share_changes_them_and_no_others(tools: Path, tmp_path: Path) -> None:
    write_tool(tools / "in", "a", ["true"])
    write_tool(tools / "out", "b", ["true"])
    cache = tmp_path / "cache"
    catalog = Catalog([tools], cache_dir=cache)
    await catalog.load()
    changes: list[CatalogChange] = []
    arrived = anyio.Event()

    async def on_change(change: CatalogChange) -> None:
        changes.append(change)
        arrived.set()

    with anyio.fail_after(WITHIN):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(catalog.watch, on_change)
            (tools / "in" / "_defaults.yaml").write_text("env: {A: '1'}\n")
            await arrived.wait()
            tasks.cancel_scope.cancel()
    assert changes == [CatalogChange(changed=("a",))]
    assert catalog.get("a").contract.get_typed_spec(LocalEngineSpec).env == {"A": "1"}
    again = Catalog([tools], cache_dir=cache)  # its face comes from the cache, the contract is built from both files
    await again.load()
    assert again.get("a").contract.get_typed_spec(LocalEngineSpec).env == {"A": "1"}


async def test_a_fault_in_what_contracts_share_is_reported_once_and_they_stay_as_they_were(
    tools: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_tool(tools, name, ["true"])
    catalog = Catalog([tools], cache_dir=tmp_path / "cache")
    await catalog.load()
    shared = tools / "_defaults.yaml"
    shared.write_text("env: {A: '1'}\ntimeout: soon\n")
    for number in range(2):  # read, then as it was remembered
        assert not await catalog.load()
        faults = [item for item in catalog.diagnostics if item.is_error]
        assert [(item.path, item.line) for item in faults] == [(shared, 2)]
        assert names(catalog) == ["a", "b"]
        fresh = Catalog([tools], cache_dir=tmp_path / "cache")
        await fresh.load()
        assert [str(item) for item in fresh.diagnostics] == [str(item) for item in faults], number


async def test_what_contracts_share_is_approved_with_each_of_them(tools: Path, tmp_path: Path) -> None:
    write_tool(tools, "a", ["true"])
    approvals = ContractApprovals(TrustStore("contracts", tmp_path / "approved"))
    free = Catalog([tools], cache_dir=tmp_path / "cache")
    await free.load()
    approvals.approve(free.get("a"))
    catalog = Catalog([tools], cache_dir=tmp_path / "cache", approvals=approvals)
    await catalog.load()
    before = catalog.get("a")
    (tools / "_defaults.yaml").write_text("mounts: {/srv: '/srv:rw'}\n")
    await catalog.load()
    assert catalog.get("a") is before
    assert any("mount /srv of /srv, writable" in item.message for item in catalog.diagnostics)


async def test_defaults_under_another_name_are_a_warning(tools: Path, tmp_path: Path) -> None:
    write_tool(tools, "a", ["true"])
    (tools / "_defaults.yml").write_text("timeout: 7\n")
    catalog = Catalog([tools], cache_dir=tmp_path / "cache")
    await catalog.load()
    assert [str(item) for item in catalog.diagnostics] == [
        f"{tools / '_defaults.yml'}: warning: The file is not read: what contracts share is in a file named "
        "_defaults.yaml. Rename it."
    ]
