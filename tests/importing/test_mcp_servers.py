"""Servers of MCP clients become upstreams, and no secret of theirs is written."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.errors import ArgumentError
from praxis_mcp.importing.mcp_servers import ImportedServers, import_servers
from praxis_mcp.importing.yaml_text import with_members
from praxis_mcp.settings.sections import UpstreamSettings
from tests.kit.command_line import praxis

GITHUB = {
    "command": "docker",
    "args": ["run", "-i", "--rm", "-e", "GITHUB_TOKEN", "ghcr.io/github/github-mcp-server"],
    "env": {"GITHUB_TOKEN": "ghp_0123456789abcdefghij"},
}


def imported(**servers: Any) -> ImportedServers:
    """What becomes of servers in the commonest form."""
    return import_servers({"mcpServers": servers})


def test_a_command_with_variables_becomes_an_upstream_whose_secrets_are_named() -> None:
    found = imported(github=GITHUB)
    assert found.upstreams == {
        "github": {
            "address": ["docker", *GITHUB["args"]],
            "env": {"GITHUB_TOKEN": {"secret": "GITHUB_TOKEN"}},
        }
    }
    assert list(found.secrets) == ["GITHUB_TOKEN"]
    assert not found.notes


def test_values_that_are_plainly_harmless_stay_readable() -> None:
    env = {"LOG_LEVEL": "debug", "PORT": 3000, "DEBUG": True, "BASE_URL": "https://x.example/api", "DIR": "/srv/data"}
    found = imported(a={"command": "a", "env": env})
    assert found.upstreams["a"]["env"] == {
        "LOG_LEVEL": "debug", "PORT": "3000", "DEBUG": "true", "BASE_URL": "https://x.example/api", "DIR": "/srv/data",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", "abc"),
        ("DATABASE_URL", "postgresql://me:hunter2@db/x"),
        ("DATABASE_URL", "postgresql://me:pa ss/word@db/x"),
        ("WHATEVER", "sk-proj-abcdefgh"),
        ("OPTIONS", "3f2504e04f8941d39a0c0305e82c3301"),
        ("ENDPOINT", "https://x.example/?api_key=abc"),
        ("TEXT", "is it {this}?"),
    ],
)
def test_a_value_that_may_be_a_secret_is_not_written(name: str, value: str) -> None:
    found = imported(a={"command": "a", "env": {name: value}})
    assert found.upstreams["a"]["env"] == {name: {"secret": name}}
    assert value not in json.dumps([found.upstreams, found.secrets, found.notes])


@pytest.mark.parametrize(
    "reference", ["${TOKEN_OF_X}", "${env:TOKEN_OF_X}", "$TOKEN_OF_X", "{env:TOKEN_OF_X}", "${TOKEN_OF_X:-no}"]
)
def test_a_variable_that_a_client_names_is_the_secret_of_that_name(reference: str) -> None:
    found = imported(
        a={"command": "a", "env": {"X": reference}},
        b={"url": "https://b.example/mcp", "headers": {"Authorization": f"Bearer {reference}"}},
    )
    assert found.upstreams["a"]["env"] == {"X": {"secret": "TOKEN_OF_X"}}
    assert found.upstreams["b"]["auth_token"] == {"secret": "TOKEN_OF_X"}


def test_equal_names_of_different_values_are_different_secrets() -> None:
    found = imported(
        a={"command": "a", "env": {"API_KEY": "first"}},
        b={"command": "b", "env": {"API_KEY": "second"}},
        c={"command": "c", "env": {"API_KEY": "${API_KEY}"}},
        d={"command": "d", "env": {"API_KEY": "first"}},
    )
    names = {name: upstream["env"]["API_KEY"]["secret"] for name, upstream in found.upstreams.items()}
    assert names["a"] == names["d"]
    assert len(set(names.values())) == 3
    assert set(names.values()) == set(found.secrets)


def test_a_secret_in_a_command_becomes_a_variable_that_the_command_still_gets(tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text("import sys; print(sys.argv[1:])")
    words = [str(script), "--api-key", "hello there", "--token=${TOKEN}", "postgres://u:p'w@h/db", "a b", "--n=3"]
    upstream = imported(a={"command": "python3", "args": words}).upstreams["a"]
    assert "hello" not in json.dumps(upstream)
    assert "p'w" not in json.dumps(upstream)
    values = {"A_API_KEY": "hello there", "TOKEN": "t $x", "A_ARGUMENT_5": "postgres://u:p'w@h/db"}
    assert {name: value["secret"] for name, value in upstream["env"].items()} == {name: name for name in values}
    shown = subprocess.run(
        upstream["address"], env={**os.environ, **values}, capture_output=True, text=True, timeout=60
    )
    assert shown.stdout.strip() == str(
        ["--api-key", "hello there", "--token=t $x", "postgres://u:p'w@h/db", "a b", "--n=3"]
    )


def test_a_server_at_a_url_keeps_its_transport_and_its_headers() -> None:
    found = imported(
        new={"type": "http", "url": "https://n.example/mcp", "headers": {"X-Key": "k", "Accept": "a/b"}},
        old={"url": "https://o.example/sse"},
        odd={"type": "sse", "url": "https://s.example/events"},
    )
    assert found.upstreams["new"] == {
        "address": "https://n.example/mcp",
        "headers": {"X-Key": {"secret": "NEW_X_KEY"}, "Accept": "a/b"},
    }
    assert found.upstreams["old"] == {"address": "https://o.example/sse"}
    assert found.upstreams["odd"] == {"address": "https://s.example/events", "transport": "sse"}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"command": "a", "disabled": True}, "disabled"),
        ({"command": "uvx", "args": ["praxis-mcp", "serve"]}, "praxis-mcp itself"),
        ({"url": "https://x.example/mcp?token=abc"}, "secret"),
        ({"url": "https://${HOST}/mcp"}, "placeholder"),
        ({"url": "ws://x.example", "type": "ws"}, "transport"),
        ({"url": "ftp://x.example"}, "http"),
        ({"command": "a", "args": ["${userHome}/x"]}, None),
        ({"command": "a", "args": ["${config:x.y}"]}, "placeholder"),
        ({"command": "a", "args": {"b": 1}}, "args"),
        ({"command": "a", "env": {"X": {"y": 1}}}, "env"),
        ({"type": "stdio"}, "neither"),
        ("npx", "mapping"),
    ],
)
def test_a_server_that_cannot_be_an_upstream_is_left_out_with_the_reason(entry: Any, reason: str | None) -> None:
    found = imported(a=entry, b={"command": "b"})
    assert "b" in found.upstreams
    if reason is not None:
        assert list(found.upstreams) == ["b"]
        (note,) = found.notes
        assert note.startswith("a is left out: ")
        assert reason in note


def test_what_has_no_place_in_the_settings_is_named() -> None:
    found = imported(a={"command": "a", "cwd": "/x", "autoApprove": ["y"], "novelty": 1, "description": "d"})
    assert [note.split(" is not")[0] for note in found.notes] == ["a: cwd", "a: autoApprove", "a: novelty"]


@pytest.mark.parametrize(
    "data",
    [
        {"servers": {"a": {"type": "stdio", "command": "x", "args": ["y"]}}, "inputs": []},
        {"mcp": {"servers": {"a": {"command": "x", "args": ["y"]}}}},
        {"context_servers": {"a": {"source": "custom", "command": "x", "args": ["y"]}}},
        {"context_servers": {"a": {"command": {"path": "x", "args": ["y"]}}}},
        {"mcp_servers": {"a": {"command": "x", "args": ["y"], "startup_timeout_sec": 5}}},
        {"mcp": {"a": {"type": "local", "command": ["x", "y"], "enabled": True}}},
        {"a": {"command": "x", "args": ["y"]}},
    ],
    ids=["vscode", "vscode settings", "zed", "zed older", "codex", "opencode", "bare"],
)
def test_each_client_s_form_is_understood(data: dict[str, Any]) -> None:
    found = import_servers(data)
    assert found.upstreams == {"a": {"address": ["x", "y"]}}
    assert not found.notes


def test_inputs_of_vs_code_are_secrets_with_the_question_that_was_meant() -> None:
    found = import_servers(
        {
            "inputs": [
                {"type": "promptString", "id": "perplexity-key", "description": "Perplexity API key", "password": True}
            ],
            "servers": {"a": {"command": "x", "env": {"PERPLEXITY_API_KEY": "${input:perplexity-key}"}}},
        }
    )
    assert found.upstreams["a"]["env"] == {"PERPLEXITY_API_KEY": {"secret": "PERPLEXITY_KEY"}}
    assert "Perplexity API key" in found.secrets["PERPLEXITY_KEY"]


def test_names_are_made_valid_and_different_and_no_prefix_begins_another() -> None:
    entry = {"command": "x"}
    found = imported(
        **{"my server!": entry, "my-server": entry, "git": entry, "git_hub": entry, "x" * 50: entry, "日本": entry}
    )
    names = list(found.upstreams)
    assert len(names) == 6
    prefixes = [f"{name}_" for name in names]
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and a.startswith(b)]


def test_a_file_without_servers_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no MCP servers"):
        import_servers({"editor": {"tabs": 2}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        "upstreams: {}  # none\nlog_level: INFO\n",
        "upstreams:\nlog_level: INFO",
        "root: .\nupstreams:\n    # mine\n    b:\n        address: [y]  # kept\nlog_level: INFO\n",
        "---\nroot: .\n",
    ],
)
def test_upstreams_are_added_to_a_settings_file_that_keeps_its_comments(text: str) -> None:
    members = {"a": {"address": ["x", "y"], "env": {"K": {"secret": "K"}}}}
    written = with_members(text, "upstreams", members, "praxis.yaml")
    before = yaml.safe_load(text) or {}
    assert yaml.safe_load(written) == {**before, "upstreams": {**(before.get("upstreams") or {}), **members}}
    for comment in [line.partition("#")[2] for line in text.splitlines() if "#" in line]:
        assert f"#{comment}" in written


@pytest.mark.parametrize(
    "text",
    [
        "{log_level: INFO}",
        "upstreams: {b: {address: y}}",
        "upstreams: &a\n  b: {}\nx: *a\n",
        "[1]",
        "a: [",
        "upstreams: 3",
    ],
)
def test_a_settings_file_that_cannot_be_added_to_safely_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="left as it is"):
        with_members(text, "upstreams", {"a": {"address": "x"}}, "praxis.yaml")


def test_the_command_adds_upstreams_to_the_settings_and_says_what_has_to_be_set(tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text("// mine\n" + json.dumps({"mcpServers": {"github": GITHUB}}))
    (tmp_path / "praxis.yaml").write_text("# settings\nlog_level: INFO\n")
    done = praxis("import", "mcp-json", "mcp.json", "--into", "praxis.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "added to praxis.yaml: github" in done.stdout
    assert "GITHUB_TOKEN" in done.stderr
    written = (tmp_path / "praxis.yaml").read_text()
    assert written.startswith("# settings\nlog_level: INFO\n")
    assert "ghp_" not in written + done.stdout + done.stderr
    for upstream in yaml.safe_load(written)["upstreams"].values():
        UpstreamSettings.model_validate(upstream)
    again = praxis("import", "mcp-json", "mcp.json", "--into", "praxis.yaml", cwd=tmp_path)
    assert again.returncode == 1
    assert "github is left out: praxis.yaml has an upstream of that name" in again.stderr
    assert (tmp_path / "praxis.yaml").read_text() == written


def test_the_command_prints_settings_that_can_be_read_and_takes_toml_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[mcp_servers.a]\ncommand = "x"\nenv_vars = ["A_KEY"]\ntool_timeout_sec = 30\nenabled_tools = ["q"]\n'
        '[mcp_servers.b]\nurl = "https://b.example/mcp"\nbearer_token_env_var = "B_TOKEN"\n'
    )
    done = praxis("import", "mcp-json", "config.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["upstreams"] == {
        "a": {"address": ["x"], "env": {"A_KEY": {"secret": "A_KEY"}}, "include": ["q"], "timeout": 30},
        "b": {"address": "https://b.example/mcp", "auth_token": {"secret": "B_TOKEN"}},
    }
    piped = praxis(
        "import", "mcp-json", "-", "--json", cwd=tmp_path, stdin=json.dumps({"mcpServers": {"c": {"command": "z"}}})
    )
    assert json.loads(piped.stdout)["upstreams"] == {"c": {"address": ["z"]}}


def test_a_client_s_own_file_is_found_by_the_client_s_name(tmp_path: Path) -> None:
    (tmp_path / ".cursor").mkdir()
    (tmp_path / ".cursor" / "mcp.json").write_text(json.dumps({"mcpServers": {"c": {"command": "z"}}}))
    done = praxis("import", "mcp-json", "cursor", cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)})
    assert yaml.safe_load(done.stdout) == {"upstreams": {"c": {"address": ["z"]}}}


def test_a_client_that_is_not_known_is_answered_with_those_that_are(tmp_path: Path) -> None:
    done = praxis("import", "mcp-json", "claude-dsktop", cwd=tmp_path)
    assert done.returncode == 2
    assert "claude-desktop" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "mcp.json:1:"), ("[1]", "mcp.json:1:"), ("{" * 500, "mcp.json"), ("\xff", "no"), ("{}", "no MCP servers")],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "mcp.json").write_bytes(content.encode("latin-1"))
    done = praxis("import", "mcp-json", "mcp.json", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
