"""Mounts of contracts in the older spellings: made where they are missing, writable, and no hold on the server."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.contracts.commands import named_code
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.specs import DaggerEngineSpec
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.build import build_plan, find_problems
from praxis_mcp.plans.model import Guard, Plan
from praxis_mcp.plans.planning import warnings_about_mounts
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger

needs_dir_fd = pytest.mark.skipif(os.mkdir not in os.supports_dir_fd, reason="directories are not made here")


def older(project: Path, mounts: dict[str, str], command: str = "[cat, /etc/hostname]", **spec: Any) -> ToolContract:
    file = project / "tools/count/contract.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'    "{source}": {target}' for source, target in mounts.items()]
    more = [f"  {key}: {value}" for key, value in spec.items()]
    file.write_text(
        "\n".join(
            [
                "name: count", "description: Counts lines.", "engine: dagger", "params: []", "engineSpec:",
                "  image: python:3.11-slim", f"  command: {command}", *more, "  mounts:", *lines, "",
            ]
        )
    )  # fmt: skip
    loaded = load_text(file.read_text(), file)
    assert loaded.contract is not None, loaded.diagnostics
    return loaded.contract


def mounts_of(plan: Plan, project: Path) -> dict[str, tuple[str, bool]]:
    return {
        mount.target: (str(mount.source.relative_to(project)), mount.writable)
        for mount in plan.blueprint.mounts
        if mount.guard is not Guard.PIN
    }


def call(contract: ToolContract, project: Path, **settings: Any) -> Plan:
    return build_plan(contract, {}, Settings.model_validate({"root": project, **settings}), create=True)


@needs_dir_fd
def test_missing_directories_below_the_root_are_made_for_a_call_and_for_nothing_else(tmp_path: Path) -> None:
    contract = older(tmp_path, {"./shared/in": "/shared", str(tmp_path / "data"): "/data"})
    settings = Settings(root=tmp_path)
    assert find_problems(contract, settings) == []
    assert warnings_about_mounts(contract, settings) == []
    explained = build_plan(contract, {}, settings)
    assert all(mount.is_missing for mount in explained.blueprint.mounts)
    assert sorted(os.listdir(tmp_path)) == ["tools"]
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}")
    try:
        planned = call(contract, tmp_path)
    finally:
        logger.remove(sink)
    assert [line.strip() for line in lines] == [
        f"WARNING count: made the directory {tmp_path / name}, which its contract mounts"
        for name in ("shared", "shared/in", "data")
    ]
    assert mounts_of(planned, tmp_path) == {"/shared": ("shared/in", True), "/data": ("data", True)}
    assert not any(mount.is_missing or mount.identity is None for mount in planned.blueprint.mounts)
    assert (tmp_path / "shared/in").is_dir()
    assert (tmp_path / "data").is_dir()


@needs_dir_fd
def test_a_mount_inside_another_finds_its_place_there_made(tmp_path: Path) -> None:
    contract = older(tmp_path, {"./shared": "/shared", "./tools": "/shared/deep/tools"}, working_dir="/shared/work")
    assert find_problems(contract, Settings(root=tmp_path)) == []
    assert not (tmp_path / "shared").exists()
    call(contract, tmp_path)
    assert (tmp_path / "shared/deep/tools").is_dir()
    assert (tmp_path / "shared/work").is_dir()


def test_nothing_is_made_for_our_own_spelling(tmp_path: Path) -> None:
    contract = ToolContract.create_dagger_tool("t", "x", ["x"], mounts={"./shared": "/shared:rw"})
    with pytest.raises(ExecutionError, match="does not exist"):
        call(contract, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("source", ["../outside", "/praxis-nowhere/x", "link/new", "file/new", "dangling"])
def test_nothing_is_made_outside_of_the_root_nor_through_a_link(tmp_path: Path, source: str) -> None:
    project = tmp_path / "project"
    (project / "real").mkdir(parents=True)
    (project / "link").symlink_to("real")
    (project / "dangling").symlink_to("nowhere")
    (project / "file").write_text("")
    contract = older(project, {source: "/data"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExecutionError):
        call(contract, project)
    (finding,) = warnings_about_mounts(contract, Settings(root=project))
    assert "Every call would be refused" in finding.message
    assert (finding.field, finding.line) == (f"engineSpec.mounts.{source}", 9)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/praxis-nowhere").exists()


@pytest.mark.parametrize("source", ["praxis.yaml", "runs", "runs/x", "keys/server.pem"])
def test_nothing_is_made_where_the_servers_own_belongs(tmp_path: Path, source: str) -> None:
    contract = older(tmp_path, {f"./{source}": "/data"})
    own = {"records": {"directory": tmp_path / "runs"}, "engines": {"dagger": {"cli": tmp_path / "keys/server.pem"}}}
    with pytest.raises(ExecutionError):
        call(contract, tmp_path, **own)
    assert os.listdir(tmp_path) == ["tools"]


@needs_dir_fd
def test_a_directory_is_made_below_a_root_that_the_user_may_enter_and_not_list() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(os.path.realpath(name))
        contract = older(root, {"./open/new": "/data"})
        (root / "open").mkdir()
        (root / "open").chmod(0o777)
        root.chmod(0o311)
        as_root = os.geteuid() == 0
        if as_root:
            root.chmod(0o711)
            os.seteuid(65534)
        try:
            assert mounts_of(call(contract, root), root) == {"/data": ("open/new", True)}
        finally:
            if as_root:
                os.seteuid(0)
            root.chmod(0o755)
        assert (root / "open" / "new").is_dir()


def test_nothing_is_made_below_a_root_that_holds_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    contract = older(tmp_path, {"./new": "/data"})
    with pytest.raises(ExecutionError, match="does not exist"):
        call(contract, tmp_path)
    assert not (tmp_path / "new").exists()


def test_a_link_that_takes_the_place_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    outside.mkdir()
    contract = older(project, {"./a/b": "/data"})
    (project / "a").symlink_to(outside)
    with pytest.raises(ExecutionError):
        call(contract, project)
    assert os.listdir(outside) == []


def test_a_mount_of_the_tools_is_read_only_instead_of_refused_and_validate_says_so(tmp_path: Path) -> None:
    contract = older(tmp_path, {"./shared": "/shared", "./tools": "/shared/tools", "./tools/count": "/own"})
    planned = call(contract, tmp_path)
    assert mounts_of(planned, tmp_path) == {
        "/shared": ("shared", True),
        "/shared/tools": ("tools", False),
        "/own": ("tools/count", False),
    }
    first, second = warnings_about_mounts(contract, Settings(root=tmp_path))
    assert "is read-only for the tool, because it holds contracts" in first.message
    assert '"./tools": /shared/tools:ro' in first.remedy
    assert (second.field, second.is_error) == ("engineSpec.mounts../tools/count", False)
    silent = older(tmp_path, {"./shared": "/shared", "./tools": "/shared/tools:ro"})
    assert warnings_about_mounts(silent, Settings(root=tmp_path)) == []
    # Consent in the settings counts as it does in our own spelling.
    allowed = {"policy": {"sensitive_paths": [tmp_path / "tools"]}}
    assert mounts_of(call(contract, tmp_path, **allowed), tmp_path)["/shared/tools"] == ("tools", True)


def test_a_mount_of_the_whole_project_has_contracts_and_settings_read_only_on_top(tmp_path: Path) -> None:
    (tmp_path / "praxis.yaml").write_text("")
    planned = call(older(tmp_path, {".": "/app"}), tmp_path)
    assert mounts_of(planned, tmp_path) == {
        "/app": (".", True),
        "/app/tools": ("tools", False),
        "/app/praxis.yaml": ("praxis.yaml", False),
    }


def test_a_link_to_the_contracts_makes_the_mount_that_holds_it_read_only(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    contract = older(tmp_path, {"./work": "/work"})
    (tmp_path / "work/tools").symlink_to(tmp_path / "tools")
    given = {"tools": [tmp_path / "work/tools"]}
    assert mounts_of(call(contract, tmp_path, **given), tmp_path) == {"/work": ("work", False)}


@pytest.mark.parametrize(
    "command",
    [
        "[python, /shared/analyze.py, --out, /shared/result.csv]",
        "[python, -W, error, /shared/analyze.py]",
        "[sh, -c, 'pip install x && python /shared/analyze.py > /shared/result.csv']",
        "[sh, -c, 'cd /shared && python analyze.py result.csv']",
        "[/shared/analyze.py, /shared/result.csv]",
        "[timeout, 30s, nice, -n, '5', python, /shared/analyze.py]",
        "[env, -i, A=b, /shared/analyze.py]",
        "[flock, /tmp/lock, /shared/analyze.py]",
        "[sh, -c, 'if true; then ! python /shared/analyze.py; fi >> /shared/result.csv']",
        "[sh, -c, 'X=`python < /shared/analyze.py`; echo $X > /shared/result.csv']",
        "[sh, -c, 'cat /shared/result.csv; cat /shared/analyze.py | python']",
        "[sh, -c, 'where=/shared; python $where/analyze.py ${where}/result.csv']",
        "[python, analyze.py, result.csv]",  # the image says where it starts
        "[sh, -c, 'cd shared; { ./analyze.py; }']",
    ],
)
def test_the_script_that_a_command_names_is_read_only_on_top_and_its_data_is_not(tmp_path: Path, command: str) -> None:
    (tmp_path / "shared").mkdir()
    for name in ("analyze.py", "result.csv"):
        (tmp_path / "shared" / name).write_text("")
    planned = call(older(tmp_path, {"./shared": "/shared"}, command), tmp_path)
    assert mounts_of(planned, tmp_path) == {
        "/shared": ("shared", True),
        "/shared/analyze.py": ("shared/analyze.py", False),
    }


@pytest.mark.parametrize(
    "command", ["[sh, -c, '. /shared/run']", "[sh, -c, 'for i in 1 2; do sudo -n /shared/run; done']"]
)
def test_what_is_run_has_any_name(tmp_path: Path, command: str) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/run").touch()
    planned = call(older(tmp_path, {"./shared": "/shared"}, command), tmp_path)
    assert mounts_of(planned, tmp_path)["/shared/run"] == ("shared/run", False)


@pytest.mark.parametrize(
    "command",
    [
        "[python, -c, 'print(1)', /shared/result.csv]",
        "[sort, /shared/result.csv]",
        "[sh, -c, 'cat /shared/result.csv > /shared/made.sh']",
    ],
)
def test_what_a_command_names_as_data_stays_writable(tmp_path: Path, command: str) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/result.csv").write_text("")
    (tmp_path / "shared/made.sh").write_text("")
    assert mounts_of(call(older(tmp_path, {"./shared": "/shared"}, command), tmp_path), tmp_path) == {
        "/shared": ("shared", True)
    }


@pytest.mark.parametrize(
    "text",
    ["cd a;" * 60_000, "A=x;" + "A=$A$A;" * 60_000, "A=" + "y" * 250 + ";" + "$A" * 60_000, "1" * 300_000],
    ids=["directories", "variables", "values", "digits"],
)
def test_what_a_shells_text_names_is_looked_for_in_little_time(text: str) -> None:
    spec = DaggerEngineSpec(image="x", command=("sh", "-c", text), mounts={f"./{n}": f"/m{n}" for n in range(100)})
    start = time.process_time()
    named_code(spec)
    assert time.process_time() - start < 3  # seconds; it takes a quarter of one, and took minutes without its bounds


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users are POSIX's")
def test_the_user_is_the_servers_own_where_something_is_writable_and_has_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 1234)
    writable = call(older(tmp_path, {"./shared": "/shared"}), tmp_path)
    assert (writable.blueprint.user, writable.call.env) == ("1234:1234", {"HOME": "/tmp"})
    kept = call(older(tmp_path, {"./tools": "/tools"}), tmp_path)
    assert (kept.blueprint.user, kept.call.env) == (None, {})
    named = call(older(tmp_path, {"./shared": "/shared"}, user="nobody"), tmp_path)
    assert (named.blueprint.user, named.call.env) == ("nobody", {})
