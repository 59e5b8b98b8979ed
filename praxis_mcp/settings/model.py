"""One typed configuration: defaults, then a file, then environment variables, then flags."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as PydanticSettingsError

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.files import Origin, Sources, find_sources, sources_of
from praxis_mcp.settings.http import HttpSettings
from praxis_mcp.settings.sections import (
    BuildSettings,
    CallSettings,
    EngineSettings,
    LintSettings,
    PolicySettings,
    RecordSettings,
    SecretSource,
    ServerSettings,
    TaskSettings,
    UpstreamSettings,
    WarmSettings,
)
from praxis_mcp.settings.toolsets import SearchSettings, ToolsetName, ToolsetSettings
from praxis_mcp.support.files import expand
from praxis_mcp.support.logs import logger

PREFIX = "PRAXIS_"
_NO_SETTINGS = (
    "PRAXIS_TEST_", "PRAXIS_DAGGER_", "PRAXIS_CHAOS_", "PRAXIS_BENCH_", "PRAXIS_NATIVE_", "PRAXIS_REQUIRE_NATIVE",
    "PRAXIS_OUTPUT_DIR", "PRAXIS_RUN_", "PRAXIS_MCP_",
)  # fmt: skip
"""Beginnings of variables that mean something else: for tests and builds, for tools, for servers below this one."""

_REMEDY = "praxis-mcp schema --settings prints every setting, and what it may be."

Location = Sequence[int | str]


def signature_of(lock_file: Path) -> Path:
    """Where the signature of a lock file is: next to it."""
    return lock_file.with_name(f"{lock_file.name}.sigstore.json")


class Settings(BaseSettings):
    """The whole configuration.

    Sources, later ones winning: defaults; the file (``--config``, ``PRAXIS_CONFIG``, or the project's ``praxis.yaml``
    once it is approved); variables such as ``PRAXIS_CALLS__MAX_CONCURRENCY``; flags. Every path in it is absolute but
    those in `tools`, for which see `tool_directories`: relative ones start at `base`, whichever source they come from.

    Attributes:
        tools: directories of contracts.
        disabled_tools: globs of names of tools, of contracts and of upstreams, that are neither listed nor can be
            called.
        root: project root: relative host paths start here. `load_settings` finds it (see `settings.files`); for
            settings that are made in code it is the current directory.
        reload: whether changed contracts are picked up while serving. ``approved`` serves a contract, from the start
            on, only once ``praxis-mcp contracts approve`` has approved it, and holds back a change of it that can do
            more.
        builds: see `BuildSettings`.
        pull: ``missing`` pulls images that the engine lacks; ``never`` refuses.
        prefetch: whether missing images are pulled in the background once tools have been listed, rather than when
            first called.
        warm: see `WarmSettings`.
        log_level: of what goes to stderr.
        log_format: ``text`` for people, or ``json``, an object a line.
        http: see `HttpSettings`.
        lint: see `LintSettings`.
        secrets: where secrets come from, by name; a name that is missing here is looked up in the environment.
        upstreams: other MCP servers whose tools are republished, by name.
        toolsets: choices among the tools, by name; see `ToolsetSettings`.
        search: see `SearchSettings`.
        locked: run only what `lock_file` has; other calls are refused, and images run by their digests.
        lock_file: what ``praxis-mcp lock`` writes; relative to `base`.
        lock_key: the public key (PEM) that the lock file must be signed with; goes with `locked`. Relative to `base`,
            but best where nobody who can write to the project can write.
        upstream_approvals: the file of approved tools of upstreams with ``pin: true``; relative to `base`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    tools: tuple[Path, ...] = (Path("tools"),)
    disabled_tools: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    root: Path = Path()
    reload: bool | Literal["approved"] = True
    pull: Literal["missing", "never"] = "missing"
    prefetch: bool = True
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    engines: EngineSettings = EngineSettings()
    policy: PolicySettings = PolicySettings()
    builds: BuildSettings = BuildSettings()
    warm: WarmSettings = WarmSettings()
    calls: CallSettings = CallSettings()
    records: RecordSettings = RecordSettings()
    tasks: TaskSettings = TaskSettings()
    server: ServerSettings = ServerSettings()
    http: HttpSettings = HttpSettings()
    lint: LintSettings = LintSettings()
    secrets: Mapping[str, SecretSource] = {}
    upstreams: Mapping[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")], UpstreamSettings] = {}
    upstream_approvals: Path = Path("praxis-upstreams.json")
    toolsets: Mapping[ToolsetName, ToolsetSettings] = {}
    search: SearchSettings = SearchSettings()
    locked: bool = False
    lock_file: Path = Path("praxis.lock")
    lock_key: Path | None = None

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

    @field_validator("toolsets")
    @classmethod
    def _toolsets_are_known(
        cls, value: Mapping[str, ToolsetSettings], info: ValidationInfo
    ) -> Mapping[str, ToolsetSettings]:
        """Those that others name, and the upstreams that they name."""
        read = info.data
        named = [
            ("--toolset or server.toolsets", name) for name in (read["server"].toolsets if "server" in read else ())
        ]
        if "http" in read:
            tokens = read["http"].auth.tokens
            named += [(f"http.auth.tokens.{key}.toolsets", name) for key in tokens for name in tokens[key].toolsets]
        for place, name in named:
            if name not in value:
                known = f"; there are {', '.join(value)}" if value else ": write it under toolsets in the settings file"
                raise ValueError(f"{place} names {name}, which is not one of them{known}")
        for key, toolset in value.items():
            unknown = [name for name in toolset.upstreams if name not in read.get("upstreams", toolset.upstreams)]
            if unknown:
                raise ValueError(f"{key} names the upstream {unknown[0]}, which is not among upstreams")
        return value

    @model_validator(mode="after")
    def _paths_start_at_the_root(self) -> Self:
        for name in type(self).model_fields:
            if name not in ("root", "tools"):
                object.__setattr__(self, name, at_root(getattr(self, name), self.base))  # it is frozen
        at_root(self.tools, self.base)  # so that what cannot be expanded is reported now
        return self

    @model_validator(mode="after")
    def _a_key_counts_only_where_a_lock_does(self) -> Self:
        if self.lock_key is not None and "locked" not in self.model_fields_set:
            raise ValueError("lock_key goes with locked: true, without which no lock file counts")
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
    flags = flags or {}
    sources = Sources(Origin(file))
    try:
        sources = find_sources(file, {**Variables(Settings)(), **flags}, flags=flags)
        check_variables((*Settings.model_fields, "config"), named_in=sources.text)
        settings = _settings_of(sources.values, sources.base)(**{**flags, **sources.overrides})
    except (ValidationError, PydanticSettingsError) as exc:
        problem = _explain(exc, Settings, sources.origin.file, sources.text)
        raise SettingsError(problem, remedy=_REMEDY) from exc
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
        raise SettingsError(_explain(exc, Settings, file, sources.text), remedy=_REMEDY) from exc


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


class Variables(EnvSettingsSource):
    """``PRAXIS_…``: lists may be written as JSON, or as words with commas between them."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """See the base."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except json.JSONDecodeError as exc:
            if not isinstance(value, str) or "tuple" not in str(field.annotation if field else ""):
                raise ValueError(f"{field_name} is not JSON") from exc
            if value.lstrip().startswith(("[", "{")):
                raise ValueError(f"{field_name} is not JSON") from exc
            return [word.strip() for word in value.split(",") if word.strip()]


def check_variables(known: Iterable[str], environment: Mapping[str, str] = os.environ, *, named_in: str = "") -> None:
    """Report variables that look like settings but are not.

    Args:
        known: names of the settings.
        environment: variables by name.
        named_in: the settings file's text; what it names is there for a secret (``{env: PRAXIS_DATABASE_PASSWORD}``).

    Raises:
        SettingsError: one is a setting, misspelt; others, which may be another program's, are warned of.
    """
    names = [PREFIX + name.upper() for name in known]
    for variable in environment:
        head = variable.upper().partition("__")[0]
        if not head.startswith(PREFIX) or head in names or head.startswith(_NO_SETTINGS):
            continue
        if re.search(rf"\b{re.escape(variable)}\b", named_in):
            continue
        close = difflib.get_close_matches(head, names, n=1, cutoff=0.85)
        if close:
            raise SettingsError(
                f"The environment variable {variable} is not a setting (did you mean {close[0]}?).",
                remedy="Fix its name, or unset it.",
            )
        logger.warning("the environment variable {} is not a setting, and is ignored", variable)


def at_root(value: Any, root: Path) -> Any:
    """A value with every path in it absolute: ``~`` expanded, relative ones from the root; links stay as they are.

    Raises:
        ValueError: a path begins at a home directory that does not exist.
    """
    if isinstance(value, Path):
        return Path(os.path.normpath(root / expand(value)))
    if isinstance(value, BaseModel):
        changes = {name: at_root(getattr(value, name), root) for name in type(value).model_fields}
        return value.model_copy(update={name: new for name, new in changes.items() if new is not getattr(value, name)})
    if isinstance(value, Mapping):
        return {key: at_root(item, root) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(at_root(item, root) for item in value)
    return value


_WANTED = {
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "finite_number": "write a number",
    "int_from_float": "write a whole number",
    "int_parsing": "write a whole number",
    "int_type": "write a whole number",
    "string_type": "write text",
    "string_pattern_mismatch": "write what matches {pattern}",
    "path_type": "write a path",
    "dict_type": "write a mapping",
    "model_attributes_type": "write a mapping of its settings",
    "model_type": "write a mapping of its settings",
    "list_type": "write a list",
    "tuple_type": "write a list",
    "literal_error": "write {expected}",
    "greater_than": "write more than {gt}",
    "greater_than_equal": "write {ge} or more",
    "less_than": "write less than {lt}",
    "less_than_equal": "write {le} or less",
}
"""What to write, by pydantic's type of error: its own words are those of programmers."""


def _explain(exc: ValidationError | PydanticSettingsError, model: type[BaseModel], file: Path | None, text: str) -> str:
    """What is wrong with the settings, in one sentence, by file and line, or by variable. A value is never shown: it
    may be a secret.

    Args:
        exc: what pydantic found.
        model: the settings.
        file: the settings file, where there is one.
        text: what it holds.
    """
    if isinstance(exc, PydanticSettingsError):
        where = f"in {file} or the environment (PRAXIS_…)" if file else "in the environment (PRAXIS_…) or flags"
        # Its own words name a class; the cause names the field.
        what = str(exc.__cause__ or exc)
        return f'The settings {where} cannot be read: {what}; write a list as a,b or ["a", "b"], a mapping as JSON.'
    problems: list[str] = []
    for error in exc.errors():
        place = _variable(error["loc"]) or (_place(error["loc"], file, text) if file else "")
        problems.append(f"{place}: {_sentence(error, model)}" if place else _sentence(error, model))
    return f"The settings are wrong: {'; '.join(problems)}."


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        template = _WANTED.get(error["type"])
        if template is None:
            text = error["msg"].removeprefix("Value error, ")
            return f"{name}: {text}" if name else text
        return f"{name}: {template.format_map(error.get('ctx', {}))}"
    *above, last = error["loc"]
    close = difflib.get_close_matches(str(last), _known(model, above), n=1)
    return f"{name} is not a setting (did you mean {close[0]}?)" if close else f"{name} is not a setting"


def _known(model: type[BaseModel], path: Location) -> list[str]:
    """Names of the settings in a section; none where it cannot be known which section it is."""
    sections: list[Any] = [model]
    for part in path:
        below: list[Any] = []
        for section in sections:
            if isinstance(section, type) and issubclass(section, BaseModel):
                if part in section.model_fields:
                    below += _parts(section.model_fields[str(part)].annotation)
            elif get_args(section):
                below += _parts(get_args(section)[-1])
        sections = below
    models = [item for item in sections if isinstance(item, type) and issubclass(item, BaseModel)]
    return [name for item in models for name in item.model_fields]


def _parts(annotation: Any) -> Iterator[Any]:
    """A union's members; of anything else, itself."""
    origin = get_origin(annotation)
    if origin is None or (isinstance(origin, type) and issubclass(origin, Mapping)):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _parts(part)


def _variable(path: Location) -> str:
    """The environment variable that gives that value, as it is written there."""
    names = {name.upper(): name for name in os.environ}
    for end in range(len(path), 0, -1):
        wanted = PREFIX + "__".join(str(part) for part in path[:end]).upper()
        if wanted in names:
            return f"the environment variable {names[wanted]}"
    return ""


def _place(path: Location, file: Path, text: str) -> str:
    """File and line of a value, or of the nearest one around it; nothing where the file has no part of it."""
    import yaml

    line = 0
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, item) for key, item in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return f"{file}:{line}" if line else ""
