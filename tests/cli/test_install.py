"""`praxis-mcp install` and `uninstall`, as their users meet them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from praxis_mcp.clients.known import CLIENTS
from tests.kit import command_line
from tests.serving.clients import LIMIT

TOOL = "name: hello\ndescription: Greets.\nengine: local\ncommand: [echo, hello]\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "work/tools").mkdir(parents=True)
    (tmp_path / "work/tools/hello.contract.yaml").write_text(TOOL)
    return tmp_path / "work"


def environment(project: Path, **variables: str) -> dict[str, str]:
    moved = ("PRAXIS_", "XDG_", "CLAUDE_", "CODEX_", "GEMINI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(moved)}
    return {**kept, "HOME": str(project.parent / "home"), "COLUMNS": "200", **variables}


def praxis(project: Path, *words: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return command_line.praxis(*words, cwd=cwd or project, env=environment(project, **variables), timeout=180)


def file_of(project: Path, client: str) -> Path:
    (found,) = (item for item in json.loads(praxis(project, "install", "--json").stdout) if item["client"] == client)
    return Path(found["file"])


@pytest.mark.anyio
async def test_what_a_client_is_given_starts_the_server_of_these_tools_from_anywhere(project: Path) -> None:
    done = praxis(project, "install", "cursor", "--json")
    assert done.returncode == 0, done.stderr
    (said,) = json.loads(done.stdout)
    entry = json.loads(Path(said["file"]).read_text())["mcpServers"]["praxis-mcp"]
    assert Path(entry["command"]).is_absolute()
    assert entry["args"][-2:] == ["--root", str(project)]
    words = {"command": entry["command"], "args": entry["args"], "cwd": project.parent, "env": environment(project)}
    async with Client(stdio_client(StdioServerParameters.model_validate(words)), read_timeout_seconds=LIMIT) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["hello"]


def served(project: Path, *words: str, cwd: Path | None = None, **variables: str) -> list[str]:
    done = praxis(project, "install", "windsurf", *words, "--dry-run", "--json", cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr
    added = [
        line[1:]
        for line in json.loads(done.stdout)[0]["diff"].splitlines()
        if line.startswith("+") and line[1:2] != "+"
    ]
    args = json.loads("".join(added))["mcpServers"]["praxis-mcp"]["args"]
    return args[args.index("serve") :]


def test_the_settings_and_directories_that_are_chosen_here_are_chosen_there(project: Path) -> None:
    (project / "other").mkdir()
    (project / "mine.yaml").write_text("tools: [other]\n")
    root = str(project)
    assert served(project, "--tools", "other") == ["serve", f"{root}/other"]
    assert served(project, "--tools", "other", "--root", ".") == ["serve", f"{root}/other", "--root", root]
    assert served(project, "--config", "mine.yaml") == ["serve", "--config", f"{root}/mine.yaml"]
    assert served(project, PRAXIS_CONFIG="mine.yaml") == ["serve", "--config", f"{root}/mine.yaml"]
    (project / "sub").mkdir()
    (project / ".git").mkdir()
    assert served(project, cwd=project / "sub") == ["serve", "--root", root]


def test_a_settings_file_that_was_approved_is_not_named_so_that_it_counts_by_its_approval_there_too(
    project: Path,
) -> None:
    (project / "praxis.yaml").write_text("tools: [elsewhere]\n")
    (project / "elsewhere").mkdir()
    assert praxis(project, "trust").returncode == 0
    assert served(project) == ["serve", "--root", str(project)]


def test_several_clients_are_changed_and_changed_back(project: Path) -> None:
    codex = project.parent / "home/.codex/config.toml"
    codex.parent.mkdir()
    codex.write_text('model = "fast" # mine\n')
    done = praxis(project, "install", *CLIENTS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("praxis-mcp is added to") == len(CLIENTS)
    assert "as it was: " in done.stdout
    listed = json.loads(praxis(project, "install", "--json").stdout)
    assert [item["installed"] for item in listed] == [True] * len(CLIENTS)
    again = praxis(project, "install", *CLIENTS)
    assert again.stdout.count("is as it should be in") == len(CLIENTS)
    gone = praxis(project, "uninstall", *CLIENTS)
    assert gone.stdout.count("praxis-mcp is removed from") == len(CLIENTS)
    assert codex.read_text().rstrip() == 'model = "fast" # mine'
    again = praxis(project, "uninstall", "codex", "--dry-run")
    assert (again.returncode, again.stdout) == (0, f"Codex: praxis-mcp is not in {codex}\n")
    listed = praxis(project, "uninstall")
    assert "installed" not in listed.stdout
    assert "praxis-mcp uninstall CLIENT" in listed.stderr


def test_a_dry_run_shows_the_difference_and_changes_nothing(project: Path) -> None:
    shown = praxis(project, "install", "cursor", "codex", "--dry-run")
    assert shown.returncode == 0
    assert "Cursor: praxis-mcp would be added to" in shown.stdout
    assert '  +args = ["serve", "--root"' in shown.stdout
    assert not list((project.parent / "home").iterdir())


def test_what_is_refused_for_one_client_is_done_for_none(project: Path) -> None:
    cursor = file_of(project, "cursor")
    cursor.parent.mkdir()
    cursor.write_text('{\n  "mcpServers": {"a" {}}\n}\n')
    refused = praxis(project, "install", "codex", "cursor")
    assert refused.returncode == 2
    assert f'{cursor}:2:22: a colon is missing after "a"; nothing was changed.' in refused.stderr
    assert not file_of(project, "codex").exists()
    assert "cannot be read" in praxis(project, "install").stdout


def test_a_server_at_a_url_is_named_with_the_variable_of_its_token(project: Path) -> None:
    url = "http://127.0.0.1:8000/mcp"
    done = praxis(project, "install", "cursor", "--url", url, "--token-variable", "MY_TOKEN", MY_TOKEN="t0k3n-value")
    assert done.returncode == 0, done.stderr
    entry = json.loads(file_of(project, "cursor").read_text())["mcpServers"]["praxis-mcp"]
    assert entry == {"url": url, "headers": {"Authorization": "Bearer ${env:MY_TOKEN}"}}
    words = ("install", "zed", "--url", url, "--token-variable", "MY_TOKEN")
    refused = praxis(project, *words, MY_TOKEN="t0k3n-value")
    assert refused.returncode == 2
    assert "--write-token" in refused.stderr
    unset = praxis(project, *words, "--write-token")
    assert "MY_TOKEN holds no token" in unset.stderr
    written = praxis(project, *words, "--write-token", "--json", MY_TOKEN="t0k3n-value")
    assert "t0k3n-value" not in written.stdout + written.stderr
    assert "Bearer t0k3n-value" in file_of(project, "zed").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("cursr",), '"cursr" (did you mean "cursor"?)'),
        (("cursor", "--name", "a b"), "is not a name that every client takes"),
        (("cursor", "--url", "127.0.0.1:8000"), "--url is not a valid address"),
        (("cursor", "--url", "http://me:secret@host/mcp"), "--url is not a valid address"),
        (("cursor", "--url", "http://[::1"), "--url is not a valid address"),
        (("cursor", "--url", "http://host:port/mcp"), "--url is not a valid address"),
        (("cursor", "--url", "http://host/mcp\n"), "--url is not a valid address"),
        (("cursor", "--url", "http://host/mcp", "--tools", "tools"), "Leave --url out, or the others"),
        (("cursor", "--url", "http://host/mcp", "--root", "."), "Leave --url out, or the others"),
        (("cursor", "--project", "sub"), "Add --scope project"),
        (("cursor", "--url", "http://host/mcp", "--token-variable", "a b"), "not the name of a variable"),
        (("cursor", "--url", "http://host/mcp", "--write-token"), "--write-token needs the token"),
        (("cursor", "--token-variable", "A"), "A token is for a server at a URL"),
        (("claude-desktop", "--url", "http://host/mcp"), "no servers at a URL"),
        (("windsurf", "--scope", "project"), "has no file for a project"),
    ],
)
def test_what_cannot_be_meant_is_refused(project: Path, words: tuple[str, ...], said: str) -> None:
    refused = praxis(project, "install", *words)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "secret" not in refused.stderr
    assert not list((project.parent / "home").iterdir())


def test_a_project_gets_files_of_its_own(project: Path) -> None:
    done = praxis(project, "install", "vscode", "claude-code", "--scope", "project", "--project", "sub")
    assert done.returncode == 0, done.stderr
    assert (project / "sub/.vscode/mcp.json").exists()
    assert (project / "sub/.mcp.json").exists()
    assert "name paths of this machine" in done.stderr


def test_completion_knows_the_clients(project: Path) -> None:
    script = {"_PRAXIS_MCP_COMPLETE": "complete_bash", "COMP_WORDS": "praxis-mcp install c", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['praxis-mcp']; from praxis_mcp.cli import main; main()"],
        env=environment(project, **script), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["claude-code", "claude-desktop", "cursor", "codex"]


def test_what_was_changed_before_a_file_that_cannot_be_written_is_said(project: Path) -> None:
    home = project.parent / "home"
    (home / ".codex").write_text("in place of the directory")
    refused = praxis(project, "install", "cursor", "codex", "--json")
    assert refused.returncode == 2
    assert "nothing was changed" in refused.stderr, "it cannot even be read"
    (home / ".codex").unlink()
    (home / ".codex").symlink_to("/proc/nowhere")
    refused = praxis(project, "install", "cursor", "codex", "--json")
    assert refused.returncode == 2
    assert "cannot be written" in refused.stderr
    assert "--dry-run shows" in refused.stderr
    assert [item["client"] for item in json.loads(refused.stdout)] == ["cursor"]
    assert file_of(project, "cursor").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_directory_whose_name_no_file_can_hold_is_refused(project: Path) -> None:
    tools = os.fsdecode(os.fsencode(project) + b"/t\xff")
    Path(tools).mkdir()
    refused = praxis(project, "install", "cursor", "codex", "--tools", tools)
    assert refused.returncode == 2
    assert "is not UTF-8" in refused.stderr
    assert not list((project.parent / "home").iterdir())
