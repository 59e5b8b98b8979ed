"""The image store: images unpacked once on this machine, shared read-only by every process of one user.

::

    refs/<hash>.json         a reference, and the image that it names
    images/<id>/image.json   configuration, digest, size; <id> is the digest of the configuration, as Docker's image ids
    images/<id>/rootfs/      the root file system, all layers applied
    images/<id>/layer/       empty: where a sandbox that may write mounts its own layer, in a namespace of its own
    downloads/<digest>       blobs of a pull under way, kept when it is cut short
    tmp/<id>.<random>/       an image being unpacked, renamed when it is whole
    caches/<hash>/           `cache_dirs` of contracts, see `files`
    locks/<hex>              held while an image is unpacked or removed (alone) or used (shared), a blob fetched or
                             removed (alone) or unpacked (shared); flock(2), so that the kernel lets go for a process
                             that is killed

What unpacks, writes or removes images blocks: call it from a thread. To find one, and to use it, looks at a few small
files and takes a lock without waiting.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from praxis_mcp.errors import ImageError
from praxis_mcp.images.layers import Bounds, RootBuilder
from praxis_mcp.images.manifests import digest_of, read_config
from praxis_mcp.images.model import ImageContent, NamedImage, Reference, StoredImage
from praxis_mcp.images.shared_files import JsonFiles, entries, hold_cache, hold_lock, prune_caches
from praxis_mcp.support.files import data_home, replace_private
from praxis_mcp.support.logs import logger
from praxis_mcp.support.removal import remove_tree

LOCK_TIMEOUT = 900.0
"""Seconds to wait for another process that is unpacking or removing the same image."""
_MOST_KNOWN = 1024
"""Names, and images, of which it is known where they are."""
_ID = re.compile(r"sha256:([0-9a-f]{64})")


class ImageStore:
    """One store.

    Args:
        directory: where. Made when first written to. None is nowhere: an error, once the store is needed.
        bounds: what an image may take.
    """

    def __init__(self, directory: Path | None, bounds: Bounds | None = None) -> None:
        self._directory = directory
        self.bounds = bounds or Bounds()
        self._records = JsonFiles()
        # Every call looks for its image: to join paths and to read records takes longer than to look at the files.
        self._files: dict[str, tuple[str, Path]] = {}
        self._images: dict[str, tuple[Path, Any, StoredImage | None]] = {}

    @property
    def directory(self) -> Path:
        """Where it is.

        Raises:
            ImageError: nowhere.
        """
        if self._directory is None:
            raise ImageError(
                "There is no place for images: this user has no home directory.",
                remedy="Set engines.sandbox.store in the settings to a directory, by an absolute path.",
            )
        return self._directory

    # --- looking ---

    def find(self, reference: str) -> NamedImage | None:
        """The image of that name, or with that id (``sha256:…``); None where the store lacks it.

        Raises:
            ImageError: the reference is not valid.
        """
        if _ID.fullmatch(reference):
            image = self._image(reference)
            return NamedImage(reference, image, None) if image else None
        if (known := self._files.get(reference)) is None:
            name = str(Reference.parse(reference))
            if len(self._files) >= _MOST_KNOWN:
                self._files.clear()
            known = self._files[reference] = name, self._reference_file(name)
        name, file = known
        record = self._records.read(file)
        if not isinstance(record, dict) or (image := self._image(str(record.get("image")))) is None:
            return self._find_digest(Reference.parse(name))
        return NamedImage(name, image, record.get("manifest"))

    def _find_digest(self, reference: Reference) -> NamedImage | None:
        """The image that another name of the same repository, such as a tag, has brought here."""
        if reference.digest is None or self._directory is None:
            return None
        for named in self.names():
            if named.manifest == reference.digest and Reference.parse(named.reference).name == reference.name:
                return NamedImage(str(reference), named.image, named.manifest)
        return None

    def names(self) -> tuple[NamedImage, ...]:
        """Every named image, sorted by name."""
        found: list[NamedImage] = []
        for file in (self.directory / "refs").glob("*.json"):
            record = self._records.read(file)
            if isinstance(record, dict) and (image := self._image(str(record.get("image")))) is not None:
                found.append(NamedImage(str(record["reference"]), image, record.get("manifest")))
        return tuple(sorted(found, key=lambda item: item.reference))

    @contextmanager
    def use(self, image: StoredImage) -> Iterator[bool]:
        """Keep an image from being removed; False where another process is just about that. Does not wait.

        Raises:
            ImageError: it was removed just now.
        """
        with hold_lock(self._lock_file(image.id), shared=True) as held:
            if held and not image.directory.is_dir():
                raise ImageError(f"The image {image.id} was removed just now.", remedy="Call again.")
            yield held

    # --- writing ---

    def install(
        self,
        content: ImageContent,
        references: Iterable[str],
        *,
        is_stopped: Callable[[], bool] = lambda: False,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> StoredImage:
        """Unpack an image, unless that was done before, and give it these names.

        Args:
            content: the image.
            references: names, which may have belonged to another image before.
            is_stopped: asked now and then; True ends the work with an `ImageError`.
            on_progress: is called with what is being done.

        Raises:
            ImageError: the image cannot be unpacked; nothing of it is left.
        """
        names = [str(Reference.parse(reference)) for reference in references]
        ident = digest_of(content.config)
        what = f"The image {names[0] if names else ident}"
        config = read_config(content.config, what)
        if len(config.diff_ids) != len(content.layers):
            raise ImageError(f"{what} has {len(content.layers)} layers and names {len(config.diff_ids)}.")
        try:
            self._make_directories()
            image = self._image(ident)
            while image is None:
                with self._lock(ident, is_stopped):
                    if (image := self._image(ident)) is None:
                        self._unpack(ident, content, what, is_stopped, on_progress)
                        image = self._image(ident)
            for name in names:
                record = {"reference": name, "image": ident, "manifest": content.manifest, "stored": time.time()}
                replace_private(self._reference_file(name), json.dumps(record), is_durable=True)
        except OSError as exc:
            raise self.unwritable(exc) from exc
        return image

    @contextmanager
    def use_cache(self, key: str) -> Iterator[Path]:
        """The directory that is kept for a key (`Blueprint.cache_key`), made where it is missing, and not removed
        before the end of the block.

        Raises:
            OSError: it cannot be made.
        """
        self._make_directories()
        with hold_cache(self.directory / "caches", key, self.directory / "tmp") as place:
            yield place

    def remove(self, reference: str) -> bool:
        """Remove a name; and the image, where that was its last one. False where there is no such name.

        Raises:
            ImageError: the image is in use, or the store cannot be written.
        """
        found = self.find(reference)
        if found is None:
            return False
        try:
            self._remove(found, reference)
        except OSError as exc:
            raise self.unwritable(exc) from exc
        return True

    def _remove(self, found: NamedImage, reference: str) -> None:
        others = [item for item in self.names() if item.image.id == found.image.id]
        by_id = reference == found.image.id
        if by_id or len(others) <= 1:
            self._remove_image(found.image.id)
        for item in others:
            if by_id or item.reference == found.reference:
                self._reference_file(item.reference).unlink(missing_ok=True)

    def collect_garbage(self) -> tuple[str, ...]:
        """Remove what no name leads to, what broken-off pulls and killed processes left, and caches that were not used
        for long; says what.

        Raises:
            ImageError: the store cannot be written.
        """
        try:
            return self._collect_garbage()
        except OSError as exc:
            raise self.unwritable(exc) from exc

    def _collect_garbage(self) -> tuple[str, ...]:
        caches = prune_caches(self.directory / "caches", self.directory / "tmp")
        removed = [f"caches/{name}" for name in caches]
        kept = {item.image.id.removeprefix("sha256:") for item in self.names()}
        for place in [*entries(self.directory / "images"), *entries(self.directory / "tmp")]:
            ident = place.name.partition(".")[0]
            if place.parent.name == "images" and ident in kept:
                continue
            with self._try_lock(ident) as free:
                if not free:
                    continue
                if (failure := remove_tree(place)) is None:
                    removed.append(f"{place.parent.name}/{place.name}")
                else:
                    logger.warning("{} cannot be removed: {}", place, failure)
        for file in entries(self.directory / "downloads"):
            with self._try_lock(file.name) as free:
                if free:
                    file.unlink(missing_ok=True)
                    removed.append(f"downloads/{file.name}")
        return tuple(removed)

    def download(self, digest: str) -> Path:
        """The file for a blob: hold `lock_download` to write or remove it, `hold_download` to read it."""
        self._make_directories()
        return self.directory / "downloads" / digest.removeprefix("sha256:")

    def temporary(self) -> Path:
        """A directory on the same disk for files of a moment, which have no name (`tempfile.TemporaryFile`).

        Raises:
            OSError: it cannot be made.
        """
        self._make_directories()
        return self.directory / "tmp"

    def lock_download(self, digest: str) -> AbstractContextManager[bool]:
        """Keep others from fetching the same blob, if nobody does yet; whether that is so. Does not wait."""
        self._make_directories()
        return self._try_lock(digest)

    @contextmanager
    def hold_download(self, digest: str, size: int) -> Iterator[bool]:
        """Keep a blob that was fetched from being removed; whether it is there. Others may hold it too; does not wait.

        Args:
            digest: the blob's.
            size: its bytes.
        """
        with hold_lock(self._lock_file(digest), shared=True) as held:
            yield held and _size(self.download(digest)) == size

    def busy(self, image: str) -> ImageError:
        """The error about an image that another process does not let go of."""
        return ImageError(
            f"Another process has been busy with the image {image} for too long.",
            remedy="See whether a praxis-mcp process hangs.",
        )

    def unwritable(self, exc: OSError) -> ImageError:
        """The error about a store that cannot be written."""
        return ImageError(
            f"The image store {self.directory} cannot be written: {exc.strerror}.",
            remedy="Choose another by engines.sandbox.store in the settings.",
        )

    # --- parts ---

    def _unpack(
        self,
        ident: str,
        content: ImageContent,
        what: str,
        is_stopped: Callable[[], bool],
        on_progress: Callable[[str], None],
    ) -> None:
        key = ident.removeprefix("sha256:")
        for stale in (self.directory / "tmp").glob(f"{key}.*"):  # of a process that was killed: the lock is ours
            remove_tree(stale)
        config = read_config(content.config, what)
        place = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=self.directory / "tmp"))
        try:
            (place / "rootfs").mkdir(mode=0o755)
            (place / "layer").mkdir()
            builder = RootBuilder(place / "rootfs", self.bounds, is_stopped)
            total = len(content.layers)
            for number, (layer, diff_id) in enumerate(zip(content.layers, config.diff_ids, strict=True), 1):
                on_progress(f"unpacking layer {number} of {total}")
                with layer.open() as source:
                    builder.apply(source, diff_id=diff_id, digest=layer.digest, what=f"{what}, layer {number},")
            builder.finish()
            record = asdict(config) | {"id": ident, "size": builder.size, "created": time.time()}
            del record["diff_ids"]
            replace_private(place / "image.json", json.dumps(record), is_durable=True)
            place.rename(self.directory / "images" / key)
        except BaseException:
            remove_tree(place)
            raise

    def _remove_image(self, ident: str) -> None:
        key = ident.removeprefix("sha256:")
        with self._try_lock(key) as free:
            if not free:
                raise ImageError(f"The image {ident} is in use.", remedy="Try again when its calls have ended.")
            place = self.directory / "images" / key
            if place.exists():
                # First out of sight, at once, so that nobody finds half of it.
                gone = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=self.directory / "tmp"))
                place.rename(gone / "image")
                remove_tree(gone)

    def _image(self, ident: str) -> StoredImage | None:
        file, known, image = self._images.get(ident, (None, None, None))
        if file is None:
            found = _ID.fullmatch(ident)
            if found is None:
                return None
            file = self.directory / "images" / found[1] / "image.json"
        record = self._records.read(file)
        if record is None:
            self._images.pop(ident, None)
            return None
        if record is not known or image is None:
            if len(self._images) >= _MOST_KNOWN:
                self._images.clear()
            image = StoredImage.of(record, ident, file.parent)
            self._images[ident] = file, record, image
        return image

    def _reference_file(self, name: str) -> Path:
        return self.directory / "refs" / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

    def _make_directories(self) -> None:
        # Nobody else's: set-user-id programs and odd modes of images must not tempt other users of the machine.
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("refs", "images", "downloads", "tmp", "caches", "locks"):
            (self.directory / name).mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def _lock(self, digest: str, is_stopped: Callable[[], bool]) -> Iterator[None]:
        with hold_lock(self._lock_file(digest), timeout=LOCK_TIMEOUT, is_stopped=is_stopped) as held:
            if not held:
                raise self.busy(digest)
            yield

    def _try_lock(self, digest: str) -> AbstractContextManager[bool]:
        return hold_lock(self._lock_file(digest))

    def _lock_file(self, digest: str) -> Path:
        return self.directory / "locks" / digest.removeprefix("sha256:")


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def default_directory() -> Path | None:
    """Where images are kept unless the settings say otherwise: ``$XDG_DATA_HOME/praxis-mcp/images``; None for a user
    without a home."""
    base = data_home()
    return base / "images" if base is not None else None
