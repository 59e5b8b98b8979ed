"""Secrets: looked up by name when a call is planned, masked in everything that leaves."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.discovery import read_bytes
from praxis_mcp.errors import SettingsError
from praxis_mcp.plans.spellings import CUT, spellings
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.installation import adding

MASK = "***"
MAX_SECRET_FILE = 64 * 1024
"""Bytes of a secret in a file."""
SHORTEST = 4
"""Characters of a secret. A shorter one is refused: masked it would blot out ordinary text, unmasked it would leak."""
_MOST_LEARNT = 8
_COMPARED = 64
"""Characters of a secret that may be compared at every byte of an output."""


def resolve_secret(name: str, settings: Settings, tool: str) -> str:
    """The value of a secret: from its source in the settings, else from the environment. It may be empty.

    Raises:
        SettingsError: it is nowhere to be found, or too short to be masked; never shows a value.
    """
    value = _looked_up(name, settings, tool)
    if 0 < len(value) < SHORTEST:
        raise SettingsError(
            f'{tool} needs the secret "{name}", but it has fewer than {SHORTEST} characters: too few to be masked.',
            remedy="Give it a longer value; what is not secret can be written as plain text instead.",
        )
    return value


def _looked_up(name: str, settings: Settings, tool: str) -> str:
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
        return _from_file(name, source.file)
    return _from_keyring(name, source.keyring or "")


def _from_file(name: str, file: Path) -> str:
    try:
        content = read_bytes(file)  # of a regular file only: a pipe's writer may never come
        if len(content) > MAX_SECRET_FILE:
            raise SettingsError(f'The secret "{name}" in {file} is larger than {MAX_SECRET_FILE // 1024} KiB.')
        return content.decode("utf-8").rstrip("\n")
    except OSError as exc:
        raise SettingsError(f'The secret "{name}" cannot be read from {file}: {exc.strerror}.') from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f'The secret "{name}" in {file} is not UTF-8 text.') from exc


def _from_keyring(name: str, place: str) -> str:
    service, _, user = place.partition("/")
    try:
        import keyring  # pyright: ignore[reportMissingImports]
    except ImportError as exc:
        raise SettingsError(
            f'The secret "{name}" comes from the system\'s keyring, which needs the package keyring.',
            remedy=f"Install it: {adding('keyring')}",
        ) from exc
    try:
        value = keyring.get_password(service, user)
    except Exception as exc:
        raise SettingsError(
            f'The keyring did not give the secret "{name}" ({type(exc).__name__}).',
            remedy="Unlock it, or name an environment variable or a file for the secret in the settings.",
        ) from exc
    if value is None:
        raise SettingsError(f'The keyring has no entry "{service}" for "{user}" (the secret "{name}").')
    return value


class Masker:
    """Replaces secret values by `MASK`, in text, bytes and JSON, in each of their `spellings`. Of secrets that overlap,
    all is masked."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._given = secrets
        self._learnt: deque[str] = deque(maxlen=_MOST_LEARNT)
        self._use()

    def learn(self, secret: str) -> None:
        """One more secret, such as a token that was given out only now. Of these the last few are known."""
        if secret not in self._learnt:
            self._learnt.append(secret)
            self._use()

    def _use(self) -> None:
        usable = {secret for secret in (*self._given, *self._learnt) if len(secret) >= SHORTEST}
        self.spellings = tuple(spelling for secret in sorted(usable) for spelling in spellings(secret))

    def __bool__(self) -> bool:
        return bool(self.spellings)

    def text(self, value: str) -> str:
        """`value` with every secret masked."""
        if not self.spellings:
            return value
        return self.data(value.encode(errors="surrogatepass")).decode(errors="surrogatepass")

    def json(self, value: Any) -> Any:
        """A value of JSON with every secret masked, in names as well."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(item) for item in value]
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.json(item) for key, item in value.items()}
        return value

    def data(self, value: bytes) -> bytes:
        """`value` with every secret masked."""
        return MaskedStream(self).feed(value, last=True)


class MaskedStream:
    """Masks a stream piece by piece, with the same result wherever the pieces end.

    What may yet turn out to be a secret, or the beginning of a longer one, is held back as it came: masked too early,
    ``abcd`` of ``abcd1234`` would let ``1234`` through. Nothing else is, so that a line of progress is heard at once.
    """

    def __init__(self, masker: Masker) -> None:
        self._spellings = masker.spellings
        self._held = b""
        self._covered = 0
        """Bytes at the beginning of what is held that a mask stands for already."""

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take in the next piece.

        Args:
            data: the piece.
            last: whether the stream ends with it.

        Returns:
            What can be passed on of all that came, masked.
        """
        if not self._spellings:
            return data
        whole = self._held + data
        found, ready = self._found(whole, last=last)
        passed: list[bytes] = []
        end = self._covered
        for start, stop in found:
            if start >= ready:
                break
            if start >= end:
                passed += (whole[end:start], MASK.encode())
            end = max(end, stop)
        passed.append(whole[end:ready])
        self._held, self._covered = whole[ready:], max(0, end - ready)
        return b"".join(passed)

    def _found(self, whole: bytes, *, last: bool) -> tuple[list[tuple[int, int]], int]:
        """Where secrets begin and end, and up to where that is clear."""
        places: list[tuple[int, int]] = []
        ready = len(whole)
        for spelling in self._spellings:
            if spelling.mark and spelling.mark not in whole:
                continue
            compared = len(whole) * 16 + MAX_SECRET_FILE
            for start in spelling.starts(whole):
                end, number = spelling.read(whole, start)
                compared -= number
                if compared < 0 and len(spelling.units) > _COMPARED:
                    # A long secret that repeats itself ("aaaa…") in an output made of its parts: to look at each
                    # place would take minutes. All of it is masked.
                    return [(0, len(whole))], len(whole)
                if end >= 0:
                    places.append((start, end))
                elif end == CUT and not last:
                    ready = min(ready, start)
                    break
        if not last:
            ready = min([ready, *(spelling.cut_at(whole) for spelling in self._spellings)])
        return sorted(places), ready
