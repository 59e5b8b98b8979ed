"""Files that the settings name are read again when they change, while a real server goes on."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.kit.until import until
from tests.serving.clients import LIMIT
from tests.serving.credentials import ALL, Issuer, auth_settings
from tests.serving.http.test_start import make_certificate
from tests.serving.http_server import ACCEPT, HttpServer, http_client, initialize_body, running_http

pytestmark = pytest.mark.anyio


def presented(server: HttpServer, name: str | None) -> str:
    """The certificate that a client is shown which asks for that name, or for none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = ("127.0.0.1", int(server.base.rpartition(":")[2]))
    with (
        socket.create_connection(address, timeout=LIMIT) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")


def replaced(file: Path, content: bytes) -> None:
    """Put another file in its place, as those do who renew certificates."""
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)


async def logged(server: HttpServer, text: str) -> None:
    await until(lambda: any(text in line for line in server.log), within=LIMIT)


@pytest.mark.parametrize("name", [None, "localhost"], ids=["no name", "by name"])
async def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(
    sample_directory: Path, tmp_path: Path, name: str | None
) -> None:
    certificate, key = make_certificate(tmp_path)
    old = certificate.read_text()
    (tmp_path / "renewed").mkdir()
    renewed, renewed_key = make_certificate(tmp_path / "renewed")
    flags = ("--http", "--tls-cert", str(certificate), "--tls-key", str(key))
    auth = auth_settings(Issuer(), tmp_path)
    async with (
        running_http(sample_directory, *flags, http={"auth": auth, "keep_alive": 600}) as server,
        # It trusts the old one only: whatever it gets later comes over the connection that it has.
        http_client(ALL, verify=ssl.create_default_context(cafile=str(certificate))) as client,
    ):
        assert (await client.get(server.base + "/health")).status_code == 200
        assert await anyio.to_thread.run_sync(presented, server, name) == old

        replaced(certificate, renewed.read_bytes())  # its key is still to come
        await logged(server, "the certificate before stays in use")
        assert await anyio.to_thread.run_sync(presented, server, name) == old

        replaced(key, renewed_key.read_bytes())
        await logged(server, "has changed, and is in use now")
        assert await anyio.to_thread.run_sync(presented, server, name) == renewed.read_text()
        assert (await client.get(server.base + "/health")).status_code == 200


async def test_a_changed_file_of_keys_is_read_again_and_one_that_holds_none_is_not(
    sample_directory: Path, tmp_path: Path
) -> None:
    old, new = Issuer("one"), Issuer("two")
    auth = auth_settings(old, tmp_path)
    file = tmp_path / "jwks.json"

    async def status(issuer: Issuer) -> int:
        async with http_client(issuer.token()) as client:
            return (await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)).status_code

    async def until_read(text: str) -> None:
        async def is_read() -> bool:
            await status(old)  # it looks when a token comes
            return any(text in line for line in server.log)

        await until(is_read, within=LIMIT)

    async with running_http(sample_directory, "--http", http={"auth": auth}) as server:
        assert (await status(old), await status(new)) == (200, 401)
        replaced(file, b'{"keys": []}')
        await until_read("the keys before stay in use")
        assert (await status(old), await status(new)) == (200, 401)
        replaced(file, json.dumps({"keys": [new.public_jwk]}).encode())
        await until_read("its keys are in use now")
        assert (await status(old), await status(new)) == (401, 200)
