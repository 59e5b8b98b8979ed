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
_CODE = re.compile(
    r"\.(py|pyw|pyz|sh|bash|zsh|ksh|fish|js|mjs|cjs|ts|mts|rb|pl|pm|php|lua|r|jl|jar|awk|tcl|ps1)$", re.I
)
"""How the names of scripts end. A file of such a name is code wherever a command names it, but where it is written."""
_BEFORE = frozenset({
    "exec", "env", "time", "nohup", "nice", "ionice", "command", "builtin", "timeout", "stdbuf", "setsid", "sudo",
    "xargs", "tini", "dumb-init", "if", "then", "elif", "else", "while", "until", "do", "!", "{",
})  # fmt: skip
"""Commands, and words of the shell, that run what follows them."""
_OF_BEFORE = re.compile(r"-.*|\w+=.*|[\d.]+[smhd]?", re.DOTALL)
"""What may stand between these and what they run: options, variables, numbers and durations."""
_TEXT_FOLLOWS = frozenset({"-c", "-m", "-e", "-p", "-r", "--eval", "--print"})
"""Options after which an interpreter reads no file: what follows is code itself, or a module."""
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_WRITTEN = re.compile(r"(?:>>|>\||&>|>)\s*[^\s;&|()<>]+")
_READ = re.compile(r"<+")
_MAX_OWN_FILES = 32
"""Programs and scripts of one command."""
_MAX_BASES = 8
"""Places where a relative path may start."""
_MAX_TEXT = 16 * 1024
"""Characters of a shell's text that are looked at, what its variables hold among them."""
_MAX_PATH = 4096
"""Characters of a path that are kept; a longer one leads nowhere (PATH_MAX, linux/limits.h)."""
_MAX_VALUE = 256
"""Characters of a variable of such a text."""

_Bases = tuple[str, ...]
"""Where relative paths may start: the working directory of an image is not known here."""


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
    found: dict[tuple[str, ...], None] = {}
    for group in _all_groups(spec):
        found[group] = None
        if len(found) == _MAX_OWN_FILES:
            break
    return tuple(found)


def _all_groups(spec: CommandSpec) -> Iterator[tuple[str, ...]]:
    directory = getattr(spec, "working_dir", None)
    starts = (directory,) if directory else ("/", *(target.partition(":")[0] for target in spec.mounts.values()))
    bases = tuple(dict.fromkeys(starts))[:_MAX_BASES]
    known = {name: value for name, value in spec.env.items() if isinstance(value, str) and len(value) <= _MAX_VALUE}
    yield from _of_command(spec.command, bases)
    for index, word in enumerate(spec.command):
        if is_shell_text(spec, index):
            yield from _of_shell(word[:_MAX_TEXT], bases, known)


def _of_shell(text: str, bases: _Bases, known: dict[str, str]) -> Iterator[tuple[str, ...]]:
    known = dict(known)
    left = _MAX_TEXT
    for part in re.split(r"[;&|\n()`]+", _WRITTEN.sub(" ", text)):
        part = _VARIABLE.sub(lambda found: known.get(found[1] or found[2], found[0]), part)
        part = _READ.sub(" ", part[:left])
        left -= len(part)
        try:
            words = shlex.split(part)
        except ValueError:  # a quotation mark stands across the parts
            words = [word.strip("\"'") for word in part.split()]
        for word in words:
            name, equals, value = word.partition("=")
            if equals and name.isidentifier() and len(value) <= _MAX_VALUE:
                known[name] = value
        if words[:1] == ["cd"] and len(words) > 1:
            bases = tuple(dict.fromkeys(_absolute(words[1], bases)))
        else:
            yield from _of_command(words, bases, is_shell=True)


def _of_command(words: Sequence[str], bases: _Bases, *, is_shell: bool = False) -> Iterator[tuple[str, ...]]:
    yield from _run(words, bases, is_shell=is_shell)
    for word in words:
        if _CODE.search(word) and not word.startswith("-") and not re.search(r"\s", word):
            yield _absolute(word, bases)


def _run(words: Sequence[str], bases: _Bases, *, is_shell: bool) -> Iterator[tuple[str, ...]]:
    """What a command runs by its place in it, however it is called."""
    rest = list(words)
    while rest and (rest[0] in _BEFORE or re.match(r"\w+=", rest[0])):
        rest.pop(0)
        while rest and _OF_BEFORE.fullmatch(rest[0]):
            rest.pop(0)
    if not rest:
        return
    program, *rest = rest
    if is_shell and program in (".", "source"):
        yield from (_absolute(word, bases) for word in rest[:1])
        return
    if "/" in program:
        yield _absolute(program, bases)
    if not _INTERPRETERS.fullmatch(posixpath.basename(program)):
        return
    group: list[str] = []
    before = ""
    for word in rest:
        if word in _TEXT_FOLLOWS:
            return
        if not word.startswith("-"):
            group += _absolute(word, bases)
            # `run` of go, deno and uv, or what an option takes; anything else is the script, and what follows its data.
            if word != "run" and (re.search(r"[/.]", word) or not before.startswith("-")):
                break
        before = word
    if group:
        yield tuple(group[-_MAX_OWN_FILES:])


def _absolute(word: str, bases: _Bases) -> tuple[str, ...]:
    return tuple(posixpath.normpath(posixpath.join(base, word))[:_MAX_PATH] for base in bases)
