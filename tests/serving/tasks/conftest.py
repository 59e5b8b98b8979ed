"""What tests of tasks share: the contracts, and places for records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.records import DATABASES, records_place
from tests.serving.tasks.tools import write_task_tools


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("task-tools")
    write_task_tools(directory)
    return directory


@pytest.fixture(params=DATABASES)
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with records_place(tmp_path, request.param) as place:
        yield place
