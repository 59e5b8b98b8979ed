"""What pods get of this machine's files, and whether a pod that waits still has what they hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from praxis_mcp.engines.kubernetes import content
from praxis_mcp.engines.kubernetes.content import ConfigMap, PodContent
from praxis_mcp.errors import EngineUnavailable, ExecutionError, LimitUnsupported
from praxis_mcp.plans.model import Blueprint, Limits, Mount, Where
from praxis_mcp.settings.kubernetes import KubernetesSettings

pytestmark = [pytest.mark.anyio, pytest.mark.native]


def blueprint_of(*mounts: Mount) -> Blueprint:
    return Blueprint("reads", Where.CONTAINER, ("kubernetes",), Limits(30.0), image="busybox:1.36", mounts=mounts)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file in a directory."""
    found = tmp_path / "data"
    (found / "deep").mkdir(parents=True)
    (found / "deep" / "file").write_text("one")
    (found / "other").write_text("two")
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sources of mounts that have been read whole."""
    found: list[Path] = []
    read = content._content_of

    def noted(mount: Mount, left: int) -> content.MountContent:
        found.append(mount.source)
        return read(mount, left)

    monkeypatch.setattr(content, "_content_of", noted)
    return found


async def content_of(blueprint: Blueprint) -> PodContent:
    return await PodContent.read(blueprint, KubernetesSettings())


@pytest.mark.parametrize("name", ["", "other"], ids=["a directory", "a file"])
async def test_what_has_not_changed_for_a_while_is_not_read_again_for_each_call(
    place: Path, name: str, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "YOUNG_FILE", -3600.0)  # as if all had been written an hour ago
    blueprint = blueprint_of(Mount(place / name, "/data"))
    found = await content_of(blueprint)
    assert reads == [place / name]
    for _ in range(3):
        assert await found.is_current(blueprint)
    assert len(reads) == 1


async def test_what_was_written_a_moment_before_it_was_read_is_read_again_as_its_times_tell_nothing(
    place: Path, reads: list[Path]
) -> None:
    blueprint = blueprint_of(Mount(place, "/data"))
    found = await content_of(blueprint)
    status = os.stat(place / "other")
    assert await found.is_current(blueprint)
    assert len(reads) == 2
    (place / "other").write_text("TWO")
    os.utime(place / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not await found.is_current(blueprint)


def longer(place: Path) -> None:
    (place / "deep" / "file").write_text("one and more")


def as_long_with_its_old_time(place: Path) -> None:
    file = place / "deep" / "file"
    status = file.stat()
    file.write_text("ONE")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def another(place: Path) -> None:
    (place / "deep" / "more").write_text("")


def gone(place: Path) -> None:
    (place / "other").unlink()


def renamed(place: Path) -> None:
    (place / "other").rename(place / "others")


def in_its_place(place: Path) -> None:
    (place / "new").write_text("TWO")
    (place / "new").rename(place / "other")


def may_be_run(place: Path) -> None:
    (place / "other").chmod(0o755)


def after_a_tick(place: Path) -> None:
    """Wait until the file system's clock, which counts in milliseconds, has gone on since the files were made."""
    probe = place.parent / "probe"
    while True:
        probe.write_text("")
        if probe.stat().st_ctime_ns > max(file.stat().st_ctime_ns for file in place.rglob("*")):
            return


@pytest.mark.parametrize("young", [content.YOUNG_FILE, -3600.0], ids=["by content", "by times"])
@pytest.mark.parametrize(
    "change", [longer, as_long_with_its_old_time, another, gone, renamed, in_its_place, may_be_run]
)
async def test_a_pod_with_another_content_than_the_mount_has_now_gets_no_call(
    place: Path, change: Callable[[Path], None], young: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "YOUNG_FILE", young)
    blueprint = blueprint_of(Mount(place, "/data"))
    found = await content_of(blueprint)
    assert await found.is_current(blueprint)
    after_a_tick(place)
    change(place)
    assert not await found.is_current(blueprint)


async def test_the_same_content_with_other_times_is_current(
    place: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "YOUNG_FILE", -3600.0)
    blueprint = blueprint_of(Mount(place, "/data"))
    found = await content_of(blueprint)
    after_a_tick(place)
    os.utime(place / "other")
    assert await found.is_current(blueprint)
    assert len(reads) == 2


async def test_a_mount_that_was_replaced_after_it_had_been_checked_is_not_taken_for_the_one_that_was(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "YOUNG_FILE", -3600.0)
    found = await content_of(blueprint_of(Mount(place, "/data")))
    checked = blueprint_of(Mount(place, "/data", identity=(0, 0)))
    with pytest.raises(ExecutionError, match="was replaced"):
        await found.is_current(checked)


async def test_a_mount_that_no_config_map_can_hold_is_refused_in_words(place: Path) -> None:
    (place / "link").symlink_to("other")
    with pytest.raises(LimitUnsupported, match="is a link"):
        await content_of(blueprint_of(Mount(place, "/data")))


async def test_a_mount_that_becomes_unusable_is_refused_by_the_call_that_meets_a_waiting_pod(place: Path) -> None:
    blueprint = blueprint_of(Mount(place, "/data"))
    found = await content_of(blueprint)
    (place / "empty").mkdir()
    with pytest.raises(LimitUnsupported, match="empty directory"):
        await found.is_current(blueprint)


async def test_a_praxis_init_that_no_config_map_can_hold_is_refused_with_how_to_make_a_small_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(content, "MAX_CONFIG_MAP", 4096)
    with pytest.raises(EngineUnavailable, match="larger than the 4 kB of a ConfigMap") as caught:
        await content_of(blueprint_of())
    assert "zig" in str(caught.value.remedy)


def test_under_another_lease_a_config_map_has_another_name() -> None:
    """One of that name may be left of a Lease that was taken, and is about to be removed with it."""
    one = ConfigMap((("key", b"value"),))
    assert one.name(b"key", "server", "lease-1") == one.name(b"key", "server", "lease-1")
    assert one.name(b"key", "server", "lease-1") != one.name(b"key", "server", "lease-2")
    assert one.name(b"key", "server", "lease-1") != one.name(b"key", "another", "lease-1")


def test_who_knows_the_content_the_server_and_the_lease_does_not_know_the_name() -> None:
    one = ConfigMap((("key", b"value"),))
    assert one.name(b"key", "server", "lease") != one.name(b"other", "server", "lease")
