"""Where the Dagger engine takes images from: the double's registry, tar files, the local Docker."""

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine
from praxis_mcp.errors import ImageError
from praxis_mcp.plans.build import build_plan
from tests.dagger_double.api import REGISTRY
from tests.dagger_double.install import remove_containers
from tests.engines.dagger.case import IS_REAL, connection
from tests.engines.dagger.ground import Ground, settings_for, sh

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.docker,
    pytest.mark.dagger,
    pytest.mark.skipif(IS_REAL, reason="needs a registry, which only the double has"),
]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(
        REGISTRY, json.dumps({"public.test/box:1": "busybox:1.36", "private.test/box:1": "busybox:1.36"})
    )
    place = tmp_path / uuid4().hex
    place.mkdir()
    yield place
    remove_containers(place)


@pytest.fixture
async def ground(state: Path) -> AsyncIterator[Ground]:
    async with DaggerExecutionEngine(settings_for(connection(state))) as engine:
        yield Ground(engine, state)


def image_id(reference: str) -> str:
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", reference]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


async def test_a_tag_means_the_same_digest_for_as_long_as_the_engine_lives(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    contract = sh("echo ran", image="public.test/box:1")
    result = await ground.run(contract, ExecutionContext(on_status=heard.append))
    assert (result.output, result.image) == ("ran\n", f"public.test/box:1@{image_id('busybox:1.36')}")
    assert heard == ["pulling public.test/box:1"]
    ground.engine.configure_connection(rotate_after_calls=7)  # a new session
    assert (await ground.run(contract)).image == result.image


async def test_an_image_that_the_registry_does_not_have_is_named(ground: Ground) -> None:
    with pytest.raises(ImageError, match=r"There is no image public\.test/none:1 .*not on this machine either"):
        await ground.run(sh("true", image="public.test/none:1"))


async def test_a_registry_out_of_reach_is_reported_with_what_to_do(ground: Ground) -> None:
    with pytest.raises(ImageError, match="the registry is out of reach") as failure:
        await ground.run(sh("true", image="elsewhere.example/box:1"))
    assert "engines.dagger.images" in str(failure.value)


async def test_a_name_that_is_not_a_reference_is_refused_as_such(ground: Ground) -> None:
    with pytest.raises(ImageError, match="is not an image reference"):
        await ground.run(sh("true", image="Bad:::Name"))


async def test_a_private_registry_wants_the_login_of_the_settings(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = sh("echo ran", image="private.test/box:1")
    async with DaggerExecutionEngine(settings_for(connection(state))) as engine:
        with pytest.raises(ImageError, match="docker login"):
            await Ground(engine, state).run(contract)
    monkeypatch.setenv("REGISTRY_PASSWORD", "password")
    registries = {"private.test": {"username": "user", "secret": "REGISTRY_PASSWORD"}}
    settings = settings_for(connection(state), engines={"registries": registries})
    async with DaggerExecutionEngine(settings) as engine:
        assert (await Ground(engine, state).run(contract)).output == "ran\n"


async def test_pull_never_asks_no_registry(state: Path) -> None:
    async with DaggerExecutionEngine(settings_for(connection(state), pull="never")) as engine:
        ground = Ground(engine, state)
        with pytest.raises(ImageError, match="cannot be taken from this machine"):
            await ground.run(sh("true", image="public.test/box:1"))
        assert (await ground.run(sh("echo local"))).output == "local\n"


async def test_an_image_comes_from_a_tar_file_by_its_name_or_by_the_settings(state: Path, tmp_path: Path) -> None:
    tar = tmp_path / "box.tar"
    subprocess.run(["docker", "save", "--output", str(tar), "busybox:1.36"], check=True)
    settings = settings_for({**connection(state), "images": {"only.in/settings:1": str(tar)}}, pull="never")
    async with DaggerExecutionEngine(settings) as engine:
        ground = Ground(engine, state)
        for image in (f"docker-archive:{tar}", "only.in/settings:1"):
            result = await ground.run(sh("echo from tar", image=image))
            assert result.output == "from tar\n"
            assert (result.image or "").startswith(f"{image}@sha256:")
        with pytest.raises(ImageError, match="which is not a file"):
            await ground.run(sh("true", image="oci-archive:/none.tar"))
        with pytest.raises(ImageError, match="cannot be read"):
            await ground.run(sh("true", image="oci-archive:/etc/hostname"))


async def test_an_images_own_entrypoint_is_used_where_the_contract_says(state: Path, tmp_path: Path) -> None:
    name = f"praxis-entrypoint:{uuid4().hex}"
    build = ["docker", "build", "--quiet", "--tag", name, "-"]
    subprocess.run(build, input=b'FROM busybox:1.36\nENTRYPOINT ["echo", "entry"]\n', check=True, capture_output=True)
    try:
        async with DaggerExecutionEngine(settings_for(connection(state))) as engine:
            ground = Ground(engine, state)
            assert (await ground.run(sh("true", image=name, use_entrypoint=True))).output == "entry sh -c true sh\n"
            assert (await ground.run(sh("echo plain", image=name))).output == "plain\n"
    finally:
        subprocess.run(["docker", "image", "rm", "--force", name], check=True, capture_output=True)


async def test_an_image_that_a_registry_must_be_asked_for_is_said_to_be_missing(ground: Ground, tmp_path: Path) -> None:
    async def lacks(image: str) -> bool:
        plan = build_plan(sh("true", image=image), {}, ground.engine.settings)
        return await ground.engine.lacks_image(plan.blueprint)

    assert not await lacks("busybox:1.36")  # the local Docker has it
    assert not await lacks(f"oci-archive:{tmp_path}/image.tar")
    assert await lacks("public.test/box:1")
    await ground.run(sh("true", image="public.test/box:1"))
    assert not await lacks("public.test/box:1")
