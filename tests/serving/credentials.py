"""Tokens of every kind, good and bad, and the settings of a server that knows the good ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from praxis_mcp.serving.access import hash_token

ISSUER = "https://login.example.com"
RESOURCE = "https://tools.example.com/mcp"
ALL, ECHO_ONLY, METRICS, EXPIRED = "praxis_all", "praxis_echo", "praxis_metrics", "praxis_expired"


class Issuer:
    """An authorization server's key, and what it signs."""

    def __init__(self, key_id: str = "one") -> None:
        self.key_id = key_id
        self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_jwk(self) -> dict[str, Any]:
        public = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {**public, "kid": self.key_id, "use": "sig"}

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def token(self, *, drop: tuple[str, ...] = (), key_id: str | None = None, **claims: Any) -> str:
        now = int(time.time())
        known: dict[str, Any] = {
            "iss": ISSUER,
            "aud": RESOURCE,
            "sub": "anna",
            "client_id": "agent",
            "exp": now + 300,
            "iat": now,
            "scope": "openid tools:*",
        }
        payload = {name: value for name, value in {**known, **claims}.items() if name not in drop}
        return jwt.encode(payload, self.key, algorithm="ES256", headers={"kid": key_id or self.key_id})

    def forged(self) -> dict[str, str]:
        """Tokens that nobody may take."""
        payload = jwt.decode(self.token(), options={"verify_signature": False})
        head, body, signature = self.token().split(".")
        # PyJWT refuses to make this one: the public key, which everyone has, taken for a shared secret.
        confused = _sign_with_public_key(payload, self.public_pem, self.key_id)
        return {
            "expired": self.token(exp=int(time.time()) - 60),
            "not yet valid": self.token(nbf=int(time.time()) + 600),
            "for another server": self.token(aud="https://other.example.com/mcp"),
            "for nobody": self.token(drop=("aud",)),
            "without an end": self.token(drop=("exp",)),
            "of another issuer": self.token(iss="https://evil.example.com"),
            "of nobody": self.token(drop=("sub", "client_id")),
            "signed by another key of that name": Issuer(self.key_id).token(),
            "signed by an unknown key": Issuer("two").token(),
            "unsigned": jwt.encode(payload, "", algorithm="none"),
            "signed with the public key as a secret": confused,
            "cut": f"{head}.{body}.{signature[:-8]}",
            "no JSON": "a.b.c",
        }


def _sign_with_public_key(payload: dict[str, Any], public_pem: bytes, key_id: str) -> str:
    import base64
    import hashlib
    import hmac

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": key_id}).encode())
    body = part(json.dumps(payload).encode())
    return f"{head}.{body}.{part(hmac.digest(public_pem, f'{head}.{body}'.encode(), hashlib.sha256))}"


def auth_settings(issuer: Issuer, directory: Path) -> dict[str, Any]:
    """The section ``http.auth`` of a server that takes `ALL`, `ECHO_ONLY`, `METRICS` and the issuer's tokens."""
    keys = directory / "jwks.json"
    keys.write_text(json.dumps({"keys": [issuer.public_jwk]}))
    return {
        "tokens": {
            "all": {"sha256": hash_token(ALL), "scopes": ["tools:*"]},
            "echo": {"sha256": hash_token(ECHO_ONLY), "scopes": ["tools:ech?"]},
            "metrics": {"sha256": hash_token(METRICS), "scopes": ["metrics:read"]},
            "expired": {"sha256": hash_token(EXPIRED), "expires": "2026-01-01T00:00:00Z"},
        },
        "oauth": {"issuer": ISSUER, "resource": RESOURCE, "jwks_file": str(keys)},
    }
