"""Images that contracts describe: built by Docker, and by Dagger over the double, without a network."""

from __future__ import annotations

import ensurepip
import hashlib
import shutil
import subprocess
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
import yaml

from praxis_mcp.contracts.reading.loading import load_contract
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.docker.builds import KEPT_IMAGES, LABEL
from praxis_mcp.engines.pulls import build_failed
from praxis_mcp.errors import ContractError, ImageError, LimitUnsupported
from praxis_mcp.execution.locking.lock_file import Lock, write_lock
from praxis_mcp.execution.locking.packages import find_packages
from praxis_mcp.execution.locking.present import engines_of_images, find_present, locked_anew
from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.plans.build import draft_blueprint
from praxis_mcp.plans.model import Blueprint
from praxis_mcp.plans.planning import plan_image
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing.bench import CALL_LIMIT
from tests.dagger_double.install import remove_containers
from tests.engines.dagger.case import IS_REAL, connection
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

PYTHON = "localhost/praxis-test-pip"
"""An image that has pip; the one that tests make where there is no registry has none."""


def write_wheel(directory: Path, name: str, version: str) -> None:
    """A package whose module says its version."""
    directory.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


@pytest.fixture(scope="module", autouse=True)
def pip_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Docker has `PYTHON`, which stays, as other images of tests do."""
    (pip,) = Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")
    place = tmp_path_factory.mktemp("pip")
    shutil.copy(pip, place)
    (place / "Dockerfile").write_text(
        "FROM python:3.11-slim\nARG PIP_BREAK_SYSTEM_PACKAGES=1\nCOPY *.whl /\n"
        f"RUN python3 -m pip --version || python3 /{pip.name}/pip install --no-index /{pip.name}\n"
    )
    made = subprocess.run(["docker", "build", "--tag", PYTHON, place], check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_wheel(tmp_path / "wheels", "praxisprobe", "1.0")
    write_wheel(tmp_path / "wheels", "praxisprobe", "2.0")
    (tmp_path / "tools" / "built").mkdir(parents=True)
    return tmp_path


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=False, capture_output=True, text=True).stdout.strip()


def write_tool(project: Path, build: dict[str, Any], **fields: Any) -> Path:
    file = project / "tools" / "built" / "contract.yaml"
    kept = {
        "name": "built",
        "description": "Say the version.",
        "command": ["python3", "-c", "import praxisprobe; print(praxisprobe.VERSION)"],
        "timeout": 60,
        "build": build,
        **fields,
    }
    file.write_text(yaml.safe_dump(kept))
    return file


class Ground:
    """A toolbox of one engine.

    Attributes:
        statuses: what its engine has said it is busy with.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.statuses: list[str] = []

    async def call(self, **arguments: Any) -> ExecutionResult:
        await self.toolbox.catalog.load()
        with anyio.fail_after(CALL_LIMIT):
            return await self.toolbox.call("built", arguments, on_status=self.statuses.append)

    async def image(self) -> str:
        await self.toolbox.catalog.load()
        blueprint = await plan_image(self.toolbox.catalog.get("built").contract, self.toolbox.settings)
        return blueprint.image or ""


@asynccontextmanager
async def opened(
    project: Path, engine: str, state: Path, *, locked: bool = False, **builds: Any
) -> AsyncIterator[Ground]:
    engines = {"order": [engine], "dagger": {} if IS_REAL else connection(state)}
    settings = Settings.model_validate(
        {
            "root": project,
            "tools": [project / "tools"],
            "engines": engines,
            "warm": {"enabled": False},
            "pull": "never",
            "locked": locked,
            "builds": {"wheels": project / "wheels", "network": "none" if engine == "docker" else "bridge", **builds},
        }
    )
    async with open_toolbox(settings) as toolbox:
        yield Ground(toolbox)


@pytest.fixture
def state(project: Path) -> Iterator[Path]:
    """The state of a double's engine; what is built is removed after the test."""
    place = project / uuid4().hex
    place.mkdir()
    yield place
    remove_containers(place)
    asked = docker("images", "--quiet", "--filter", f"label={LABEL}=lock").split()
    if made := (*images_of(project), *asked):
        docker("rmi", "--force", *made)


def images_of(project: Path) -> list[str]:
    """The names of the images that Docker has of the tool."""
    contract = load_contract(project / "tools" / "built" / "contract.yaml").contract
    assert contract is not None
    build = draft_blueprint(contract, Settings(root=project)).build
    assert build is not None
    listing = ("images", "--filter", f"label={LABEL}={build.owner}", "--format", "{{.Repository}}:{{.Tag}}")
    return docker(*listing).split()


EACH_FROM = pytest.mark.parametrize(
    "engine",
    [
        "docker",
        pytest.param(
            "dagger",
            marks=[pytest.mark.dagger, pytest.mark.skipif(IS_REAL, reason="a real engine asks a registry for FROM")],
        ),
    ],
)
EACH = pytest.mark.parametrize("engine", ["docker", pytest.param("dagger", marks=pytest.mark.dagger)])
PROBE = {"packages": ["praxisprobe==1.0"]}


@EACH
@pytest.mark.parametrize("build", [PROBE, {"python": "requirements.txt"}])
async def test_packages_are_there_for_a_call_without_a_network(
    project: Path, state: Path, engine: str, build: dict[str, Any]
) -> None:
    (project / "tools" / "built" / "requirements.txt").write_text("praxisprobe == 1.0\n")
    write_tool(project, build, image=PYTHON)
    async with opened(project, engine, state) as ground:
        done = await ground.call()
        assert (done.output.strip(), done.engine) == ("1.0", engine)
        assert any("building the image of built" in text for text in ground.statuses)
        ground.statuses.clear()
        assert (await ground.call()).output.strip() == "1.0"
        assert not any("building" in text for text in ground.statuses)


@EACH_FROM
async def test_a_dockerfile_copies_what_its_context_has_and_a_change_makes_another_image(
    project: Path, state: Path, engine: str
) -> None:
    folder = project / "tools" / "built"
    (folder / "Dockerfile").write_text("FROM busybox:1.36\nCOPY . /app/\nRUN cat /app/part > /said\n")
    (folder / "part").write_text("one\n")
    (folder / "notes.txt").write_text("left out")
    (folder / ".dockerignore").write_text("*.txt\n")
    write_tool(project, {"dockerfile": "Dockerfile"}, command=["sh", "-c", "cat /said; ls /app"])
    async with opened(project, engine, state) as ground:
        assert (await ground.call()).output.split() == ["one", "Dockerfile", "part"]
        first = await ground.image()
        write_tool(project, {"dockerfile": "Dockerfile"}, command=["sh", "-c", "ls /app; cat /said"])
        assert await ground.image() == first, "a contract that is described otherwise makes no other image"
        (folder / "part").write_text("two\n")
        assert await ground.image() != first
        assert (await ground.call()).output.split() == ["Dockerfile", "part", "two"]


@EACH
async def test_packages_that_do_not_exist_are_an_error_with_what_pip_said(
    project: Path, state: Path, engine: str
) -> None:
    write_tool(project, {"packages": ["praxisprobe==3.0"]}, image=PYTHON)
    async with opened(project, engine, state) as ground:
        with pytest.raises(ImageError, match="could not be built") as failed:
            await ground.call()
        assert "No matching distribution found for praxisprobe==3.0" in (failed.value.output or "")


@EACH_FROM
async def test_a_build_that_fails_is_an_error_with_the_end_of_its_log_and_is_tried_again(
    project: Path, state: Path, engine: str
) -> None:
    folder = project / "tools" / "built"
    (folder / "Dockerfile").write_text("FROM busybox:1.36\nRUN printf 'no\\033[2Jpe\\n'; exit 3\n")
    write_tool(project, {"context": "."}, command=["true"])
    async with opened(project, engine, state) as ground:
        with pytest.raises(ImageError) as failed:
            await ground.call()
        assert "could not be built" in failed.value.message
        assert "praxis-mcp build built" in (failed.value.remedy or "")
        assert "no" in (failed.value.output or "")
        assert "\x1b" not in str(failed.value.output)
        (folder / "Dockerfile").write_text("FROM busybox:1.36\n")
        assert (await ground.call()).success


async def test_a_locked_build_starts_from_the_locked_base_and_has_the_locked_versions(
    project: Path, state: Path
) -> None:
    base = f"localhost/praxis-test-base:{uuid4().hex}"
    docker("tag", PYTHON, base)
    write_tool(project, {"packages": ["praxisprobe"]}, image=base)
    async with opened(project, "docker", state) as ground:
        locked = await lock(ground)
        digest = hashlib.sha256((project / "wheels" / "praxisprobe-2.0-py3-none-any.whl").read_bytes()).hexdigest()
        assert locked.tools["built"].packages == (f"praxisprobe==2.0 --hash=sha256:{digest}",)
        assert await lock(ground, locked) == locked, "what is known is not asked for again"
    docker("tag", "busybox:1.36", base)  # which has no Python
    async with opened(project, "docker", state, locked=True) as ground:
        assert (await ground.call()).output == "2.0\n"
    older = hashlib.sha256((project / "wheels" / "praxisprobe-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    write_locked(project, locked, f"praxisprobe==1.0 --hash=sha256:{older}")
    async with opened(project, "docker", state, locked=True) as ground:
        assert (await ground.call()).output == "1.0\n"
    write_locked(project, locked, f"praxisprobe==1.0 --hash=sha256:{digest}")
    async with opened(project, "docker", state, locked=True) as ground:
        with pytest.raises(ImageError) as failed:
            await ground.call()
        assert "DO NOT MATCH THE HASHES" in (failed.value.output or "")
    write_locked(project, locked)
    async with opened(project, "docker", state, locked=True) as ground:
        with pytest.raises(ContractError, match="has packages whose versions are not locked"):
            await ground.call()
    docker("rmi", base)


async def lock(ground: Ground, before: Lock | None = None) -> Lock:
    """Lock what there is, as `praxis-mcp lock` does."""
    toolbox = ground.toolbox
    entries = toolbox.catalog.entries()
    present = await find_present(entries, (), toolbox.settings)
    running = engines_of_images(entries, present, toolbox.settings)

    async def resolve(blueprint: Blueprint, pins: Mapping[str, str]) -> tuple[str, ...]:
        assert before is None
        selector = toolbox.runner.selector
        return await find_packages(selector, toolbox.engines, blueprint, pins, ground.statuses.append)

    found = await locked_anew(present, before or Lock(), (), toolbox.engines, running, resolve)
    write_lock(toolbox.settings.lock_file, found)
    return found


def write_locked(project: Path, found: Lock, *packages: str) -> None:
    """Lock other packages; none: nothing of them."""
    tool = found.tools["built"].model_copy(update={"packages": packages or None})
    write_lock(project / "praxis.lock", found.model_copy(update={"tools": {"built": tool}}))


async def test_calls_at_once_share_one_build_and_a_second_server_finds_its_image(project: Path, state: Path) -> None:
    write_tool(project, PROBE, image=PYTHON)
    async with opened(project, "docker", state) as ground:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ground.call)
        steps = [text for text in ground.statuses if "Step 1/" in text]
        assert len(steps) == 3, "one build, whose steps all three follow"
        assert images_of(project) == [await ground.image()]
    async with opened(project, "docker", state) as ground:
        await ground.toolbox.prefetch()
        assert (await ground.call()).success
        assert ground.statuses == []


async def test_images_are_built_ahead_of_calls_where_a_server_fetches_images(project: Path, state: Path) -> None:
    write_tool(project, PROBE, image=PYTHON)
    async with opened(project, "docker", state) as ground:
        await ground.toolbox.prefetch()
        assert images_of(project) == [await ground.image()]


async def test_of_each_tool_the_last_images_are_kept(project: Path, state: Path) -> None:
    folder = project / "tools" / "built"
    write_tool(project, {"dockerfile": "Dockerfile"}, command=["cat", "/said"])
    names: list[str] = []
    async with opened(project, "docker", state) as ground:
        for number in range(KEPT_IMAGES + 2):
            (folder / "Dockerfile").write_text(f"FROM busybox:1.36\nRUN echo {number}{uuid4().hex} > /said\n")
            assert (await ground.call()).output.startswith(str(number))
            names.append(await ground.image())
            await anyio.sleep(1.1)  # a daemon tells the age of images in seconds
    assert set(images_of(project)) == set(names[-KEPT_IMAGES:])


async def test_with_pull_never_the_daemon_is_not_asked_for_a_base_that_it_would_pull(
    project: Path, state: Path
) -> None:
    folder = project / "tools" / "built"
    async with opened(project, "docker", state) as ground:
        for dockerfile in (
            "FROM praxis.invalid/base:1\n",
            "FROM busybox:1.36\nCOPY --from=praxis.invalid/base:1 / /\n",
        ):
            (folder / "Dockerfile").write_text(dockerfile)
            write_tool(project, {"dockerfile": "Dockerfile"}, command=["true"])
            with pytest.raises(
                ImageError, match=r"built from praxis\.invalid/base:1, which the Docker daemon does not"
            ):
                await ground.call()


async def test_an_engine_that_builds_nothing_refuses_and_names_those_that_do(project: Path, state: Path) -> None:
    write_tool(project, PROBE, image=PYTHON)
    for engine in ("sandbox", "dagger"):
        async with opened(project, engine, state, network="none") as ground:
            with pytest.raises(LimitUnsupported, match=r"build \(.*\).*Have Docker or Dagger on this machine"):
                await ground.call()
    async with opened(project, "docker", state, enabled=False) as ground:
        with pytest.raises(LimitUnsupported, match=r"builds\.enabled"):
            await ground.call()


async def test_a_build_that_is_cancelled_leaves_the_next_call_its_own(project: Path, state: Path) -> None:
    folder = project / "tools" / "built"
    (folder / "Dockerfile").write_text(f"FROM busybox:1.36\nRUN echo {uuid4().hex}; sleep 2; echo done > /said\n")
    write_tool(project, {"dockerfile": "Dockerfile"}, command=["cat", "/said"])
    async with opened(project, "docker", state) as ground:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ground.call)
            await until(lambda: any("Step 2/" in text for text in ground.statuses))
            tasks.cancel_scope.cancel()
        assert (await ground.call()).output == "done\n"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("/usr/local/bin/python3: No module named pip", "has Python and pip"),
        ('runc create failed: exec: "python3": executable file not found in $PATH', "has Python and pip"),
        ("/bin/sh: python3: not found", "has Python and pip"),
        ("ERROR: No matching distribution found for idna==99", "Fix its build"),
    ],
)
def test_a_build_that_fails_without_pip_names_an_image_that_has_it(log: str, said: str) -> None:
    assert said in (build_failed("chart", "a command returned 1", log).remedy or "")
