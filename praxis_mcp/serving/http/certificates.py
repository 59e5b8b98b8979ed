"""The certificate that HTTP is served with over TLS, read again when its files change."""

from __future__ import annotations

import ssl
from pathlib import Path

import anyio
import anyio.to_thread

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.http import HttpSettings
from praxis_mcp.support.files import STAMP_CHECK_INTERVAL, Stamp, stamp_of
from praxis_mcp.support.logs import logger


class Certificates:
    """A certificate chain and its private key, as their files were when they last fitted each other.

    Attributes:
        context: what connections are taken with; each handshake uses what `watch` has read last.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read them.

        Raises:
            SettingsError: certificate and key cannot be read or do not fit each other.
        """
        self._certificate, self._key = certificate, key
        self._stamps = self._look()
        self.context = self._current = _load(certificate, key)
        # Loading into a context that is in use could leave it with one half of a pair, and an RSA certificate that an
        # elliptic one replaces would stay in it. OpenSSL asks at each handshake, whether or not a client names a host.
        self.context.sni_callback = self._choose

    @classmethod
    def of(cls, settings: HttpSettings) -> Certificates | None:
        """Those of the settings; None where they name none.

        Raises:
            SettingsError: see `Certificates`.
        """
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        return cls(settings.tls_certificate, settings.tls_key)

    async def watch(self) -> None:
        """Read the files again whenever they have changed, until cancelled. What cannot be used is logged, and the
        certificate before it stays."""
        while True:
            await anyio.sleep(STAMP_CHECK_INTERVAL)
            stamps = await anyio.to_thread.run_sync(self._look)
            if stamps == self._stamps:
                continue
            self._stamps = stamps
            try:
                self._current = await anyio.to_thread.run_sync(_load, self._certificate, self._key)
            except SettingsError as exc:
                logger.warning("the certificate before stays in use: {}", exc)
            else:
                logger.info("{} has changed, and is in use now", self._certificate)

    def _look(self) -> tuple[Stamp, Stamp]:
        return stamp_of(self._certificate), stamp_of(self._key)

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current


def _load(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError) as exc:
        what = exc.strerror or exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
        raise SettingsError(
            f"{certificate} and {key} cannot be used for TLS: {what}.",
            remedy="http.tls_certificate is a certificate chain in PEM, http.tls_key its private key.",
        ) from exc
    return context


def _no_password() -> str:
    # OpenSSL would ask for one on the terminal, and wait.
    raise SettingsError("http.tls_key is encrypted.", remedy="Give a key without a password.")
