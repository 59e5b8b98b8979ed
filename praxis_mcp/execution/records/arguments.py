"""What a record says of a call's arguments, where the settings ask for it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping
from typing import Any

from praxis_mcp.plans.secrets import MASK, Masker

MOST_SHOWN = 8 * 1024
"""Characters of one call's arguments that are kept."""


def masked_arguments(arguments: Mapping[str, Any], private: Collection[str], masker: Masker) -> str:
    """The arguments as JSON, cut where they are long.

    Args:
        private: names of parameters of which nothing is shown.
        masker: masks the call's secrets.
    """
    shown = {name: MASK if name in private else value for name, value in arguments.items()}
    text = json.dumps(masker.json(shown), ensure_ascii=False, default=str)
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…"


def hashed_arguments(arguments: Mapping[str, Any], key: bytes) -> str:
    """A digest (HMAC-SHA-256) by which equal arguments are known, and nothing else."""
    text = json.dumps(arguments, sort_keys=True, default=str)
    return "hmac-sha256:" + hmac.new(key, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


def is_private(schema: object) -> bool:
    """Whether values of this schema are not for anyone to read (JSON Schema 2020-12, validation, 9.4 and 7.3)."""
    return isinstance(schema, Mapping) and (schema.get("writeOnly") is True or schema.get("format") == "password")
