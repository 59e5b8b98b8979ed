"""How a server over HTTP starts, or says why it does not; what it bounds; and TLS."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from praxis_mcp.errors import SettingsError
from praxis_mcp.serving.http.serve import check_exposure
from praxis_mcp.settings.http import HttpSettings
from praxis_mcp.settings.model import load_settings
from tests.kit.until import until
from tests.serving.clients import LIMIT, server_command, server_environment, text_of
from tests.serving.credentials import ALL, Issuer, auth_settings
from tests.serving.http_server import ACCEPT, http_client, initialize_body, modern_request, running_http

pytestmark = pytest.mark.anyio


def start(directory: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start a server that does not come up."""
    return subprocess.run(
        server_command(str(directory), *flags),
        env=server_environment(**environment),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_a_port_in_use_is_named_with_how_to_fix_it(sample_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = start(sample_directory, "--http", "--port", str(port))
    assert done.returncode == 2
    assert f"Port {port} of 127.0.0.1 cannot be listened on: Address already in use." in done.stderr
    assert "--port 0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_a_server_that_others_can_reach_needs_auth(sample_directory: Path, host: str) -> None:
    done = start(sample_directory, "--http", "--host", host)
    assert done.returncode == 2
    assert "anyone who does could call every tool" in done.stderr
    assert "praxis-mcp token new" in done.stderr


def test_tokens_or_a_proxy_that_authenticates_let_it_be_reached() -> None:
    known = {"sha256": "0" * 64}
    check_exposure(HttpSettings.model_validate({"host": "0.0.0.0", "auth": {"tokens": {"ci": known}}}), "0.0.0.0")
    check_exposure(HttpSettings(host="0.0.0.0", proxy_authenticates=True), "0.0.0.0")
    for address in ("127.0.0.1", "127.8.8.8", "::1"):
        check_exposure(HttpSettings(), address)
    with pytest.raises(SettingsError):
        check_exposure(HttpSettings(host="fe80::1%eth0"), "fe80::1%eth0")


def test_an_unknown_host_and_options_without_http_are_refused(sample_directory: Path) -> None:
    done = start(sample_directory, "--http", "--host", "no-such-host.invalid")
    assert done.returncode == 2
    assert "no-such-host.invalid cannot be listened on" in done.stderr
    done = start(sample_directory, "--port", "9000")
    assert done.returncode == 2
    assert "Add --http or --sse" in done.stderr


@pytest.mark.parametrize(
    "section",
    [
        {"tls_certificate": "/x.pem"},
        {"auth": {"oauth": {"issuer": "http://login.example.com", "resource": "https://a/mcp", "jwks_file": "k"}}},
        {"auth": {"oauth": {"issuer": "https://a", "resource": "https://a/mcp"}}},
        {
            "auth": {
                "oauth": {"issuer": "https://a", "resource": "https://a/m", "jwks_file": "k", "algorithms": ["HS256"]}
            }
        },
        {
            "auth": {
                "oauth": {"issuer": "https://a", "resource": "https://a/m", "jwks_file": "k", "algorithms": ["none"]}
            }
        },
        {"auth": {"tokens": {"ci": {"sha256": "praxis_the-token-itself"}}}},
        {"auth": {"tokens": {"ci": {"sha256": "0" * 64, "scopes": ["everything"]}}}},
        {"auth": {"tokens": {"ci": {"sha256": "0" * 64, "expires": "2027-01-01T00:00:00"}}}},
        {"allowed_hosts": ["https://tools.example.com"]},
        {"allowed_origins": ["tools.example.com"]},
    ],
)
def test_settings_that_would_be_unsafe_or_mean_nothing_are_refused(section: dict) -> None:
    with pytest.raises(SettingsError, match="http"):
        load_settings(flags={"http": section})


async def test_only_what_was_asked_for_is_mounted(sample_directory: Path) -> None:
    async with running_http(sample_directory, "--sse") as server, http_client() as client:
        assert (await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)).status_code == 404
        (told,) = (line for line in server.log if line.startswith("Listening on "))
        assert told.endswith("/sse")
    async with running_http(sample_directory, "--http") as server, http_client() as client:
        assert (await client.get(server.sse)).status_code == 404
        assert (await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)).status_code == 200


def make_certificate(directory: Path, password: bytes | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    return certificate_file, key_file


async def test_tools_are_called_over_tls_with_a_token(sample_directory: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    flags = ("--http", "--tls-cert", str(certificate), "--tls-key", str(key))
    auth = auth_settings(Issuer(), tmp_path)
    async with running_http(sample_directory, *flags, http={"auth": auth}) as server:
        assert server.base.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=str(certificate))
        async with (
            http_client(ALL, verify=trust) as http,
            Client(streamable_http_client(server.mcp, http_client=http), read_timeout_seconds=LIMIT) as client,
        ):
            assert text_of(await client.call_tool("echo", {"text": "secret"})) == "secret\n"


def test_a_certificate_that_cannot_be_used_is_named(sample_directory: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, foreign_key = make_certificate(other)
    for chosen in (foreign_key, tmp_path / "missing.pem", certificate):
        done = start(sample_directory, "--http", "--tls-cert", str(certificate), "--tls-key", str(chosen))
        assert done.returncode == 2, chosen
        assert str(chosen) in done.stderr
        assert "Traceback" not in done.stderr
    make_certificate(tmp_path, password=b"hidden")
    done = start(sample_directory, "--http", "--tls-cert", str(certificate), "--tls-key", str(key))
    assert done.returncode == 2
    assert "http.tls_key is encrypted" in done.stderr


async def test_a_client_that_sends_too_slowly_is_disconnected(sample_directory: Path) -> None:
    async with running_http(sample_directory, http={"read_timeout": "0.5"}) as server:
        port = int(server.base.rpartition(":")[2])
        head = f"POST /mcp HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
        for said in ("", "POST /mcp HT", head):
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                with anyio.fail_after(LIMIT):
                    if said:
                        await stream.send(said.encode())
                    with pytest.raises(anyio.EndOfStream):
                        await stream.receive()
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            with anyio.fail_after(LIMIT):
                await stream.send(f"{head}Content-Length: 100\r\n\r\n{{".encode())
                assert b" 408 " in b"".join([part async for part in stream])
        # A response that takes longer than that is not a slow client.
        async with Client(streamable_http_client(server.mcp), read_timeout_seconds=LIMIT) as client:
            assert not (await client.call_tool("silent", {})).is_error


async def test_streams_and_sessions_are_bounded(sample_directory: Path) -> None:
    bounds = {"max_streams": "2", "max_sessions": "1"}
    async with running_http(sample_directory, http=bounds) as server, http_client() as client:
        async with client.stream("GET", server.sse), client.stream("GET", server.sse):
            full = await client.get(server.sse)
            assert full.status_code == 503
            assert "max_streams" in full.text
            assert (await client.get(server.base + "/health")).status_code == 200

        async def has_room() -> bool:
            return (await client.head(server.sse)).status_code == 200

        await until(has_room)  # their places are free again
        opened = await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)
        assert opened.status_code == 200
        assert (await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)).status_code == 503
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        assert (await client.delete(server.mcp, headers=session)).status_code == 200
        assert (await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)).status_code == 200


async def test_connections_are_bounded(sample_directory: Path) -> None:
    async with (
        running_http(sample_directory, http={"max_connections": "3"}) as server,
        http_client() as client,
        client.stream("GET", server.sse),
        client.stream("GET", server.sse),
        client.stream("GET", server.sse) as third,
        http_client() as fourth,
    ):
        assert third.status_code == 200
        assert (await fourth.get(server.base + "/health")).status_code == 503, "nobody's request is broken off"


async def test_silent_connections_and_those_without_a_token_keep_no_caller_out(
    sample_directory: Path, tmp_path: Path
) -> None:
    bounds = {"max_connections": 8, "auth": auth_settings(Issuer(), tmp_path)}
    refused = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    async with running_http(sample_directory, http=bounds) as server, http_client(ALL) as caller:
        opened = await caller.post(server.mcp, json=initialize_body(), headers=ACCEPT)
        assert opened.status_code == 200
        async with AsyncExitStack() as open_ones:
            strangers = []
            for number in range(40):
                stream = await open_ones.enter_async_context(
                    await anyio.connect_tcp("127.0.0.1", int(server.base.rpartition(":")[2]))
                )
                strangers.append(stream)
                if number % 2:
                    with anyio.fail_after(LIMIT):
                        await stream.send(refused)
                        assert b" 401 " in await stream.receive()
            session = {**ACCEPT, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
            ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
            assert (await caller.post(server.mcp, json=ping, headers=session)).status_code == 200
            async with http_client(ALL) as another:
                answer = await another.post(server.mcp, json=initialize_body(), headers=ACCEPT)
                assert answer.status_code == 200
            with anyio.fail_after(LIMIT), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await strangers[0].receive()


@pytest.mark.parametrize("host", ["LOCALHOST", "LocalHost:80", "localhost"])
async def test_names_of_hosts_and_origins_have_no_case(sample_directory: Path, host: str) -> None:
    headers = {**ACCEPT, "Host": host, "Origin": "HTTP://LOCALHOST"}
    async with running_http(sample_directory, "--http") as server, http_client() as client:
        assert (await client.post(server.mcp, json=initialize_body(), headers=headers)).status_code == 200


async def test_requests_leave_nothing_behind_in_memory(sample_directory: Path) -> None:
    async with running_http(sample_directory, "--http", PRAXIS_LOG_LEVEL="ERROR") as server, http_client() as client:
        body, headers = modern_request("server/discover")

        async def ask(times: int) -> float:
            for _ in range(times):
                assert (await client.post(server.mcp, json=body, headers=headers)).status_code == 200
            pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

        async def is_ready() -> bool:
            return (await client.get(server.base + "/ready")).status_code == 200

        await until(is_ready)
        # What engines look after meanwhile, and load for it (an SDK: 12 MiB), ends: two rounds in a row leave next to
        # nothing. A server that collects no garbage grows by 0.7 MiB in each.
        with anyio.fail_after(4 * LIMIT):
            memory = [await ask(300)]
            while len(memory) < 30 and (len(memory) < 3 or memory[-1] - memory[-3] >= 0.7):
                memory.append(await ask(250))
        assert memory[-1] - memory[-3] < 0.7, memory
