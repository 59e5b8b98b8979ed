"""The plan: one frozen value that explain, audit, caches and execution all use.

A plan has two halves. The *blueprint* is all that is fixed for a contract, hashable: the key of a pool of warm
containers or of a cached Dagger prefix. The *call* is what varies: words, variables, standard input, files, deadline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.values import Network


class Capability(StrEnum):
    """Something that a plan may demand and an engine may be able to enforce or provide."""

    IMAGES = "container images"
    BUILD = "build"
    HOST_COMMANDS = "commands on the host"
    REMOTE_TOOLS = "tools of other MCP servers"
    HTTP_REQUESTS = "HTTP requests"
    TIMEOUT = "timeout"
    MEMORY_LIMIT = "memory_limit"
    CPU_LIMIT = "cpu_limit"
    PIDS_LIMIT = "pids_limit"
    NETWORK_NONE = "network: none"
    NETWORK_BRIDGE = "network: bridge"
    NETWORK_HOST = "network: host"
    READ_ONLY_ROOT = "read_only"
    WRITABLE_ROOT = "read_only: false"
    USER = "user"
    PRIVILEGED = "privileged"
    DROP_CAPABILITIES = "drop_capabilities"
    MOUNTS = "mounts"
    WRITABLE_MOUNTS = "mounts with :rw"
    CACHE_DIRS = "cache_dirs"
    STDIN = "bind: stdin"
    FILES = "bind: file"
    ARTIFACTS = "artifacts"


class Guard(StrEnum):
    """What keeps a tool from changing what steers the server, though a writable mount holds it (see `protected`)."""

    NONE = ""
    """Nothing: it is the contract's own mount."""
    SHIELD = "shield"
    """A protected place, read-only on top of a writable mount."""
    PIN = "pin"
    """A directory on the way to one, mounted onto itself: so it cannot be renamed."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path that the tool sees.

    Attributes:
        source: absolute path on the host.
        target: absolute path for the tool.
        writable: whether what the tool writes reaches the host.
        identity: device and inode of what was judged at the source; None before it was, and where the platform does
            not tell.
        guard: see `Guard`.
        is_older: of a contract in an older spelling: what is missing is made, and what no tool may write to is
            read-only instead of refused.
        is_missing: there is nothing at the source yet; a call makes a directory there.
        kept: why it is read-only though the contract has it writable, as the end of a sentence about its source.
    """

    source: Path
    target: str
    writable: bool = False
    identity: tuple[int, int] | None = field(default=None, compare=False)
    guard: Guard = Guard.NONE
    is_older: bool = False
    is_missing: bool = field(default=False, compare=False)
    kept: str = field(default="", compare=False)


DEFAULT_PIDS = 512
"""Processes and threads of a container or sandbox whose contract sets no limit: a fork bomb must not take the host."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the tool may use.

    Attributes:
        timeout: seconds, for the whole process tree, from its start.
        memory: bytes, or None.
        cpus: cores, or None.
        pids: processes and threads, or None.
        max_output: bytes of each stream that a result carries inline.
    """

    timeout: float
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    max_output: int = 64 * 1024


class Where(StrEnum):
    """The kind of place in which a plan runs."""

    CONTAINER = "container"
    HOST = "host"
    REMOTE = "remote"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool on another MCP server; headers and token are named, not held: see `Call.headers`."""

    address: str | tuple[str, ...]
    tool: str
    transport: str = "auto"


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Where requests of a contract go, and what their answers may be; see `HttpEngineSpec`.

    Attributes:
        method, url, follow_redirects, max_response: as in the contract.
        has_secrets: whether a request carries what no other host may see.
    """

    method: str
    url: str
    follow_redirects: bool
    max_response: int
    has_secrets: bool


_WHERE = {
    Where.CONTAINER: Capability.IMAGES,
    Where.HOST: Capability.HOST_COMMANDS,
    Where.REMOTE: Capability.REMOTE_TOOLS,
    Where.HTTP: Capability.HTTP_REQUESTS,
}
_NETWORKS = {
    Network.NONE: Capability.NETWORK_NONE,
    Network.BRIDGE: Capability.NETWORK_BRIDGE,
    Network.HOST: Capability.NETWORK_HOST,
}


@dataclass(frozen=True, slots=True)
class ImageBuild:
    """How the image of a contract is made.

    Attributes:
        owner: a digest that stands for the tool whose images these are.
        base: the image that packages are added to; None where a Dockerfile names it.
        requirements: file of requirements; absolute, as all paths here.
        packages: requirements.
        dockerfile: the Dockerfile.
        context: the directory that it may copy from.
        network: what the build can reach, ``bridge`` or ``none``.
        index_url: where pip looks for packages.
        wheels: directory of wheels.
        digest: SHA-256 of all that goes into the image, in hexadecimal; empty until it was looked at.
        parts: a digest of each file or directory of that, by name.
        bases: the images that it starts or copies from.
        is_hashed: the requirements have hashes, and pip takes nothing else.
        pins: image of `bases` → what it is by digest, or id; built from that.
        locked: every requirement with its version and hashes, installed instead of those above; None where not known.
        only_resolves: the image just has at `REPORT` what pip would install.
        is_fresh: built again, though it is there, and without a cache.
    """

    owner: str = ""
    base: str | None = None
    requirements: Path | None = None
    packages: tuple[str, ...] = ()
    dockerfile: Path | None = None
    context: Path | None = None
    network: str = "bridge"
    index_url: str | None = None
    wheels: Path | None = None
    digest: str = ""
    parts: tuple[tuple[str, str], ...] = ()
    bases: tuple[str, ...] = ()
    is_hashed: bool = False
    pins: tuple[tuple[str, str], ...] = ()
    locked: tuple[str, ...] | None = None
    only_resolves: bool = False
    is_fresh: bool = False

    @property
    def needs_versions(self) -> bool:
        """Whether what pip installs depends on the day, as far as the contract goes."""
        return self.dockerfile is None and not self.is_hashed

    @property
    def sources(self) -> tuple[str, ...]:
        """The images that it is built from, as who builds it knows them."""
        pins = dict(self.pins)
        return tuple(pins.get(base, base) for base in self.bases)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """All that is fixed for a contract; hashable.

    Attributes:
        tool: the contract's name.
        where: see `Where`.
        engines: the engines that the contract accepts, by name, in the order of the settings.
        image: image reference, for containers.
        build: how that image is made, where the contract says it.
        network, user, privileged, read_only, drop_capabilities, use_entrypoint, cache_dirs: as in the contract.
        cache_owner: who alone uses what is kept between calls: a digest of the project, the contract's file and, for a
            server with several callers, the caller. Empty: nothing may be kept.
        contract_dir: the contract's own folder on the host, for commands there.
        working_dir: absolute directory for the tool, or None for the image's own (containers) or a fresh one (host).
        mounts: see `Mount`.
        code: for a contract in an older spelling, what its command names as programs and scripts: of each group of
            absolute paths for the tool the first that is a file.
        artifact_dir: where the tool leaves artifacts, absolute for the tool; None when the contract declares none.
        artifacts: the contract's artifact patterns.
        limits: see `Limits`.
        stdin, files: a parameter is bound to standard input, or to a file, whether or not a call gives it.
        pure: equal calls may be answered from a cache.
        warm: containers and sandboxes may be started before they are called for.
        capture_output: False discards what the tool writes.
        remote: the tool elsewhere, for `Where.REMOTE`.
        http: where requests go, for `Where.HTTP`.
    """

    tool: str
    where: Where
    engines: tuple[str, ...]
    limits: Limits
    image: str | None = None
    build: ImageBuild | None = None
    network: Network = Network.NONE
    user: str | None = None
    privileged: bool = False
    read_only: bool | None = None
    drop_capabilities: bool | None = None
    use_entrypoint: bool = False
    cache_dirs: tuple[str, ...] = ()
    cache_owner: str = ""
    working_dir: str | None = None
    contract_dir: str | None = None
    mounts: tuple[Mount, ...] = ()
    code: tuple[tuple[str, ...], ...] = ()
    artifact_dir: str | None = None
    artifacts: tuple[str, ...] = ()
    stdin: bool = False
    files: bool = False
    pure: bool = False
    warm: bool = True
    capture_output: bool = True
    remote: RemoteTool | None = None
    http: HttpTarget | None = None

    @property
    def own_mounts(self) -> tuple[Mount, ...]:
        """Those of the contract itself, without what keeps parts of them from the tool."""
        return tuple(mount for mount in self.mounts if mount.guard is Guard.NONE)

    def cache_key(self, directory: str) -> str:
        """What names the directory that is kept for one of `cache_dirs`, in letters and digits. Another project's tool
        of the same name, another image, user or caller has another: what one leaves there, no other trusts."""
        whose = (self.cache_owner, self.tool, self.image or "", self.user or "", directory)
        return hashlib.sha256("\0".join(whose).encode()).hexdigest()

    @property
    def demands(self) -> frozenset[Capability]:
        """What an engine must be able to enforce or provide to run every call of this contract."""
        wanted = {_WHERE[self.where], Capability.TIMEOUT}
        if self.where in (Where.REMOTE, Where.HTTP):
            return frozenset(wanted)
        wanted.add(_NETWORKS[self.network])
        conditional = {
            Capability.MEMORY_LIMIT: self.limits.memory is not None,
            Capability.CPU_LIMIT: self.limits.cpus is not None,
            Capability.PIDS_LIMIT: self.limits.pids is not None,
            Capability.PRIVILEGED: self.privileged,
            Capability.MOUNTS: bool(self.mounts),
            Capability.WRITABLE_MOUNTS: any(mount.writable for mount in self.mounts),
            Capability.CACHE_DIRS: bool(self.cache_dirs),
            Capability.STDIN: self.stdin,
            Capability.FILES: self.files,
            Capability.ARTIFACTS: self.artifact_dir is not None,
        }
        if self.where is Where.CONTAINER:
            conditional |= {
                Capability.BUILD: self.build is not None,
                Capability.USER: self.user is not None,
                Capability.READ_ONLY_ROOT: self.read_only is True,
                Capability.WRITABLE_ROOT: self.read_only is False,
                Capability.DROP_CAPABILITIES: self.drop_capabilities is True and not self.privileged,
            }
        return frozenset(wanted | {capability for capability, needed in conditional.items() if needed})


@dataclass(frozen=True, slots=True)
class CallFile:
    """A file that exists for one call: absolute path for the tool, and content."""

    path: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """What varies from call to call. Nothing in its `repr` shows a value that a caller or a secret gave.

    Attributes:
        run_id: unique id of the run.
        argv: the words of the command, whole.
        env: variables that the contract and the arguments set (secrets resolved).
        stdin: standard input; None means empty.
        files: see `CallFile`.
        arguments: the validated arguments, defaults applied (what a remote tool is called with).
        url: of an HTTP request, with the arguments in it (secrets resolved).
        headers: HTTP headers for a remote tool or a request (secrets resolved).
        body: of a request; None where it has no body.
        secrets: resolved secret values, to be masked in all output.
    """

    run_id: str
    argv: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    stdin: bytes | None = field(default=None, repr=False)
    files: tuple[CallFile, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will run, whole: `blueprint` (fixed) and `call` (this time)."""

    blueprint: Blueprint
    call: Call

    @property
    def demands(self) -> frozenset[Capability]:
        """See `Blueprint.demands`."""
        return self.blueprint.demands
