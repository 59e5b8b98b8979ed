"""The lock file: what it holds, read, written, and compared with what is there now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.errors import SettingsError
from praxis_mcp.plans.model import Blueprint
from praxis_mcp.support.files import read_regular, replace_text

LARGEST_LOCK = 16 * 1024 * 1024
UNKNOWN_VERSIONS = "has packages whose versions are not locked"
_HEAD = "# Written by `praxis-mcp lock`; keep it under version control.\n"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Pinned = Annotated[str, Field(pattern=r"^(?:[^@\s]+@)?sha256:[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LockedTool(_Part):
    """One contract.

    Attributes:
        contract: SHA-256 of its normal form: spelling and comments are not part of it.
        files: of the files that it names by ``{contract_dir}``; None where it names none.
        image: as the contract names it; of one that is built, the name that stands for all that it is made of.
        parts: of that, a digest of each file or directory.
        packages: what pip installs: each with its version and hash, as a line of requirements. None where nothing has
            to be found out.
    """

    contract: Digest
    files: Digest | None = None
    image: str | None = None
    parts: Mapping[str, Digest] | None = None
    packages: tuple[str, ...] | None = None


class Lock(_Part):
    """Everything that is locked.

    Attributes:
        version: of the format.
        tools: by name.
        images: as contracts name them → the name by digest (``python@sha256:…``), or the id of an image that came from
            no registry (``sha256:…``).
        upstreams: name → tools, by their names there → fingerprint.
    """

    version: Literal[1] = 1
    tools: Mapping[str, LockedTool] = {}
    images: Mapping[str, Pinned] = {}
    upstreams: Mapping[str, Mapping[str, Digest]] = {}


@dataclass(slots=True)
class Present:
    """What is there now.

    Attributes:
        tools: see `LockedTool`.
        builds: of the tools whose images are built, how.
        upstreams: of those that answered.
        silent: upstreams that did not, and why.
    """

    tools: dict[str, LockedTool] = field(default_factory=dict)
    builds: dict[str, Blueprint] = field(default_factory=dict)
    upstreams: dict[str, dict[str, str]] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)

    @property
    def images(self) -> frozenset[str]:
        """The images that contracts name, and those that they are built from."""
        return frozenset(self.images_of(*self.tools))

    def images_of(self, *tools: str) -> tuple[str, ...]:
        """See `images`, of these tools."""
        found: list[str] = []
        for tool in tools:
            blueprint, image = self.builds.get(tool), self.tools[tool].image
            if blueprint is not None and blueprint.build is not None:
                found += blueprint.build.bases
            elif image is not None:
                found.append(image)
        return tuple(found)


def contract_digest(contract: ToolContract) -> str:
    """See `LockedTool.contract`."""
    # None is left out: a key that a later version adds, and a contract does not use, changes no lock.
    values = contract.model_dump(mode="json", exclude={"source"}, exclude_none=True)
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode(errors="surrogatepass")).hexdigest()


def read_lock(file: Path, key: Path | None = None) -> Lock:
    """What is locked.

    Args:
        file: see `read_content`.
        key: see there.

    Raises:
        SettingsError: see `read_content` and `parse_lock`.
    """
    return parse_lock(read_content(file, key), file)


def read_content(file: Path, key: Path | None = None) -> bytes:
    """The file as it is, read once.

    Args:
        file: which.
        key: a public key, with which the file must be signed.

    Raises:
        SettingsError: it is missing, too large, or not signed, or it or the key cannot be read.
    """
    try:
        content = read_regular(file, LARGEST_LOCK)
    except FileNotFoundError as exc:
        raise SettingsError(f"There is no lock file {file}.", remedy="Make it: praxis-mcp lock") from exc
    except OSError as exc:
        raise SettingsError(f"The lock file {file} cannot be read: {exc.strerror}.") from exc
    if len(content) > LARGEST_LOCK:
        raise SettingsError(f"The lock file {file} is larger than {LARGEST_LOCK // 1024**2} MiB.")
    if key is not None:
        from praxis_mcp.execution.locking.signing import PublicKey  # imports that others do not need

        PublicKey.read(key).check(content, file)
    return content


def parse_lock(content: bytes, file: Path) -> Lock:
    """What a lock file holds.

    Raises:
        SettingsError: it is malformed.
    """
    try:
        return Lock.model_validate(yaml.safe_load(content))
    except (yaml.YAMLError, ValidationError, ValueError, RecursionError) as exc:
        place = ""
        if isinstance(exc, ValidationError):
            place = f": {'.'.join(str(part) for part in exc.errors()[0]['loc'])} is wrong"
        elif isinstance(exc, yaml.MarkedYAMLError) and exc.problem_mark is not None:
            place = f": line {exc.problem_mark.line + 1} is not valid YAML"
        raise SettingsError(
            f"The lock file {file} cannot be read{place}.",
            remedy="Take it from version control again, or delete it and run praxis-mcp lock.",
        ) from exc


def write_lock(file: Path, lock: Lock) -> bytes:
    """Replace the file, in one step; returns what it holds now.

    Raises:
        SettingsError: it cannot be written.
    """
    values: dict[str, Any] = lock.model_dump(mode="json", exclude_none=True)
    text = _HEAD + yaml.safe_dump(values, sort_keys=True, allow_unicode=True, width=1000)
    try:
        replace_text(file, text)
    except OSError as exc:
        raise SettingsError(f"The lock file {file} cannot be written: {exc.strerror}.") from exc
    return text.encode()


def differences(lock: Lock, present: Present) -> Iterator[str]:
    """What is not as it was locked, a sentence each, without its full stop."""
    for name in sorted(lock.tools.keys() | present.tools.keys()):
        if name not in present.tools:
            yield f"{name} is locked, and there is no such contract"
        elif (why := why_different(lock.tools.get(name), present.tools[name])) is not None:
            yield f"{name} {why}"
        elif lacks_versions(lock.tools[name], present.builds.get(name)):
            yield f"{name} {UNKNOWN_VERSIONS}"
    for image in sorted(present.images - lock.images.keys()):
        yield f"the image {image} is not locked"
    for image in sorted(lock.images.keys() - present.images):
        yield f"the image {image} is locked, and no contract names it"
    for upstream in sorted(lock.upstreams.keys() | present.upstreams.keys() | present.silent.keys()):
        if upstream in present.silent:
            yield f"the upstream {upstream} has no list of tools: {present.silent[upstream].rstrip('.')}"
            continue
        locked, now = lock.upstreams.get(upstream, {}), present.upstreams.get(upstream, {})
        for tool in sorted(locked.keys() | now.keys()):
            if locked.get(tool) != now.get(tool):
                state = "is not locked" if tool not in locked else "is gone" if tool not in now else "has changed"
                yield f"{tool} of the upstream {upstream} {state}"


def why_different(locked: LockedTool | None, now: LockedTool) -> str | None:
    """Why a tool is not the locked one, as the end of a sentence about it; None where it is."""
    if locked is None:
        return "is not locked"
    if locked.contract != now.contract:
        return "has another contract than the locked one"
    if now.image is not None and locked.image != now.image:
        before, after = locked.parts or {}, now.parts or {}
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        what = f": {', '.join(changed)}" if before and after and changed else ""
        return f"builds its image from something else than what is locked{what}"
    return "has other files than the locked ones" if locked.files != now.files else None


def lacks_versions(locked: LockedTool, blueprint: Blueprint | None) -> bool:
    """Whether pip would choose versions for the image of that tool itself."""
    build = blueprint.build if blueprint is not None else None
    return build is not None and build.needs_versions and locked.packages is None
