"""What an image is made of that a contract has built: judged as mounts are, hashed, and packed for who builds it.

The hash of all that goes into it is the image's tag, so that a call after a change finds no image and has it built, and
any other call finds it. Files are read through the directories that were judged, and no link is followed. All of it
blocks.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from praxis_mcp.contracts.discovery import is_contract_name
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.specs import BUILT_IMAGE, DaggerEngineSpec
from praxis_mcp.errors import ExecutionError, LimitUnsupported
from praxis_mcp.plans.bases import find_bases, pin_bases
from praxis_mcp.plans.model import Blueprint, ImageBuild, Mount
from praxis_mcp.plans.paths import check_mount, host_path
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.files import read_regular
from praxis_mcp.support.rooted import MAX_WALK_DEPTH, Entry, HeldDirectory
from praxis_mcp.support.text import counted, size_in_words

if TYPE_CHECKING:
    from tarfile import TarFile

DOCKERFILE = ".praxis.Dockerfile"
"""The Dockerfile's name in what is packed."""
MAX_CONTEXT = 256 * 1024 * 1024
"""Bytes of the files that a build may copy from."""
MAX_CONTEXT_FILES = 10_000
_MAX_RECIPE = 1024 * 1024
"""Bytes of a Dockerfile, requirements or ``.dockerignore``."""
REPORT = "/praxis-report.json"
"""Where an image that only resolves has pip's report."""
_IGNORE = ".dockerignore"
_REQUIREMENTS = "requirements.txt"
_MOST_PARTS = 64
PLACE = "/tmp/praxis-build/"  # noqa: S108 - in an image that is being built
"""Where pip finds what it is given."""
PIP_VARIABLES = {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}
"""While it installs. Debian has packages come from its package manager alone (PEP 668), which nothing in this image
uses."""
_MOST_HASHED = 256

_known: dict[ImageBuild, tuple[tuple[object, ...], ImageBuild]] = {}
"""What was looked at, with the state that its files had."""


class _Item(NamedTuple):
    """A file or a link of what is packed; of a file `content`, of a link `target`."""

    name: str
    is_executable: bool
    content: bytes = b""
    target: str = ""


def describe_build(contract: ToolContract, spec: DaggerEngineSpec, settings: Settings) -> ImageBuild | None:
    """What a contract says of its image, with the settings that matter; nothing is looked at.

    Args:
        contract: in whose folder relative paths start.
        spec: the contract's.
        settings: where packages come from.

    Raises:
        ExecutionError: it names a file, and came from none itself.
    """
    build, folder = spec.build, contract.directory
    if build is None:
        return None

    def path(text: str | None) -> Path | None:
        if text is not None and folder is None:
            raise ExecutionError(f'build: "{text}" starts at the contract\'s folder, but this contract has none.')
        return host_path(text, Path(os.path.realpath(folder)), folder) if text is not None and folder else None

    dockerfile, context = path(build.dockerfile), path(build.context)
    if context is not None and dockerfile is None:
        dockerfile = context / "Dockerfile"
    if dockerfile is not None and context is None:
        context = dockerfile.parent
    has_pip = not build.has_dockerfile
    chosen = settings.builds
    owner = "\0".join((str(settings.root), str(contract.source or ""), contract.name))
    return ImageBuild(
        owner=hashlib.sha256(owner.encode(errors="surrogateescape")).hexdigest(),
        base=spec.image if has_pip else None,
        requirements=path(build.python),
        packages=build.packages,
        dockerfile=dockerfile,
        context=context,
        network=chosen.network,
        index_url=chosen.index_url if has_pip else None,
        wheels=chosen.wheels if has_pip else None,
    )


def check_build(blueprint: Blueprint, settings: Settings) -> Blueprint:
    """The blueprint with the name of its image, which stands for all that the image is made of.

    Raises:
        ExecutionError: a file is missing, cannot be read, or there is too much.
        LimitUnsupported: the settings allow no builds; or a place is sensitive, or a link leads out of the project.
    """
    build = blueprint.build
    if build is None:
        return blueprint
    if not settings.builds.enabled:
        raise LimitUnsupported(
            f"The image of {blueprint.tool} would have to be built, which the settings do not allow.",
            remedy="Build it elsewhere and name it by image:, or set builds.enabled: true.",
        )

    def judged(path: Path | None) -> Path | None:
        if path is None:
            return None
        return check_mount(Mount(path, "/"), settings, blueprint.tool, use="builds its image from").source

    build = replace(
        build,
        requirements=judged(build.requirements),
        dockerfile=judged(build.dockerfile),
        context=judged(build.context),
        wheels=judged(build.wheels),
    )
    state = tuple(_states(build, blueprint.tool))
    known = _known.get(build)
    if known is None or known[0] != state:
        while len(_known) >= _MOST_HASHED:
            _known.pop(next(iter(_known)), None)
        known = _known[build] = (state, pack_build(build, blueprint.tool))
    return replace(blueprint, build=known[1], image=f"{BUILT_IMAGE}:{known[1].digest[:32]}")


def pin_build(
    blueprint: Blueprint, pins: Mapping[str, str], locked: tuple[str, ...] | None, *, only_resolves: bool = False
) -> Blueprint:
    """The blueprint with an image that is built from these images and packages only; see `ImageBuild`. It has another
    name than the one that is not pinned.

    Args:
        blueprint: as `check_build` gives it.
        pins: see `ImageBuild.pins`; others than its own are left out.
        locked, only_resolves: see `ImageBuild`.
    """
    assert blueprint.build is not None
    own = tuple((base, pins[base]) for base in blueprint.build.bases if base in pins)
    owner = "lock" if only_resolves else blueprint.build.owner
    build = replace(blueprint.build, owner=owner, pins=own, locked=locked, only_resolves=only_resolves)
    tag = hashlib.sha256(repr((build.digest, own, locked, only_resolves)).encode()).hexdigest()[:32]
    return replace(blueprint, build=build, image=f"{BUILT_IMAGE}:{tag}")


def pack_build(build: ImageBuild, tool: str, into: BinaryIO | None = None) -> ImageBuild:
    """The build with what is known of it once all that the image is made of was looked at: digests, bases, and whether
    the requirements have hashes.

    Args:
        build: what to look at.
        tool: for messages.
        into: gets all of it, as a tar archive with the Dockerfile at `DOCKERFILE`, and what is pinned and locked, which
            does not count in the digests.

    Raises:
        ExecutionError: a file cannot be read, or there is too much.
    """
    import tarfile  # which no call needs whose image is there

    source = _read(build.dockerfile, tool) if build.dockerfile is not None else _wanted(build, tool)
    plain = replace(build, pins=(), locked=None, only_resolves=False)
    plain = replace(plain, is_hashed=build.dockerfile is None and b"--hash=" in source)
    whole = hashlib.sha256(build.network.encode())
    parts: dict[str, Any] = {}
    with ExitStack() as stack:
        archive = stack.enter_context(tarfile.open(fileobj=into, mode="w")) if into is not None else None
        recipe = list(_recipe(plain, source))
        written = {item.name: item for item in _recipe(replace(build, is_hashed=plain.is_hashed), source)}
        for item in chain(recipe, _context(build, tool)):
            about = (item.name, item.is_executable, len(item.content), item.target)
            hashed = repr(about).encode(errors="surrogatepass") + item.content
            whole.update(hashed)
            parts.setdefault(_part(build, item.name), hashlib.sha256()).update(hashed)
            if archive is not None:
                _write(archive, written.get(item.name, item))
    bases = find_bases(recipe[0].content.decode(errors="surrogateescape"))
    digests = tuple((name, part.hexdigest()) for name, part in parts.items()) if len(parts) <= _MOST_PARTS else ()
    return replace(build, digest=whole.hexdigest(), parts=digests, bases=bases, is_hashed=plain.is_hashed)


def _write(archive: TarFile, item: _Item) -> None:
    info = archive.tarinfo(item.name)
    info.mode = 0o755 if item.is_executable else 0o644
    if item.target:
        info.type, info.linkname = b"2", item.target  # a symbolic link
    info.size = len(item.content)
    archive.addfile(info, io.BytesIO(item.content))


def _part(build: ImageBuild, name: str) -> str:
    """What a file counts as, in words for people, when something has changed."""
    if name == DOCKERFILE:
        return build.dockerfile.name if build.dockerfile is not None else "image and settings"
    if build.dockerfile is None and name == _REQUIREMENTS and build.requirements is not None:
        return build.requirements.name
    return name.partition("/")[0]


def _wanted(build: ImageBuild, tool: str) -> bytes:
    """The requirements."""
    wanted = _read(build.requirements, tool) if build.requirements is not None else b""
    return wanted + "".join(f"\n{package}" for package in build.packages).encode() + b"\n"


def _recipe(build: ImageBuild, source: bytes) -> Iterator[_Item]:
    """The Dockerfile, and what our own one reads.

    Args:
        build: what is pinned and locked counts here.
        source: the contract's Dockerfile, or the requirements.
    """
    if build.dockerfile is not None:
        text = pin_bases(source.decode(errors="surrogateescape"), dict(build.pins))
        yield _Item(DOCKERFILE, is_executable=False, content=text.encode(errors="surrogateescape"))
        return
    yield _Item(DOCKERFILE, is_executable=False, content=_dockerfile(build).encode())
    lines = source if build.locked is None else "".join(f"{line}\n" for line in build.locked).encode()
    yield _Item(_REQUIREMENTS, is_executable=False, content=lines)


def _context(build: ImageBuild, tool: str) -> Iterator[_Item]:
    """What may be copied, in an order that does not change."""
    prefix = "wheels/" if build.wheels is not None else ""
    left = MAX_CONTEXT
    for held, name, entry in _walk_of(build, tool):
        try:
            if stat.S_ISLNK(entry.status.st_mode):
                yield _Item(prefix + name, is_executable=False, target=held.link_target(entry.name))
                continue
            with os.fdopen(held.read(entry.name), "rb") as file:
                content = file.read(left + 1)
        except OSError as exc:
            raise _unreadable(tool, held.path_of(entry.name), exc) from exc
        left -= len(content)
        if left < 0:
            raise _too_much(build, tool, size_in_words(MAX_CONTEXT))
        yield _Item(prefix + name, is_executable=bool(entry.status.st_mode & 0o111), content=content)


def install_command(build: ImageBuild) -> list[str]:
    """What is run in the image to install packages from `PLACE`, with `PIP_VARIABLES`."""
    words = ["python3", "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    if build.wheels is not None:
        words += ["--find-links", f"{PLACE}wheels"]
    if build.index_url is not None:
        words += ["--index-url", build.index_url]
    elif build.wheels is not None:
        words.append("--no-index")
    if build.locked is not None:
        words += ["--require-hashes", "--no-deps"]
    elif build.is_hashed:
        words.append("--require-hashes")
    if build.only_resolves:
        words += ["--dry-run", "--quiet", "--report", REPORT]
    words += ["--requirement", f"{PLACE}{_REQUIREMENTS}"]
    return words


def _dockerfile(build: ImageBuild) -> str:
    # In the form of a list no shell reads it. An ARG, unlike an ENV, is gone with the build.
    options = "".join(f"ARG {name}={value}\n" for name, value in PIP_VARIABLES.items())
    user = "USER root\n" if build.only_resolves else ""  # who writes the report
    base = dict(build.pins).get(build.base or "", build.base)
    return f"FROM {base}\n{user}{options}COPY . {PLACE}\nRUN {json.dumps(install_command(build))}\n"


def _states(build: ImageBuild, tool: str) -> Iterator[object]:
    """What changes when a file does, without reading any."""
    for path in (build.requirements, build.dockerfile):
        if path is not None:
            status = path.stat()
            yield status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    for _, name, entry in _walk_of(build, tool):
        status = entry.status
        yield name, status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _walk_of(build: ImageBuild, tool: str) -> Iterator[tuple[HeldDirectory, str, Entry]]:
    """Every file and link that is packed: the directory that it is in, its path, and its entry there."""
    place = build.context or build.wheels
    if place is None:
        return
    try:
        with HeldDirectory.at(place) as held:
            ignored = _ignored(held) if build.context is not None else []
            for count, found in enumerate(_walk(held, "", ignored, MAX_WALK_DEPTH), 1):
                if count > MAX_CONTEXT_FILES:
                    raise _too_much(build, tool, counted(MAX_CONTEXT_FILES, "file"))
                yield found
    except OSError as exc:
        raise _unreadable(tool, str(place), exc) from exc


def _walk(
    held: HeldDirectory, prefix: str, ignored: list[tuple[bool, re.Pattern[str]]], depth: int
) -> Iterator[tuple[HeldDirectory, str, Entry]]:
    for entry in sorted(held.entries()):
        name = prefix + entry.name
        # A contract that is described otherwise makes no other image, nor does a commit.
        if is_contract_name(entry.name) or entry.name == ".git":
            continue
        if stat.S_ISDIR(entry.status.st_mode):
            # What is in a directory that is left out may be taken in again.
            if depth and not (_is_ignored(name, ignored) and all(leaves_out for leaves_out, _ in ignored)):
                with held.enter(entry.name) as inner:
                    yield from _walk(inner, f"{name}/", ignored, depth - 1)
        elif (stat.S_ISREG(entry.status.st_mode) or stat.S_ISLNK(entry.status.st_mode)) and not _is_ignored(
            name, ignored
        ):
            yield held, name, entry


def _ignored(held: HeldDirectory) -> list[tuple[bool, re.Pattern[str]]]:
    """The patterns of ``.dockerignore``: whether each leaves out or takes in again, and what it matches."""
    if held.look(_IGNORE) is None:
        return []
    with os.fdopen(held.read(_IGNORE), "rb") as file:
        lines = file.read(_MAX_RECIPE).decode(errors="replace").splitlines()
    found: list[tuple[bool, re.Pattern[str]]] = []
    for line in lines:
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        leaves_out = not text.startswith("!")
        pattern = os.path.normpath(text.removeprefix("!").strip()).lstrip("/")
        found.append((leaves_out, _pattern(pattern)))
    return found


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of Docker's (Go's filepath.Match, and ``**``), which matches what is below a directory too."""
    out, rest = "", text
    while rest:
        if rest.startswith("**/"):
            out, rest = out + "(?:.*/)?", rest[3:]
        elif rest.startswith("**"):
            out, rest = out + ".*", rest[2:]
        elif rest[0] == "*":
            out, rest = out + "[^/]*", rest[1:]
        elif rest[0] == "?":
            out, rest = out + "[^/]", rest[1:]
        elif (group := re.match(r"\[(\^?)([^\]/\\]+)\]", rest)) is not None:
            members = re.sub(r"([&|~\[])", r"\\\1", group[2])
            out, rest = f"{out}[{group[1]}{members}]", rest[group.end() :]
        else:
            rest = rest[1:] if rest[0] == "\\" and len(rest) > 1 else rest
            out, rest = out + re.escape(rest[0]), rest[1:]
    return re.compile(f"{out}(?:/.*)?", re.DOTALL)


def _is_ignored(name: str, ignored: list[tuple[bool, re.Pattern[str]]]) -> bool:
    """Whether the last pattern that matches leaves it out."""
    for leaves_out, pattern in reversed(ignored):
        if pattern.fullmatch(name):
            return leaves_out
    return False


def _read(path: Path, tool: str) -> bytes:
    try:
        content = read_regular(path, _MAX_RECIPE, follow=False)
    except OSError as exc:
        raise _unreadable(tool, str(path), exc) from exc
    if len(content) > _MAX_RECIPE:
        raise ExecutionError(f"{tool} builds its image from {path}, which is larger than {size_in_words(_MAX_RECIPE)}.")
    return content


def _unreadable(tool: str, path: str, exc: OSError) -> ExecutionError:
    return ExecutionError(
        f"{tool} builds its image from {path}, which cannot be read: {exc.strerror or exc}.",
        remedy="Fix it, or name it in .dockerignore.",
    )


def _too_much(build: ImageBuild, tool: str, most: str) -> LimitUnsupported:
    return LimitUnsupported(
        f"{tool} builds its image from {build.context or build.wheels}, which has more than {most}.",
        remedy="Name what the Dockerfile does not copy in .dockerignore, or take a smaller context.",
    )
