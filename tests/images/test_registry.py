"""Images come out of registries verified, whole and once, whatever happens on the way."""

import base64
import json
import ssl
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from praxis_mcp.engines.host.sandbox_images import SandboxImages
from praxis_mcp.errors import ImageError
from praxis_mcp.images import registry as registry_module
from praxis_mcp.images.logins import Login, stored_login
from praxis_mcp.images.manifests import architecture, digest_of
from praxis_mcp.images.model import NamedImage, Reference
from praxis_mcp.images.registry import unreachable
from praxis_mcp.settings.model import Settings
from tests.images.registry_double import RegistryDouble, registry_double
from tests.images.tars import MadeImage, file, image, layer
from tests.kit.until import until

pytestmark = pytest.mark.anyio

LIMIT = 60.0


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RegistryDouble]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(registry_module, "FIRST_PAUSE", 0.01)
    with registry_double() as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[RegistryDouble]:
    """Another host than the registry."""
    with registry_double() as running:
        yield running


def images(tmp_path: Path, **values: object) -> SandboxImages:
    """An engine's images, with a store of their own and no Docker daemon."""
    engines = {"sandbox": {"store": tmp_path / "store"}, "docker": {"host": "unix:///nowhere/docker.sock"}}
    return SandboxImages(Settings.model_validate({"engines": engines, **values}))


async def ensure(tmp_path: Path, reference: str, told: list[str] | None = None, **values: object) -> NamedImage:
    with anyio.fail_after(LIMIT):
        return await images(tmp_path, **values).ensure(reference, told.append if told is not None else None)


def made(text: str = "hello") -> MadeImage:
    return image(layer(file("one", b"1" * 3000)), layer(file("hello", text.encode())))


def content(found: NamedImage) -> str:
    return (found.image.root / "hello").read_text()


async def test_an_image_is_pulled_once_and_named_by_its_digest(tmp_path: Path, registry: RegistryDouble) -> None:
    one = made()
    reference = registry.add("team/tool", "1", one)
    told: list[str] = []
    found = await ensure(tmp_path, reference, told)
    assert (content(found), found.pinned) == ("hello", f"{registry.host}/team/tool@{one.digest}")
    assert any(text.startswith(f"pulling {reference}") for text in told)
    registry.requests.clear()
    assert (await ensure(tmp_path, reference)).image == found.image
    assert (await ensure(tmp_path, found.pinned)).image == found.image
    assert registry.requests == []
    assert list((tmp_path / "store/downloads").iterdir()) == []


async def test_many_who_want_an_image_share_one_pull(tmp_path: Path, registry: RegistryDouble) -> None:
    reference = registry.add("tool", "1", made())
    shared = images(tmp_path)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(shared.ensure, reference)
    asked = [path for path, _ in registry.requests]
    assert len(asked) == len(set(asked))


async def test_images_that_share_a_layer_are_pulled_at_once_and_it_is_fetched_once(
    tmp_path: Path, registry: RegistryDouble
) -> None:
    shared, own = layer(file("hello", b"hello")), layer(file("own", b"x"))
    one, two = image(shared), image(shared, own)
    references = [registry.add("tool", "1", one), registry.add("tool", "2", two)]
    gate = registry.gates[f"/v2/tool/blobs/{digest_of(two.layers[1])}"] = threading.Event()
    digest, size = digest_of(one.layers[0]), len(one.layers[0])
    mine, another = images(tmp_path), images(tmp_path)
    download = mine.store.download(digest)
    found: list[NamedImage] = []

    async def slowly() -> None:
        found.append(await mine.ensure(references[1]))

    def is_kept() -> bool:
        with mine.store.lock_download(digest) as alone:
            return not alone and download.exists() and download.stat().st_size == size

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slowly)
            await until(is_kept, every=0.01)
            found.append(await another.ensure(references[0]))
            assert mine.store.collect_garbage() == ()
            gate.set()
    assert [content(item) for item in found] == ["hello", "hello"]
    assert [path for path, _ in registry.requests].count(f"/v2/tool/blobs/{digest}") == 1
    assert list((tmp_path / "store/downloads").iterdir()) == []


async def test_of_an_index_the_manifest_for_this_machine_is_taken(tmp_path: Path, registry: RegistryDouble) -> None:
    mine = made("for this machine")
    reference = registry.add("tool", "1", mine, {"sparc": made("for another"), architecture(): mine})
    assert content(await ensure(tmp_path, reference)) == "for this machine"
    with pytest.raises(ImageError, match="only linux/sparc"):
        await ensure(tmp_path, registry.add("other", "1", mine, {"sparc": made()}))


async def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path, registry: RegistryDouble) -> None:
    one = image(layer(file("hello", b"hello"), file("big", bytes(range(256)) * 4000)), compress=False)
    reference = registry.add("tool", "1", one)
    registry.cut_after = [1_000_000, 10_000, 0]
    registry.cut_after.insert(0, len(one.config))  # the configuration is fetched first, whole
    assert content(await ensure(tmp_path, reference)) == "hello"
    ranges = [asked for path, asked in registry.requests if digest_of(one.layers[0]) in path]
    assert ranges == [None, "bytes=1000000-", "bytes=1010000-", "bytes=1010000-"]


async def test_a_registry_without_ranges_is_read_from_the_beginning(tmp_path: Path, registry: RegistryDouble) -> None:
    one = made()
    reference = registry.add("tool", "1", one)
    registry.ranges = False
    registry.cut_after = [len(one.config), 50, 50]
    assert content(await ensure(tmp_path, reference)) == "hello"


async def test_a_pull_goes_on_with_what_an_earlier_one_left(tmp_path: Path, registry: RegistryDouble) -> None:
    one = made()
    reference = registry.add("tool", "1", one)
    part = images(tmp_path).store.download(digest_of(one.layers[0]))
    part.write_bytes(one.layers[0][:20])
    assert content(await ensure(tmp_path, reference)) == "hello"
    assert (f"/v2/tool/blobs/{digest_of(one.layers[0])}", "bytes=20-") in registry.requests


async def test_a_busy_registry_is_asked_again(tmp_path: Path, registry: RegistryDouble) -> None:
    reference = registry.add("tool", "1", made())
    registry.busy = 3
    assert content(await ensure(tmp_path, reference)) == "hello"
    registry.busy = 1000
    with pytest.raises(ImageError, match="503"):
        await ensure(tmp_path, registry.add("tool", "2", made("two")))


@pytest.mark.parametrize("part", ["layer", "config", "manifest"])
async def test_what_is_not_what_its_digest_says_is_refused(tmp_path: Path, registry: RegistryDouble, part: str) -> None:
    one, other = made(), made("other")
    reference = registry.add("tool", "1", one)
    if part == "manifest":
        registry.manifests[f"tool/manifests/{one.digest}"] = ("x", other.manifest)
        reference = f"{registry.host}/tool@{one.digest}"
    else:
        data = one.config if part == "config" else one.layers[1]
        registry.blobs[digest_of(data)] = bytes(len(data))
    with pytest.raises(ImageError, match="not what its digest says"):
        await ensure(tmp_path, reference)
    # The fixed one is fetched anew, not gone on with.
    registry.blobs |= one.blobs
    if part != "manifest":
        assert content(await ensure(tmp_path, reference)) == "hello"


async def test_a_registry_that_sends_more_than_it_says_is_cut_off(tmp_path: Path, registry: RegistryDouble) -> None:
    one = made()
    registry.add("tool", "1", one)
    registry.blobs[digest_of(one.layers[0])] = bytes(50_000_000)
    with pytest.raises(ImageError, match="sends more"):
        await ensure(tmp_path, f"{registry.host}/tool:1")


async def test_an_image_above_the_bound_is_not_even_fetched(tmp_path: Path, registry: RegistryDouble) -> None:
    one = made()
    store = {"sandbox": {"store": tmp_path / "store", "max_image_size": 100}}
    with pytest.raises(ImageError, match="larger than 100 bytes"):
        await ensure(tmp_path, registry.add("tool", "1", one), engines=store | {"docker": {"host": "unix:///no"}})
    assert not any(digest_of(data) in path for path, _ in registry.requests for data in one.layers)


async def test_what_the_registry_lacks_is_named_with_a_remedy(tmp_path: Path, registry: RegistryDouble) -> None:
    with pytest.raises(ImageError, match=r"has no 127\.0\.0\.1.*missing:1") as failure:
        await ensure(tmp_path, f"{registry.host}/missing:1")
    assert failure.value.remedy


async def test_pull_never_is_honoured(tmp_path: Path, registry: RegistryDouble) -> None:
    with pytest.raises(ImageError, match="pull: never") as failure:
        await ensure(tmp_path, registry.add("tool", "1", made()), pull="never")
    assert "praxis-mcp image import" in str(failure.value.remedy)
    assert registry.requests == []


async def test_a_pull_by_hand_brings_what_the_registry_has_now(tmp_path: Path, registry: RegistryDouble) -> None:
    reference = registry.add("tool", "1", made("old"))
    await ensure(tmp_path, reference)
    registry.add("tool", "1", made("new"))
    with anyio.fail_after(LIMIT):
        assert content(await images(tmp_path).pull(reference, lambda _: None)) == "new"
    assert content(await ensure(tmp_path, reference)) == "new"


# Logins


@pytest.mark.parametrize("basic", [False, True])
@pytest.mark.parametrize("way", ["docker login", "settings"])
async def test_a_private_image_is_pulled_with_a_login(
    tmp_path: Path, registry: RegistryDouble, monkeypatch: pytest.MonkeyPatch, way: str, basic: bool
) -> None:
    reference = registry.add("private/tool", "1", made())
    registry.login, registry.basic = ("me", "pass:word"), basic
    with pytest.raises(ImageError, match="does not let us in") as failure:
        await ensure(tmp_path, reference)
    assert f"docker login {registry.host}" in str(failure.value.remedy)
    engines: dict[str, object] = {"sandbox": {"store": tmp_path / "store"}, "docker": {"host": "unix:///nowhere"}}
    if way == "settings":
        monkeypatch.setenv("REGISTRY_PASSWORD", "pass:word")
        engines["registries"] = {registry.host: {"username": "me", "secret": "REGISTRY_PASSWORD"}}
    else:
        write_login(tmp_path, registry.host, "me:pass:word")
    assert content(await ensure(tmp_path, reference, engines=engines)) == "hello"


async def test_a_wrong_password_is_reported_and_not_shown(tmp_path: Path, registry: RegistryDouble) -> None:
    reference = registry.add("private/tool", "1", made())
    registry.login = ("me", "right")
    write_login(tmp_path, registry.host, "me:wrong-password")
    with pytest.raises(ImageError) as failure:
        await ensure(tmp_path, reference)
    assert "wrong-password" not in str(failure.value)


async def test_a_host_that_a_redirect_led_to_gets_no_login(
    tmp_path: Path, registry: RegistryDouble, elsewhere: RegistryDouble
) -> None:
    one = made()
    reference = registry.add("tool", "1", one)
    write_login(tmp_path, registry.host, "me:password")
    for data in one.layers:
        path = f"/v2/tool/blobs/{digest_of(data)}"
        registry.answers[path] = (307, {"Location": f"http://{elsewhere.host}/blob"}, b"")
    realm = f'Bearer realm="http://{elsewhere.host}/token",service="x"'
    elsewhere.answers["/blob"] = (401, {"WWW-Authenticate": realm}, b"")
    with pytest.raises(ImageError, match="does not let"):
        await ensure(tmp_path, reference)
    assert "/token" not in {path for path, _ in elsewhere.requests}


async def test_an_authorization_service_leads_no_login_elsewhere(
    tmp_path: Path, registry: RegistryDouble, elsewhere: RegistryDouble
) -> None:
    reference = registry.add("tool", "1", made())
    registry.login = ("me", "password")
    registry.answers["/token"] = (307, {"Location": f"http://{elsewhere.host}/token"}, b"")
    for login in ({"auth": base64.b64encode(b"me:password").decode()}, {"identitytoken": "a-token"}):
        write_auth(tmp_path, registry.host, login)
        with pytest.raises(ImageError, match="authorization service answered 307"):
            await ensure(tmp_path, reference)
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(bytes(2_000_000), "sends more than", id="endless"),
        pytest.param(b"[" * 100_000, "gave no token", id="nested"),
        pytest.param(b'{"token": "caf\\u00e9"}', "gave no token", id="not ASCII"),
        pytest.param(b'{"token": "a\\r\\nX-Other: b"}', "gave no token", id="two lines"),
        pytest.param(b'["token"]', "gave no token", id="a list"),
        pytest.param(b'{"token": "wrong", "expires_in": 1' + 400 * b"0" + b"}", "does not let", id="for ever"),
    ],
)
async def test_an_odd_token_is_refused(tmp_path: Path, registry: RegistryDouble, content: bytes, said: str) -> None:
    reference = registry.add("tool", "1", made())
    registry.login = ("me", "password")
    registry.answers["/token"] = (200, {}, content)
    with pytest.raises(ImageError, match=said):
        await ensure(tmp_path, reference)


async def test_a_redirect_is_not_read_to_its_end(tmp_path: Path, registry: RegistryDouble) -> None:
    one = made()
    reference = registry.add("tool", "1", one)
    registry.blobs["sha256:" + "0" * 64] = one.layers[0]
    moved = {"Location": f"/v2/tool/blobs/sha256:{'0' * 64}"}
    registry.answers[f"/v2/tool/blobs/{digest_of(one.layers[0])}"] = (307, moved, bytes(40_000_000))
    tracemalloc.start()
    try:
        assert content(await ensure(tmp_path, reference)) == "hello"
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


async def test_redirects_without_end_are_left(tmp_path: Path, registry: RegistryDouble) -> None:
    reference = registry.add("tool", "1", made())
    path = "/v2/tool/manifests/1"
    registry.answers[path] = (307, {"Location": path}, b"")
    with pytest.raises(ImageError, match="redirects more than"):
        await ensure(tmp_path, reference)


async def test_what_cannot_be_decompressed_is_an_error_of_the_registrys(
    tmp_path: Path, registry: RegistryDouble
) -> None:
    reference = registry.add("tool", "1", made())
    registry.answers["/v2/tool/manifests/1"] = (200, {"Content-Encoding": "gzip"}, b"not gzip at all")
    with pytest.raises(ImageError, match="cannot be decompressed"):
        await ensure(tmp_path, reference)


async def test_an_encrypted_registry_leads_to_no_unencrypted_host(
    tmp_path: Path, elsewhere: RegistryDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
               "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    one = made()
    with registry_double(tls) as registry:
        reference = registry.add("tool", "1", one)
        assert content(await ensure(tmp_path, reference)) == "hello"
        other = registry.add("tool", "2", made("other"))
        elsewhere.blobs |= registry.blobs
        for digest in registry.blobs:
            path = f"/v2/tool/blobs/{digest}"
            registry.answers[path] = (307, {"Location": f"http://{elsewhere.host}{path}"}, b"")
        with pytest.raises(ImageError, match="not encrypted"):
            await ensure(tmp_path, other)
    assert elsewhere.requests == []


def write_login(tmp_path: Path, host: str, login: str) -> None:
    write_auth(tmp_path, host, {"auth": base64.b64encode(login.encode()).decode()})


def write_auth(tmp_path: Path, host: str, auth: dict[str, str]) -> None:
    (tmp_path / "docker").mkdir(exist_ok=True)
    auths = {host: auth}
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": auths}))


def test_a_credential_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-double"
    helper.write_text(
        '#!/bin/sh\nread -r host\n[ "$host" = ghcr.io ] || { echo "not found"; exit 1; }\n'
        'echo \'{"Username": "me", "Secret": "from-the-keyring"}\'\n'
    )
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "double"}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert stored_login("ghcr.io") == Login("me", "from-the-keyring")
    assert stored_login("quay.io") is None
    assert "from-the-keyring" not in repr(stored_login("ghcr.io"))


def test_a_registry_out_of_reach_is_said_without_the_system_s_numbers_and_with_a_way_around_it() -> None:
    error = unreachable(Reference.parse("busybox:1.36"), OSError(-2, "Name or service not known"))
    assert (
        error.message
        == "busybox:1.36 cannot be pulled, because docker.io cannot be reached: Name or service not known."
    )
    assert "docker save busybox:1.36 -o FILE; praxis-mcp image import FILE" in (error.remedy or "")


def test_an_image_of_localhost_that_the_store_lacks_is_made_or_imported_not_looked_for_in_the_network() -> None:
    error = unreachable(Reference.parse("localhost/python"), ConnectionError("refused"))
    assert "is not in the store" in error.message
    assert "praxis-mcp image from-host localhost/python:latest" in str(error.remedy)
