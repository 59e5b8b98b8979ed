"""Programs of this machine become an image with what they need, always the same one, and nothing goes unsaid."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.engines.host.sandbox_images import SandboxImages
from praxis_mcp.errors import ImageError
from praxis_mcp.images.from_host import BOUNDS, HostImage, store_from_host
from praxis_mcp.images.host_files import FIXED_TIME, HostFiles
from praxis_mcp.images.layers import Bounds
from praxis_mcp.images.store import ImageStore
from praxis_mcp.settings.model import Settings
from tests.images.test_libraries import compile_c
from tests.kit.places import PYTHON
from tests.kit.until import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's programs")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory outside of /tmp, which an image cannot bring along."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="praxis-from-host-") as found:
        Path(found).chmod(0o755)
        yield Path(found)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def script(place: Path, text: str = "#!/bin/sh\necho hello\n", name: str = "script") -> str:
    file = place / name
    file.write_text(text)
    file.chmod(0o755)
    return str(file)


def paths(made: HostImage) -> set[str]:
    return {file.path for file in made.files}


def test_a_program_comes_with_its_loader_and_libraries_and_runs_from_there_alone(store: ImageStore) -> None:
    made = store_from_host(store, "localhost/env", ["env"])
    assert made.name == "localhost/env:latest"
    assert store.find("localhost/env") is not None
    if os.geteuid() == 0:
        command = ["chroot", str(made.image.root), "env", "-i", "A=1", "env"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == "A=1\n", done.stderr


def test_the_same_files_give_the_same_image_whenever_and_however_often_it_is_made(place: Path, tmp_path: Path) -> None:
    program = script(place)
    (place / "data").mkdir()
    (place / "data/a").write_text("1")
    made: list[HostImage] = []
    for number in range(3):
        one = ImageStore(tmp_path / str(number))
        made.append(store_from_host(one, f"localhost/x:{number}", [program], [place / "data"]))
        os.utime(program, (number, number))
        (place / "data/a").chmod(0o600 if number == 0 else 0o664)
        if number == 1:
            (place / "data/a").write_text("2")
    assert made[0].image.id == made[1].image.id != made[2].image.id
    assert (made[2].image.root / program[1:]).stat().st_mtime == FIXED_TIME


def test_a_python_brings_its_standard_library_compiled_and_nothing_that_is_installed(
    store: ImageStore, tmp_path: Path
) -> None:
    made = store_from_host(store, "localhost/python", [PYTHON])
    library = Path(os.__file__).parent
    found = paths(made)
    assert {str(library / "json/__init__.py"), "/usr/local/bin/python3"} <= found
    assert str(library / f"json/__pycache__/__init__.{sys.implementation.cache_tag}.pyc") in found
    assert not [path for path in found if "site-packages" in path or "/test/" in path]
    assert [line for line in made.about if "with its standard library" in line]
    assert store_from_host(ImageStore(tmp_path / "again"), "x", [PYTHON]).image.id == made.image.id


def test_a_script_brings_its_interpreter_by_the_path_that_it_names(store: ImageStore, place: Path) -> None:
    by_path = script(place)
    by_env = script(place, "#!/usr/bin/env -S LC_ALL=C sh -e\ntrue\n", "by-env")
    made = store_from_host(store, "localhost/scripts", [by_path, by_env])
    assert {by_path, by_env, "/usr/bin/env", os.path.realpath("/bin/sh"), "/usr/local/bin/by-env"} <= paths(made)
    assert [line for line in made.about if "name the programs that it calls" in line]
    python = script(place, f"#!{PYTHON}\n", "of-python")
    assert PYTHON in paths(store_from_host(store, "localhost/python-script", [python]))


def test_a_shell_is_where_the_first_line_of_a_tools_own_script_names_it(store: ImageStore) -> None:
    made = store_from_host(store, "localhost/shell", ["sh"])
    directory = made.image.root / "bin"  # a link, on most machines
    assert "/bin" in paths(made)
    assert os.path.lexists((directory.parent / os.readlink(directory) if directory.is_symlink() else directory) / "sh")


def test_links_are_kept_as_they_are_and_lead_to_the_same_in_the_image(store: ImageStore, place: Path) -> None:
    (place / "real").mkdir()
    script(place / "real")
    (place / "via").symlink_to("real")
    (place / "name").symlink_to("via/../real/./script")
    made = store_from_host(store, "localhost/links", [str(place / "name")])
    inside = made.image.root / str(place)[1:]
    assert os.readlink(inside / "name") == "via/../real/./script"
    assert (inside / "name").read_text() == "#!/bin/sh\necho hello\n"


def test_what_is_not_as_it_was_or_was_left_out_is_said(store: ImageStore, place: Path) -> None:
    program = script(place)
    os.chmod(program, 0o4755)
    data = place / "data"
    data.mkdir()
    (data / "dangling").symlink_to("nowhere")
    (data / "outside").symlink_to("/usr/share")
    os.mkfifo(data / "pipe")
    for name in ("key", "other"):
        (data / name).touch(0o640)
    made = store_from_host(store, "localhost/notes", [program], [data])
    assert stat.S_IMODE((made.image.root / program[1:]).stat().st_mode) == 0o755
    said = "\n".join(made.notes)
    assert "script is set-user-id" in said
    assert "dangling leads to nowhere, which is not there" in said
    assert "outside leads to /usr/share, which was not taken with it" in said
    assert "left out" in said
    assert f"not everyone may read {data}/key and 1 more here, and every tool in the image can" in said
    assert not (made.image.root / str(data)[1:] / "pipe").exists()


def test_a_library_that_is_missing_refuses_a_program_and_leaves_out_a_plugin(store: ImageStore, place: Path) -> None:
    library, program = place / "libgone.so", place / "program"
    compile_c("int gone(void) { return 0; }", library, "-shared", "-fPIC", "-Wl,-soname,libgone.so")
    compile_c("int gone(void); int main(void) { return gone(); }", program, f"-L{place}", "-lgone")
    (place / "plugins").mkdir()
    compile_c("int gone(void); int x(void) { return gone(); }", place / "plugins/x.so", "-shared", "-fPIC",
              f"-L{place}", "-lgone")  # fmt: skip
    library.unlink()
    with pytest.raises(ImageError, match=r"needs the library libgone\.so, which is not on this machine"):
        store_from_host(store, "localhost/x", [str(program)])
    made = store_from_host(store, "localhost/x", [script(place)], [place / "plugins"])
    assert [note for note in made.notes if "plugins/x.so: its library libgone.so is not on this machine" in note]
    assert not (made.image.root / str(place / "plugins/x.so")[1:]).exists()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("no-such-program", "no program 'no-such-program' on the PATH"),
        ("/no/such/program", "no program '/no/such/program'"),
        ("/etc", "is not a program"),
        ("/etc/passwd", "is not executable"),
        ("{place}/text", "neither an ELF program nor a script"),
        ("{place}/python3", "does not say where its standard library is"),
        ("{place}/of-missing", "no program '/no/such/interpreter'"),
        ("/tmp/{name}", "a sandbox has its own /tmp"),
        ("/proc/self/exe", "a sandbox has its own /proc"),
    ],
)
def test_what_cannot_be_taken_is_refused_and_nothing_is_stored(
    store: ImageStore, place: Path, program: str, said: str
) -> None:
    script(place, "no first line\n", "text")
    script(place, "#!/bin/sh\nexit 1\n", "python3")
    script(place, "#!/no/such/interpreter\n", "of-missing")
    with tempfile.NamedTemporaryFile(dir="/tmp") as file, pytest.raises(ImageError, match=said):
        store_from_host(store, "localhost/x", [program.format(place=place, name=Path(file.name).name)])
    assert store.directory.exists() is False or store.names() == ()


def test_an_image_is_bounded_in_bytes_and_files(store: ImageStore, place: Path) -> None:
    (place / "data").mkdir()
    for number in range(50):
        (place / f"data/{number}").write_bytes(b"x" * 1000)
    program = script(place)
    with pytest.raises(ImageError, match="more than 100000 bytes") as failure:
        store_from_host(store, "localhost/x", [program], bounds=Bounds(size=100_000, entries=1000))
    assert "--max-size" in str(failure.value.remedy)
    with pytest.raises(ImageError, match="more than 40 files") as failure:
        store_from_host(store, "localhost/x", [program], [place / "data"], Bounds(size=10**9, entries=40))
    assert "--max-files" in str(failure.value.remedy)
    small = ImageStore(store.directory, Bounds(size=100_000))
    with pytest.raises(ImageError, match="more than 100000 bytes"):
        store_from_host(small, "localhost/x", [program])
    assert store.directory.exists() is False or store.names() == ()


def test_a_file_that_changes_meanwhile_or_may_not_be_read_is_named(place: Path) -> None:
    file = place / "file"
    file.write_text("before")
    files = HostFiles(10**6, 100)
    files.take(str(file))
    file.write_text("after!")
    os.utime(file, (1, 1))
    with pytest.raises(ImageError, match="file was changed"):
        files.write_layer(io.BytesIO())
    files = HostFiles(10**6, 100)
    files.take(str(file))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ImageError, match="file was changed"):
        files.write_layer(io.BytesIO())
    closed = place / "closed"
    closed.write_text("x")
    closed.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # whom permissions concern
    try:
        files = HostFiles(10**6, 100)
        files.take(str(closed))
        with pytest.raises(ImageError, match=r"closed cannot be read") as failure:
            files.write_layer(io.BytesIO())
    finally:
        os.seteuid(user)
    assert "who may read that" in str(failure.value.remedy)


def test_no_link_in_the_place_of_a_directory_leads_to_what_only_its_maker_may_read(
    place: Path,
) -> None:
    for name in ("secret", "mine", "mine/inner"):
        (place / name).mkdir()
        (place / name / "key").write_text("secret" if name == "secret" else "public")

    def swap(directory: Path) -> None:
        if not directory.is_symlink():
            directory.rename(place / "away")
            directory.symlink_to(place / "secret")

    files = HostFiles(10**6, 100)
    files.take(str(place / "mine/inner/key"))
    swap(place / "mine/inner")
    with pytest.raises(ImageError, match=r"inner/key was changed"):
        files.write_layer(io.BytesIO())

    (place / "mine/inner").unlink()
    (place / "away").rename(place / "mine/inner")
    files = HostFiles(10**6, 100)

    def swapped_behind(path: str) -> bool:  # between the look at a directory and the look into it
        if path.endswith("/mine/key"):
            swap(place / "mine/inner")
        return False

    with pytest.raises(ImageError, match=r"mine/inner was changed"):
        files.take_tree(str(place / "mine"), swapped_behind)


def test_a_file_that_becomes_shorter_while_it_is_copied_is_named(place: Path) -> None:
    file = place / "file"
    file.write_bytes(b"x" * 1_000_000)

    class Shortening(io.BytesIO):
        def write(self, data: Any, /) -> int:
            if b"/file\0" in bytes(data):  # the header that stands before its content
                file.write_bytes(b"")
            return super().write(data)

    files = HostFiles(10**7, 100)
    files.take(str(file))
    with pytest.raises(ImageError, match="file was changed"):
        files.write_layer(Shortening())


@pytest.mark.anyio
async def test_an_image_that_is_not_wanted_any_more_is_not_stored(tmp_path: Path) -> None:
    images = SandboxImages(Settings.model_validate({"engines": {"sandbox": {"store": tmp_path / "store"}}}))
    with anyio.fail_after(60), anyio.CancelScope() as scope:
        await images.from_host("localhost/x", ["env"], (), BOUNDS, lambda _: scope.cancel())
    assert scope.cancelled_caught
    await until(lambda: not is_running(store_from_host))
    assert images.store.names() == ()


def is_running(function: Callable[..., object]) -> bool:
    """Whether a thread is in it."""
    return any(
        frame.f_code is function.__code__
        for current in sys._current_frames().values()
        for frame, _ in traceback.walk_stack(current)
    )
