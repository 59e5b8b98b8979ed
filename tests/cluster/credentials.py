"""What the parts of a test's cluster prove to one another who they are with: certificates, tokens, kubeconfigs."""

from __future__ import annotations

import datetime
import ipaddress
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ADMIN = "admin"
USERS: Mapping[str, tuple[str, str]] = {
    ADMIN: ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    **{f"node-{number}": (f"system:node:node-{number}", "system:nodes") for number in range(1, 5)},
}
"""Who has a token from the start: the user, and the group that it is in."""


def write(place: Path, addresses: list[str]) -> None:
    """Write what a cluster needs into its directory.

    Args:
        addresses: where its API server is found.
    """
    authority = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("cluster", authority, None, authority, [])
    _write_pem(place / "ca.crt", root)
    server = ec.generate_private_key(ec.SECP256R1())
    _write_pem(place / "server.crt", _certificate("kube-apiserver", server, root, authority, addresses))
    _write_key(place / "server.key", server)
    # What the API server shows kubelets, who look at certificates and tokens.
    client = ec.generate_private_key(ec.SECP256R1())
    _write_pem(place / "client.crt", _certificate("admin", client, root, authority, [], "system:masters"))
    _write_key(place / "client.key", client)
    _write_key(place / "accounts.key", ec.generate_private_key(ec.SECP256R1()))  # of service accounts' tokens
    lines: list[str] = []
    for name, (user, group) in USERS.items():
        token = secrets.token_hex(16)
        lines.append(f'{token},{user},{name},"{group}"\n')
        kubeconfig(place / f"{name}.kubeconfig", f"https://{addresses[0]}", place / "ca.crt", token)
    _write(place / "tokens.csv", "".join(lines).encode())


def kubeconfig(file: Path, server: str, authority: Path, token: str, namespace: str = "default") -> Path:
    """Write the configuration of a client, and return where it is."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "current-context": "test",
    }
    _write(file, json.dumps(content, indent=1).encode())
    return file


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey,
    addresses: list[str], organization: str = "",
) -> x509.Certificate:  # fmt: skip
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name(attributes)
    names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses] + [x509.DNSName("localhost")]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.KeyUsage(True, False, False, False, False, issuer is None, issuer is None, False, False), True
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _write_pem(file: Path, certificate: x509.Certificate) -> None:
    _write(file, certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    plain = serialization.NoEncryption()  # the API server takes no PKCS 8 for the keys of accounts
    _write(file, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain))


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    file.chmod(0o600)
