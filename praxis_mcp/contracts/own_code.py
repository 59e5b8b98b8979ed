"""Programs and scripts that a command names by a path: a tool's own code, which a writable mount may hold."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence

from praxis_mcp.contracts.placeholders import is_shell_text
from praxis_mcp.contracts.specs import CommandSpec

_INTERPRETERS = re.compile(
    r"(python|pypy|ruby|perl|php|lua|node)[\d.]*|nodejs|deno|bun|tsx|ts-node|Rscript|go|uv|(ba|da|a|z|k|mk|fi)?sh"
)
_BEFORE = frozenset({"exec", "env", "time", "nohup", "nice", "command"})
"""Commands that run what follows them."""
_TEXT_FOLLOWS = frozenset({"-c", "-m", "-e", "-p", "-r", "--eval", "--print"})
"""Options after which an interpreter reads no file: what follows is code itself, or a module."""
_MAX_OWN_FILES = 32
"""Programs and scripts of one command."""

Groups = tuple[tuple[str, ...], ...]


def named_code(spec: CommandSpec) -> Groups:
    """Absolute paths for the tool, in groups of which the first that is a file is meant: ``python -W error /a/b.py``
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
