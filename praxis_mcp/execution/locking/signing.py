"""Signatures of the lock file: sigstore bundles, made and checked with a key and nothing else, as cosign does it too.

sigstore's own library for Python signs and verifies by identity only (4.5: no keys, and its logs are needed), so this
is its format with the primitives of `cryptography`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.model import signature_of
from praxis_mcp.support.files import read_regular, replace_text

LARGEST_KEY = 64 * 1024
LARGEST_BUNDLE = 1024 * 1024
"""Bytes. A bundle with a log's proof and a timestamp has less than 20,000."""
_TYPE = "application/vnd.dev.sigstore.bundle"
_OURS = f"{_TYPE}.v0.3+json"
_MAKE_KEY = (
    "Make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out lock.key; "
    "openssl pkey -in lock.key -pubout -out lock.pub"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What signatures are checked with.

    Attributes:
        name: what messages call it.
        key: ECDSA on P-256, with SHA-256: what cosign makes.
    """

    name: str
    key: ec.EllipticCurvePublicKey

    @classmethod
    def read(cls, file: Path) -> PublicKey:
        """A key in PEM.

        Raises:
            SettingsError: it cannot be read, or is of another kind.
        """
        try:
            key = serialization.load_pem_public_key(_read_key(file))
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise SettingsError(
                f"{file} is not a public key in PEM (BEGIN PUBLIC KEY).",
                remedy="Name the public half: openssl pkey -in lock.key -pubout -out lock.pub, or cosign.pub.",
            ) from exc
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise _other_kind(file)
        return cls(file.name, key)

    def check(self, content: bytes, file: Path) -> None:
        """Refuse a file with this content that is not signed with the key.

        Raises:
            SettingsError: it is not.
        """
        if (why := self.why_unsigned(content, file)) is not None:
            raise SettingsError(
                f"The lock file {file} {why}.",
                remedy="Look at what it holds, then have it signed: praxis-mcp lock --sign KEY",
            )

    def why_unsigned(self, content: bytes, file: Path) -> str | None:
        """Why a file with this content is not signed with the key, as the end of a sentence; None where it is."""
        try:
            text = read_regular(signature_of(file), LARGEST_BUNDLE)
        except FileNotFoundError:
            return f"is not signed: there is no {signature_of(file).name}"
        except OSError as exc:
            return f"has a signature, {signature_of(file).name}, that cannot be read: {exc.strerror}"
        try:
            digest, signature = _parts_of(text)
        except (ValueError, RecursionError):
            return f"has a signature, {signature_of(file).name}, that is not a sigstore bundle of a file"
        try:
            self.key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            changed = digest is not None and digest != hashlib.sha256(content).digest()
            return "has changed since it was signed" if changed else f"is not signed with the key {self.name}"
        return None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What the lock file is signed with; see `PublicKey`."""

    name: str
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, file: Path, passphrase: str | None) -> SigningKey:
        """A private key in PEM: PKCS #8, also encrypted, or SEC 1.

        Raises:
            SettingsError: it cannot be read, is of another kind, or the passphrase is wrong or missing.
        """
        content = _read_key(file)
        if b"BEGIN ENCRYPTED SIGSTORE" in content or b"BEGIN ENCRYPTED COSIGN" in content:
            raise SettingsError(
                f"{file} is encrypted in cosign's own format, which only cosign reads.",
                remedy="Sign with cosign, which makes the same file (docs/lock.md), or with a key of openssl's. "
                f"{_MAKE_KEY}",
            )
        try:
            key = serialization.load_pem_private_key(content, passphrase.encode() if passphrase else None)
        except TypeError as exc:  # as cryptography has it: one is needed, or was given and is not
            wrong = "is not encrypted" if passphrase else "is encrypted"
            remedy = "Leave --passphrase out." if passphrase else "Name its passphrase: --passphrase NAME"
            raise SettingsError(f"{file} {wrong}.", remedy=remedy) from exc
        except (ValueError, UnsupportedAlgorithm) as exc:
            other = ", or its passphrase is another" if passphrase else ""
            raise SettingsError(f"{file} is not a private key in PEM{other}.", remedy=_MAKE_KEY) from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise _other_kind(file)
        return cls(file.name, key)

    def has_signed(self, content: bytes, file: Path) -> bool:
        """Whether a file with this content is signed with the key already."""
        return PublicKey(self.name, self.key.public_key()).why_unsigned(content, file) is None

    def sign(self, content: bytes, file: Path) -> Path:
        """Write the signature of a file with this content, in one step; returns where it is.

        Raises:
            SettingsError: it cannot be written.
        """
        public = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        bundle = {
            "mediaType": _OURS,
            "verificationMaterial": {"publicKey": {"hint": _base64(hashlib.sha256(public).digest())}},
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": _base64(hashlib.sha256(content).digest())},
                "signature": _base64(self.key.sign(content, ec.ECDSA(hashes.SHA256()))),
            },
        }
        place = signature_of(file)
        try:
            replace_text(place, json.dumps(bundle, indent=2) + "\n")
        except OSError as exc:
            raise SettingsError(f"The signature {place} cannot be written: {exc.strerror}.") from exc
        return place


def _parts_of(text: bytes) -> tuple[bytes | None, bytes]:
    """The digest that a bundle says it is about, which proves nothing, and the signature.

    What else it may hold, a certificate or a log's proof, counts for nothing where a key does.
    """
    bundle: Any = json.loads(text)
    try:
        if not bundle["mediaType"].startswith(_TYPE):
            raise ValueError(bundle["mediaType"])
        message = bundle["messageSignature"]
        digest = message.get("messageDigest", {}).get("digest")
        decoded = None if digest is None else base64.b64decode(digest, validate=True)
        return decoded, base64.b64decode(message["signature"], validate=True)
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError("not a bundle of a message signature") from exc


def _read_key(file: Path) -> bytes:
    try:
        return read_regular(file, LARGEST_KEY)
    except OSError as exc:
        raise SettingsError(f"The key {file} cannot be read: {exc.strerror}.") from exc


def _other_kind(file: Path) -> SettingsError:
    return SettingsError(f"{file} is not a key on the curve P-256 (ECDSA).", remedy=_MAKE_KEY)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
