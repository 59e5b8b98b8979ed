"""The part of Dagger's API that the double supports; a method `do_NAME` is the field NAME."""

import asyncio
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from graphql import GraphQLError

from tests.dagger_double.execs import LABEL, Execs, MountPoint, NewFile, Recipe, SocketPoint
from tests.dagger_double.store import Content, as_git_sees, copy, entries

_T = TypeVar("_T")

VERSION = os.environ.get("PRAXIS_DAGGER_DOUBLE_VERSION", "v0.21.8")
REGISTRY = "PRAXIS_DAGGER_DOUBLE_REGISTRY"
"""Names a JSON object: reference → local image that the double's registry gives out for it. A reference of the host
``private.test`` wants the login ``user`` and ``password``."""
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class Ids:
    """Ids of one session's objects."""

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}

    def give(self, thing: Any) -> str:
        number = f"double-{type(thing).__name__}-{len(self._objects)}"
        self._objects[number] = thing
        return number

    def find(self, number: str, kind: type[_T]) -> _T:
        found = self._objects.get(number)
        if not isinstance(found, kind):
            raise GraphQLError(f"no {kind.__name__} has the id {number} in this session")
        return found


class Query:
    def __init__(self, execs: Execs) -> None:
        self.execs = execs
        self.trace = execs.trace
        self.ids = Ids()
        self._host = Host(self)

    def do_version(self) -> str:
        return VERSION

    def do_defaultPlatform(self) -> str:
        return f"linux/{_MACHINES[platform.machine()]}"

    def do_container(self) -> "Container":
        return Container(self, Recipe())

    def do_host(self) -> "Host":
        return self._host

    def do_directory(self) -> "Directory":
        return Directory(self, self.execs.store.empty())

    def do_cacheVolume(self, key: str, sharing: str, owner: str) -> "CacheVolume":
        return CacheVolume(self, key)

    def do_setSecret(self, name: str, plaintext: str) -> "Secret":
        return Secret(self, name, plaintext)

    def do_loadDirectoryFromID(self, id: str) -> "Directory":
        return self.ids.find(id, Directory)

    def do_loadContainerFromID(self, id: str) -> "Container":
        return self.ids.find(id, Container)


@dataclass(frozen=True)
class Node:
    query: Query

    def do_id(self) -> str:
        return self.query.ids.give(self)


@dataclass(frozen=True)
class CacheVolume(Node):
    key: str


@dataclass(frozen=True)
class EnvVariable:
    name: str
    value: str

    def do_name(self) -> str:
        return self.name

    def do_value(self) -> str:
        return self.value


@dataclass(frozen=True)
class Secret(Node):
    name: str
    plaintext: str


@dataclass(frozen=True)
class Socket(Node):
    path: str


class Host:
    def __init__(self, query: Query) -> None:
        self._query = query
        self._known: dict[str, Content] = {}

    async def do_directory(self, path: str, exclude: list[str], noCache: bool, **_: Any) -> "Directory":
        return Directory(self._query, await self._read(path, exclude, noCache, directory=True))

    async def do_file(self, path: str, noCache: bool) -> "File":
        return File(self._query, await self._read(path, [], noCache, directory=False))

    def do_unixSocket(self, path: str) -> Socket:
        return Socket(self._query, path)

    async def _read(self, path: str, exclude: list[str], no_cache: bool, *, directory: bool) -> Content:
        if no_cache or path not in self._known:
            source = Path(path)
            if not (source.is_dir() if directory else source.is_file()):
                raise GraphQLError(f"stat {path}: no such file or directory")
            self._known[path] = await asyncio.to_thread(self._query.execs.store.add, source, exclude)
        return self._known[path]


@dataclass(frozen=True)
class File(Node):
    content: Content

    def do_digest(self, **_: Any) -> str:
        return self.content.digest

    def do_size(self) -> int:
        return self.content.path.stat().st_size

    def do_chown(self, owner: str) -> "File":
        return replace(self, content=replace(self.content, owner=owner))

    def do_contents(self, limitLines: int | None = None, **_: Any) -> str:
        with self.content.path.open("rb") as file:
            data = file.read() if limitLines is None else b"".join(itertools.islice(file, limitLines))
        return data.decode(errors="replace")

    async def do_export(self, path: str, **_: Any) -> str:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(shutil.copy, self.content.path, path)
        return path


@dataclass(frozen=True)
class Directory(Node):
    content: Content

    def do_digest(self) -> str:
        return self.content.digest

    def do_directory(self, path: str) -> "Directory":
        return Directory(self.query, Content(self.content.path / path, ""))

    def do_glob(self, pattern: str) -> list[str]:
        if pattern != "**":
            raise GraphQLError(f"the double lists everything below a directory, not {pattern}")
        return _spelled(entries(self.content.path))

    def do_chown(self, path: str, owner: str) -> "Directory":
        return replace(self, content=replace(self.content, owner=owner))

    def do_file(self, path: str) -> "File":
        return File(self.query, Content(self.content.path / path, ""))

    def do_withNewDirectory(self, path: str, permissions: int) -> "Directory":
        return replace(self, content=self.query.execs.store.add_entry(self.content, path, permissions, None))

    def do_withNewFile(self, path: str, contents: str, permissions: int) -> "Directory":
        return replace(self, content=self.query.execs.store.add_entry(self.content, path, permissions, contents))

    def do_changes(self, **arguments: str) -> "Changeset":
        return Changeset(self.query, self.query.ids.find(arguments["from"], Directory).content.path, self.content.path)

    async def do_export(self, path: str, wipe: bool) -> str:
        await asyncio.to_thread(_export, self.content.path, Path(path), None)
        return path

    async def do_dockerBuild(self, dockerfile: str, **_: Any) -> "Container":
        process = await asyncio.create_subprocess_exec(
            *("docker", "build", "--quiet", "--force-rm", "--file", str(self.content.path / dockerfile)),
            *("--label", f"{LABEL}={self.query.execs.store.state.name}", str(self.content.path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
        )
        out, _err = await process.communicate()
        if process.returncode != 0:
            raise _failed_build(out.decode())
        container = self.query.do_container()
        return replace(container, recipe=replace(container.recipe, image=out.decode().split()[-1]))


def _failed_build(log: str) -> GraphQLError:
    """As a real engine says it."""
    code = re.search(r"returned a non-zero code: (\d+)", log)
    if code is None:
        return GraphQLError(f"failed to convert Dockerfile to LLB: {log}")
    ended = {"_type": "EXEC_ERROR", "cmd": [], "exitCode": int(code[1]), "stdout": log, "stderr": ""}
    return GraphQLError(f"failed to clone built container state: exit code: {code[1]}", extensions=ended)


@dataclass(frozen=True)
class Changeset(Node):
    before: Path
    after: Path

    def _compare(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        return entries(self.before), entries(self.after)

    def do_isEmpty(self) -> bool:
        before, after = self._compare()
        return before == after

    def do_addedPaths(self) -> list[str]:
        before, after = self._compare()
        return _spelled(after.keys() - before.keys())

    def do_modifiedPaths(self) -> list[str]:
        before, after = self._compare()
        both = after.keys() & before.keys()
        return _spelled(
            name for name in both if as_git_sees(after[name]) != as_git_sees(before[name]) and name[-1] != "/"
        )

    def do_removedPaths(self) -> list[str]:
        before, after = self._compare()
        gone = before.keys() - after.keys()
        return _spelled(
            name
            for name in gone
            if not any(name != other and name.startswith(other) for other in gone if other[-1] == "/")
        )

    def do_layer(self) -> "Layer":
        before, after = self._compare()
        return Layer(self.query, self.after, frozenset(name for name in after if after[name] != before.get(name)))


@dataclass(frozen=True)
class Layer(Node):
    root: Path
    names: frozenset[str]

    def do_entries(self, **_: Any) -> list[str]:
        return _spelled({name.partition("/")[0] + "/" * ("/" in name) for name in self.names})

    async def do_export(self, path: str, wipe: bool) -> str:
        await asyncio.to_thread(_export, self.root, Path(path), self.names)
        return path


def _spelled(names: Iterable[str]) -> list[str]:
    """Names as Dagger's API gives them: each byte that is not UTF-8 is a U+FFFD."""
    return sorted(re.sub("[\udc80-\udcff]", "\ufffd", name) for name in names)


def _export(root: Path, target: Path, names: frozenset[str] | None) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(entries(root) if names is None else names):
        place = target / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            place.chmod((root / name).stat().st_mode & 0o7777)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        source = root / name
        if source.is_symlink():
            place.symlink_to(os.readlink(source))
        elif source.is_fifo():
            os.mkfifo(place)
        elif source.is_socket():  # as a real engine hands it out
            place.touch()
        else:
            copy(source, place, [])


@dataclass(frozen=True)
class Container(Node):
    recipe: Recipe
    address: str = ""
    login: tuple[str, str, str] | None = None

    def _with(self, **changes: Any) -> "Container":
        if self.recipe.exec:
            raise GraphQLError("the double does nothing with a container after its exec but read it")
        return replace(self, recipe=replace(self.recipe, **changes))

    # --- images

    def do_withRegistryAuth(self, address: str, username: str, secret: str) -> "Container":
        return replace(self, login=(address, username, self.query.ids.find(secret, Secret).plaintext))

    async def do_from(self, address: str) -> "Container":
        registry = json.loads(os.environ.get(REGISTRY, "{}"))
        plain = address.partition("@")[0]
        failed = f'failed to resolve image "{address}" (platform: "{self.query.do_defaultPlatform()}")'
        if not re.match(r"[a-z0-9./:_@-]+$", address):
            raise GraphQLError(f"failed to parse image address {address}: invalid reference format")
        if ".test/" not in plain:
            host = plain.partition("/")[0] if "/" in plain else "registry-1.docker.io"
            raise GraphQLError(
                f'{failed}: failed to do request: Head "https://{host}/v2/": dial tcp: lookup {host}: no'
            )
        if plain.startswith("private.test/") and self.login != ("private.test", "user", "password"):
            raise GraphQLError(f"{failed}: pull access denied: authorization failed")
        if plain not in registry:
            raise GraphQLError(f"{failed}: {plain}: not found")
        found = await self._inspect(registry[plain])
        return replace(self._with(image=found["Id"]), address=f"{plain}@{found['Id']}")

    async def do_import(self, source: str, **_: Any) -> "Container":
        content = self.query.ids.find(source, File).content
        known = self.query.execs.store.state / f"image-{content.digest[7:]}"
        if not known.exists():
            process = await asyncio.create_subprocess_exec(
                *("docker", "load", "--quiet", "--input", str(content.path)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await process.communicate()
            if process.returncode != 0:
                raise GraphQLError(f"image archive import: {err.decode().strip()}")
            known.write_text(out.decode().split()[-1])
        found = await self._inspect(known.read_text())
        return replace(self._with(image=found["Id"]), address="")

    async def _inspect(self, image: str) -> dict[str, Any]:
        response = await self.query.execs.docker.get(f"/images/{image}/json")
        if response.is_error:
            raise GraphQLError(f"docker: {response.json()['message']}")
        return response.json()

    async def _config(self) -> dict[str, Any]:
        return (await self._inspect(self.recipe.image))["Config"]

    def do_imageRef(self) -> str:
        if not self.address:
            raise GraphQLError("Image reference can only be retrieved immediately after the 'Container.From' call.")
        return self.address

    async def do_user(self) -> str:
        return self.recipe.user or (await self._config())["User"]

    async def do_entrypoint(self) -> list[str]:
        return (await self._config())["Entrypoint"] or []

    def do_platform(self) -> str:
        return self.query.do_defaultPlatform()

    async def do_envVariables(self) -> list["EnvVariable"]:
        image = dict(item.partition("=")[::2] for item in (await self._config())["Env"] or [])
        return [EnvVariable(name, value) for name, value in {**image, **dict(self.recipe.env)}.items()]

    # --- what a command finds

    def do_withEnvVariable(self, name: str, value: str, **_: Any) -> "Container":
        return self._with(env=(*self.recipe.env, (name, value)))

    def do_withoutEnvVariable(self, name: str) -> "Container":
        return self._with(env=tuple(item for item in self.recipe.env if item[0] != name))

    def do_withoutMount(self, path: str, **_: Any) -> "Container":
        return self._with(mounts=tuple(item for item in self.recipe.mounts if item.target != path))

    def do_withSecretVariable(self, name: str, secret: str) -> "Container":
        found = self.query.ids.find(secret, Secret)
        return self._with(secrets=(*self.recipe.secrets, (name, found.name, found.plaintext)))

    def do_withUser(self, name: str) -> "Container":
        return self._with(user=name)

    def do_withWorkdir(self, path: str, **_: Any) -> "Container":
        return self._with(workdir=path)

    def do_withFile(
        self, path: str, source: str, permissions: int | None = None, owner: str = "", **_: Any
    ) -> "Container":
        content = self.query.ids.find(source, File).content
        mode = permissions if permissions is not None else content.path.stat().st_mode & 0o7777
        return self._with(files=(*self.recipe.files, NewFile(path, content, mode, owner)))

    def do_withNewFile(self, path: str, contents: str, permissions: int, owner: str, **_: Any) -> "Container":
        content = self.query.execs.store.add_bytes(contents.encode())
        return self._with(files=(*self.recipe.files, NewFile(path, content, permissions, owner)))

    def do_withMountedDirectory(self, path: str, source: str, owner: str, readOnly: bool, **_: Any) -> "Container":
        content = self.query.ids.find(source, Directory).content
        return self._mount(MountPoint(path, content, owner, readOnly))

    def do_withMountedFile(self, path: str, source: str, owner: str, **_: Any) -> "Container":
        return self._mount(MountPoint(path, self.query.ids.find(source, File).content, owner))

    def do_withMountedCache(self, path: str, cache: str, owner: str, **_: Any) -> "Container":
        return self._mount(MountPoint(path, self.query.ids.find(cache, CacheVolume).key, owner))

    def do_withUnixSocket(self, path: str, source: str, owner: str, **_: Any) -> "Container":
        socket = SocketPoint(path, self.query.ids.find(source, Socket).path, owner)
        return self._with(sockets=(*self.recipe.sockets, socket))

    def _mount(self, mount: MountPoint) -> "Container":
        # As Dagger has it (core/container.go, ContainerMounts.With): what lies at or below goes.
        kept = (item for item in self.recipe.mounts if not f"{item.target}/".startswith(f"{mount.target}/"))
        return self._with(mounts=(*kept, mount))

    # --- the command

    def do_withExec(self, **arguments: Any) -> "Container":
        if arguments["experimentalPrivilegedNesting"]:
            raise GraphQLError("the double gives no command the Dagger API")
        return self._with(exec=arguments)

    async def do_sync(self) -> str:
        if not self.recipe.exec:
            return self.do_id()
        # What follows may go on from there.
        done = await self.query.execs.result(self.recipe)
        image = await self.query.execs.commit(done)
        return replace(self, recipe=replace(self.recipe, image=image, exec={})).do_id()

    async def do_exitCode(self) -> int:
        return (await self.query.execs.result(self.recipe)).exit_code

    async def do_stdout(self) -> str:
        return ((await self.query.execs.result(self.recipe)).place / "stdout").read_text(errors="replace")

    async def do_stderr(self) -> str:
        return ((await self.query.execs.result(self.recipe)).place / "stderr").read_text(errors="replace")

    async def do_file(self, path: str, **_: Any) -> File:
        done = await self.query.execs.result(self.recipe)
        for name in ("stdout", "stderr"):
            if path == self.recipe.exec.get(f"redirect{name.capitalize()}"):
                return File(self.query, Content(done.place / name, ""))
        if path in done.mounts:
            return File(self.query, Content(Path(done.mounts[path]), ""))
        return File(self.query, await self.query.execs.read(done, path))

    async def do_directory(self, path: str, **_: Any) -> Directory:
        done = await self.query.execs.result(self.recipe)
        if path not in done.mounts:
            raise GraphQLError(f"the double reads mounted directories of a container, not {path}")
        return Directory(self.query, Content(Path(done.mounts[path]), ""))
