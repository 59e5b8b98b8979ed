"""Keys of an authorization server: fetched when needed, seldom, from one place only; and gone when it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import pytest

from praxis_mcp.errors import SettingsError
from praxis_mcp.serving.http import jwt_tokens
from praxis_mcp.serving.http.jwt_tokens import KeySet, KeysUnavailable, read_keys
from praxis_mcp.settings.http import OAuthResource
from tests.serving.clients import LIMIT
from tests.serving.credentials import ISSUER, RESOURCE, Issuer

pytestmark = pytest.mark.anyio


class KeyServer:
    """Serves what it is told to, and counts how often it is asked."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 200, b"", 0
        place = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                place.asked += 1
                self.send_response(place.status)
                if place.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(place.body)))
                self.end_headers()
                self.wfile.write(place.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"

    def serve(self, *issuers: Issuer) -> None:
        self.status, self.body = 200, json.dumps({"keys": [issuer.public_jwk for issuer in issuers]}).encode()


@pytest.fixture
def place() -> Iterator[KeyServer]:
    place = KeyServer()
    thread = threading.Thread(target=place.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield place
    place.server.shutdown()
    place.server.server_close()
    thread.join()


def keys_at(url: str) -> KeySet:
    return KeySet(OAuthResource(issuer=ISSUER, resource=RESOURCE, jwks_url=url))


async def test_many_tokens_at_once_cost_one_fetch_and_unknown_keys_no_more(place: KeyServer) -> None:
    place.serve(Issuer("one"))
    keys = keys_at(place.url)
    found: list[Any] = []

    async def look(key_id: str) -> None:
        found.append(await keys.find(key_id))

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(look, "one" if number % 2 else f"made up {number}")
    assert sum(1 for key in found if key is not None) == 10
    assert place.asked == 1


async def test_a_rotated_key_is_found_and_the_old_one_is_gone(
    place: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt_tokens, "FETCH_PAUSE", 0.0)
    place.serve(Issuer("old"))
    keys = keys_at(place.url)
    assert await keys.find("old")
    place.serve(Issuer("new"))
    assert await keys.find("new")
    assert await keys.find("old") is None


async def test_known_keys_outlast_an_outage_and_nothing_is_known_without_any(
    place: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt_tokens, "FETCH_PAUSE", 0.0)
    place.status = 500
    keys = keys_at(place.url)
    with pytest.raises(KeysUnavailable):
        await keys.find("one")
    place.serve(Issuer("one"))
    assert await keys.find("one")
    place.status = 500
    monkeypatch.setattr(jwt_tokens, "FRESH", -1.0)
    assert await keys.find("one")
    monkeypatch.setattr(jwt_tokens, "STALE", -1.0)
    with pytest.raises(KeysUnavailable):
        await keys.find("one")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (302, b""),
        (200, b"x" * (jwt_tokens.MAX_KEY_SET + 1)),
        (200, b"not json"),
        (200, b'{"keys": []}'),
        (200, b'{"keys": [{"kty": "oct", "kid": "one", "k": "c2VjcmV0"}]}'),
        (200, b"[]"),
    ],
    ids=["redirect", "too large", "no JSON", "none", "secrets only", "a list"],
)
async def test_an_answer_that_is_not_a_key_set_gives_no_keys(place: KeyServer, status: int, body: bytes) -> None:
    place.status, place.body = status, body
    with anyio.fail_after(LIMIT), pytest.raises(KeysUnavailable):
        await keys_at(place.url).find("one")
    assert place.asked == 1


async def test_a_token_without_a_key_id_fits_the_only_key(place: KeyServer) -> None:
    place.serve(Issuer("one"))
    assert await keys_at(place.url).find(None)
    place.serve(Issuer("one"), Issuer("two"))
    assert await keys_at(place.url).find(None) is None


async def test_a_file_of_keys_is_read_or_named_in_the_error(tmp_path) -> None:
    file = tmp_path / "jwks.json"
    settings = OAuthResource(issuer=ISSUER, resource=RESOURCE, jwks_file=file)
    with pytest.raises(SettingsError, match=r"jwks\.json"):
        await KeySet(settings).read_file()
    file.write_text('{"keys": []}')
    with pytest.raises(SettingsError, match="no public key"):
        await KeySet(settings).read_file()
    file.write_text(json.dumps({"keys": [Issuer("one").public_jwk]}))
    keys = KeySet(settings)
    await keys.read_file()
    assert await keys.find("one")


def test_keys_for_encryption_are_left_out() -> None:
    encryption = {**Issuer("one").public_jwk, "use": "enc"}
    keys = read_keys(json.dumps({"keys": [encryption, Issuer("two").public_jwk]}).encode())
    assert [key["kid"] for key in keys] == ["two"]
