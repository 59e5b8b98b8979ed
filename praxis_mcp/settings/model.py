"""One typed configuration: defaults, then a file, then environment variables, then flags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as PydanticSettingsError

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.files import Origin, Sources, find_sources, sources_of
from praxis_mcp.settings.http import HttpSettings
from praxis_mcp.settings.sources import Variables, at_root, check_variables
from praxis_mcp.settings.upstreams import UpstreamSettings
from praxis_mcp.support.files import expand
from praxis_mcp.support.installation import usable_plugins

CONTAINER_ENGINES = ("dagger", "docker", "sandbox")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DockerSettings(_Section):
    """Attributes: host: address of the daemon's API, such as ``unix:///run/podman/podman.sock``; None asks the
    environment (``DOCKER_HOST``), then the default socket. runtime: OCI runtime, such as ``runsc``."""

    host: str | None = None
    runtime: str | None = None


class DaggerSettings(_Section):
    """How the Dagger engine is reached.

    Attributes:
        runner_host: address of the engine (``unix://``, ``tcp://``, ``docker-container://`` …); None asks the
            environment (``_EXPERIMENTAL_DAGGER_RUNNER_HOST``), then lets the CLI start one.
        cli: path of the dagger CLI; None asks the environment (``_EXPERIMENTAL_DAGGER_CLI_BIN``), then the PATH.
        workdir: directory in which the CLI is started; None is the server's own.
        images: image reference → tar file (OCI layout or ``docker save``) to take that image from, on machines
            without a registry.
        connect_timeout: seconds to open a session, which may have to start the engine.
        grace: seconds beside a call's own timeout that the engine may take to start it and to answer.
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


class LocalSettings(_Section):
    """How commands run on the host.

    Attributes:
        sandbox: ``auto`` wraps them in bubblewrap where it works; ``require`` refuses to run them without; ``off``
            never does.
        visible: what every command may read of the home directories, which are hidden from it, and of the other hidden
            places (``/tmp``, ``/run``); ``~`` is the home directory. Credentials in it stay hidden.
    """

    sandbox: Literal["auto", "require", "off"] = "auto"
    visible: tuple[Path, ...] = ()


class SandboxSettings(_Section):
    """How images are run without a daemon.

    Attributes:
        store: where their file systems are kept; None is ``$XDG_DATA_HOME/praxis-mcp/images``.
        max_image_size: bytes that one image may take there.
    """

    store: Path | None = None
    max_image_size: int = Field(default=16 * 1024**3, gt=0)


def _names_an_engine(value: str) -> str:
    if value not in CONTAINER_ENGINES and value not in usable_plugins():
        raise ValueError(f"write one of {', '.join((*CONTAINER_ENGINES, *usable_plugins()))}")
    return value


class RegistryLogin(_Section):
    """How to log in to an image registry. `secret` names the password or token (see `Settings.secrets`)."""

    username: str
    secret: str


class EngineSettings(_Section):
    """What engines share, and a section for each.

    Attributes:
        order: the container engines to consider for an image contract, first choice first; an engine that another
            package brings may be among them.
        registries: registry host (``ghcr.io``, ``docker.io``) → login, for Dagger and the sandbox; logins that
            ``docker login`` has stored are used without it.
    """

    order: tuple[Annotated[str, AfterValidator(_names_an_engine)], ...] = CONTAINER_ENGINES
    registries: Mapping[str, RegistryLogin] = {}
    docker: DockerSettings = DockerSettings()
    dagger: DaggerSettings = DaggerSettings()
    sandbox: SandboxSettings = SandboxSettings()
    local: LocalSettings = LocalSettings()


class WarmSettings(_Section):
    """Containers that are started before they are called for: fresh for every call all the same, and milliseconds away.

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


class PolicySettings(_Section):
    """What contracts may ask for that is refused by default.

    Attributes:
        privileged: contracts may say ``privileged: true``.
        host_network: container contracts may say ``network: host``.
        sensitive_paths: host paths that may be mounted although they are sensitive (the home directory, ``/``, the
            container engine's socket, ``~/.ssh`` …).
    """

    privileged: bool = False
    host_network: bool = False
    sensitive_paths: tuple[Path, ...] = ()


class CallSettings(_Section):
    """How calls are admitted and bounded.

    Attributes:
        max_concurrency: calls that run at once; one upstream's tools take half of these places at most, rounded up,
            unless nothing else is served.
        max_concurrency_per_tool: calls of one tool that run at once, unless its contract says.
        max_queue: calls that wait; one more is refused at once. Of it one upstream's tools have half, likewise.
        max_per_caller: calls of one authenticated caller that run or wait at once; one more is refused at once. None
            lets half of `max_concurrency` run and half of `max_queue` wait, both rounded up.
        max_rate_per_caller: calls a minute of one authenticated caller, ten seconds' worth of them in a burst; None
            is not a limit.
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


class RecordSettings(_Section):
    """What is kept of runs, as resources ``praxis://runs/…``.

    Attributes:
        directory: where; None is a fresh temporary directory, removed when the server ends.
        keep: how many runs.
        max_stream: bytes of each stream that a record keeps; what is beyond is counted, not kept.
    """

    directory: Path | None = None
    keep: int = Field(default=100, ge=0)
    max_stream: int = Field(default=128 * 1024 * 1024, ge=0)


class ServerSettings(_Section):
    """What the MCP server says of itself.

    Attributes:
        name: its name.
        instructions: what a client tells its model about it.
        page_size: tools in one page of ``tools/list``. Several clients never ask for a second page.
    """

    name: str = "praxis-mcp"
    instructions: str | None = None
    page_size: int = Field(default=1000, gt=0)


class SecretSource(_Section):
    """Where one secret comes from: exactly one of an environment variable, a file, or the system's keyring."""

    env: str | None = None
    file: Path | None = None
    keyring: str | None = Field(default=None, pattern=r"^[^/]+/[^/]+$", description="service/user")

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.keyring)) != 1:
            raise ValueError("give exactly one of env, file and keyring")
        return self


class Settings(BaseSettings):
    """The whole configuration.

    Sources, later ones winning: defaults; the file (``--config``, ``PRAXIS_CONFIG``, or the project's ``praxis.yaml``
    once it is approved); variables such as ``PRAXIS_CALLS__MAX_CONCURRENCY``; flags. Every path in it is absolute but
    those in `tools`, for which see `tool_directories`: relative ones start at `base`, whichever source they come from.

    Attributes:
        tools: directories of contracts.
        root: project root: relative host paths start here. `load_settings` finds it (see `settings.files`); for
            settings that are made in code it is the current directory.
        reload: whether changed contracts are picked up while serving. ``approved`` serves a contract, from the start
            on, only once ``praxis-mcp contracts approve`` has approved it, and holds back a change of it that can do
            more.
        pull: ``missing`` pulls images that the engine lacks; ``never`` refuses.
        prefetch: whether missing images are pulled in the background once tools have been listed, rather than when
            first called.
        warm: see `WarmSettings`.
        log_level: of what goes to stderr.
        log_format: ``text`` for people, or ``json``, an object a line.
        http: see `HttpSettings`.
        secrets: where secrets come from, by name; a name that is missing here is looked up in the environment.
        upstreams: other MCP servers whose tools are republished, by name.
        upstream_approvals: the file of approved tools of upstreams with ``pin: true``; relative to `base`.
    """

    model_config = SettingsConfigDict(
        env_prefix="PRAXIS_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    tools: tuple[Path, ...] = (Path("tools"),)
    root: Path = Path()
    reload: bool | Literal["approved"] = True
    pull: Literal["missing", "never"] = "missing"
    prefetch: bool = True
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    engines: EngineSettings = EngineSettings()
    policy: PolicySettings = PolicySettings()
    warm: WarmSettings = WarmSettings()
    calls: CallSettings = CallSettings()
    records: RecordSettings = RecordSettings()
    server: ServerSettings = ServerSettings()
    http: HttpSettings = HttpSettings()
    secrets: Mapping[str, SecretSource] = {}
    upstreams: Mapping[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")], UpstreamSettings] = {}
    upstream_approvals: Path = Path("praxis-upstreams.json")

    @field_validator("root")
    @classmethod
    def _root_is_absolute(cls, value: Path) -> Path:
        return Path(os.path.abspath(expand(value)))  # noqa: PTH100 - a link in the root stays as the user wrote it

    @field_validator("reload", mode="wrap")
    @classmethod
    def _reload_is_a_word(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            return read(value)
        except ValidationError as exc:
            # pydantic has a sentence for each member of the union, of which none says it all.
            raise ValueError("write true, false or approved") from exc

    @model_validator(mode="after")
    def _paths_start_at_the_root(self) -> Self:
        for name in type(self).model_fields:
            if name not in ("root", "tools"):
                object.__setattr__(self, name, at_root(getattr(self, name), self.base))  # it is frozen
        at_root(self.tools, self.base)  # so that what cannot be expanded is told now
        return self

    own_root: ClassVar[Path | None] = None
    _origin: Origin = PrivateAttr(default=Origin())

    @property
    def base(self) -> Path:
        """Where relative paths in the settings, and commands of upstreams, start: the root, but not one that a flag or
        the environment moved to where a client works, whose files are not this server's own."""
        return self.own_root or self.root

    @property
    def origin(self) -> Origin:
        """Where they come from."""
        return self._origin

    @property
    def tool_directories(self) -> tuple[Path, ...]:
        """The directories of contracts, absolute."""
        return tuple(self.base / expand(directory) for directory in self.tools)


def load_settings(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings for this process.

    Args:
        file: settings file; None asks ``PRAXIS_CONFIG``, then looks for ``praxis.yaml`` in the project, which counts
            only once the user has approved it (see `settings.files`).
        flags: values that win over everything, as a nested mapping.

    Raises:
        SettingsError: a file is missing or malformed, or a value is wrong; names the field and the source.
    """
    check_variables((*Settings.model_fields, "config"))
    flags = flags or {}
    sources = Sources(Origin(file))
    try:
        sources = find_sources(file, {**Variables(Settings)(), **flags}, flags=flags)
        settings = _settings_of(sources.values, sources.base)(**{**flags, **sources.overrides})
    except (ValidationError, PydanticSettingsError) as exc:
        from praxis_mcp.settings.problems import explain

        problem = explain(exc, Settings, sources.origin.file, sources.text)
        raise SettingsError(problem, remedy="See configs/ for examples.") from exc
    settings._origin = sources.origin
    return settings


def check_file(file: Path, content: bytes) -> Settings:
    """The settings that a found file makes by itself, whatever the environment says; it is not in force for that.

    Raises:
        SettingsError: it is malformed, or a value is wrong.
    """
    sources = sources_of(file, content)
    try:
        return _settings_of(sources.values, sources.base, alone=True)()
    except (ValidationError, PydanticSettingsError) as exc:
        from praxis_mcp.settings.problems import explain

        raise SettingsError(explain(exc, Settings, file, sources.text), remedy="See configs/ for examples.") from exc


def _settings_of(values: dict[str, Any], base: Path | None, *, alone: bool = False) -> type[Settings]:
    """The settings over those of a file, whose relative paths start at `base`; `alone`: without the environment's."""

    class FromAllSources(Settings):
        own_root: ClassVar[Path | None] = base

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            of_file = InitSettingsSource(settings_cls, init_kwargs=values)
            return (init_settings, of_file) if alone else (init_settings, Variables(settings_cls), of_file)

    return FromAllSources
