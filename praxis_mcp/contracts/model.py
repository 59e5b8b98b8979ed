"""`ToolContract`: one tool, as its author declares it."""

from __future__ import annotations

import importlib
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, overload

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)

from praxis_mcp.contracts.specs import (
    AnyEngineSpec,
    DaggerEngineSpec,
    HttpEngineSpec,
    LocalEngineSpec,
    RemoteMCPEngineSpec,
)
from praxis_mcp.contracts.values import (
    Binding,
    ByteSize,
    CachePolicy,
    ExecutionKind,
    OutputKind,
    RetryPolicy,
    Whole,
    check_artifact_patterns,
)
from praxis_mcp.errors import ContractError
from praxis_mcp.settings.base import SecretRef
from praxis_mcp.support.installation import usable_plugins

NAME_PATTERN = re.compile(r"^[A-Za-z0-9_.-]{1,128}$")
"""Tool names that MCP allows (specification 2025-11-25, server/tools)."""


K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S")


class EngineType(StrEnum):
    """The engines a contract can ask for.

    `DAGGER` carries an image specification, which any container engine can run: which one does is decided by the
    order in the settings and by what each can enforce. `DOCKER`, `SANDBOX` and `KUBERNETES` insist on that one. An
    engine that another package brings (see `praxis_mcp.support.installation`) is a value as well,
    ``EngineType("its-name")``; iteration leaves it out.
    """

    DAGGER = "dagger"
    DOCKER = "docker"
    SANDBOX = "sandbox"
    KUBERNETES = "kubernetes"
    LOCAL = "local"
    REMOTE_MCP = "remote-mcp"
    HTTP = "http"

    @classmethod
    def _missing_(cls, value: object) -> EngineType | None:
        if not isinstance(value, str) or value not in usable_plugins():
            return None
        known = _OF_PLUGINS.get(value)
        if known is None:
            known = str.__new__(cls, value)
            known._name_, known._value_ = value, value
            _OF_PLUGINS[value] = known
        return known


_OF_PLUGINS: dict[str, EngineType] = {}
"""Engines of other packages: one object for each, as enumerations promise."""

EnvText = str | SecretRef | Mapping[str, str]
"""What a variable of a tool holds: text, or a secret by name (``SecretRef(secret="NAME")``, ``{"secret": "NAME"}``)."""

OF_A_DOCUMENT: Final = {"of": "a document"}
"""Context of validation for who makes the checks that need a document's lines; without it, they are made at once."""

SPEC_TYPES: dict[EngineType, type[AnyEngineSpec]] = {
    EngineType.DAGGER: DaggerEngineSpec,
    EngineType.DOCKER: DaggerEngineSpec,
    EngineType.SANDBOX: DaggerEngineSpec,
    EngineType.KUBERNETES: DaggerEngineSpec,
    EngineType.LOCAL: LocalEngineSpec,
    EngineType.REMOTE_MCP: RemoteMCPEngineSpec,
    EngineType.HTTP: HttpEngineSpec,
}


def engine_names() -> tuple[str, ...]:
    """What a contract may write after ``engine:``, other packages' engines last."""
    return (*(engine.value for engine in EngineType), *usable_plugins())


def spec_type(engine: EngineType, *, has_image: bool) -> type[AnyEngineSpec]:
    """The specification that an engine takes. One of another package takes an image, or a command of its own place."""
    return SPEC_TYPES.get(engine) or (DaggerEngineSpec if has_image else LocalEngineSpec)


class ToolParameter(BaseModel):
    """One parameter of a tool.

    Attributes:
        name: name of the property in the tool's input schema.
        type: a JSON Schema type, or a list of them; aliases such as ``str`` or ``dict`` are mapped when a contract
            is read. None leaves the type open (`keywords` may constrain it by ``oneOf`` and the like).
        description: what the model reads.
        required: whether a call must give it.
        default: the value when a call does not give it; `has_default` tells an absent default from a null one.
        keywords: further JSON Schema 2020-12 keywords (``enum``, ``minimum``, ``pattern``, ``items``, …).
        bind: how the value reaches the tool.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=128)
    type: str | tuple[str, ...] | None = "string"
    description: str = ""
    required: bool = False
    default: Any = None
    keywords: dict[str, Any] = Field(default_factory=dict)
    bind: Binding = Binding()

    @property
    def has_default(self) -> bool:
        """Whether the author wrote a default, be it null."""
        return "default" in self.model_fields_set


class Example(BaseModel):
    """A call that shows how the tool is used, and runs as its test.

    Attributes:
        name: a short title.
        arguments: what the call gives.
        expect: exact standard output, surrounding white space aside; None does not check it.
        expect_contains: pieces that standard output must hold.
        expect_json: value that standard output must parse to.
        expect_exit: exit code that the run must end with.
        run: whether it is a test; otherwise it only shows how the tool is used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    expect: str | None = None
    expect_contains: tuple[str, ...] = ()
    expect_json: Any = None
    expect_exit: Whole = 0
    # What is locked or approved has digests of this, which a key of a later version that is not used must not change.
    run: bool = Field(default=True, exclude_if=bool)


class Annotations(BaseModel):
    """MCP tool annotations; a None is proven from the sandbox where it can be, and left out where it cannot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None


class ToolContract(BaseModel):
    """One tool: its face to the model, and how its command runs.

    A contract that is built in code goes through the checks of one that is loaded, and is complete or not there.

    Raises:
        ContractError: a field is wrong or unknown, a schema is invalid, a default does not fit its parameter, two
            parameters are bound to one place, and so on; `diagnostics` names each field. Parts that are built by
            themselves (`ToolParameter`, `Example`, a specification) raise pydantic's `ValidationError`; mappings may
            stand in their place.

    Attributes:
        name: unique in the catalog; ``[A-Za-z0-9_.-]``, at most 128 characters.
        title: a name for people.
        description: what the model reads to decide on a call.
        version: the author's version.
        engine: see `EngineType`.
        engine_spec: how the command runs; a mapping is read as the engine's own specification.
        parameters: see `ToolParameter`; a mapping is read as in a contract's file: names and definitions, or one JSON
            Schema of an object.
        input_keywords: JSON Schema keywords at the root of the input schema (``$defs``, ``allOf``,
            ``dependentRequired``, …), next to those that the parameters make.
        output: ``json`` says that standard output is one JSON value.
        output_schema: JSON Schema of that value; the result then carries structured content.
        artifacts: globs of files, absolute inside the tool's file system, that a call leaves behind as results. The
            directory before the first wildcard is a fresh writable one in every call (`PRAXIS_OUTPUT_DIR` names it).
        max_output: bytes of each stream that a result carries inline (head and tail); None is the settings' own.
        max_concurrency: calls of this tool at once; None is the settings' own.
        cache: ``pure`` lets equal calls be answered from a cache.
        execution: ``task``: a server answers a call with a task of the MCP extension ``io.modelcontextprotocol/tasks``
            (SEP-2663), which outlives client and server; ``optional``: where the client speaks that, and else with the
            result; ``call``: with the result.
        retry: ``safe`` lets a task whose server died be run again; its arguments are kept until it has ended.
        annotations: see `Annotations`.
        examples: calls that run as tests.
        enabled: False keeps the tool out of the catalog: it is neither listed nor can it be called.
        tags: words that toolsets of the settings choose by, and by which tools are found.
        language, integration, sample_data_files: kept for catalogs and people; they change nothing.
        source: the file it was read from, absolute.
        is_older: whether it is written in one of the older spellings, where a missing directory of a mount is made, and
            a mount that no tool may write to is read-only instead of refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    engine: EngineType
    engine_spec: AnyEngineSpec
    parameters: tuple[ToolParameter, ...] = ()
    input_keywords: dict[str, Any] = Field(default_factory=dict)
    description: str | None = None
    title: str | None = None
    version: str | None = None
    output: OutputKind = "text"
    output_schema: dict[str, Any] | None = None
    artifacts: tuple[str, ...] = ()
    max_output: ByteSize | None = None
    max_concurrency: Whole | None = Field(default=None, gt=0)
    cache: CachePolicy = "none"
    execution: ExecutionKind = "call"
    retry: RetryPolicy = "never"
    annotations: Annotations = Annotations()
    examples: tuple[Example, ...] = ()
    enabled: bool = True
    tags: tuple[str, ...] = ()
    language: str | None = None
    integration: dict[str, Any] = Field(default_factory=dict)
    sample_data_files: tuple[Any, ...] = ()
    source: Path | None = None
    is_older: bool = False

    @field_validator("name")
    @classmethod
    def _name_is_allowed(cls, value: str) -> str:
        if not NAME_PATTERN.fullmatch(value):
            raise ValueError("a tool's name has 1 to 128 characters out of A-Z a-z 0-9 _ . -")
        return value

    @field_validator("artifacts")
    @classmethod
    def _artifacts_are_usable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_artifact_patterns(value)
        return value

    @field_validator("artifacts", "cache")
    @classmethod
    def _a_remote_tool_has_none(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("engine") in (EngineType.REMOTE_MCP, EngineType.HTTP) and value not in ((), "none"):
            raise ValueError(f"a tool of another server has no {info.field_name} here; remove this")
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> ToolContract:
        expected = spec_type(self.engine, has_image=isinstance(self.engine_spec, DaggerEngineSpec))
        if not isinstance(self.engine_spec, expected):
            raise ValueError(f"engine {self.engine.value} needs a {expected.__name__}")
        seen: set[str] = set()
        for parameter in self.parameters:
            if parameter.name in seen:
                raise ValueError(f'parameter "{parameter.name}" is declared twice')
            seen.add(parameter.name)
        if self.output_schema is not None and self.output != "json":
            raise ValueError("output_schema goes with output: json")
        if self.retry == "safe" and self.execution == "call":
            raise ValueError("write execution: task or optional with retry: safe")
        return self

    # Last, and so around all others: pydantic lays each validator around those above it.
    @model_validator(mode="wrap")
    @classmethod
    def _check_what_is_built_in_code(
        cls, data: Any, handler: ModelWrapValidatorHandler[ToolContract], info: ValidationInfo
    ) -> ToolContract:
        if info.context is OF_A_DOCUMENT or isinstance(data, ToolContract):
            return handler(data)
        # By name: the checks need this class.
        return importlib.import_module("praxis_mcp.contracts.reading.loading").build_contract(data, handler)

    @property
    def directory(self) -> Path | None:
        """The folder of the contract's file, where it came from one."""
        return self.source.parent if self.source else None

    @overload
    def get_typed_spec(self) -> AnyEngineSpec: ...
    @overload
    def get_typed_spec(self, kind: type[S]) -> S: ...
    def get_typed_spec(self, kind: type[Any] = object) -> Any:
        """`engine_spec` as what the caller can read, for type checkers too.

        Args:
            kind: `DaggerEngineSpec` (of every container engine), `LocalEngineSpec`, `RemoteMCPEngineSpec`,
                `HttpEngineSpec`, or `CommandSpec` for what runs a command; any by default.

        Raises:
            ContractError: it is of another kind.
        """
        if not isinstance(self.engine_spec, kind):
            raise ContractError(
                f"{self.name} has a {type(self.engine_spec).__name__} (engine: {self.engine.value}), "
                f"not a {kind.__name__}."
            )
        return self.engine_spec

    @staticmethod
    def create_dagger_tool(
        name: str,
        image: str,
        command: Sequence[str],
        mounts: Mapping[str, str] | None = None,
        env: Mapping[str, EnvText] | None = None,
        env_passthrough: Sequence[str] | None = None,
        working_dir: str | None = None,
        timeout: float = 300,
        description: str | None = None,
        **contract: Any,
    ) -> ToolContract:
        """A contract for a command in an image, built in code; `contract` takes further `ToolContract` fields.

        Fields of `DaggerEngineSpec` that have no parameter here (``memory_limit``, ``network``, …) may be given too.

        Raises:
            ContractError: a field is wrong or unknown, or the contract could not be called as it is.
        """
        spec = {
            "image": image,
            "command": command,
            "mounts": mounts or {},
            "env": env or {},
            "env_passthrough": env_passthrough or [],
            "working_dir": working_dir,
            "timeout": timeout,
            **{key: contract.pop(key) for key in list(contract) if key in DaggerEngineSpec.model_fields},
        }
        return ToolContract.model_validate(
            {"engine": "dagger", "name": name, "engine_spec": spec, "description": description, **contract}
        )

    @staticmethod
    def create_local_tool(
        name: str,
        command: Sequence[str],
        working_dir: str | None = None,
        env: Mapping[str, EnvText] | None = None,
        env_passthrough: Sequence[str] | None = None,
        timeout: float = 300,
        description: str | None = None,
        shell: bool = False,
        capture_output: bool = True,
        **contract: Any,
    ) -> ToolContract:
        """A contract for a command on the host, built in code; `contract` takes further fields, as above.

        Raises:
            ContractError: a field is wrong or unknown, or the contract could not be called as it is.
        """
        spec = {
            "command": command,
            "shell": shell,
            "cwd": working_dir,
            "env": env or {},
            "env_passthrough": env_passthrough or [],
            "timeout": timeout,
            "capture_output": capture_output,
            **{key: contract.pop(key) for key in list(contract) if key in LocalEngineSpec.model_fields},
        }
        return ToolContract.model_validate(
            {"engine": "local", "name": name, "engine_spec": spec, "description": description, **contract}
        )


class Derived(Generic[K, V]):
    """Values by the object that they are derived from, each freed with its object.

    By identity, where a `WeakKeyDictionary` would hash: contracts and settings are frozen, but hold mappings. A value
    must not hold its object, which would then never be freed.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[K], V]] = {}

    def get(self, source: K, make: Callable[[], V]) -> V:
        """What is kept of `source`; made now if nothing is yet, or what it raises."""
        kept, key = self._kept, id(source)
        found = kept.get(key)
        if found is not None and found[0]() is source:
            return found[1]
        value = make()
        kept[key] = (weakref.ref(source, lambda _: kept.pop(key, None)), value)
        return value
