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
        search: whether its tools are searched instead of listed; None leaves it to ``search.above``.
        core: globs of names that stay listed then, besides those of ``search.core``.
    """

    tools: tuple[Glob, ...] = ()
    tags: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    exclude: tuple[Glob, ...] = ()
    name: str | None = None
    title: str | None = None
    instructions: str | None = None
    search: bool | None = None
    core: tuple[Glob, ...] = ()

    @model_validator(mode="after")
    def _names_some_tools(self) -> Self:
        if not (self.tools or self.tags or self.upstreams):
            raise ValueError('give at least one of tools, tags and upstreams; tools: ["*"] is every tool')
        return self


class SearchSettings(Section):
    """Tools that are found by words instead of being listed: a client is shown `core`, ``find_tool`` and ``call_tool``.

    Attributes:
        above: the number of tools that one client is shown at most; where there are more, they are searched. None
            never searches, but for toolsets that say ``search: true``.
        core: globs of names that stay listed.
        results: tools that ``find_tool`` answers with, unless it is called with another limit.
        max_bytes: bytes of definitions in one of its answers; the first is given whole all the same, and what does not
            fit by name and the beginning of its description.
    """

    above: int | None = Field(default=None, ge=0)
    core: tuple[Glob, ...] = ()
    results: int = Field(default=5, ge=1, le=20)
    max_bytes: int = Field(default=16 * 1024, ge=1024)
