"""What the Dagger engine's own tests share."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.dagger_double.install import remove_containers


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state of a double's engine that the tests of a module share."""
    place = tmp_path_factory.mktemp("double") / uuid4().hex
    place.mkdir()
    yield place
    remove_containers(place)
