"""Secrets of a run, masked in the names of its files and in its errors. What it writes is masked as it arrives
(`praxis_mcp.engines.output`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio.to_thread

from praxis_mcp.engines.artifacts import rename_artifact
from praxis_mcp.engines.base import Artifact, ExecutionResult
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.support.logs import logger


async def mask_names(result: ExecutionResult, masker: Masker, directory: Path) -> ExecutionResult:
    """The result with secrets masked in the names of files.

    Artifacts are renamed on disk too: by their names, other processes find them later on. Those whose names would be
    the same are told apart by a number.

    Args:
        result: of a run that has ended.
        masker: has its secrets.
        directory: where the run's artifacts are.
    """
    if not masker or not (result.artifacts or result.artifacts_left_out or result.changed_files):
        return result
    artifacts = result.artifacts
    if any(masker.text(item.name) != item.name for item in artifacts):
        artifacts = await anyio.to_thread.run_sync(_renamed, artifacts, masker, directory)
    return replace(
        result,
        artifacts=artifacts,
        artifacts_left_out=tuple(masker.text(name) for name in result.artifacts_left_out),
        changed_files=tuple(Path(masker.text(str(file))) for file in result.changed_files),
        changes=tuple(replace(item, path=Path(masker.text(str(item.path)))) for item in result.changes),
    )


def mask_error(error: ExecutionError, masker: Masker) -> None:
    """Mask secrets in what an error says, wherever they came from."""
    if not masker:
        return
    error.message = masker.text(error.message)
    error.args = (error.message,)
    error.remedy = masker.text(error.remedy) if error.remedy else error.remedy
    error.output = masker.text(error.output) if error.output else error.output


def _renamed(artifacts: tuple[Artifact, ...], masker: Masker, directory: Path) -> tuple[Artifact, ...]:
    names = {item.name for item in artifacts if masker.text(item.name) == item.name}
    return tuple(sorted(_each_renamed(artifacts, names, masker, directory), key=lambda item: item.name))


def _each_renamed(
    artifacts: tuple[Artifact, ...], names: set[str], masker: Masker, directory: Path
) -> Iterator[Artifact]:
    for item in artifacts:
        shown = name = masker.text(item.name)
        if name == item.name:
            yield item
            continue
        number = 2
        while shown in names:
            shown, number = f"{name}~{number}", number + 1
        names.add(shown)
        file = item.file
        try:
            if file == directory / item.name:
                rename_artifact(directory, item.name, shown)
                file = directory / shown
        except OSError as exc:  # this process still finds it
            logger.warning("the artifact {} keeps the name that the tool gave it: {}", shown, exc.strerror)
        yield replace(item, name=shown, file=file)
