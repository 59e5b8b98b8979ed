"""Random layouts of mounts within mounts, and the one small model that says what a tool must see in them.

The model: things are laid in the order of their depth, so each path belongs to the deepest thing at or above it. What a
thing lacks on the way to another below it is made where nobody else sees it; but in a writable mount nothing is made,
since it would stay on the host.
"""

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("a", "b", "n")
"""Names of directories; every source has some of them, none has all."""

LOOK = """
import json, os, sys
top, new = sys.argv[1:]
found = {}
for place, folders, files in os.walk(top):
    texts = {name: open(os.path.join(place, name)).read() for name in files if name != new}
    try:
        open(os.path.join(place, new), "a").close()
        writable = True
    except OSError:
        writable = False
    found[place] = [sorted(folders), texts, writable]
print(json.dumps({"cwd": os.getcwd(), "found": found}))
"""
"""What the tool runs: it tells all that it sees below a directory, and writes a file wherever it can."""


@dataclass(frozen=True)
class Thing:
    """Something that lies at `target`; `source` is on the host, None for what the engine makes: an empty directory."""

    target: str
    source: Path | None = None
    writable: bool = False

    @property
    def is_directory(self) -> bool:
        return self.source is None or self.source.is_dir()


@dataclass
class Nest:
    """A layout.

    Attributes:
        top: the directory that it is all in, for the tool.
        mounts: what the contract mounts, in the order in which it says so.
        caches, artifacts, working_dir: as a contract has them.
    """

    top: str
    mounts: list[Thing] = field(default_factory=list)
    caches: list[str] = field(default_factory=list)
    artifacts: str | None = None
    working_dir: str | None = None

    def __str__(self) -> str:
        mounts = {thing.target: f"{thing.source}{':rw' if thing.writable else ''}" for thing in self.mounts}
        return json.dumps([mounts, self.caches, self.artifacts, self.working_dir])

    @property
    def things(self) -> list[Thing]:
        """All that is laid, in that order."""
        own = [*self.caches, *([self.artifacts] if self.artifacts else [])]
        laid = [*self.mounts, *(Thing(path, writable=True) for path in own)]
        return sorted(laid, key=lambda thing: (thing.target.count("/"), thing.target))

    def provider(self, path: str, *, above: bool = False) -> Thing | None:
        """Whose the path is; with `above`, whose it would be without the thing that lies exactly there."""
        found = [
            thing
            for thing in self.things
            if path.startswith(f"{thing.target}/") or (path == thing.target and not above)
        ]
        return found[-1] if found else None

    def missing(self) -> set[Path]:
        """The places that would have to be made on the host: then no engine may run it."""
        laid = {thing.target for thing in self.things}
        wanted = laid | ({self.working_dir} - laid if self.working_dir else set())
        found: set[Path] = set()
        for target in wanted:
            outer = self.provider(target, above=True)
            if outer is not None and outer.source is not None and outer.writable:
                found.add(outer.source / target[len(outer.target) + 1 :])
        return {place for place in found if not place.exists()}

    def view(self) -> dict[str, list[object]]:
        """What `LOOK` finds, by directory: directories, texts of files, and whether it can be written; this is None
        outside of all things, where it depends on the engine."""
        found: dict[str, list[object]] = {}
        waiting = [self.top]
        while waiting:
            place = waiting.pop()
            owner = self.provider(place)
            folders, texts = self._entries(place, owner)
            found[place] = [sorted(folders), texts, None if owner is None else owner.writable]
            waiting += [f"{place}/{name}" for name in folders]
        return found

    def _entries(self, place: str, owner: Thing | None) -> tuple[set[str], dict[str, str]]:
        folders: set[str] = set()
        texts: dict[str, str] = {}
        if owner is not None and owner.source is not None:
            source = owner.source / place[len(owner.target) + 1 :]
            for entry in source.iterdir() if source.is_dir() else ():
                if entry.is_dir():
                    folders.add(entry.name)
                else:
                    texts[entry.name] = entry.read_text()
        ends = [self.working_dir] if self.working_dir else []
        for path in (*(thing.target for thing in self.things if thing.is_directory), *ends):
            if path.startswith(f"{place}/"):
                folders.add(path[len(place) + 1 :].partition("/")[0])
        for thing in self.things:
            if not thing.is_directory and thing.source is not None and thing.target.startswith(f"{place}/"):
                name, _, more = thing.target[len(place) + 1 :].partition("/")
                if more:
                    folders.add(name)
                else:
                    texts[name] = thing.source.read_text()
        return folders, texts


def nests(root: Path, top: str, *, of_images: bool) -> Iterator[Nest]:
    """Layouts without end, the same ones always.

    Args:
        root: an existing directory, for the sources.
        top: where all of it lies for the tool.
        of_images: whether there may be caches and a working directory.
    """
    for number in itertools.count():
        chance = random.Random(number)
        yield _nest(chance, root / str(number), f"{top}-{number}", of_images=of_images)


def _nest(chance: random.Random, root: Path, top: str, *, of_images: bool) -> Nest:
    nest = Nest(top)
    taken: set[str] = set()

    def place() -> str:
        while True:
            path = "/".join((top, *chance.choices(NAMES, k=chance.choice((0, 0, 1, 1, 2, 2, 3))))).rstrip("/")
            if path not in taken:
                taken.add(path)
                return path

    for number in range(chance.randint(2, 5)):
        source = root / f"source{number}"
        inner = sorted(
            path for thing in nest.mounts if thing.source for path in thing.source.rglob("*") if path.is_dir()
        )
        inner = [path for path in inner if path not in {thing.source for thing in nest.mounts}]
        if inner and chance.random() < 0.25:
            source = chance.choice(inner)  # mounted with what is around it, and by itself
        else:
            _fill(chance, source, f"source{number}", 3)
        nest.mounts.append(Thing(place(), source, writable=chance.random() < 0.3))
    if chance.random() < 0.5:
        source = root / "file"
        source.write_text("file")
        folder = chance.choice([thing.target for thing in nest.mounts])
        taken.add(path := f"{folder}/{chance.choice(('who', 'other'))}")
        nest.mounts.append(Thing(path, source, writable=False))
    if of_images:
        nest.caches += [place() for _ in range(chance.choice((0, 0, 0, 1, 1, 2)))]
    if chance.random() < 0.4:
        nest.artifacts = place()
    if of_images and chance.random() < 0.4:
        nest.working_dir = "/".join((top, *chance.choices(NAMES, k=chance.randint(1, 3))))
    chance.shuffle(nest.mounts)
    return nest


def _fill(chance: random.Random, place: Path, text: str, depth: int) -> None:
    place.mkdir(parents=True)
    place.chmod(0o777)
    (place / "who").write_text(text)
    for name in chance.sample(NAMES, chance.randint(0, 2)) if depth else ():
        _fill(chance, place / name, f"{text}/{name}", depth - 1)
