"""What becomes of each client's file: as the golden files have it, in the place that its platform has for it."""

from __future__ import annotations

import json
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from praxis_mcp.clients import Scope
from praxis_mcp.clients.changes import Change, file_of, plan_change
from praxis_mcp.clients.known import CLIENTS
from praxis_mcp.clients.model import Machine, Server, merged
from praxis_mcp.errors import SettingsError

GOLDEN = Path(__file__).parent / "golden"
STDIO = Server(command=("/opt/praxis mcp/bin/praxis-mcp", "serve", "--root", "/home/me/tools"))
HTTP = Server(url="http://127.0.0.1:8000/mcp", token_variable="PRAXIS_TOKEN")
IN_CLEAR = Server(url="http://127.0.0.1:8000/mcp", token_variable="PRAXIS_TOKEN", token="secret-0000")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def machine(home: Path, platform: str = "linux", **variables: str) -> Machine:
    return Machine(platform, home, variables)


def planned(name: str, home: Path, server: Server | None, server_name: str = "praxis-mcp") -> Change:
    return plan_change(CLIENTS[name], machine(home), Scope.USER, home, server_name, server)


def placed(name: str, home: Path, content: bytes) -> Path:
    file = CLIENTS[name].file(machine(home))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def golden(name: str, which: str) -> bytes:
    (file,) = (GOLDEN / name).glob(f"{which}.*")
    return file.read_bytes()


SERVERS = {"stdio": STDIO, "http": HTTP}
NOT_REMOTE = {"claude-desktop", "zed"}
CASES = [(name, which) for name in CLIENTS for which in SERVERS if which == "stdio" or name not in NOT_REMOTE]


@pytest.mark.parametrize(("name", "which"), CASES)
def test_a_file_gets_the_server_and_is_otherwise_as_it_was(name: str, which: str, tmp_path: Path) -> None:
    file = placed(name, tmp_path, golden(name, "before"))
    change = planned(name, tmp_path, SERVERS[which])
    change.write()
    assert file.read_bytes() == golden(name, which)
    again = planned(name, tmp_path, SERVERS[which])
    assert (again.kind, again.after) == ("unchanged", again.before)


@pytest.mark.parametrize("name", CLIENTS)
def test_what_was_not_there_is_taken_away_again_and_leaves_the_rest(name: str, tmp_path: Path) -> None:
    before = golden(name, "before")
    file = placed(name, tmp_path, before)
    planned(name, tmp_path, STDIO, "other").write()
    removed = planned(name, tmp_path, None, "other")
    assert removed.kind == "removed"
    removed.write()
    after = file.read_bytes()
    # Two had no object of servers, and now have an empty one.
    for empty in (b'"context_servers": {},', b'\n  "mcpServers": {}\n'):
        if empty.strip() not in before:
            after = after.replace(empty, b"")
    assert after.split() == before.split()
    assert planned(name, tmp_path, None, "other").kind == "unchanged"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_file_that_is_not_there_is_made_for_its_user_alone(name: str, tmp_path: Path) -> None:
    change = planned(name, tmp_path, STDIO)
    assert (change.kind, change.before) == ("added", None)
    assert change.write() is None
    if sys.platform != "win32":
        assert stat.S_IMODE(change.file.stat().st_mode) == 0o600
    assert planned(name, tmp_path, STDIO).kind == "unchanged"
    removed = planned(name, tmp_path, None)
    removed.write()
    assert planned(name, tmp_path, STDIO).kind == "added"


PLACES = {
    "claude-code": (".claude.json",) * 3,
    "claude-desktop": (
        ".config/Claude/claude_desktop_config.json",
        "Library/Application Support/Claude/claude_desktop_config.json",
        "AppData/Roaming/Claude/claude_desktop_config.json",
    ),
    "cursor": (".cursor/mcp.json",) * 3,
    "vscode": (
        ".config/Code/User/mcp.json",
        "Library/Application Support/Code/User/mcp.json",
        "AppData/Roaming/Code/User/mcp.json",
    ),
    "codex": (".codex/config.toml",) * 3,
    "gemini-cli": (".gemini/settings.json",) * 3,
    "windsurf": (".codeium/windsurf/mcp_config.json",) * 3,
    "zed": (".config/zed/settings.json", ".config/zed/settings.json", "AppData/Roaming/Zed/settings.json"),
    "opencode": (".config/opencode/opencode.json",) * 3,
}


@pytest.mark.parametrize("name", CLIENTS)
def test_each_platform_has_its_place(name: str, tmp_path: Path) -> None:
    platforms = ("linux", "darwin", "win32")
    found = [CLIENTS[name].file(machine(tmp_path, platform)) for platform in platforms]
    assert [file.relative_to(tmp_path).as_posix() for file in found] == list(PLACES[name])


@pytest.mark.parametrize(
    ("name", "variable", "place"),
    [
        ("claude-code", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("gemini-cli", "GEMINI_CLI_HOME", ".gemini/settings.json"),
        ("opencode", "XDG_CONFIG_HOME", "opencode/opencode.json"),
        ("zed", "XDG_CONFIG_HOME", "zed/settings.json"),
        ("vscode", "XDG_CONFIG_HOME", "Code/User/mcp.json"),
    ],
)
def test_a_place_that_the_user_has_moved_is_found_there(name: str, variable: str, place: str, tmp_path: Path) -> None:
    moved = machine(tmp_path, **{variable: str(tmp_path / "moved")})
    assert CLIENTS[name].file(moved) == tmp_path / "moved" / place
    relative = machine(tmp_path, **{variable: "moved"})
    assert CLIENTS[name].file(relative) == CLIENTS[name].file(machine(tmp_path))


def test_of_the_two_names_that_opencode_reads_the_one_that_is_there_is_changed(tmp_path: Path) -> None:
    file = tmp_path / ".config/opencode/opencode.jsonc"
    file.parent.mkdir(parents=True)
    file.write_text("{} // mine\n")
    change = planned("opencode", tmp_path, STDIO)
    assert change.file == file
    assert change.after.endswith(b"} // mine\n")


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.project_file])
def test_a_project_has_a_file_of_its_own(name: str, tmp_path: Path) -> None:
    change = plan_change(CLIENTS[name], machine(tmp_path / "home"), Scope.PROJECT, tmp_path, "praxis-mcp", STDIO)
    change.write()
    assert change.file.is_relative_to(tmp_path)
    assert not (tmp_path / "home").exists()


def test_a_link_of_a_project_that_leads_out_of_it_is_not_written_through(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "home").mkdir()
    (project / ".cursor").symlink_to(tmp_path / "home")
    (project / ".mcp.json").symlink_to("inside.json")
    with pytest.raises(SettingsError, match="leads out of the project"):
        file_of(CLIENTS["cursor"], machine(tmp_path), Scope.PROJECT, project)
    assert file_of(CLIENTS["claude-code"], machine(tmp_path), Scope.PROJECT, project) == project / ".mcp.json"
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("name", ["claude-desktop", "windsurf"])
def test_a_client_without_files_for_projects_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no file for a project"):
        file_of(CLIENTS[name], machine(tmp_path), Scope.PROJECT, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "cursor",
            b'{\n  "mcpServers": {\n    "a": 1\n    "b": 2\n  }\n}',
            r'mcp.json:4:5: a comma, or "}", is missing',
        ),
        ("cursor", b"[]", r"mcp.json:1:1: there is no object here"),
        ("cursor", b'{"mcpServers": []}', r"mcp.json:1:16: there is no object here"),
        ("cursor", b"{} {}", r"mcp.json:1:4: there is more text"),
        ("cursor", b'{"a": ' + b"[" * 300, r"mcp.json:1:\d+: brackets are nested more than 200 deep"),
        ("cursor", b'{\n"a": "\xff"}', r"mcp.json:2: it is not UTF-8"),
        ("zed", b"{,}", r"settings.json:1:2: a name"),
        ("codex", b"model = \n", r"config.toml cannot be edited: .*line 1"),
        ("codex", b"mcp_servers = 1\n", r"config.toml cannot be edited: mcp_servers is not a table"),
        ("codex", b"a = " + b"[" * 5000 + b"]" * 5000, r"config.toml nests brackets too deeply"),
        ("cursor", b'{"a": ' + b"1" * 5000 + b"}", r"mcp.json:1:7: a number is too long"),
    ],
)
@pytest.mark.parametrize("server", [STDIO, None], ids=["install", "uninstall"])
def test_a_file_that_cannot_be_understood_is_refused_with_the_line(
    name: str, content: bytes, said: str, server: Server | None, tmp_path: Path
) -> None:
    file = placed(name, tmp_path, content)
    if server is None and (b'"mcpServers": []' in content or b"mcp_servers = 1" in content):
        assert planned(name, tmp_path, None).kind == "unchanged"
        return
    with pytest.raises(SettingsError, match=said):
        planned(name, tmp_path, server)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff[mcp_servers.other]\ncommand = 'a'\n",
        "mcp_servers.other.command = 'a'\n",
        "x = [nan, 1.50]\n[mcp_servers.other]\ncommand = 'a'\n",
        "mcp_servers = {other = {command = 'a'}} # mine\n",
        "[mcp_servers.other.env]\nA = '1'\n[x]\ny = 1\n[mcp_servers.third]\ncommand = 'c'\n",
        "[mcp_servers]\r\nother.command = 'a'\r\n[[z]]\r\na = 1.5\r\n",
    ],
)
def test_toml_in_other_forms_gets_the_server_too(content: str, tmp_path: Path) -> None:
    file = placed("codex", tmp_path, content.encode())
    planned("codex", tmp_path, STDIO).write()
    after = file.read_bytes().decode()
    assert after.startswith(content[: content.index("other")])
    before = tomllib.loads(content.removeprefix("\ufeff"))
    before["mcp_servers"]["praxis-mcp"] = CLIENTS["codex"].entry(STDIO)
    assert repr(tomllib.loads(after.removeprefix("\ufeff"))) == repr(before) or "[x]" in content
    assert planned("codex", tmp_path, STDIO).kind == "unchanged"
    planned("codex", tmp_path, None).write()
    assert file.read_bytes().decode().split() == content.split()


def test_toml_that_cannot_be_edited_safely_is_left_as_it_is(tmp_path: Path) -> None:
    first = b"mcp_servers.praxis-mcp.command = 'a'\nmcp_servers.praxis-mcp.args = []\n[z]\na = 1\n"
    for content in (first, b"mcp_servers.other.command = 'a'\nmodel = 'b'\n"):
        file = placed("codex", tmp_path, content)
        with pytest.raises(SettingsError, match="cannot be edited safely; it was left as it is"):
            planned("codex", tmp_path, HTTP)
        assert file.read_bytes() == content


def test_a_header_that_no_encoding_can_write_stays_as_it_is(tmp_path: Path) -> None:
    content = b'{"mcpServers": {"praxis-mcp": {"url": "x", "headers": {"X": "\\ud800", "authorization": "o"}}}}'
    placed("cursor", tmp_path, content)
    after = planned("cursor", tmp_path, HTTP).after
    assert b'"X": "\\ud800", "Authorization": "Bearer ${env:PRAXIS_TOKEN}"' in after
    assert b"authorization" not in after


def test_what_an_entry_had_stays_where_a_server_of_that_kind_has_it() -> None:
    here = {"command": "a", "args": [], "env": {"A": "1"}, "cwd": "/", "enabled": False}
    assert merged(here, {"url": "u"}) == {"enabled": False, "url": "u"}
    there = {"url": "u", "headers": {"Authorization": "Bearer old", "X": "y"}, "enabled": False}
    assert merged(there, {"url": "u"}) == there, "as somebody has written it there by hand"
    assert merged(there, {"url": "another"}) == {"url": "another", "headers": {"X": "y"}, "enabled": False}
    named = merged({**there, "headers": {"authorization": "b"}}, {"url": "u", "headers": {"Authorization": "c"}})
    assert named["headers"] == {"Authorization": "c"}
    of_codex = {"url": "u", "http_headers": {"Authorization": "Bearer old"}, "env_http_headers": {"AUTHORIZATION": "V"}}
    by_variable = merged(of_codex, {"url": "u", "bearer_token_env_var": "W"})
    assert by_variable == {"url": "u", "http_headers": {}, "env_http_headers": {}, "bearer_token_env_var": "W"}
    assert merged(of_codex, {"command": "a", "args": []}) == {"command": "a", "args": []}


def test_a_difference_shows_no_values_of_variables_and_headers(tmp_path: Path) -> None:
    entry = {"url": "x", "headers": {"Authorization": "Bearer old-token-1", "X": '"quoted"é', "Y": "${env:SHOWN_NAME}"}}
    others = {"other": {"command": "c", "env": {"KEY": "key-of-others", "LEVEL": "debug"}}}
    file = placed("cursor", tmp_path, json.dumps({"mcpServers": {**others, "praxis-mcp": entry}}, indent=1).encode())
    for server in (HTTP, None):
        diff = planned("cursor", tmp_path, server).diff()
        assert "praxis-mcp" in diff
        assert not [word for word in ("old-token-1", "quoted", "key-of-others") if word in diff]
        assert '"Authorization": "…"' in diff
        assert "${env:SHOWN_NAME}" in diff
    file.write_text(json.dumps({"mcpServers": others}))
    shown = planned("cursor", tmp_path, STDIO).diff()
    assert '"KEY": "…", "LEVEL": "debug"' in shown


def test_a_link_stays_a_link_permissions_stay_and_the_old_file_is_kept(tmp_path: Path, state: Path) -> None:
    real = tmp_path / "dotfiles" / "cursor.json"
    real.parent.mkdir()
    real.write_text('{"a": 1}')
    real.chmod(0o640)
    file = CLIENTS["cursor"].file(machine(tmp_path))
    file.parent.mkdir()
    file.symlink_to(real)
    kept = planned("cursor", tmp_path, STDIO).write()
    assert file.is_symlink()
    assert "praxis-mcp" in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert kept is not None
    assert kept.is_relative_to(state)
    assert kept.read_text() == '{"a": 1}'
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in real.parent.iterdir()] == ["cursor.json"]


def test_a_file_that_changes_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    file = placed("cursor", tmp_path, b"{}")
    change = planned("cursor", tmp_path, STDIO)
    file.write_text('{"of": "the client"}')
    with pytest.raises(SettingsError, match="has just been changed by another program"):
        change.write()
    assert file.read_text() == '{"of": "the client"}'


def test_a_token_is_written_only_where_that_was_wanted_and_never_shown(tmp_path: Path) -> None:
    for name, client in CLIENTS.items():
        if client.remote is not None and client.reference:
            assert b"PRAXIS_TOKEN" in planned(name, tmp_path, HTTP).after
    with pytest.raises(SettingsError, match="Zed does not expand variables"):
        planned("zed", tmp_path, HTTP)
    change = planned("zed", tmp_path, IN_CLEAR)
    assert b"Bearer secret-0000" in change.after
    assert "secret-0000" not in change.diff()
    with pytest.raises(SettingsError, match="no servers at a URL"):
        planned("claude-desktop", tmp_path, HTTP)
