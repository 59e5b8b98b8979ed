"""What a local tool sees of home directories and other places that are hidden from it: what it was given, and what its
program needs to run."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.program_files import ProgramFiles
from praxis_mcp.errors import CommandNotFound, LimitUnsupported
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.files import home_directories
from praxis_mcp.testing.bench import CALL_LIMIT
from tests.engines.host import launchers
from tests.kit.places import directory_in_sight

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("launcher")]

SEEN = 'for file; do if [ -r "$file" ]; then cat "$file"; fi; done'
"""Prints those of the files that it is given which it can read."""
CREDENTIALS = (
    ".claude/.credentials.json", ".config/Claude/claude_desktop_config.json", ".cursor/mcp.json", ".cargo/credentials",
    ".pgpass", ".bash_history", ".config/chromium/Cookies", ".local/share/keyrings/login", "work/other/.env",
)  # fmt: skip


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home directory with secrets in it, not in /tmp, which is hidden anyway."""
    with directory_in_sight() as directory:
        for name in CREDENTIALS:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(f"secret of {name}\n")
        (directory / "work/project").mkdir()
        monkeypatch.setenv("HOME", str(directory))
        yield directory


async def run(settings: Settings, command: list[str], **fields: Any) -> ExecutionResult:
    source = fields.pop("source", None)
    contract = ToolContract.create_local_tool("tool", command, **fields).model_copy(update={"source": source})
    with anyio.fail_after(CALL_LIMIT):
        async with LocalExecutionEngine(settings) as engine:
            return await engine.run(build_plan(contract, {}, settings), ExecutionContext())


def settings_of(root: Path, *visible: str, **values: Any) -> Settings:
    engines: Any = {"local": {"sandbox": launchers.chosen, "visible": visible}}
    return Settings(root=root, engines=engines, **values)


def reader(home: Path, *names: str) -> list[str]:
    return ["sh", "-c", SEEN, "sh", *(str(home / name) for name in (*CREDENTIALS, *names))]


def program(place: Path, text: str) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(0o755)
    return place


@pytest.mark.parametrize("root", ["work/project", ".", ".."])
async def test_nothing_of_the_home_directory_is_seen_but_the_project(home: Path, root: str) -> None:
    """Not even where the server was started in the home directory, or above."""
    (home / "work/project/file").write_text("the project's\n")
    result = await run(settings_of((home / root).resolve()), reader(home, "work/project/file"))
    assert result.output == ("the project's\n" if root == "work/project" else "")


async def test_what_the_contract_mounts_its_folder_and_what_the_settings_list_are_seen(home: Path) -> None:
    names = ("data/file", "tools/one/contract.yaml", "tools/two/contract.yaml", ".cache/models/file")
    for name in (*names, "cwd/file"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"{name}\n")
    result = await run(
        settings_of(home / "work/project", "~/.cache/models"),
        [*reader(home, *names), "file"],
        mounts={str(home / "data"): str(home / "data")},
        working_dir=str(home / "cwd"),
        source=home / "tools/one/contract.yaml",
    )
    assert result.output.split() == ["data/file", "tools/one/contract.yaml", ".cache/models/file", "cwd/file"]


async def test_what_the_settings_list_is_seen_where_an_xdg_variable_names_it_as_well(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".cache").mkdir()
    (home / ".cache/file").write_text("seen")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    result = await run(settings_of(home / "work/project", "~/.cache"), reader(home, ".cache/file"))
    assert result.output == "seen"


async def test_a_contract_in_the_home_directory_itself_shows_nothing_of_it(home: Path) -> None:
    result = await run(settings_of(home / "work/project"), reader(home), source=home / "x.contract.yaml")
    assert result.output == ""


async def test_homes_of_others_and_xdg_directories_elsewhere_are_hidden(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with directory_in_sight() as place:
        (place / "token").write_text("secret")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(place))
        script = f"cat {place}/token; ls -A /root /home | grep -v linuxbrew; touch /root/x {home}/x {place}/x"
        result = await run(settings_of(home / "work/project"), ["sh", "-c", script])
        assert set(home_directories()) >= {str(home), "/root", str(place)}
    assert result.output.replace("/root:", "").replace("/home:", "").strip() == ""
    assert result.stderr.text.count("Read-only file system") == 3


@pytest.mark.parametrize("value", ["/", "/usr", "/nonexistent", "/var/lib", "relative"])
def test_a_home_that_is_a_part_of_the_system_hides_nothing_of_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOME", value)
    assert not {"/", "/usr", "/var/lib"} & set(home_directories())


async def test_the_home_directory_is_not_a_working_directory_without_consent(home: Path) -> None:
    settings = settings_of(home / "work/project")
    with pytest.raises(LimitUnsupported, match=r"whole home directory.*policy\.sensitive_paths"):
        await run(settings, ["true"], working_dir=str(home))
    allowed = settings_of(home / "work/project", policy={"sensitive_paths": [home]})
    assert "work" in (await run(allowed, ["ls"], working_dir=str(home))).output


# Programs that lie there


async def test_a_tool_that_was_installed_for_one_user_runs_and_the_rest_stays_hidden(home: Path) -> None:
    """As uv and pipx lay it out: a link, to a script, for an interpreter behind another link, with its library."""
    installation = home / ".local/share/uv/python/version-1.2.3"
    (installation / "bin").mkdir(parents=True)
    shutil.copy(os.path.realpath("/bin/sh"), installation / "bin/shell-1.2")
    (installation / "lib").mkdir()
    (installation / "lib/library").write_text("of the installation\n")
    (home / ".local/share/uv/python/version-1.2").symlink_to("version-1.2.3")
    tool = home / ".local/share/uv/tools/mine"
    (tool / "lib").mkdir(parents=True)
    (tool / "lib/part").write_text("of the tool\n")
    (tool / "bin").mkdir()
    (tool / "bin/shell").symlink_to(home / ".local/share/uv/python/version-1.2/bin/shell-1.2")
    (tool / "pyvenv.cfg").write_text(f"home = {home}/.local/share/uv/python/version-1.2/bin\n")
    library = home / ".local/share/uv/python/version-1.2/lib/library"
    files = " ".join(str(path) for path in (tool / "lib/part", library, *(home / name for name in CREDENTIALS)))
    program(tool / "bin/mine", f"#!{tool}/bin/shell\nset -- {files}\n{SEEN}\n")
    (home / ".local/bin").mkdir()
    (home / ".local/bin/mine").symlink_to("../share/uv/tools/mine/bin/mine")
    for word in (str(home / ".local/bin/mine"), "mine"):
        path = {"PATH": f"{home}/.local/bin:/usr/bin:/bin"}
        result = await run(settings_of(home / "work/project"), [word], env=path)
        assert (result.output, result.stderr.text) == ("of the tool\nof the installation\n", "")


@pytest.mark.parametrize("folder", [".cargo/bin", "bin", ".local/bin", "go/bin", "somewhere"])
async def test_a_program_shows_itself_and_not_the_directory_that_it_is_in(home: Path, folder: str) -> None:
    files = " ".join(str(home / name) for name in CREDENTIALS)
    found = program(home / folder / "mine", f"#!/bin/sh\necho ran\nset -- {files}\n{SEEN}\n")
    result = await run(settings_of(home / "work/project"), [str(found)])
    assert (result.output, result.stderr.text) == ("ran\n", "")


async def test_a_program_is_found_where_the_home_directory_is_a_link(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = home / "link"  # as /home/me → /data/me
    program(home / "me/bin/mine", "#!/usr/bin/env sh\necho ran\n")
    link.symlink_to("me")
    monkeypatch.setenv("HOME", str(link))
    assert (await run(settings_of(home / "work/project"), [f"{link}/bin/mine"])).output == "ran\n"


async def test_a_manager_of_versions_is_shown_with_its_shims(home: Path) -> None:
    program(home / ".pyenv/libexec/pyenv", "#!/bin/sh\necho version 3\n")
    program(home / ".pyenv/shims/python", f"#!/usr/bin/env sh\nexec {home}/.pyenv/libexec/pyenv\n")
    result = await run(settings_of(home / "work/project"), [str(home / ".pyenv/shims/python")])
    assert result.output == "version 3\n"


async def test_a_program_below_tmp_runs_and_nothing_else_of_it_is_seen(tmp_path: Path) -> None:
    (tmp_path / "clone/other").mkdir(parents=True)
    (tmp_path / "clone/secret").write_text("secret")
    found = program(tmp_path / "clone/.venv/bin/mine", f"#!/bin/sh\necho ran\ncat {tmp_path}/clone/secret\n")
    (tmp_path / "root").mkdir()
    result = await run(settings_of(tmp_path / "root"), [str(found)])
    assert result.output == "ran\n"


async def test_a_program_among_what_only_the_server_may_see_is_refused_by_its_path(home: Path) -> None:
    with directory_in_sight() as place:
        found = program(place / "mine", "#!/bin/sh\n")
        settings = settings_of(home / "work/project", records={"directory": place})
        with pytest.raises(CommandNotFound, match=rf"hides {found}") as refused:
            await run(settings, [str(found)])
    assert "mounts" in str(refused.value.remedy)


def test_programs_whose_interpreters_are_programs_of_each_other_end(tmp_path: Path) -> None:
    for number in range(20):
        program(tmp_path / str(number), f"#!{tmp_path}/{(number + 1) % 20}\n")
    (tmp_path / "loop").symlink_to("loop")
    files = ProgramFiles()
    files.add_program(str(tmp_path / "0"), "", "/")
    files.add_program(str(tmp_path / "loop"), "", "/")
    assert len(files.places) <= 8


# What may be written in memory


async def test_file_systems_in_memory_are_bounded(home: Path) -> None:
    script = """
for place in / /dev /dev/shm /tmp /var/tmp /run /root "$1"; do
    if touch "$place/x" 2>/dev/null; then echo "$place $(($(stat -f -c '%b * %S' "$place") / 1048576))"; fi
done"""
    result = await run(settings_of(home / "work/project"), ["sh", "-c", script, "sh", str(home)])
    sizes = dict(line.split() for line in result.output.splitlines())
    assert set(sizes) <= {"/dev/shm", "/tmp", "/var/tmp", "/run"}
    assert all(0 < int(size) <= 1024 for size in sizes.values())
