"""The root follows from where the tools lie, not from where a client starts the server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.files import is_top, project_at, project_of
from praxis_mcp.settings.model import load_settings


@pytest.fixture(autouse=True)
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PRAXIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path


def layout(top: Path, *names: str) -> None:
    for name in names:
        path = top / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.mark.parametrize(
    ("names", "tools", "project"),
    [
        (("p/.git/", "p/a/tools/"), "p/a/tools", "p"),
        (("p/.git", "p/tools/"), "p/tools", "p"),  # of a worktree or submodule it is a file
        (("p/.git/", "p/a/praxis.yaml", "p/a/b/tools/"), "p/a/b/tools", "p/a"),
        (("p/pyproject.toml", "p/contracts/"), "p/contracts", "p"),
        (("p/.git/", "p/tools/one/package.json"), "p/tools/one", "p"),  # a tool's own manifest
        (("p/.git/", "p/contract.yaml"), "p", "p"),
        (("p/tools/one/",), "p/tools", "p"),
        (("p/tools/one/",), "p/tools/one", "p"),
        (("p/tools/one/x.contract.yaml",), "p/tools/one/x.contract.yaml", "p"),
        (("p/mine/",), "p/mine", "p/mine"),
        (("home/.git/", "home/tools/"), "home/tools", "home/tools"),  # many keep their dotfiles so
        (("home/.git/", "home/p/tools/"), "home/p/tools", "home/p"),
        (("home/praxis.yaml", "home/x/"), "home/x", "home/x"),
        ((), "p/missing", "p/missing"),
    ],
)
def test_the_project_is_the_nearest_that_is_marked_above_the_tools(
    ground: Path, names: tuple[str, ...], tools: str, project: str
) -> None:
    layout(ground, *names)
    assert project_of(ground / tools) == ground / project


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_a_mark_where_everybody_may_write_is_anyones(ground: Path) -> None:
    layout(ground, "shared/.git/", "shared/tools/", "shared/mine/tools/")
    (ground / "shared").chmod(0o1777)
    assert project_of(ground / "shared" / "tools") == ground / "shared" / "tools"
    assert project_of(ground / "shared" / "mine" / "tools") == ground / "shared" / "mine"
    assert project_at(ground / "shared") == ground / "shared" / "tools"


def test_neither_the_root_of_the_file_system_nor_the_home_directory_is_a_project(ground: Path) -> None:
    assert project_of(Path("/tools")) == Path("/tools")
    assert project_at(Path("/")) == Path("/tools")
    assert project_at(ground / "home") == ground / "home" / "tools"
    (ground / "link").symlink_to(ground / "home")
    assert is_top(ground / "link")
    assert is_top(Path("/../"))


@pytest.mark.parametrize("start", ["/", "home", "p", "p/tools", "other"])
def test_the_root_is_the_same_wherever_the_server_starts(
    ground: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout(ground, "p/.git/", "p/tools/", "other/.git/", "other/praxis.yaml")
    monkeypatch.chdir(ground / start)
    assert load_settings(flags={"tools": [ground / "p" / "tools"]}).root == ground / "p"
    monkeypatch.setenv("PRAXIS_TOOLS", str(ground / "p" / "tools"))
    assert load_settings().root == ground / "p"


def test_without_tools_the_project_around_the_current_directory_is_served(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout(ground, "p/.git/", "p/tools/", "p/src/deep/", "p/sub/tools/", "plain/")
    for start, root, tools in (
        ("p", "p", "p/tools"),
        ("p/src/deep", "p", "p/tools"),
        ("p/sub", "p", "p/sub/tools"),
        ("plain", "plain", "plain/tools"),
        ("home", "home/tools", "home/tools"),
    ):
        monkeypatch.chdir(ground / start)
        settings = load_settings()
        assert (settings.root, settings.tool_directories) == (ground / root, (ground / tools,))


def test_a_root_that_is_given_wins_and_tools_that_are_not_given_lie_there(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout(ground, "p/.git/", "p/tools/", "q/")
    monkeypatch.chdir(ground / "p")
    settings = load_settings(flags={"root": ground / "q"})
    assert (settings.root, settings.tool_directories) == (ground / "q", (ground / "q" / "tools",))
    assert settings.origin.root_reason == "--root"
    monkeypatch.setenv("PRAXIS_ROOT", str(ground / "q"))
    settings = load_settings(flags={"tools": [ground / "p" / "tools"]})
    assert (settings.root, settings.origin.root_reason) == (ground / "q", "PRAXIS_ROOT")
    monkeypatch.setenv("PRAXIS_ROOT", "/")
    assert load_settings().root == Path("/"), "by accident never, by its name yes"


def test_a_root_where_a_client_works_moves_nothing_of_the_settings(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a cloned repository could bring the programs, approvals and contracts that the settings name."""
    layout(ground, "mine/.git/", "mine/tools/", "clone/.git/", "clone/praxis.yaml", "clone/tools/")
    named = ground / "mine" / "settings.yaml"
    named.write_text("tools: [tools]\nrecords: {directory: kept}\nengines: {dagger: {cli: bin/dagger}}\n")
    monkeypatch.chdir(ground / "clone")
    for settings in (
        load_settings(named, {"root": Path()}),
        load_settings(flags={"root": Path(), "tools": [ground / "mine" / "tools"]}),
    ):
        assert settings.root == ground / "clone"
        assert settings.base == ground / "mine"
        assert settings.tool_directories == (ground / "mine" / "tools",)
        assert settings.upstream_approvals == ground / "mine" / "praxis-upstreams.json"
    settings = load_settings(named, {"root": Path()})
    assert settings.records.directory == ground / "mine" / "kept"
    assert settings.engines.dagger.cli == ground / "mine" / "bin" / "dagger"


@pytest.mark.parametrize("start", ["/", "home"])
def test_a_relative_root_is_refused_where_it_would_be_the_home_directory_or_everything(
    ground: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout(ground, "p/")
    monkeypatch.chdir(ground / start)
    with pytest.raises(SettingsError, match="not a project"):
        load_settings(flags={"root": Path()})
    monkeypatch.setenv("PRAXIS_ROOT", ".")
    with pytest.raises(SettingsError, match="not a project"):
        load_settings()
    monkeypatch.chdir(ground / "p")
    assert load_settings().root == ground / "p"


def test_relative_tools_from_the_environment_start_where_the_server_does(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout(ground, "p/mine/", "q/.git/", "q/sub/mine/")
    monkeypatch.setenv("PRAXIS_TOOLS", "mine")
    for start, root in (("p", "p/mine"), ("q/sub", "q")):
        monkeypatch.chdir(ground / start)
        settings = load_settings()
        assert (settings.root, settings.tool_directories) == (ground / root, (ground / start / "mine",))


def test_a_settings_file_in_the_home_directory_does_not_make_that_the_root(ground: Path) -> None:
    layout(ground, "home/tools/", "home/p/tools/", "home/p/.git/")
    (ground / "home" / "mine.yaml").write_text("calls: {max_queue: 3}\n")
    settings = load_settings(ground / "home" / "mine.yaml")
    assert (settings.root, settings.tool_directories) == (ground / "home" / "tools", (ground / "home" / "tools",))
    settings = load_settings(ground / "home" / "mine.yaml", {"tools": [ground / "home" / "p" / "tools"]})
    assert settings.root == ground / "home" / "p"
    (ground / "home" / "mine.yaml").write_text("root: .\n")
    assert load_settings(ground / "home" / "mine.yaml").root == ground / "home"
