"""The way to a server on a network, as configs/production-http.yaml tells it: make a token, name its hash, call."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from praxis_mcp.serving.access import hash_token
from praxis_mcp.settings.http import AuthSettings
from tests.serving.clients import LIMIT
from tests.serving.http.test_start import make_certificate
from tests.serving.http_server import ACCEPT, http_client, initialize_body, running_http

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "production-http.yaml"


def token_new(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "praxis_mcp", "token", "new", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_a_new_token_is_printed_alone_and_its_hash_is_ready_for_the_settings() -> None:
    done = token_new("--name", "ci", "--tool", "git_*", "--tool", "json_?", "--scope", "metrics:read", "--days", "9")
    assert done.returncode == 0, done.stderr
    token = done.stdout.strip()
    assert token.startswith("praxis_")
    assert len(token) >= 50
    assert token not in done.stderr
    assert "Authorization: Bearer TOKEN" in done.stderr
    settings = yaml.safe_load(done.stderr.partition("(--config):\n")[2])
    known = AuthSettings.model_validate(settings["http"]["auth"]).tokens["ci"]
    assert known.sha256 == hash_token(token)
    assert known.scopes == ("tools:git_*", "tools:json_?", "metrics:read")
    assert known.expires is not None
    assert token_new("--name", "ci").stdout.strip() != token


def test_a_token_takes_the_earlier_spelling_of_its_tools() -> None:
    made = json.loads(token_new("--name", "ci", "--tools", "git_*", "--tool", "json_*", "--json").stdout)
    assert made["settings"]["http"]["auth"]["tokens"]["ci"]["scopes"] == ["tools:git_*", "tools:json_*"]


@pytest.mark.parametrize(
    "words", [("--name", "c i"), ("--name", "ci", "--scope", "all"), ("--name", "ci", "--tool", "a b")]
)
def test_a_token_that_no_settings_would_take_is_not_made(words: tuple[str, ...]) -> None:
    done = token_new(*words)
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.anyio
async def test_the_production_configuration_serves_each_token_its_tools_over_tls(tmp_path: Path) -> None:
    made = json.loads(token_new("--name", "ci", "--tool", "git_*", "--tool", "json_*", "--json").stdout)
    tokens = made["settings"]["http"]["auth"]["tokens"]
    certificate, key = make_certificate(tmp_path)
    flags = ("--http", "--config", str(CONFIG), "--host", "127.0.0.1")
    async with running_http(
        ROOT / "tools",
        *(*flags, "--tls-cert", str(certificate), "--tls-key", str(key)),
        PRAXIS_HTTP__AUTH__TOKENS=json.dumps(tokens),
    ) as server:
        trust = ssl.create_default_context(cafile=str(certificate))
        async with (
            http_client(made["token"], verify=trust) as http,
            Client(streamable_http_client(server.mcp, http_client=http), read_timeout_seconds=LIMIT) as client,
        ):
            names = {tool.name for tool in (await client.list_tools()).tools}
        assert names
        assert all(name.startswith(("git_", "json_")) for name in names)
        async with http_client(verify=trust) as nobody:
            refused = await nobody.post(server.mcp, json=initialize_body(), headers=ACCEPT)
            assert refused.status_code == 401
            assert "https://tools.example.com/.well-known/" in refused.headers["www-authenticate"]
            named = {**ACCEPT, "Host": "tools.internal.example.com:8443"}
            assert (await nobody.post(server.mcp, json=initialize_body(), headers=named)).status_code == 401
