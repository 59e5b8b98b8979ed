"""Whether what upstreams' tools answer fits the output schemas that they promised, each compiled once."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import anyio.to_thread

from praxis_mcp.contracts.problems import sentence
from praxis_mcp.contracts.schemas.validators import CheckFailed, compile_schema, find_errors
from praxis_mcp.engines.base import RemoteContent
from praxis_mcp.errors import ContractError
from praxis_mcp.federation.faces import RemoteTool
from praxis_mcp.support.logs import logger
from praxis_mcp.support.numbers import NOT_FINITE, all_finite

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


class OutputChecks:
    """Checks answers. An answer that cannot be checked is taken to fit: that our means end is no fault of the tool's,
    and its client may have others."""

    def __init__(self) -> None:
        self._validators: WeakKeyDictionary[RemoteTool, Validator | None] = WeakKeyDictionary()

    async def misfit(self, tool: RemoteTool, content: RemoteContent) -> str | None:
        """What is wrong with an answer of a call that ended well, as the end of a sentence; None where nothing is."""
        if not all_finite(content.structured):
            return f"its structured content {NOT_FINITE}"
        if tool.output_schema is None:
            return None
        if content.structured is None:
            return "sent no structured content, although its output schema promises some"
        if tool not in self._validators:
            # Milliseconds for a small schema, a second for the largest: not on the event loop, and not in every call.
            self._validators[tool] = await anyio.to_thread.run_sync(self._compiled, tool)
        validator = self._validators[tool]
        if validator is None:
            return None
        try:
            errors = find_errors(validator, content.structured, _owner(tool))
        except CheckFailed as exc:
            logger.debug("an answer of {} is passed on unchecked: it {}", tool.name, exc)
            return None
        except ContractError as exc:
            self._validators[tool] = None
            _tell_unchecked(tool, exc)
            return None
        if not errors:
            return None
        return f"its structured content does not fit its output schema ({sentence(errors[0], root='the output')})"

    def _compiled(self, tool: RemoteTool) -> Validator | None:
        try:
            return compile_schema(tool.output_schema or {}, _owner(tool))
        except ContractError as exc:
            _tell_unchecked(tool, exc)
            return None


def _owner(tool: RemoteTool) -> str:
    return f"The output schema of {tool.name}"


def _tell_unchecked(tool: RemoteTool, exc: ContractError) -> None:
    logger.warning("answers of {} are passed on unchecked: {}", tool.name, exc.message)
