"""What ``praxis-mcp new`` writes: one tool in each language, its contract explained by comments, and its examples.

All of them do the same, so that a reader of one can read the others: they count the lines, words or bytes of a text.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

_PLAIN = re.compile(r"(?!(?:null|true|false|yes|no|on|off|y|n)\Z)[a-z_][a-z0-9_.-]*", re.IGNORECASE)
"""Names that every reader of YAML takes for text, without quotation marks."""


@dataclass(frozen=True, slots=True)
class Starter:
    """A tool in one language.

    Attributes:
        file: the name of its code.
        code: what that holds.
        image: where it runs, unless another image is named.
        command: the words of its command before the file.
        in_image: what more its contract says in an image.
        build: the command that makes this machine's own program of it, in its directory; empty where none is needed.
    """

    file: str
    code: str
    image: str
    command: tuple[str, ...]
    in_image: str = ""
    build: tuple[str, ...] = ()


def files_of(name: str, language: str, *, image: str | None, host_network: bool = False) -> dict[str, str]:
    """The files of a tool, by name: its contract and its code.

    Args:
        name: the tool's.
        language: of its code, one of `STARTERS`.
        image: that it runs in; None runs it with this machine's own programs.
        host_network: whether a tool of this machine's own programs keeps the network, because nothing here can take it.
    """
    starter = STARTERS[language]
    is_built = image is None and starter.build
    words = [f'"{{contract_dir}}/{BUILT}"'] if is_built else [*starter.command, f'"{{contract_dir}}/{starter.file}"']
    contract = _CONTRACT.format(
        name=name,
        named=name if _PLAIN.fullmatch(name) else f'"{name}"',
        commands=_commands(name),
        place=_HOST if image is None else _IMAGE.format(image=image),
        words=", ".join(words),
        more=starter.in_image if image is not None else _HOST_NETWORK if host_network else "",
        timeout=30 if is_built or not starter.build else _BUILD_SECONDS,
    )
    return {"contract.yaml": contract, starter.file: starter.code, **({".gitignore": f"{BUILT}\n"} if is_built else {})}


def _commands(name: str) -> str:
    commands = {
        "validate": "what is wrong, in which line, and how to fix it",
        f"test {name}": "the examples below, run as tests",
        f"call {name} text='one two'": "a call, as an agent makes it",
        f"explain {name} text=a": "what would run, where, and under which limits",
    }
    width = max(map(len, commands))
    return "\n".join(f"#   praxis-mcp {command:{width}}  {meaning}" for command, meaning in commands.items())


BUILT = "main"
"""The program that is made of code that has to be compiled."""

_BUILD_SECONDS = 120

_CONTRACT = """\
# A tool of praxis-mcp. The whole format: docs/contracts.md of praxis-mcp.
{commands}
name: {named}

# What a model decides by: what the tool does, when to use it, what it returns. It is part of every conversation, so be
# short.
description: >-
  Counts the lines, words or bytes of a text exactly. Use it instead of counting yourself. Returns the unit and its
  count.

{place}# A list of words, never a line for a shell: no argument can become code. {{contract_dir}} is this file's
# directory, as the command sees it.
command: [{words}]
{more}# Seconds until all that the tool started is ended.
timeout: {timeout}

# The arguments, as in JSON Schema. `bind` says how each one reaches the command: as a variable (`env`, the default), a
# flag, a position, a file, or on standard input, where large values belong.
parameters:
  text:
    type: string
    description: The text, counted exactly as it is.
    bind: stdin
  unit:
    type: string
    enum: [lines, words, bytes]
    description: What is counted; bytes are those of UTF-8.
    default: words
    bind: {{flag: --unit=}}

# What it prints is one JSON value of this form. Without these two, plain text is returned.
output: json
output_schema:
  type: object
  properties:
    unit: {{type: string}}
    count: {{type: integer}}
  required: [unit, count]

# They show how the tool is used, and `praxis-mcp test` runs them.
examples:
  - name: words, unless another unit is asked for
    arguments: {{text: the quick brown fox}}
    expect_json: {{unit: words, count: 4}}
  - name: bytes, of which some letters have two
    arguments: {{text: é, unit: bytes}}
    expect_json: {{unit: bytes, count: 2}}
  - name: nothing at all
    arguments: {{text: "", unit: lines}}
    expect_json: {{unit: lines, count: 0}}
"""

_IMAGE = """\
# Each call gets a container or sandbox of its own, without network and with a read-only root; nothing is left of it. To
# run this machine's own programs instead, write `engine: local` in place of `image` and `mounts`.
image: {image}
mounts:
  "{{contract_dir}}": /tool
"""

_HOST = """\
# This machine's own programs, in a sandbox where one can be made: the system's files read-only, no home directories, no
# network. To run in a container instead, write `image: NAME` in place of this, and
#   mounts: {"{contract_dir}": /tool}
engine: local
"""

_HOST_NETWORK = """\
# Nothing on this machine can take the network from a program. With `none`, calls are refused where that is so.
network: host
"""

_SHELL = """\
# Counts what standard input holds. The argument arrives as --unit=…; what goes wrong belongs on standard error, with an
# exit code other than 0: the model reads it and corrects its call.
unit=${1#--unit=}
case $unit in
lines) option=-l ;;
words) option=-w ;;
bytes) option=-c ;;
*)
    echo "unit must be lines, words or bytes" >&2
    exit 2
    ;;
esac
count=$(wc "$option")
printf '{"unit": "%s", "count": %d}\\n' "$unit" "$count"
"""

_PYTHON = '''\
"""Counts what standard input holds."""

import argparse
import json
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--unit", choices=["lines", "words", "bytes"], default="words")
unit = parser.parse_args().unit

# What goes wrong belongs on standard error, with an exit code other than 0 (sys.exit("why") does both): the model reads
# it and corrects its call.
text = sys.stdin.buffer.read()
counts = {"lines": text.count(b"\\n"), "words": len(text.split()), "bytes": len(text)}
print(json.dumps({"unit": unit, "count": counts[unit]}))
'''

_NODE = """\
// Counts what standard input holds.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { unit: { type: "string", default: "words" } } });
const text = readFileSync(0);
const counts = {
  lines: text.reduce((sum, byte) => sum + (byte === 10 ? 1 : 0), 0),
  words: text.toString("utf8").split(/\\s+/).filter(Boolean).length,
  bytes: text.length,
};
if (!Object.hasOwn(counts, values.unit)) {
  // The model reads standard error, and corrects its call.
  console.error("unit must be lines, words or bytes");
  process.exit(2);
}
console.log(JSON.stringify({ unit: values.unit, count: counts[values.unit] }));
"""

_GO = """\
// Counts what standard input holds.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	unit := flag.String("unit", "words", "lines, words or bytes")
	flag.Parse()
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	counts := map[string]int{
		"lines": bytes.Count(text, []byte("\\n")),
		"words": len(bytes.Fields(text)),
		"bytes": len(text),
	}
	count, known := counts[*unit]
	if !known {
		// The model reads standard error, and corrects its call.
		log.Fatal("unit must be lines, words or bytes")
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"unit": *unit, "count": count})
}
"""

_GO_IN_IMAGE = """\
# `go run` compiles the code; what it compiled is kept between calls, so that only the first one takes long.
cache_dirs: [/cache]
env:
  GOCACHE: /cache/build
  GOPATH: /cache/modules
  GOTMPDIR: /cache
  CGO_ENABLED: 0
  GOTOOLCHAIN: local
"""

_PYTHON_NAME = "python" if sys.platform == "win32" else "python3"

STARTERS: dict[str, Starter] = {
    "shell": Starter("main.sh", _SHELL, "busybox:1.36", ("sh",)),
    "python": Starter("main.py", _PYTHON, "python:3.13-slim", (_PYTHON_NAME, "-B")),
    "node": Starter("main.mjs", _NODE, "node:22-slim", ("node",)),
    "go": Starter("main.go", _GO, "golang:1.25", ("go", "run"), _GO_IN_IMAGE, ("go", "build", "-o", BUILT, "main.go")),
}
