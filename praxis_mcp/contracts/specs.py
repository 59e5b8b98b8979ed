"""Engine specifications: what a contract says about how and where its command runs."""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from praxis_mcp.contracts.values import ByteSize, EnvValue, Network, Real, Whole, parse_network
from praxis_mcp.settings.base import SecretRef
from praxis_mcp.settings.sections import Transport, check_address

NetworkChoice = Annotated[Network, BeforeValidator(parse_network)]
Timeout = Annotated[Real, Field(gt=0, le=86_400)]
EnvName = Annotated[str, Field(pattern=r"^[^=\x00]+$")]

DEFAULT_TIMEOUT = 300.0


class EngineSpec(BaseModel):
    """What every engine's specification has.

    Attributes:
        timeout: seconds from the start of the run until the tool's whole process tree is killed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout: Timeout = DEFAULT_TIMEOUT


class CommandSpec(EngineSpec):
    """What specifications of engines that run a command have.

    In `command`, `env`, sources of `mounts` and working directories ``{contract_dir}`` is the contract's own folder, as
    `contracts.commands` says.

    Attributes:
        command: the words of the command; arguments bound to flags and positions are appended.
        env: variables for the tool; a value is text, or ``{secret: NAME}``.
        env_passthrough: variables copied from the server's own environment, where set there; those that describe its
            machine, such as PATH, are not copied into an image, and TRACEPARENT, TRACESTATE and BAGGAGE are those of
            the call, where it belongs to a trace.
        mounts: host path → path for the tool, read-only unless it ends in ``:rw``. A relative host path starts at
            the project root.
        network: what the tool can reach.
        memory_limit: bytes, or text such as ``512Mi``; the tool is killed above it.
        cpu_limit: cores, such as ``0.5``.
        pids_limit: how many processes and threads the tool may have at once.
        warm: False: no container or sandbox is started for this tool before it is called.
    """

    command: tuple[str, ...] = Field(min_length=1)
    env: dict[EnvName, EnvValue] = Field(default_factory=dict)
    env_passthrough: tuple[str, ...] = ()
    mounts: dict[str, str] = Field(default_factory=dict)
    network: NetworkChoice = Network.NONE
    memory_limit: ByteSize | None = None
    cpu_limit: Real | None = Field(default=None, gt=0, allow_inf_nan=False)
    pids_limit: Whole | None = Field(default=None, gt=0)
    warm: bool = True

    @field_validator("mounts")
    @classmethod
    def _targets_differ(cls, value: dict[str, str]) -> dict[str, str]:
        targets: dict[str, str] = {}
        for source, target in value.items():
            other = targets.setdefault(posixpath.normpath(target.partition(":")[0]), source)
            if other != source:
                raise ValueError(f'"{other}" and "{source}" are mounted at the same place; remove one of them')
        return value

    @field_validator("command", mode="before")
    @classmethod
    def _one_word_is_a_command(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError('write the command as a list of words, such as ["python", "/tool/main.py"]')
        return value

    @field_validator("command")
    @classmethod
    def _words_have_no_nul(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in word for word in value):
            raise ValueError("a word of a command cannot hold a NUL byte")
        if not value[0]:
            raise ValueError("the first word of a command cannot be empty")
        return value


BUILT_IMAGE = "localhost/praxis-build"
"""What images are called that are built by contracts; each has a tag of its own, the hash of what it is made of."""


def _check_package(value: str) -> str:
    # What begins with a hyphen is an option of pip, and a line's end begins another requirement.
    if not value[:1].isalnum() or not value.isprintable() or len(value) > _MAX_PACKAGE:
        raise ValueError("write a requirement on one line, such as requests==2.32.3, without options")
    return value


_MAX_PACKAGE = 1000
Package = Annotated[str, AfterValidator(_check_package)]


class BuildSpec(BaseModel):
    """What an image is made of, ahead of calls. Paths start at the contract's own folder.

    Attributes:
        python: a file of requirements, installed by the pip of the contract's image.
        packages: requirements, such as ``requests==2.32.3``, in addition.
        dockerfile: a Dockerfile; ``Dockerfile`` in the context where only that is given.
        context: the directory that it may copy from; by default the one that the Dockerfile is in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str | None = Field(default=None, min_length=1)
    packages: tuple[Package, ...] = ()
    dockerfile: str | None = Field(default=None, min_length=1)
    context: str | None = Field(default=None, min_length=1)

    @property
    def has_dockerfile(self) -> bool:
        """Whether a Dockerfile says what the image is made from; else it is the contract's image and packages."""
        return self.dockerfile is not None or self.context is not None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> BuildSpec:
        has_packages = self.python is not None or bool(self.packages)
        if has_packages and self.has_dockerfile:
            raise ValueError(
                "python and packages do not go with dockerfile and context; install them in the Dockerfile"
            )
        if not has_packages and not self.has_dockerfile:
            raise ValueError("write python, packages, dockerfile or context")
        return self


class DaggerEngineSpec(CommandSpec):
    """A command in a container image. Any container engine can run it: Dagger, Docker or the sandbox.

    Attributes:
        image: image reference, such as ``python:3.11-slim`` or ``repo/image@sha256:…``; where a Dockerfile makes it,
            `BUILT_IMAGE`.
        build: what is added to the image, or what the image is made of; see `BuildSpec`.
        working_dir: absolute path inside the container, or one that ``{contract_dir}`` begins; None is the image's own.
        privileged: full capabilities; refused unless the settings allow it.
        user: ``name``, ``uid`` or ``uid:gid``; None is the image's own, or the server's own user where the contract
            has a writable mount (so that files on the host belong to who started the server).
        read_only: True: the root file system must not be writable (``/tmp`` still is); False: it must be; None: the
            engine's own default, which is the stricter one where the engine can.
        use_entrypoint: `command` becomes arguments of the image's own entrypoint.
        cache_dirs: absolute directories inside the container that are kept between calls of this contract
            (package caches); shared, so not for anything that must stay private to a call.
        drop_capabilities: True: every Linux capability must be dropped; False: the engine's usual set is kept, which
            is what the older spellings, written for plain Docker, expect; None: dropped where the engine can.
    """

    image: str = Field(min_length=1, pattern=r"^\S+$")
    build: BuildSpec | None = None
    working_dir: str | None = Field(default=None, pattern=r"^(/|\{contract_dir\})")
    privileged: bool = False
    user: str | None = Field(default=None, pattern=r"^[\w.-]+(:[\w.-]+)?$")
    read_only: bool | None = None
    use_entrypoint: bool = False
    cache_dirs: tuple[Annotated[str, Field(pattern=r"^/.")], ...] = ()
    drop_capabilities: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_dockerfile_makes_the_image(cls, data: Any) -> Any:
        build = data.get("build") if isinstance(data, dict) else None
        if isinstance(build, BuildSpec):
            has_dockerfile = build.has_dockerfile
        else:
            has_dockerfile = isinstance(build, dict) and (build.get("dockerfile") or build.get("context")) is not None
        return {"image": BUILT_IMAGE, **data} if has_dockerfile else data

    @field_validator("build")
    @classmethod
    def _a_dockerfile_names_its_own_base(cls, value: BuildSpec | None, info: ValidationInfo) -> BuildSpec | None:
        if value is not None and value.has_dockerfile and info.data.get("image", BUILT_IMAGE) != BUILT_IMAGE:
            raise ValueError("the Dockerfile names an image after FROM; remove image")
        return value

    @field_validator("user", mode="before")
    @classmethod
    def _a_number_is_a_uid(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class LocalEngineSpec(CommandSpec):
    """A command on the host itself: in a sandbox where one can be made, else a plain process.

    Attributes:
        shell: hand the joined command to ``/bin/sh -c``. Arguments never become part of that text: they are
            variables, standard input, files, or ``"$@"``.
        cwd: working directory; relative to the project root.
        capture_output: False discards what the tool writes.
    """

    shell: bool = False
    cwd: str | None = None
    capture_output: bool = True


class RemoteMCPEngineSpec(EngineSpec):
    """A tool on another MCP server.

    Attributes:
        address: URL of the server, or the command that starts it (a list of words), in the project root.
        tool: the tool's name there, when it differs.
        headers: HTTP headers; a value is text, or ``{secret: NAME}``.
        env: variables for the command, besides PATH, HOME and the few others that every program needs; a value is text,
            or ``{secret: NAME}``.
        auth_token: bearer token: ``{secret: NAME}``, or text (not recommended).
        transport: how to speak to it; ``auto`` goes by the address: a command is ``stdio``, a URL whose path ends in
            ``/sse`` is ``sse`` (HTTP+SSE of 2024-11-05), any other ``http`` (Streamable HTTP).
    """

    address: str | tuple[str, ...] = Field(min_length=1)
    tool: str | None = None
    headers: dict[str, EnvValue] = Field(default_factory=dict)
    env: dict[EnvName, EnvValue] = Field(default_factory=dict)
    auth_token: EnvValue | None = None
    transport: Transport = "auto"

    @model_validator(mode="after")
    def _fields_fit_the_address(self) -> RemoteMCPEngineSpec:
        check_address(self.address, self.transport, headers=bool(self.headers or self.auth_token), env=bool(self.env))
        return self


URL_PLACE = re.compile(r"\{([^{}/?#]+)\}")
"""A parameter's place in the path of a URL."""
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f\\<>\"^`|]|[^\x00-\x7f]")


class HttpEngineSpec(EngineSpec):
    """A request to an HTTP API. Parameters go into its path, query, headers or body (see `contracts.http_places`).

    Attributes:
        url: absolute; ``{name}`` in its path is the place of that parameter. The host is fixed.
        method: of the request.
        query: parameters of the query that are always sent; a value is text, or ``{secret: NAME}``.
        headers: likewise.
        auth_token: bearer token: ``{secret: NAME}``, or text (not recommended).
        basic_user, basic_password: for basic authentication, likewise.
        body: how parameters that go into the body are written: members of one JSON object, fields of a form (in one
            of several parts, those with ``contentEncoding: base64`` are files), or one parameter whose text it is.
        follow_redirects: follow up to 5 redirects of GET and HEAD: to other hosts only if the request has no secret.
            By default one is a failure that says where it leads.
        max_response: bytes of an answer, beyond which the call fails.
    """

    url: str = Field(min_length=1, max_length=8192)
    method: Annotated[
        Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
    ] = "GET"
    query: dict[str, EnvValue] = Field(default_factory=dict)
    headers: dict[str, EnvValue] = Field(default_factory=dict)
    auth_token: EnvValue | None = None
    basic_user: EnvValue | None = None
    basic_password: EnvValue | None = None
    body: Literal["json", "form", "multipart", "text"] = "json"
    follow_redirects: bool = False
    max_response: ByteSize = 4 * 1024 * 1024

    @field_validator("url")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            _ = parts.port
        except ValueError as exc:
            raise ValueError(f"this is not a URL: {exc}") from exc
        if parts.scheme not in ("http", "https") or not parts.hostname or _NOT_IN_URL.search(value):
            raise ValueError("write a whole URL in ASCII, such as https://api.example.com/users/{id}")
        if "@" in parts.netloc:
            raise ValueError("a URL holds no user and password; write basic_user and basic_password, or auth_token")
        if "#" in value:
            raise ValueError("the part of a URL after # is never sent; remove it")
        if any(mark in parts.netloc + parts.query for mark in "{}") or any(
            mark in URL_PLACE.sub("", parts.path) for mark in "{}"
        ):
            raise ValueError("only the path of a URL has places for parameters, each in braces with its name")
        if any(segment in (".", "..") for segment in parts.path.split("/")):
            raise ValueError("the path of a URL has no . and .. of its own")
        return value

    @model_validator(mode="after")
    def _one_authentication(self) -> HttpEngineSpec:
        if (self.basic_user is None) != (self.basic_password is None):
            raise ValueError("basic_user and basic_password go together")
        if self.auth_token is not None and self.basic_user is not None:
            raise ValueError("auth_token and basic_user exclude each other")
        return self

    @property
    def has_secrets(self) -> bool:
        """Whether the request carries what others may not see."""
        values = (*self.query.values(), *self.headers.values())
        fixed = (self.auth_token, self.basic_user, self.basic_password)
        return any(value is not None for value in fixed) or any(isinstance(value, SecretRef) for value in values)


AnyEngineSpec = DaggerEngineSpec | LocalEngineSpec | RemoteMCPEngineSpec | HttpEngineSpec
