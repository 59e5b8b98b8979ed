"""Secrets: looked up by name when a call is planned, masked in everything that leaves."""

from __future__ import annotations

import os

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings import Settings

MASK = "***"
_MASKED_FROM = 4
"""Characters from which on a secret is masked: a shorter one would blot out ordinary text and protects nothing."""


def resolve_secret(name: str, settings: Settings, tool: str) -> str:
    """The value of a secret: from its source in the settings, else from the environment.

    Raises:
        SettingsError: it is nowhere to be found; never shows a value.
    """
    source = settings.secrets.get(name)
    if source is None:
        value = os.environ.get(name)
        if value is None:
            raise SettingsError(
                f'{tool} needs the secret "{name}", which is neither in the settings nor in the environment.',
                remedy=f"Set {name} in the server's environment, or name a source under secrets: in the settings.",
            )
        return value
    if source.env is not None:
        value = os.environ.get(source.env)
        if value is None:
            raise SettingsError(f'The secret "{name}" comes from the environment variable {source.env}, not set.')
        return value
    if source.file is not None:
        try:
            return source.file.expanduser().read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f'The secret "{name}" cannot be read from {source.file}.') from exc
    return _from_keyring(name, source.keyring or "")


def _from_keyring(name: str, place: str) -> str:
    service, _, user = place.partition("/")
    try:
        import keyring  # pyright: ignore[reportMissingImports]
    except ImportError as exc:
        raise SettingsError(
            f'The secret "{name}" comes from the system keyring.', remedy="Install it: pip install keyring."
        ) from exc
    value = keyring.get_password(service, user)
    if value is None:
        raise SettingsError(f'The keyring has no entry "{service}" for "{user}" (the secret "{name}").')
    return value


class Masker:
    """Replaces secret values by `MASK`, in text and in bytes."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        # Longest first, so that a secret that contains another is masked whole.
        usable = sorted({secret for secret in secrets if len(secret) >= _MASKED_FROM}, key=len, reverse=True)
        self._text = usable
        self._bytes = [secret.encode(errors="surrogateescape") for secret in usable]

    def __bool__(self) -> bool:
        return bool(self._text)

    @property
    def longest(self) -> int:
        """Bytes of the longest secret; a stream holds back that many less one, lest a secret split over two pieces
        slip through."""
        return max((len(secret) for secret in self._bytes), default=0)

    def text(self, value: str) -> str:
        """`value` with every secret masked."""
        for secret in self._text:
            value = value.replace(secret, MASK)
        return value

    def data(self, value: bytes) -> bytes:
        """`value` with every secret masked."""
        for secret in self._bytes:
            value = value.replace(secret, MASK.encode())
        return value
