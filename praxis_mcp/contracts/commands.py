"""The words of a contract's command: ``{contract_dir}`` in them, what a shell reads of them, and which of them name
the tool's own code.

``{contract_dir}`` is the one placeholder of contracts, by one rule for all places: the contract's own folder, as the
reader of the text finds it. On the host (sources of mounts, and all of a contract whose command runs there) that is the
folder itself; for a command in an image it is where the contract's mounts put the folder. Arguments, defaults and
secrets are never looked at: they are values, not texts of the author's.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.specs import CommandSpec, DaggerEngineSpec

CONTRACT_DIR = "{contract_dir}"
Groups = tuple[tuple[str, ...], ...]

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "busybox", "pwsh", "powershell", "cmd"})
_PLAIN_IN_SHELL = re.compile(r"[\w@%+=:,./-]*", re.ASCII)  # what shlex.quote leaves as it is
_INTERPRETERS = re.compile(
    r"(python|pypy|ruby|perl|php|lua|node)[\d.]*|nodejs|deno|bun|tsx|ts-node|Rscript|go|uv|(ba|da|a|z|k|mk|fi)?sh"
)
_BEFORE = frozenset({"exec", "env", "time", "nohup", "nice", "command"})
"""Commands that run what follows them."""
_TEXT_FOLLOWS = frozenset({"-c", "-m", "-e", "-p", "-r", "--eval", "--print"})
"""Options after which an interpreter reads no file: what follows is code itself, or a module."""
_MAX_OWN_FILES = 32
"""Programs and scripts of one command."""


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


def named_code(spec: CommandSpec) -> Groups:
    """The programs and scripts that a command names by a path, which a writable mount may hold: absolute paths for the
    tool, in groups of which the first that is a file is meant: ``python -W error /a/b.py``
    does not say by itself what the option takes.

    Data that a command names is not among them: a tool may write its output to the same file each time.
    """
    found: list[tuple[str, ...]] = []
    base = getattr(spec, "working_dir", None) or "/"
    found += _of_command(spec.command, base)
    for index, word in enumerate(spec.command):
        if is_shell_text(spec, index):
            found += _of_shell(word, base)
    return tuple(dict.fromkeys(found))[:_MAX_OWN_FILES]


def _of_shell(text: str, base: str) -> Iterator[tuple[str, ...]]:
    for part in re.split(r"[;&|\n()]+", text):
        try:
            words = shlex.split(re.sub(r"\d*[<>]+\s*\S+", " ", part))
        except ValueError:  # a quotation mark stands across the parts
            words = part.split()
        if words[:1] == ["cd"] and len(words) > 1:
            base = posixpath.normpath(posixpath.join(base, words[1]))
        else:
            yield from _of_command(words, base)


def _of_command(words: Sequence[str], base: str) -> Iterator[tuple[str, ...]]:
    rest = list(words)
    while rest and (rest[0] in _BEFORE or re.match(r"\w+=", rest[0])):
        rest.pop(0)
    if not rest:
        return
    program, *rest = rest
    if "/" in program:
        yield (_absolute(program, base),)
    if not _INTERPRETERS.fullmatch(posixpath.basename(program)):
        return
    group: list[str] = []
    before = ""
    for word in rest:
        if word in _TEXT_FOLLOWS:
            return
        if not word.startswith("-"):
            group.append(_absolute(word, base))
            # `run` of go, deno and uv, or what an option takes; anything else is the script, and what follows its data.
            if word != "run" and (re.search(r"[/.]", word) or not before.startswith("-")):
                break
        before = word
    if group:
        yield tuple(group[-_MAX_OWN_FILES:])


def _absolute(word: str, base: str) -> str:
    return posixpath.normpath(posixpath.join(base, word))
