"""Which texts in what others wrote may be secrets: those are named in what we write, never held.

It errs to the safe side: a variable or header whose value is not plainly harmless is taken for a secret.
"""

from __future__ import annotations

import re

_SECRET_NAME = re.compile(
    r"token|secret|passw|passphrase|pwd|api[_-]?key|access[_-]?key|private|credential|auth|bearer|cookie|session|signature"
    r"|(?:^|[_-])(?:key|pat|pass|pin|dsn|jwt)(?:$|[_-])",
    re.IGNORECASE,
)
_KNOWN_FORMS = re.compile(
    r"gh[pousr]_\w{10}|github_pat_|glpat-|sk-[\w-]{8}|xox[abprs]-|AKIA[0-9A-Z]{12}|AIza[\w-]{20}|eyJ[\w-]{8,}\.|hf_\w{10}"
    r"|-----BEGIN|npm_\w{10}|pypi-\w{10}|[rs]k_(?:live|test)_|SG\.[\w-]{10}"
)
_USER_IN_URL = re.compile(r"://[^/@?#]*@|://[^/@]*:[^@]*@")
_CREDENTIALS = re.compile(r"\b(?:bearer|basic|token)\s+[\w+/.=~-]{8}", re.IGNORECASE)
_IN_QUERY = re.compile(r"[?&]([^=&#]+)=[^&#]")
_RANDOM = re.compile(r"(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[\w+/=-]{24,}")
_HARMLESS_HEADERS = frozenset({
    "accept", "accept-encoding", "accept-language", "cache-control", "content-type", "mcp-protocol-version",
    "user-agent",
})  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/~@+ -]{0,64}|https?://[^\s@?#]{1,256}|(?:~|\.{0,2}/|[A-Za-z]:\\)[^\s?#@]{0,256}")


def is_secret_name(name: str) -> bool:
    """Whether what is named so is likely to be a secret."""
    return _SECRET_NAME.search(name) is not None


def is_secret_text(text: str) -> bool:
    """Whether a text by itself looks like a secret, or holds one: a token in a known form, a password in a URL."""
    if any(form.search(text) for form in (_KNOWN_FORMS, _USER_IN_URL, _CREDENTIALS)):
        return True
    return _RANDOM.fullmatch(text) is not None or any(is_secret_name(name) for name in _IN_QUERY.findall(text))


def is_plain(name: str, value: str) -> bool:
    """Whether a variable of that name and value may be written in clear."""
    return not is_secret_name(name) and not is_secret_text(value) and _PLAIN.fullmatch(value) is not None


def is_plain_header(name: str, value: str) -> bool:
    """Whether a header may be written in clear."""
    return name.lower() in _HARMLESS_HEADERS and not is_secret_text(value)


def variable_of(*words: str) -> str:
    """A name for a secret that an environment can hold."""
    name = re.sub(r"[^A-Z0-9]+", "_", "_".join(words).upper()).strip("_") or "SECRET"
    return f"_{name}" if name[0].isdigit() else name
