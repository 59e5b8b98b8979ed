"""What is wrong with settings, in the words of their author: file and line, or the variable."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError as PydanticSettingsError

Location = Sequence[int | str]


def explain(exc: ValidationError | PydanticSettingsError, model: type[BaseModel], file: Path | None, text: str) -> str:
    """One sentence. A value is never shown: it may be a secret.

    Args:
        exc: what pydantic found.
        model: the settings.
        file: the settings file, where there is one.
        text: what it holds.
    """
    if isinstance(exc, PydanticSettingsError):
        where = f"in {file} or the environment (PRAXIS_…)" if file else "in the environment (PRAXIS_…) or flags"
        # Its own words name a class; the cause names the field.
        what = str(exc.__cause__ or exc)
        return f'The settings {where} cannot be read: {what}; write a list as a,b or ["a", "b"], a mapping as JSON.'
    problems: list[str] = []
    for error in exc.errors():
        place = _variable(error["loc"]) or (_place(error["loc"], file, text) if file else "")
        problems.append(f"{place}: {_sentence(error, model)}" if place else _sentence(error, model))
    return f"The settings are wrong: {'; '.join(problems)}."


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg'].removeprefix('Value error, ')}"
    *above, last = error["loc"]
    close = difflib.get_close_matches(str(last), _known(model, above), n=1)
    return f"{name} is not a setting (did you mean {close[0]}?)" if close else f"{name} is not a setting"


def _known(model: type[BaseModel], path: Location) -> list[str]:
    """Names of the settings in a section; none where it cannot be known which section it is."""
    sections: list[Any] = [model]
    for part in path:
        below: list[Any] = []
        for section in sections:
            if isinstance(section, type) and issubclass(section, BaseModel):
                if part in section.model_fields:
                    below += _parts(section.model_fields[str(part)].annotation)
            elif get_args(section):
                below += _parts(get_args(section)[-1])
        sections = below
    models = [item for item in sections if isinstance(item, type) and issubclass(item, BaseModel)]
    return [name for item in models for name in item.model_fields]


def _parts(annotation: Any) -> Iterator[Any]:
    """A union's members; of anything else, itself."""
    origin = get_origin(annotation)
    if origin is None or (isinstance(origin, type) and issubclass(origin, Mapping)):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _parts(part)


def _variable(path: Location) -> str:
    """The environment variable that gives that value, as it is written there."""
    names = {name.upper(): name for name in os.environ}
    for end in range(len(path), 0, -1):
        wanted = "PRAXIS_" + "__".join(str(part) for part in path[:end]).upper()
        if wanted in names:
            return f"the environment variable {names[wanted]}"
    return ""


def _place(path: Location, file: Path, text: str) -> str:
    """File and line of a value, or of the nearest one around it; nothing where the file has no part of it."""
    import yaml

    line = 0
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, item) for key, item in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return f"{file}:{line}" if line else ""
