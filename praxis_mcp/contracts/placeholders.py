"""``{contract_dir}``, the one placeholder of contracts, by one rule for all places: it is the contract's own folder, as
whoever reads the text there finds it.

On the host (sources of mounts, and all of a contract whose command runs there) that is the folder itself; for a command
in an image it is where the contract's mounts put the folder. Arguments, defaults and secrets are never looked at: they
are values, not texts of the author's.
"""

from __future__ import annotations

import posixpath
import re

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.specs import CommandSpec, DaggerEngineSpec

CONTRACT_DIR = "{contract_dir}"

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "busybox", "pwsh", "powershell", "cmd"})
_PLAIN_IN_SHELL = re.compile(r"[\w@%+=:,./-]*", re.ASCII)  # what shlex.quote leaves as it is


def expand(text: str, directory: str) -> str:
    """The text with the placeholder replaced by the contract's folder."""
    return text.replace(CONTRACT_DIR, directory)


def folder_for_command(contract: ToolContract) -> str | None:
    """Where the contract's command finds the contract's own folder; None where it does not: no mount shows it, or the
    contract came from no file."""
    spec = contract.engine_spec
    if not isinstance(spec, DaggerEngineSpec):
        return str(contract.directory) if contract.directory is not None else None
    for source, target in spec.mounts.items():
        if posixpath.normpath(source) == CONTRACT_DIR:
            return target.partition(":")[0].rstrip("/")
    return None


def is_plain_in_shell(directory: str) -> bool:
    """Whether a shell reads a path as itself wherever it stands in a text."""
    return _PLAIN_IN_SHELL.fullmatch(directory) is not None


def runs_shell(spec: CommandSpec) -> bool:
    """Whether a shell is among the words of the command, or reads all of them."""
    return getattr(spec, "shell", False) or any(posixpath.basename(word) in _SHELLS for word in spec.command[:-1])


def is_shell_text(spec: CommandSpec, index: int) -> bool:
    """Whether a shell reads a word of the command as its text: with `shell`, or after ``sh -c``."""
    if getattr(spec, "shell", False):
        return True
    before = spec.command[:index]
    return bool(before) and re.fullmatch(r"-\w*c", before[-1]) is not None and runs_shell(spec)
