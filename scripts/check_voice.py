"""Finds words and forms that read like a translation, in messages, docstrings, comments, documents and names.

Usage: ``python scripts/check_voice.py [--messages] [PATH...]``. It prints ``file:line: found → better``, and fails
where there is any. ``--messages`` looks only at what users and models read: not at docstrings, comments and names.

To allow one use on purpose, end its line with ``# voice: allowed``. To avoid one more word, add a line to `_PHRASES` or
`_NAMES`.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = "# voice: allowed"

_NOT_AFTER = r"(?<!there )(?<!there, )(?<!can )(?<!must )(?<!may )"
_AFTER_NO = r"(?:such|longer|more|less|better|worse|different|way|one|doubt|point|slower|faster|larger|smaller)\b"
"""What makes plain English of "is no …"; so does "there" before it."""
_ARCHAIC = "hence|thus|lest|whilst|whereby|thereby|wherein|therein|thereof|hereby|henceforth|hitherto|nought|amiss"

_PHRASES = {
    rf"{_NOT_AFTER}\b(?:is|are|was|were|be) no (?!{_AFTER_NO})": "is not a (valid) …",
    r"(?<!there )\b(?:is|are|was|were) none\b": "is not one; is missing",
    r"\b(?:to|cannot|could not|can|could|not) be had\b": "could not be found, opened, read (say which)",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bwhoever\b": "the caller; the person who; the process that",
    r"\btold\b(?! (?:to|apart)\b)": "reported, sent, known; distinguished (from)",
    r"\b(?:un)?heard\b(?!-)": "received, read, noticed",
    r"\bhears\b": "is called with; receives",
    r"\bhung up on\b": "disconnected",
    r"\bbeside\b": "next to; besides; in addition to",
    r"\b(?:with|and) (?:a|the) way out\b": "and how to fix it; what to do instead",
    r"\b(?:is|are) due (?:here|there)\b": "must be; expected",
    r"\bat hand\b": "available",
    r"\bfor want of\b": "for lack of",
    r"\b(?:kept|known|served|used|needed|there|asked|read) no more\b": "no longer",
    r"\b(?:is|was|be|are) spoken (?:with|to)\b": "the protocol (used) with …",
    r"\bspoke nonsense\b": "sent something that is not valid",
    r"\bupon\b": "on",
    r"\banew\b": "again",
    r"\blately\b": "recently",
    rf"\b(?:{_ARCHAIC})\b": "plain words",
    r"\btheir kin\b": "the like",
    r"(?<!of )(?<!they )\blies\b": "is; is in",
    r"\bgiven up\b": "abandoned; no longer waited for",
    r"\bof (?:its|their) doing\b": "by it; by them",
    r"\bnot to be\b": "cannot be; could not be",
    r"\bin turns\b": "alternately; in turn",
}
"""What is avoided in text, as patterns, and what to write."""

_NAMES = {
    "told": "reported, sent, announced",
    "knew": "known, cached",
    "asked": "requested, queried",
    "beside": "alongside, siblings, extra",
    "heard": "received, last_seen",
    "mend": "fix",
    "given_up": "abandoned",
    "whoever": "caller, owner",
    "said": "message, text, answer",
}
"""Words that are no part of a name of functions, classes, attributes, parameters and variables."""

_TEXT = [(re.compile(pattern, re.IGNORECASE), better) for pattern, better in _PHRASES.items()]
_ANY = re.compile("|".join(_PHRASES), re.IGNORECASE)
_WORDS = [(re.compile(rf"(?:^|_){word}(?:_|$)"), better) for word, better in _NAMES.items()]

_PYTHON = ("praxis_mcp/**/*.py", "scripts/*.py", "benchmarks/*.py", "examples/*.py", "native/*.py", "hatch_build.py")
_TESTS = ("tests/**/*.py",)
_C = ("native/*.c", "native/*.h")
_PLAIN = (
    "*.md", "docs/**/*.md", "native/*.md", "configs/*", "Makefile", "pyproject.toml", "scripts/*.sh", ".ci/*",
    ".pre-commit-config.yaml", "examples/*.md",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    file: str
    line: int
    text: str
    better: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {' '.join(self.text.split())!r} → {self.better}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Text that is read in one piece, and the line that each of its parts starts at."""

    parts: list[tuple[int, str]]

    def search(self) -> Iterator[tuple[int, str, str]]:
        """Each match with its line; any white space between words is one space."""
        words: list[str] = []
        starts: list[int] = []
        lines: list[int] = []
        at = 0
        glued = False  # the word before ends with its part, and the next part goes on with it
        for first, part in self.parts:
            for match in re.finditer(r"\S+", part):
                if match.start() == 0 and glued:
                    words[-1] += match[0]
                    at += len(match[0])
                    continue
                starts.append(at)
                lines.append(first + part.count("\n", 0, match.start()))
                words.append(match[0])
                at += len(match[0]) + 1
            if part:
                glued = bool(words) and not part[-1].isspace()
        whole = " ".join(words)
        if not _ANY.search(whole):
            return
        for pattern, better in _TEXT:
            for match in pattern.finditer(whole):
                line = lines[bisect_right(starts, match.start()) - 1]
                yield line, whole[max(0, match.start() - 25) : match.end() + 25], better


def _python_chunks(source: str, messages: bool) -> Iterator[Chunk]:
    """Strings that stand next to one another are one text, and so are the lines of a comment."""
    docstrings = {(node.lineno, node.col_offset) for node in _docstrings(ast.parse(source))}
    strings: list[tuple[int, str]] = []
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if not messages:
                comments.append((token.start[0], token.string.lstrip("#") + " "))
            continue
        if token.type == tokenize.NL:
            continue
        if comments and token.type != tokenize.NEWLINE:
            yield Chunk(comments)
            comments = []
        if token.type == tokenize.STRING or token.type == getattr(tokenize, "FSTRING_MIDDLE", -1):
            if not (messages and token.start in docstrings):
                strings.append((token.start[0], _bare(token.string)))
        elif strings:
            yield Chunk(strings)
            strings = []
    yield Chunk(strings)
    yield Chunk(comments)


def _docstrings(tree: ast.AST) -> Iterator[ast.expr]:
    """Texts that are statements: docstrings, of attributes too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def _bare(literal: str) -> str:
    """A string's text: without quotes, and without the code in an f-string."""
    text = re.sub(r"^\w*(?:\"\"\"|'''|\"|')|(?:\"\"\"|'''|\"|')$", "", literal)
    return re.sub(r"\{[^{}]*\}", lambda found: "X" + "\n" * found[0].count("\n"), text)


def _python_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def _c_chunks(source: str) -> Iterator[Chunk]:
    """Comments, and strings that stand next to one another."""
    for match in re.finditer(r"/\*.*?\*/|//[^\n]*|(?:\"(?:\\.|[^\"\\\n])*\"\s*)+", source, re.DOTALL):
        text = re.sub(r"\n\s*\*", "\n ", match[0]).replace('"', " ")
        yield Chunk([(source.count("\n", 0, match.start()) + 1, text)])


def _plain_chunks(source: str) -> Iterator[Chunk]:
    """A whole file, whose comments may go over several lines."""
    yield Chunk([(1, re.sub(r"\n(\s*)#", r"\n\1 ", source))])


def check(file: Path, messages: bool = False) -> Iterator[Found]:
    """What one file has of the words and forms."""
    name = file.relative_to(ROOT).as_posix()
    source = file.read_text(encoding="utf-8")
    lines = source.splitlines()
    found: Iterable[tuple[int, str, str]]
    if file.suffix == ".py":
        tree = ast.parse(source)
        names = [] if messages else list(_python_names(tree))
        if name.startswith("tests/"):  # only their names, which are sentences
            chunks = [Chunk([(line, text.replace("_", " "))]) for line, text in names if text.startswith("test_")]
            names = []
        else:
            chunks = list(_python_chunks(source, messages))
        wrong = [
            (line, text, better)
            for line, text in names
            for pattern, better in _WORDS
            if pattern.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower())
        ]
        found = [*wrong, *(item for chunk in chunks for item in chunk.search())]
    else:
        chunks = _c_chunks(source) if file.suffix in (".c", ".h") else _plain_chunks(source)
        found = [item for chunk in chunks for item in chunk.search()]
    for line, text, better in sorted(set(found)):
        if not lines[line - 1].rstrip().endswith(ALLOWED):
            yield Found(name, line, text, better)


def files() -> list[Path]:
    patterns = (*_PYTHON, *_TESTS, *_C, *_PLAIN)
    return sorted({file for pattern in patterns for file in ROOT.glob(pattern) if file.is_file()} - {Path(__file__)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=lambda text: Path(text).resolve(), help="files or directories")
    parser.add_argument("--messages", action="store_true", help="only what users and models read")
    options = parser.parse_args()
    chosen = [
        file
        for file in files()
        if not options.paths or any(file == path or path in file.parents for path in options.paths)
    ]
    found = [item for file in chosen for item in check(file, options.messages)]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
