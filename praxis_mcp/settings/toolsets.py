"""Toolsets: named choices among the tools of a server."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from praxis_mcp.settings.base import Section

ToolsetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Glob = Annotated[str, Field(min_length=1, max_length=256)]


class ToolsetSettings(Section):
    """Some of the tools, for a client that needs no others. A tool is in it if `tools`, `tags` or `upstreams` names it,
    and `exclude` does not.

    Attributes:
        tools: globs of names.
        tags: tags of contracts.
        upstreams: names of upstreams.
        exclude: globs of names that are left out.
        name, title, instructions: what the server says of itself to clients of this toolset alone, in place of what
            ``server`` says.
    """

    tools: tuple[Glob, ...] = ()
    tags: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    exclude: tuple[Glob, ...] = ()
    name: str | None = None
    title: str | None = None
    instructions: str | None = None

    @model_validator(mode="after")
    def _names_some_tools(self) -> Self:
        if not (self.tools or self.tags or self.upstreams):
            raise ValueError('give at least one of tools, tags and upstreams; tools: ["*"] is every tool')
        return self
