"""A tool in the catalog: its face, ready to be listed, and its contract, built when it is first needed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.model import NAME_PATTERN, Annotations, ToolContract
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.errors import ContractError

_NONE = Annotations()


@dataclass(frozen=True, slots=True)
class Traits:
    """What can be said of a tool without building its contract.

    Attributes:
        engine: the engine that the contract asks for.
        image: image reference; None for tools that run in none.
        network: what it can reach (see `Network`); None for remote tools.
        writable_mounts: whether it can write to the host.
        privileged: whether it asks for that.
        pure: whether equal calls may be answered from a cache.
    """

    engine: str
    image: str | None = None
    network: str | None = None
    writable_mounts: bool = False
    privileged: bool = False
    pure: bool = False


@dataclass(slots=True, eq=False, weakref_slot=True)
class CatalogEntry:
    """One tool. Two entries are the same only if they are the same object: a changed contract has a new entry.

    Attributes:
        name, title, description: of the contract.
        input_schema: see `contracts.schema.input_schema`; not to be changed.
        output_schema: of the contract, as clients can take it (see `without_booleans`).
        annotations: as they are written in the contract.
        traits: see `Traits`.
        source: the file, absolute.
        fingerprint: SHA-256 of the file's content, in hexadecimal.
        diagnostics: warnings of the contract.
    """

    name: str
    title: str | None
    description: str | None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    annotations: Annotations
    traits: Traits
    source: Path
    fingerprint: str
    diagnostics: tuple[Diagnostic, ...] = ()
    _content: bytes = field(default=b"", repr=False)
    _contract: ToolContract | None = field(default=None, repr=False)

    @property
    def contract(self) -> ToolContract:
        """The contract; the first access may read it from the file's content, which takes less than a millisecond.

        That is the content which the face was made from, whatever the file holds by now.

        Raises:
            ContractError: the face came from a damaged cache.
        """
        if self._contract is None:
            from praxis_mcp.contracts.reading.loading import load_bytes

            loaded = load_bytes(self._content, self.source, check=False)
            if loaded.contract is None or loaded.contract.name != self.name:
                raise ContractError(
                    f"The contract in {self.source} is not what was listed as {self.name}.",
                    diagnostics=loaded.diagnostics,
                    remedy="Delete the cache of contracts (~/.cache/praxis-mcp/contracts) and start again.",
                )
            self._contract = loaded.contract
            self._content = b""
        return self._contract

    def is_of(self, contract: ToolContract) -> bool:
        """Whether that is the very contract which this entry has given out; never builds one."""
        return self._contract is contract


def entry_of(
    contract: ToolContract, source: Path, fingerprint: str, diagnostics: tuple[Diagnostic, ...]
) -> CatalogEntry:
    """The entry of a contract that was just loaded."""
    from praxis_mcp.contracts.schemas.schema import input_schema
    from praxis_mcp.contracts.vocabulary import without_booleans

    return CatalogEntry(
        name=contract.name,
        title=contract.title,
        description=contract.description,
        input_schema=input_schema(contract),
        output_schema=without_booleans(contract.output_schema),
        annotations=contract.annotations,
        traits=_traits(contract),
        source=source,
        fingerprint=fingerprint,
        diagnostics=diagnostics,
        _contract=contract,
    )


def face_of(entry: CatalogEntry) -> dict[str, Any]:
    """What a cache keeps of an entry: nothing of its environment, headers or commands."""
    return {
        "name": entry.name,
        "title": entry.title,
        "description": entry.description,
        "input_schema": entry.input_schema,
        "output_schema": entry.output_schema,
        "annotations": entry.annotations.model_dump(exclude_none=True),
        "traits": asdict(entry.traits),
    }


def entry_from_face(
    face: dict[str, Any], source: Path, fingerprint: str, diagnostics: tuple[Diagnostic, ...], content: bytes
) -> CatalogEntry:
    """The reverse of `face_of`.

    Raises:
        ValueError, KeyError, TypeError: it is not a face.
    """
    schema = face["input_schema"]
    usable = schema["type"] == "object" and isinstance(schema["properties"], dict)
    if not (usable and NAME_PATTERN.fullmatch(face["name"])):
        raise ValueError("no face of a tool")
    return CatalogEntry(
        name=face["name"],
        title=face["title"],
        description=face["description"],
        input_schema=schema,
        output_schema=face["output_schema"],
        annotations=Annotations.model_validate(face["annotations"]) if face["annotations"] else _NONE,
        traits=Traits(**face["traits"]),
        source=source,
        fingerprint=fingerprint,
        diagnostics=diagnostics,
        _content=content,
    )


def _traits(contract: ToolContract) -> Traits:
    spec = contract.engine_spec
    mounts: dict[str, str] = getattr(spec, "mounts", {})
    network = getattr(spec, "network", None)
    return Traits(
        engine=contract.engine.value,
        image=getattr(spec, "image", None),
        network=network.value if network is not None else None,
        writable_mounts=any(target.endswith(":rw") for target in mounts.values()),
        privileged=getattr(spec, "privileged", False),
        pure=contract.cache == "pure",
    )
