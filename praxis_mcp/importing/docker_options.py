"""The words of a ``docker run`` command, told apart as Docker's own command line tells them apart (docker/cli, docs of
``docker container run``; Podman's differ in nothing that matters here)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from praxis_mcp.errors import ArgumentError

_FLAGS = frozenset({
    "--detach", "--disable-content-trust", "--help", "--init", "--interactive", "--no-healthcheck",
    "--oom-kill-disable", "--privileged", "--publish-all", "--quiet", "--read-only", "--replace", "--rm", "--sig-proxy",
    "--tty", "--use-api-socket",
})  # fmt: skip
"""Options without a value of their own word; every other one takes one."""
_SHORT = {
    "-a": "--attach", "-c": "--cpu-shares", "-d": "--detach", "-e": "--env", "-h": "--hostname", "-i": "--interactive",
    "-l": "--label", "-m": "--memory", "-P": "--publish-all", "-p": "--publish", "-q": "--quiet", "-t": "--tty",
    "-u": "--user", "-v": "--volume", "-w": "--workdir",
}  # fmt: skip
_ALIASES = {"--net": "--network", "--net-alias": "--network-alias", "--dns-opt": "--dns-option"}

_BEGINNING = re.compile(r"\s*(?:[$#>]\s+)?(?:sudo\s+(?:-\S+\s+)*)?(?=docker|podman|nerdctl)")
_CONTINUED = re.compile(r"[\\^`][ \t]*\r?\n")
_ANGLED = re.compile(r"<([A-Za-z][\w .-]{0,62})>")
_HERE = re.compile(r"\$\(pwd\)|`pwd`|\$\{PWD\}|\$PWD\b|%cd%|\$\(PWD\)", re.IGNORECASE)
_WHO = re.compile(r"\$\(id -u\)|`id -u`|\$\{?UID\}?|\$\(id -g\)|`id -g`|\$\{?GID\}?")
_SHELL = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "<<<"})

HERE = "\x00here\x00"
"""What stands for the directory that the command is run in."""
OWN_USER = "\x00user\x00"
"""What stands for the number of the user, or of its group, who runs the command."""


@dataclass(slots=True)
class DockerRun:
    """A command, as far as its words tell it.

    Attributes:
        options: in their order, by their long names; without a value for a flag.
        image: its name.
        words: what follows it.
    """

    options: list[tuple[str, str]] = field(default_factory=list)
    image: str = ""
    words: list[str] = field(default_factory=list)


def read_command(text: str) -> DockerRun:
    """The parts of a command as it is pasted from a page: with a prompt, sudo and continued lines.

    Raises:
        ArgumentError: it is something else than one ``docker run``.
    """
    text = _CONTINUED.sub(" ", text.strip())
    match = _BEGINNING.match(text)
    if match is None:
        raise ArgumentError("This is not a docker run command.", remedy="Begin it with: docker run")
    text = _ANGLED.sub(lambda found: "{" + re.sub(r"\W+", "_", found[1]).strip("_") + "}", text[match.end() :])
    text = _WHO.sub(OWN_USER, _HERE.sub(HERE, text))
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise ArgumentError("A quotation mark in the command has no end.", remedy="Close it.") from exc
    if odd := next((word for word in words if word in _SHELL or word.endswith(";")), None):
        raise ArgumentError(
            f"The command has {odd}, which is the shell's: a contract runs one command, without a shell.",
            remedy="Give docker run alone; what it reads and writes is the tool's input and output.",
        )
    at = next((index for index in (1, 2) if words[index : index + 1] == ["run"]), None)
    if at is None or (at == 2 and words[1] != "container"):
        raise ArgumentError("This is not a docker run command.", remedy="Begin it with: docker run")
    return _split(words[at + 1 :])


def _split(words: Sequence[str]) -> DockerRun:
    found = DockerRun()
    rest = iter(words)
    for word in rest:
        if word == "--":
            found.image = next(rest, "")
        elif word.startswith("--"):
            name, mark, value = word.partition("=")
            name = _ALIASES.get(name, name)
            if not mark and name not in _FLAGS:
                value = _value(name, rest)
            found.options.append((name, value))
            continue
        elif word.startswith("-") and len(word) > 1:
            found.options += _short(word, rest)
            continue
        else:
            found.image = word
        break
    found.words = list(rest)
    if not found.image:
        raise ArgumentError("The command names no image.", remedy="Give the whole command.")
    return found


def _short(word: str, rest: Iterator[str]) -> Iterator[tuple[str, str]]:
    for index, letter in enumerate(word[1:], 1):
        name = _SHORT.get(f"-{letter}")
        if name is None:
            raise ArgumentError(f"docker run has no option -{letter}.", remedy="Fix or remove it.")
        if name in _FLAGS:
            if word[index + 1 : index + 2] == "=":
                yield name, word[index + 2 :]
                return
            yield name, ""
            continue
        yield name, word[index + 1 :].removeprefix("=") or _value(f"-{letter}", rest)
        return


def _value(name: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        raise ArgumentError(f"The option {name} has no value.", remedy="Give the whole command.")
    return value
