"""Checks of how one tool runs: its image, what stands between it and the host, and secrets that were written down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from praxis_mcp.checks.checked import Checked
from praxis_mcp.checks.table import LONGEST_CALL
from praxis_mcp.contracts.problems import quoted
from praxis_mcp.contracts.specs import DaggerEngineSpec
from praxis_mcp.contracts.values import Network
from praxis_mcp.diagnostics import Keys

_TOKEN = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # Amazon
    r"|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{40}"
    r"|\bglpat-[A-Za-z0-9_-]{20}"
    r"|\bsk-[A-Za-z0-9_-]{24}"  # OpenAI, Anthropic
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{20}"  # Slack
    r"|\bAIza[A-Za-z0-9_-]{35}"  # Google
    r"|\b[rs]k_live_[A-Za-z0-9]{20}"  # Stripe
    r"|\bpypi-[A-Za-z0-9_-]{40}|\bnpm_[A-Za-z0-9]{36}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"  # a JWT
    r"|://[^/\s:@{}]+:[^/\s:@{}$]{4,}@"  # a password in a URL
)
"""What issuers have given a form of its own."""
_SECRET_NAME = re.compile(r"(?:^|[_-])(?:password|passwd|secret|token|api[_-]?key|private[_-]?key)s?$", re.IGNORECASE)
_LONG_ENOUGH = 8
"""Characters of a value that is taken for a secret because of its name; ``none`` and ``x`` are not."""


def check_running(tool: Checked) -> None:
    """Report what is wrong with how a tool runs."""
    contract, spec = tool.contract, tool.contract.engine_spec
    where = tool.reading.spec_place
    if not contract.examples:
        tool.report("no-examples", (), "The contract has no examples.")
    if contract.execution == "call" and spec.timeout > LONGEST_CALL:
        tool.report("long-timeout", (*where, "timeout"), f"A call may take {spec.timeout:g} s.")
    if isinstance(spec, DaggerEngineSpec):
        if _is_latest(spec.image):
            tool.report("latest-image", (*where, "image"), f"The image {quoted(spec.image)} has no version.")
        weak = {
            "privileged": spec.privileged,
            # The older spellings were written for plain Docker, and mean that.
            "drop_capabilities": spec.drop_capabilities is False and not contract.is_older,
            "network": spec.network is Network.HOST,
        }
        for key in (key for key, is_weak in weak.items() if is_weak):
            tool.report("weak-isolation", (*where, key), "This takes away what stands between the tool and the host.")
    for keys, name, text in _texts(tool):
        by_name = _SECRET_NAME.search(name) and len(text) >= _LONG_ENOUGH and not text.isspace()
        if by_name or _TOKEN.search(text):
            tool.report("secret-in-contract", keys, "This looks like a secret.")


def _is_latest(image: str) -> bool:
    _, _, tag = image.rpartition("/")[2].partition(":")
    return "@" not in image and tag in ("", "latest")


def _texts(tool: Checked) -> Iterator[tuple[Keys, str, str]]:
    """Every text that may be a secret: where it is, what it is called, and the text."""
    contract, spec = tool.contract, tool.contract.engine_spec
    where = tool.reading.spec_place
    for parameter in contract.parameters:
        yield from _inside(tool.place(parameter.name, "default"), parameter.name, parameter.default)
    for field in ("env", "headers"):
        for name, value in getattr(spec, field, {}).items():
            yield from _inside((*where, field, name), name, value)
    yield from _inside((*where, "auth_token"), "auth_token", getattr(spec, "auth_token", None))
    for place, example in zip(tool.reading.example_places, contract.examples, strict=True):
        for name, value in example.arguments.items():
            for keys, _, text in _inside((*place, "arguments", name), name, value):
                yield keys, "", text  # whatever it is called, an example's is made up, unless its form says otherwise
    for index, word in enumerate(getattr(spec, "command", ())):
        yield (*where, "command", index), "", word


def _inside(keys: Keys, name: str, value: Any) -> Iterator[tuple[Keys, str, str]]:
    if isinstance(value, str):
        yield keys, name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _inside((*keys, key), str(key), item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _inside((*keys, index), name, item)
