"""`praxis-mcp lock --sign`, and servers that run only what a signed lock has."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from praxis_mcp.execution.locking.signing import PublicKey
from tests.images.registry_double import registry_double
from tests.images.tars import file, image, layer
from tests.kit import command_line

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PASSPHRASE = "a long passphrase"


def write_key(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: str = ""
) -> None:
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, pkcs8, encryption))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """One tool, and two pairs of keys."""
    here = tmp_path / "tools" / "greet"
    here.mkdir(parents=True)
    command = '[/bin/sh, "{contract_dir}/greet.sh"]'
    (here / "contract.yaml").write_text(f"name: greet\nengine: local\nnetwork: host\ncommand: {command}\n")
    (here / "greet.sh").write_text("echo hello\n")
    write_key(tmp_path, "ours", ec.generate_private_key(ec.SECP256R1()))
    write_key(tmp_path, "theirs", ec.generate_private_key(ec.SECP256R1()))
    return tmp_path


@pytest.fixture
def praxis(project: Path) -> Run:
    env = {**os.environ, "XDG_CONFIG_HOME": str(project / "config")}
    return lambda *given: command_line.praxis(*given, cwd=project, env=env)


def settings_of(project: Path, text: str = "locked: true\nlock_key: ours.pub\n") -> tuple[str, str]:
    (project / "signed.yaml").write_text(text)
    return ("--config", "signed.yaml")


def test_a_signed_lock_counts_and_one_that_is_changed_unsigned_or_signed_by_others_does_not(
    praxis: Run, project: Path
) -> None:
    config = settings_of(project)
    signed = praxis("lock", "--sign", "ours.key")
    assert (signed.returncode, signed.stdout) == (0, "greet is not locked.\n"), signed.stderr
    lock, bundle = project / "praxis.lock", project / "praxis.lock.sigstore.json"
    assert f"Signed: {bundle}" in signed.stderr
    assert praxis("lock", "--check", "--key", "ours.pub").returncode == 0
    assert praxis("call", "greet", *config).stdout == "hello\n"

    text, signature = lock.read_text(), bundle.read_text()
    (project / "tools" / "greet" / "greet.sh").write_text("echo evil\n")
    praxis("lock", "--sign", "theirs.key")
    theirs = bundle.read_text()
    other_lock = lock.read_text()
    for lock_now, signature_now, why in (
        (other_lock, theirs, "is not signed with the key ours.pub"),
        (other_lock, signature, "has changed since it was signed"),
        (f"{text}# more\n", signature, "has changed since it was signed"),
        (text, theirs, "has changed since it was signed"),
        (text, "{", "is not a sigstore bundle of a file"),
        (text, "[" * 100_000, "is not a sigstore bundle of a file"),
        (text, signature.replace("messageSignature", "dsseEnvelope"), "is not a sigstore bundle of a file"),
        (text, json.dumps({**json.loads(signature), "mediaType": 1}), "is not a sigstore bundle of a file"),
        (text, None, "is not signed: there is no praxis.lock.sigstore.json"),
    ):
        lock.write_text(lock_now)
        bundle.unlink(missing_ok=True)
        if signature_now is not None:
            bundle.write_text(signature_now)
        for given in (("call", "greet", *config), ("lock", "--check", "--key", "ours.pub")):
            refused = praxis(*given)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert why in refused.stderr


def test_what_cosign_has_signed_is_signed() -> None:
    """Made by cosign 3.1.3, with the command of docs/lock.md; that it takes ours was tried by hand."""
    folder = Path(__file__).parent / "signed_by_cosign"
    lock, key = folder / "praxis.lock", PublicKey.read(folder / "cosign.pub")
    assert key.why_unsigned(lock.read_bytes(), lock) is None
    assert key.why_unsigned(lock.read_bytes() + b"x", lock) == "has changed since it was signed"


def test_a_server_does_not_start_with_a_lock_that_is_not_signed(praxis: Run, project: Path) -> None:
    assert praxis("lock", "--sign", "theirs.key").returncode == 0
    for given in (("serve", "--lock-key", "ours.pub"), ("serve", "--http", "--port", "0", "--lock-key", "ours.pub")):
        refused = praxis(*given)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "is not signed with the key ours.pub" in refused.stderr
    started = praxis("serve", "--lock-key", "theirs.pub")
    assert started.returncode == 0, "its input has ended"
    assert f"only what {project / 'praxis.lock'} holds is run, signed with {project / 'theirs.pub'}" in started.stderr


def test_what_is_not_signed_is_refused_before_it_is_parsed(praxis: Run, project: Path) -> None:
    assert praxis("lock", "--sign", "ours.key").returncode == 0
    (project / "praxis.lock").write_text("{" * 100_000)
    refused = praxis("lock", "--check", "--key", "ours.pub")
    assert refused.returncode == 2
    assert "has changed since it was signed" in refused.stderr


def test_a_key_in_the_settings_without_a_lock_is_refused_and_not_ignored(praxis: Run, project: Path) -> None:
    refused = praxis("call", "greet", *settings_of(project, "lock_key: ours.pub\n"))
    assert refused.returncode == 2
    assert "lock_key goes with locked: true" in refused.stderr
    assert praxis("call", "greet", *settings_of(project, "lock_key: ours.pub\nlocked: false\n")).returncode == 0


def test_a_signature_that_holds_stays_and_one_that_a_new_lock_left_behind_is_named(praxis: Run, project: Path) -> None:
    bundle = project / "praxis.lock.sigstore.json"
    assert praxis("lock", "--sign", "ours.key").returncode == 0
    before = bundle.read_bytes()
    again = praxis("lock", "--sign", "ours.key")
    assert (again.returncode, bundle.read_bytes()) == (0, before)
    assert "Signed" not in again.stderr
    (project / "tools" / "greet" / "greet.sh").write_text("echo other\n")
    unsigned = praxis("lock")
    assert unsigned.returncode == 0
    assert "Its signature is of what it was" in unsigned.stderr


def test_digests_that_nobody_had_signed_are_named_when_they_are_signed(praxis: Run, project: Path) -> None:
    with registry_double() as registry:
        first = image(layer(file("a", b"first")))
        name = registry.add("tool", "1", first)
        (project / "tools" / "greet" / "contract.yaml").write_text(f"name: greet\nimage: {name}\ncommand: [/a]\n")
        new = praxis("lock", "--sign", "ours.key")
        assert new.returncode == 0
        assert "signed as they stood there" not in new.stderr
        lock = project / "praxis.lock"
        lock.write_text(lock.read_text().replace(first.digest, f"sha256:{'0' * 64}"))
        assert "signed as they stood there" in praxis("lock", "--sign", "ours.key").stderr
        upgraded = praxis("lock", "--upgrade", "--sign", "ours.key")
        assert "signed as they stood there" not in upgraded.stderr
        assert first.digest in lock.read_text()
        assert praxis("lock", "--check", "--key", "ours.pub").returncode == 0


def test_a_key_may_have_a_passphrase_that_a_secret_of_the_settings_gives(praxis: Run, project: Path) -> None:
    write_key(project, "secret", ec.generate_private_key(ec.SECP256R1()), PASSPHRASE)
    (project / "passphrase").write_text(f"{PASSPHRASE}\n")
    config = settings_of(project, "secrets: {RIGHT: {file: passphrase}, WRONG: {file: secret.pub}}\n")
    signed = praxis("lock", "--sign", "secret.key", "--passphrase", "RIGHT", *config)
    assert signed.returncode == 0, signed.stderr
    assert praxis("lock", "--check", "--key", "secret.pub").returncode == 0
    for given, why in (
        (("secret.key",), "secret.key is encrypted"),
        (("secret.key", "--passphrase", "WRONG"), "is not a private key in PEM, or its passphrase is another"),
        (("secret.key", "--passphrase", "MISSING"), 'needs the secret "MISSING"'),
        (("ours.key", "--passphrase", "RIGHT"), "ours.key is not encrypted"),
    ):
        refused = praxis("lock", "--sign", *given, *config)
        assert refused.returncode == 2
        assert why in refused.stderr
        assert PASSPHRASE not in refused.stderr


def test_keys_of_other_kinds_are_refused_with_the_way_to_make_one(praxis: Run, project: Path) -> None:
    write_key(project, "rsa", rsa.generate_private_key(65537, 2048))
    write_key(project, "larger", ec.generate_private_key(ec.SECP384R1()))
    (project / "cosign.key").write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAA==\n")
    for given, why in (
        (("--sign", "rsa.key"), "rsa.key is not a key on the curve P-256"),
        (("--sign", "larger.key"), "larger.key is not a key on the curve P-256"),
        (("--sign", "ours.pub"), "ours.pub is not a private key in PEM"),
        (("--sign", "cosign.key"), "which only cosign reads"),
        (("--sign", "missing.key"), "missing.key cannot be read"),
        (("--check", "--key", "rsa.pub"), "rsa.pub is not a key on the curve P-256"),
        (("--check", "--key", "ours.key"), "ours.key is not a public key in PEM"),
        (("--check", "--key", "missing.pub"), "missing.pub cannot be read"),
        (("--check", "--sign", "ours.key"), "--check writes nothing"),
        (("--key", "ours.pub"), "--key goes with --check"),
        (("--passphrase", "X"), "--passphrase goes with --sign"),
    ):
        if "--key" in given and "--check" in given:
            praxis("lock")
        refused = praxis("lock", *given)
        assert refused.returncode == 2
        assert why in refused.stderr
    assert not (project / "praxis.lock.sigstore.json").exists()
