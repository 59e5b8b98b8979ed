"""A ``docker run`` command → one contract.

What a tool must not have is refused: privileges, devices, ports, the namespaces of the host. Where the command leaves
something open that a contract decides otherwise (the network, writable mounts), the contract's own default stays, and
a comment says so.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Any

from praxis_mcp.contracts.model import NAME_PATTERN
from praxis_mcp.errors import ArgumentError
from praxis_mcp.importing.disclosed import is_plain, is_secret_name, is_secret_text, variable_of
from praxis_mcp.importing.docker_options import HERE, OWN_USER, DockerRun, read_command
from praxis_mcp.importing.yaml_text import as_yaml

_PLACEHOLDER = re.compile(r"\$\{(?P<a>[A-Za-z_]\w*)\}|\$(?P<b>[A-Za-z_]\w*)|\{\{?(?P<c>[A-Za-z_][\w-]*)\}?\}")
_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "/bin/sh", "/bin/bash", "/bin/ash"})
_SHOWN_OF_WORDS = 200
_WORK = "/work"
"""Where the directory goes that a command mounts at its own path."""

_REFUSED = {
    "--privileged": "it gives the tool the whole machine",
    "--detach": "it starts a service, and a tool's call ends",
    "--publish": "nothing can reach a tool's ports",
    "--publish-all": "nothing can reach a tool's ports",
    "--device": "no engine gives devices to a tool",
    "--gpus": "no engine gives devices to a tool",
    "--cap-add": "a tool gets no capabilities",
    "--volumes-from": "a tool shares no files with other containers",
    "--pid": "a tool sees no processes but its own",
    "--ipc": "a tool shares no memory with others",
    "--uts": "a tool does not share the host's name",
    "--userns": "the engine decides about users",
    "--cgroupns": "the engine decides about control groups",
    "--use-api-socket": "it gives the tool the Docker daemon",
    "--security-opt": "it takes away what keeps a tool in its place",
}
_UNNEEDED = frozenset({
    "--rm", "--name", "--init", "--quiet", "--pull", "--sig-proxy", "--detach-keys", "--label", "--label-file",
    "--attach", "--log-driver", "--log-opt", "--no-healthcheck", "--cidfile", "--hostname", "--replace",
    "--disable-content-trust",
    "--health-cmd", "--health-interval", "--health-retries", "--health-timeout", "--health-start-period",
})  # fmt: skip
"""What every call has anyway, or what means nothing for one."""
_SAFE_SECURITY = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")


@dataclass(slots=True)
class ImportedTool:
    """A contract that was made of something else.

    Attributes:
        name: of the tool.
        contract: as it is written.
        notes: what was not carried over, or otherwise than it was written, a sentence each.
        secrets: names of the secrets that it takes, each with what it is.
    """

    name: str
    contract: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)

    def written(self, origin: str) -> str:
        """The contract's file.

        Args:
            origin: where it comes from, for its first line.
        """
        comments = [f"Imported from {origin}: read it before it is served.", *self.notes]
        head = "".join(f"# {' '.join(comment.split())}\n" for comment in comments)
        return head + as_yaml(self.contract)


def import_command(text: str, name: str | None = None) -> ImportedTool:
    """The contract of a command.

    Args:
        text: the command, as it is pasted.
        name: of the tool; None takes the container's or the image's.

    Raises:
        ArgumentError: it is not a ``docker run``, or one that no contract can be made of; says everything that is in
            the way.
    """
    command = read_command(text)
    _refuse(command)
    return _Reader(command, name).read()


def _refuse(command: DockerRun) -> None:
    reasons: dict[str, str] = {}
    for option, value in command.options:
        if option in _REFUSED and value != "false":
            if option == "--security-opt" and value in _SAFE_SECURITY:
                continue
            if option in ("--ipc", "--cgroupns") and value == "private":
                continue
            reasons[option] = _REFUSED[option]
        if option in ("--volume", "--mount") and re.search(r"(?:docker|podman|containerd)\.sock\b", value):
            reasons[option] = "it gives the tool the container engine, and with it the whole machine"
    if reasons:
        listed = "; ".join(f"{option} ({reason})" for option, reason in reasons.items())
        raise ArgumentError(f"The command cannot be a tool: {listed}.", remedy="Remove these to import it without.")


class _Reader:
    def __init__(self, command: DockerRun, name: str | None) -> None:
        self._command = command
        self._tool = ImportedTool(name or _name_of(command), {})
        self._notes = self._tool.notes
        self._parameters: dict[str, dict[str, Any]] = {}
        self._env: dict[str, Any] = {}
        self._passed: list[str] = []
        self._mounts: dict[str, str] = {}
        self._fields: dict[str, Any] = {}
        self._entrypoint: str | None = None

    def read(self) -> ImportedTool:
        reads_input = is_terminal = False
        for option, value in self._command.options:
            reads_input = reads_input or (option == "--interactive" and value != "false")
            is_terminal = is_terminal or (option == "--tty" and value != "false")
            self._option(option, value)
        words = self._words()
        if reads_input and not is_terminal:
            self._parameters["input"] = {
                "type": "string", "description": "What the tool reads on standard input.", "bind": "stdin",
            }  # fmt: skip
            self._notes.append(
                "If the image is an MCP server, it is not a tool but an upstream: praxis-mcp import mcp-json."
            )
        elif is_terminal:
            self._notes.append("-t is left out: a tool has no terminal.")
        if "network" not in self._fields:
            self._notes.append(
                "Docker gives it the network, this contract does not: network: bridge, if it needs that."
            )
        contract = self._tool.contract
        contract |= {
            "name": self._tool.name,
            "description": f"Runs {' '.join(words[:4])[:_SHOWN_OF_WORDS]} of {self._command.image}.",
        }
        contract |= {"image": self._command.image, "command": words}
        if self._entrypoint is None:
            contract["use_entrypoint"] = True
        contract |= self._fields
        contract |= {"mounts": self._mounts} if self._mounts else {}
        contract |= {"env": self._env} if self._env else {}
        contract |= {"env_passthrough": self._passed} if self._passed else {}
        if self._parameters:
            contract["parameters"] = self._parameters
        example = {name: f"an example of {name}" for name in self._parameters}
        contract["examples"] = [{"name": "as it was imported", "arguments": example}]
        return self._tool

    def _option(self, option: str, value: str) -> None:
        match option:
            case "--env":
                self._variable(value)
            case "--volume":
                self._volume(value)
            case "--mount":
                self._mount(value)
            case "--workdir":
                self._fields["working_dir"] = value.replace(HERE, _WORK)
            case "--user" if OWN_USER in value:
                self._notes.append("--user is left out: what writes to this machine runs as the server's own user.")
            case "--user":
                self._fields["user"] = value
            case "--network":
                self._network(value)
            case "--memory":
                self._fields["memory_limit"] = value
            case "--cpus":
                self._number("cpu_limit", option, value)
            case "--pids-limit":
                if value not in ("-1", "0"):
                    self._number("pids_limit", option, value)
            case "--read-only":
                self._fields["read_only"] = value != "false"
            case "--cap-drop" if value.upper() == "ALL":
                self._fields["drop_capabilities"] = True
            case "--tmpfs" if posixpath.normpath(value.partition(":")[0]) == "/tmp":  # noqa: S108 - in the container
                pass  # which can always be written
            case "--entrypoint":
                self._entrypoint = value
            case "--env-file":
                self._notes.append("--env-file is left out: write the variables in env, secrets as {secret: NAME}.")
            case "--interactive" | "--tty":
                pass  # see `read`
            case _ if option not in _UNNEEDED and option not in _REFUSED:
                self._notes.append(f"{option} is not carried over.")

    def _number(self, key: str, option: str, value: str) -> None:
        try:
            number = float(value)
        except ValueError as exc:
            raise ArgumentError(f"The value of {option} is not a number.", remedy="Fix it.") from exc
        self._fields[key] = int(number) if number.is_integer() else number

    def _variable(self, value: str) -> None:
        name, mark, text = value.partition("=")
        own = _PLACEHOLDER.fullmatch(text)
        if not mark or (own and _named(own) == name):
            if is_secret_name(name):
                self._secret(name, name, f"the variable {name}")
            else:
                self._passed.append(name)
        elif own:
            self._parameter(own, {"env": name})
        elif is_plain(name, text) and not _PLACEHOLDER.search(text):
            self._env[name] = text
        else:
            self._secret(name, variable_of(name), f"the value of {name} in the command")

    def _secret(self, variable: str, secret: str, where: str) -> None:
        self._env[variable] = {"secret": secret}
        self._tool.secrets[secret] = where

    def _network(self, value: str) -> None:
        if value in ("none", "bridge", "host", "default"):
            self._fields["network"] = "bridge" if value == "default" else value
        else:
            self._fields["network"] = "bridge"
            self._notes.append("The network of that name is not carried over: a tool reaches the outside, or nothing.")

    def _volume(self, value: str) -> None:
        parts = value.split(":")
        if len(parts) > 2 and re.fullmatch(r"[A-Za-z]", parts[0]) and parts[1][:1] in "\\/":
            parts = [f"{parts[0]}:{parts[1]}", *parts[2:]]
        if len(parts) < 2:
            self._notes.append("An anonymous volume is left out: write cache_dirs for a directory that is kept.")
            return
        source, target, *options = parts
        self._mounted(source, target, {word for option in options for word in option.split(",")})

    def _mount(self, value: str) -> None:
        parts = (part.partition("=") for part in value.split(","))
        fields = {key: text for key, _, text in parts}
        source = fields.get("source") or fields.get("src") or ""
        target = fields.get("target") or fields.get("destination") or fields.get("dst") or ""
        if fields.get("type", "volume") == "tmpfs":
            self._option("--tmpfs", target)
            return
        reads = {"readonly", "ro"} & fields.keys()
        is_read_only = any(fields[key] in ("", "true", "1") for key in reads)
        if fields.get("type", "volume") == "bind" and not source.startswith(("/", ".", "~", HERE)):
            source = f"./{source}" if source and not _PLACEHOLDER.search(source) else source
        self._mounted(source, target, {"ro"} if is_read_only else set())

    def _mounted(self, source: str, target: str, options: set[str]) -> None:
        placed = target.replace(HERE, _WORK)
        found = _PLACEHOLDER.search(source.replace("$HOME", "~").replace("${HOME}", "~"))
        if found and posixpath.splitext(placed)[1]:
            self._parameter(found, {"file": placed}, "The content of the file.")
            return
        if found:
            raise ArgumentError(
                f"A call cannot choose what is mounted at {placed}: mounts are fixed in the contract.",
                remedy="Write a path in its place, or mount a single file, whose content a call can give.",
            )
        source = source.replace(HERE, ".").replace("${HOME}", "~").replace("$HOME", "~")
        if not source.startswith(("/", ".", "~")) and not re.match(r"[A-Za-z]:", source):
            self._notes.append(
                f"The volume at {placed} is left out: write cache_dirs: [{placed}] to keep it between calls."
            )
            return
        if "rw" in options:
            placed += ":rw"
        elif not options & {"ro", "readonly"}:
            self._notes.append(f"{placed} is read-only here: write :rw after it if the tool has to change it.")
        self._mounts[posixpath.normpath(source)] = placed

    def _words(self) -> list[str]:
        """The fixed words; the others become parameters."""
        given = ([self._entrypoint] if self._entrypoint else []) + [
            word.replace(HERE, _WORK) for word in self._command.words
        ]
        if not given:
            raise ArgumentError(
                "The command leaves to the image what it runs, and a contract has to say that.",
                remedy="Add the words of its command; docker image inspect IMAGE shows them (Entrypoint, Cmd).",
            )
        in_shell = {index + 2 for index, word in enumerate(given[:-2]) if word in _SHELLS and given[index + 1] == "-c"}
        fixed: list[str] = []
        position = 0
        last_fixed_operand = max((i for i, word in enumerate(given) if not _is_open(word)), default=-1)
        for index, word in enumerate(given):
            before = fixed[-1] if fixed else ""
            option = re.fullmatch(r"(--?[\w-]+=)(.+)", word, re.DOTALL)
            if index in in_shell:
                fixed.append(self._shell_text(word))
            elif (found := _PLACEHOLDER.fullmatch(word)) is not None:
                if before.startswith("-") and before != "--" and "=" not in before and len(fixed) > 1:
                    fixed.pop()
                    self._parameter(found, {"flag": before})
                    continue
                if index < last_fixed_operand and not all(
                    item.startswith("-") for item in given[index:] if not _is_open(item)
                ):
                    raise _misplaced(found[0])
                position += 1
                self._parameter(found, {"position": position})
            elif option and (found := _PLACEHOLDER.fullmatch(option[2])) is not None:
                self._parameter(found, {"flag": option[1]})
            elif _PLACEHOLDER.search(word) and not is_secret_text(word):
                raise _misplaced(word)
            elif is_secret_text(word):
                raise ArgumentError(
                    "The command holds what looks like a secret, for which a contract's command has no place.",
                    remedy="Give it by a variable: -e NAME, which the program reads.",
                )
            else:
                fixed.append(word)
        if not fixed:
            raise ArgumentError(
                "The command has placeholders only, and a contract's command begins with a word of its own.",
                remedy="Name the program: --entrypoint PROGRAM.",
            )
        return fixed

    def _shell_text(self, text: str) -> str:
        for found in _PLACEHOLDER.finditer(text):
            name = found["a"] or found["b"]
            if name is None:
                raise _misplaced(found[0])
            if name not in self._env and name not in self._passed and name not in ("HOME", "PATH", "PWD", "USER"):
                self._parameter(found, {"env": name})
        return text

    def _parameter(self, found: re.Match[str], bind: dict[str, Any], description: str = "") -> None:
        name = _named(found).lower()
        before = self._parameters.get(name)
        if before is not None and before["bind"] != bind:
            raise ArgumentError(
                f"The placeholder {found[0]} stands in two places, and a parameter reaches one.",
                remedy="Name one of them otherwise.",
            )
        self._parameters[name] = {
            "type": "string", "description": description or f"What stands for {found[0]} in the command.", "bind": bind,
        }  # fmt: skip


def _named(found: re.Match[str]) -> str:
    return found["a"] or found["b"] or found["c"]


def _is_open(word: str) -> bool:
    return _PLACEHOLDER.fullmatch(word) is not None


def _misplaced(shown: str) -> ArgumentError:
    return ArgumentError(
        f"{shown} stands where no argument can: an argument is a word of its own, after an option or at the end.",
        remedy="Move it there, or write the word itself in its place.",
    )


def _name_of(command: DockerRun) -> str:
    given = next((value for option, value in command.options if option == "--name"), "")
    last = command.image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", given or last).strip("._-")[:64] or "tool"
    return name if NAME_PATTERN.fullmatch(name) else "tool"
