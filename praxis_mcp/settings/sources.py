"""Where settings come from beside their defaults: environment variables, and paths that start at the project root."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from praxis_mcp.errors import SettingsError
from praxis_mcp.support.files import expand
from praxis_mcp.support.logs import logger

PREFIX = "PRAXIS_"
_NO_SETTINGS = (
    "PRAXIS_TEST_", "PRAXIS_DAGGER_", "PRAXIS_REQUIRE_NATIVE", "PRAXIS_OUTPUT_DIR", "PRAXIS_RUN_", "PRAXIS_MCP_",
)  # fmt: skip
"""Beginnings of variables that mean something else: for tests and builds, for tools, for servers below this one."""


class Variables(EnvSettingsSource):
    """``PRAXIS_…``: lists may be written as JSON, or as words with commas between them."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """See the base."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except json.JSONDecodeError as exc:
            if not isinstance(value, str) or "tuple" not in str(field.annotation if field else ""):
                raise ValueError(f"{field_name} is not JSON") from exc
            if value.lstrip().startswith(("[", "{")):
                raise ValueError(f"{field_name} is not JSON") from exc
            return [word.strip() for word in value.split(",") if word.strip()]


def check_variables(known: Iterable[str], environment: Mapping[str, str] = os.environ) -> None:
    """Tell of variables that look like settings and are none.

    Args:
        known: names of the settings.
        environment: variables by name.

    Raises:
        SettingsError: one is a setting, misspelt; others, which may be another program's, are warned of.
    """
    names = [PREFIX + name.upper() for name in known]
    for variable in environment:
        head = variable.upper().partition("__")[0]
        if not head.startswith(PREFIX) or head in names or head.startswith(_NO_SETTINGS):
            continue
        close = difflib.get_close_matches(head, names, n=1, cutoff=0.85)
        if close:
            raise SettingsError(
                f"The environment variable {variable} is not a setting (did you mean {close[0]}?).",
                remedy="Fix its name, or unset it.",
            )
        logger.warning("the environment variable {} is not a setting, and is ignored", variable)


def at_root(value: Any, root: Path) -> Any:
    """A value with every path in it absolute: ``~`` expanded, relative ones from the root; links stay as they are.

    Raises:
        ValueError: a path begins at a home directory that does not exist.
    """
    if isinstance(value, Path):
        return Path(os.path.normpath(root / expand(value)))
    if isinstance(value, BaseModel):
        changes = {name: at_root(getattr(value, name), root) for name in type(value).model_fields}
        return value.model_copy(update={name: new for name, new in changes.items() if new is not getattr(value, name)})
    if isinstance(value, Mapping):
        return {key: at_root(item, root) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(at_root(item, root) for item in value)
    return value
