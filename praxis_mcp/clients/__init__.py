"""The settings of MCP clients: where each keeps its servers, in which form, and edits that change nothing else."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """Where a client has a server: in all that its user does, or in one project."""

    USER = "user"
    PROJECT = "project"
