"""The sections of the settings, each with what it means; that of serving over the network is in `http`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from praxis_mcp.settings.base import OAuthSettings, Section, TextOrSecret
from praxis_mcp.settings.kubernetes import KubernetesSettings
from praxis_mcp.settings.toolsets import ToolsetName
from praxis_mcp.support.files import state_home
from praxis_mcp.support.installation import usable_plugins

CONTAINER_ENGINES = ("dagger", "docker", "kubernetes", "sandbox")
DEFAULT_ORDER = ("dagger", "docker", "sandbox")
"""Of this machine: no call goes to a cluster that nobody has named."""

Transport = Literal["auto", "http", "sse", "stdio"]
"""The transport to another server. ``auto`` goes by the address: a command is ``stdio``, a URL whose path ends in
``/sse`` is ``sse`` (HTTP+SSE of 2024-11-05), any other ``http`` (Streamable HTTP of any revision)."""


class UpstreamSettings(Section):
    """One other MCP server whose tools are republished.

    Attributes:
        address: its URL, or the words of the command that starts it, in the project (`Settings.base`).
        transport: how to speak to it. ``auto`` goes by the address; see `Transport`.
        env: variables for the command, besides PATH, HOME and the few others that every program needs.
        headers: HTTP headers.
        auth_token: bearer token. The token of a client of this server is never passed on.
        oauth: see `OAuthSettings`.
        prefix: before each tool's name; None is the upstream's own name and ``_``; empty leaves names as they are.
            Where it begins another upstream's, as an empty one does, the tools are to be listed in `include`.
        include, exclude: globs of the tools' names there; a tool is taken if one of the first matches, and none of the
            second.
        rename: name there → name here, before the prefix.
        describe: name there → description here.
        timeout: seconds that a call may take.
        refresh: seconds after which tools are listed again, besides when the server says that they have changed.
        idle_timeout: seconds without a call after which a server that was started by command is ended, until the next
            call; None never.
        pin: serve only what was approved: a tool that is new, or whose description or schema has changed, is held back
            until ``praxis-mcp upstreams approve``.
    """

    address: str | tuple[str, ...] = Field(min_length=1)
    transport: Transport = "auto"
    env: Mapping[Annotated[str, Field(pattern=r"^[^=\x00]+$")], TextOrSecret] = {}
    headers: Mapping[str, TextOrSecret] = {}
    auth_token: TextOrSecret | None = None
    oauth: OAuthSettings | None = None
    prefix: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]*$", max_length=64)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    rename: Mapping[str, Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]] = {}
    describe: Mapping[str, str] = {}
    timeout: float = Field(default=300, gt=0)
    refresh: float = Field(default=300, ge=1)
    idle_timeout: float | None = Field(default=600, gt=0)
    pin: bool = False

    @field_validator("rename")
    @classmethod
    def _names_differ(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if len(set(value.values())) < len(value):
            raise ValueError("two tools cannot have the same new name")
        return value

    @model_validator(mode="after")
    def _fields_fit_the_address(self) -> UpstreamSettings:
        headers = bool(self.headers or self.auth_token or self.oauth)
        check_address(self.address, self.transport, headers=headers, env=bool(self.env))
        if self.oauth and self.auth_token:
            raise ValueError("auth_token and oauth cannot both be given")
        return self


def check_address(address: str | tuple[str, ...], transport: str, *, headers: bool, env: bool) -> None:
    """Refuse an address of another MCP server that its transport cannot reach, and fields that would do nothing.

    Raises:
        ValueError: says what does not go together.
    """
    is_command = isinstance(address, tuple) or transport == "stdio"
    if is_command and transport in ("http", "sse"):
        raise ValueError(f"transport: {transport} needs a URL as address, not a command")
    if is_command and headers:
        raise ValueError("headers, auth_token and oauth go with a URL; give a command its credentials by env")
    if not is_command and env:
        raise ValueError("env goes with a command as address, not with a URL")
    if not is_command and not str(address).lower().startswith(("http://", "https://")):
        raise ValueError("the address is a URL with http:// or https://, or a list of the words of a command")


class DockerSettings(Section):
    """How Docker's daemon is reached, and what it runs containers by.

    Attributes:
        host: address of its API, such as ``unix:///run/podman/podman.sock``; None asks the environment
            (``DOCKER_HOST``), then the default socket.
        runtime: OCI runtime, such as ``runsc``; None is the daemon's own.
    """

    host: str | None = None
    runtime: str | None = None


class DaggerSettings(Section):
    """How the Dagger engine is reached.

    Attributes:
        runner_host: address of the engine (``unix://``, ``tcp://``, ``docker-container://`` …); None asks the
            environment (``_EXPERIMENTAL_DAGGER_RUNNER_HOST``), then lets the CLI start one.
        cli: path of the dagger CLI; None asks the environment (``_EXPERIMENTAL_DAGGER_CLI_BIN``), then the PATH.
        workdir: directory in which the CLI is started; None is the server's own.
        images: image reference → tar file (OCI layout or ``docker save``) to take that image from, on machines
            without a registry.
        connect_timeout: seconds to open a session, which may have to start the engine.
        grace: seconds in addition to a call's own timeout that the engine may take to start it and to answer.
        rotate_after_calls, rotate_after: calls, and seconds, after which a session is replaced, because it pins its
            results until it ends.
    """

    runner_host: str | None = None
    cli: Path | None = None
    workdir: Path | None = None
    images: Mapping[str, Path] = {}
    connect_timeout: float = Field(default=60, gt=0)
    grace: float = Field(default=30, gt=0)
    rotate_after_calls: int = Field(default=500, gt=0)
    rotate_after: float = Field(default=1800, gt=0)


LauncherChoice = Literal["auto", "own", "bubblewrap"]
"""What makes sandboxes: praxis-init, which comes with the package (``own``), bubblewrap, or whichever works, in that
order (``auto``)."""


class LocalSettings(Section):
    """How commands run on the host.

    Attributes:
        sandbox: ``auto`` puts them into a sandbox where one can be made; ``require`` refuses to run them without, and
            so do ``own`` and ``bubblewrap``, which also say what makes it (see `LauncherChoice`); ``off`` never does.
        visible: what every command may read of the home directories, which are hidden from it, and of the other hidden
            places (``/tmp``, ``/run``); ``~`` is the home directory. Credentials in it stay hidden.
    """

    sandbox: Literal["auto", "require", "own", "bubblewrap", "off"] = "auto"
    visible: tuple[Path, ...] = ()


class SandboxSettings(Section):
    """How images are run without a daemon.

    Attributes:
        launcher: what makes the sandboxes; see `LauncherChoice`.
        store: where their file systems are kept; None is ``$XDG_DATA_HOME/praxis-mcp/images``.
        max_image_size: bytes that one image may take there.
    """

    launcher: LauncherChoice = "auto"
    store: Path | None = None
    max_image_size: int = Field(default=16 * 1024**3, gt=0)


def _names_an_engine(value: str) -> str:
    if value not in CONTAINER_ENGINES and value not in usable_plugins():
        raise ValueError(f"write one of {', '.join((*CONTAINER_ENGINES, *usable_plugins()))}")
    return value


class RegistryLogin(Section):
    """How to log in to an image registry.

    Attributes:
        username: whose login it is.
        secret: the name of the password or token, among `Settings.secrets`.
    """

    username: str
    secret: str


class EngineSettings(Section):
    """What engines share, and a section for each.

    Attributes:
        order: the container engines to consider for an image contract, first choice first; an engine that another
            package brings may be among them.
        spill: whether a call that would not begin at once on the engine that comes first (no container waits for it)
            runs on a later one of `order` that begins at once, where image and result are the same.
        registries: registry host (``ghcr.io``, ``docker.io``) → login, for Dagger and the sandbox; logins that
            ``docker login`` has stored are used without it.
    """

    order: tuple[Annotated[str, AfterValidator(_names_an_engine)], ...] = DEFAULT_ORDER
    spill: bool = True
    registries: Mapping[str, RegistryLogin] = {}
    docker: DockerSettings = DockerSettings()
    dagger: DaggerSettings = DaggerSettings()
    sandbox: SandboxSettings = SandboxSettings()
    local: LocalSettings = LocalSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()


class WarmSettings(Section):
    """Containers and sandboxes that are started before they are called for: fresh for every call all the same, and
    milliseconds away.

    Attributes:
        enabled: whether there are any; ``warm: false`` in a contract is its own no.
        max_containers: how many wait at once.
        max_per_tool: how many of them wait for the same tool.
        max_memory: bytes that those which wait may take up together; one takes some 8 MiB.
        idle_seconds: seconds without a call of a tool after which none waits for it any more.
    """

    enabled: bool = True
    max_containers: int = Field(default=8, ge=0)
    max_per_tool: int = Field(default=4, ge=0)
    max_memory: int = Field(default=512 * 1024**2, ge=0)
    idle_seconds: float = Field(default=120, gt=0)


class PolicySettings(Section):
    """What contracts may ask for that is refused by default.

    Attributes:
        privileged: contracts may say ``privileged: true``.
        host_network: container contracts may say ``network: host``.
        private_hosts: hosts, by name or address and with ``:port`` where only that is meant, that ``engine: http`` may
            reach though their addresses are not of the public internet (this machine, its network, a cloud's metadata).
        sensitive_paths: host paths that may be mounted although they are sensitive (the home directory, ``/``, the
            container engine's socket, ``~/.ssh`` …).
    """

    privileged: bool = False
    host_network: bool = False
    private_hosts: tuple[str, ...] = ()
    sensitive_paths: tuple[Path, ...] = ()


class BuildSettings(Section):
    """How images are made that contracts describe (``build:``). A build runs code of others, in a container of the
    daemon's usual kind, without the limits of a call.

    Attributes:
        enabled: whether any are.
        network: what a build can reach: ``bridge``, since most fetch packages, or ``none``.
        index_url: where pip looks for packages, instead of PyPI.
        wheels: a directory of wheels that pip takes packages from; without `index_url` from nowhere else.
    """

    enabled: bool = True
    network: Literal["bridge", "none"] = "bridge"
    index_url: str | None = Field(default=None, pattern=r"^https?://[^\s\x00-\x1f]+$")
    wheels: Path | None = None

    @field_validator("index_url")
    @classmethod
    def _holds_no_password(cls, value: str | None) -> str | None:
        if value is not None and "@" in value.split("/")[2]:
            raise ValueError("write it without a name and password, which would stay in every image")
        return value


class CallSettings(Section):
    """How calls are admitted and bounded.

    Attributes:
        max_concurrency: calls that run at once; one upstream's tools take half of these places at most, rounded up,
            unless nothing else is served.
        max_concurrency_per_tool: calls of one tool that run at once, unless its contract says.
        max_queue: calls that wait; one more is refused at once. Of it one upstream's tools have half, likewise.
        max_per_caller: calls of one authenticated caller that run or wait at once; one more is refused at once. None
            lets half of `max_concurrency` run and half of `max_queue` wait, both rounded up, on each server.
        max_rate_per_caller: calls a minute of one authenticated caller, ten seconds' worth of them in a burst; None
            is not a limit. This and `max_per_caller` hold for all servers together that share a database of records,
            and for those of one project that share a directory of them.
        max_timeout: seconds that no contract's `timeout` may exceed.
        max_output: bytes of each stream that a result carries inline, unless the contract says.
        heartbeat: seconds without output after which a progress message tells the client that the call lives on
            (many clients give up after 60 silent seconds).
    """

    max_concurrency: int = Field(default=16, gt=0)
    max_concurrency_per_tool: int = Field(default=8, gt=0)
    max_queue: int = Field(default=64, ge=0)
    max_per_caller: int | None = Field(default=None, gt=0)
    max_rate_per_caller: float | None = Field(default=None, gt=0)
    max_timeout: float = Field(default=3600, gt=0)
    max_output: int = Field(default=32 * 1024, ge=1024)
    heartbeat: float = Field(default=10, gt=0)


class SecretSource(Section):
    """Where one secret comes from: exactly one of an environment variable, a file, or the system's keyring.

    Attributes:
        env: name of the variable.
        file: path of the file; the end of its last line does not count.
        keyring: ``service/user``, as the keyring has it.
    """

    env: str | None = None
    file: Path | None = None
    keyring: str | None = Field(default=None, pattern=r"^[^/]+/[^/]+$", description="service/user")

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.keyring)) != 1:
            raise ValueError("give exactly one of env, file and keyring")
        return self


_DATABASE_URL = re.compile(r"postgres(?:ql)?://(?:[^@?]*@)?([^@?]*)(?:\?[^@]*)?")


class RecordSettings(Section):
    """What is kept of runs: as resources ``praxis://runs/…`` while the server lives, and in a store that outlives it,
    for ``praxis-mcp runs``.

    Attributes:
        enabled: whether ``serve`` and ``call`` keep records in the store.
        directory: where the store is; None is ``$XDG_STATE_HOME/praxis-mcp/records``.
        url: a PostgreSQL database that several servers share, ``postgresql://USER@HOST/NAME``, instead of a file in the
            directory; the files of runs, and the audit trail, are in that.
        password: where the password for it comes from; None leaves it to the URL and to libpq (``PGPASSFILE``).
        max_shared: bytes of one run's files (long output, artifacts) that are kept in the database of `url` too, so
            that every server can read them; the smallest files come first, and what is beyond stays with the server
            that ran the call.
        keep: how many runs a server offers as resources.
        max_stream: bytes of each stream that a record keeps; what is beyond is counted, not kept.
        max_age: days for which a run stays in the store.
        max_runs: how many stay in it; the oldest give way.
        max_bytes: how many bytes of runs, files included, stay in it; the oldest give way.
        arguments: what a record says of a call's arguments: ``none``; ``masked``: the values, but for secrets and
            parameters that are ``writeOnly`` or of the format ``password``; ``hashed``: one digest, by a key of the
            store's own, which shows equal arguments and nothing else.
        changes: what is kept of files that a call changes in writable mounts, for ``runs diff``: ``text``: the content
            of short ones, before and after; ``hashes``: sizes, permissions and digests; ``none``: their paths.
        audit: whether a line for each call, refused ones too, is appended to the audit trail in the store's directory.
        audit_max_bytes: how much of the trail is kept; the oldest file of it is removed beyond.
    """

    enabled: bool = True
    directory: Path | None = None
    url: SecretStr | None = None
    password: SecretSource | None = None
    max_shared: int = Field(default=16 * 1024 * 1024, ge=0)
    keep: int = Field(default=100, ge=0)
    max_stream: int = Field(default=128 * 1024 * 1024, ge=0)
    max_age: float = Field(default=30, gt=0)
    max_runs: int = Field(default=100_000, ge=0)
    max_bytes: int = Field(default=1024**3, ge=0)
    arguments: Literal["none", "masked", "hashed"] = "none"
    changes: Literal["none", "hashes", "text"] = "text"
    audit: bool = True
    audit_max_bytes: int = Field(default=256 * 1024**2, gt=0)

    @field_validator("url")
    @classmethod
    def _is_of_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("write postgresql://USER@HOST/NAME; without a URL, records are in a file of SQLite")
        return value

    @property
    def place(self) -> Path | None:
        """Where the store is; None for a user without a home."""
        state = state_home()
        return self.directory or (state / "records" if state is not None else None)

    @property
    def shown_url(self) -> str:
        """`url` without its user, password and parameters; empty without one."""
        if self.url is None:
            return ""
        # What has an @ or ? in another place is not shown: it may be a part of the password.
        found = _DATABASE_URL.fullmatch(self.url.get_secret_value())
        return f"postgresql://{found[1] if found else '…'}"

    @property
    def is_kept(self) -> bool:
        """Whether there is such a store."""
        return self.enabled and self.place is not None


class TaskSettings(Section):
    """Calls that are answered with a task of the MCP extension ``io.modelcontextprotocol/tasks``: those of contracts
    with ``execution: task`` or ``optional``. They are kept in the store of the records.

    Attributes:
        tools: whether the tools ``runs_status``, ``runs_result`` and ``runs_cancel`` are served, with which the model
            of a client that does not speak the extension follows the tasks of contracts with ``execution: task``.
        ttl: seconds for which the result of a task is kept.
        poll_interval: seconds after which a client is asked to look again.
        max_per_caller: tasks of one caller that are kept; of the ended ones, the oldest give way.
        max_tasks: tasks that are kept in all, likewise.
        max_result: bytes of one result.
        max_bytes: bytes of all results together; the oldest give way.
    """

    tools: bool = False
    ttl: float = Field(default=86_400, gt=0, le=30 * 86_400)
    poll_interval: float = Field(default=1, ge=0.05, le=3600)
    max_per_caller: int = Field(default=100, gt=0)
    max_tasks: int = Field(default=1000, gt=0)
    max_result: int = Field(default=8 * 1024**2, ge=1024)
    max_bytes: int = Field(default=256 * 1024**2, ge=1024)


class LintSettings(Section):
    """What ``praxis-mcp lint`` looks for (docs/checks.md).

    Attributes:
        ignore: codes of checks that are left out for every contract; ``x-lint-ignore`` in a contract is for that one.
    """

    ignore: tuple[str, ...] = ()


class ServerSettings(Section):
    """What the MCP server says of itself.

    Attributes:
        name: its name.
        instructions: what a client tells its model about it.
        page_size: tools in one page of ``tools/list``. Several clients never ask for a second page.
        toolsets: the toolsets whose tools are served, as ``serve --toolset`` names them; none are every tool.
    """

    name: str = "praxis-mcp"
    instructions: str | None = None
    page_size: int = Field(default=1000, gt=0)
    toolsets: tuple[ToolsetName, ...] = ()
