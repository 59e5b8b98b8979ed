"""What one client's protocol revision can be told."""

from __future__ import annotations

from dataclasses import dataclass

from mcp_types import INVALID_PARAMS
from mcp_types.version import MODERN_PROTOCOL_VERSIONS, is_version_at_least

RESOURCE_NOT_FOUND = -32002
"""Specification 2025-11-25 and before, server/resources, "Error Handling"; retired by 2026-07-28."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The protocol revision of one request, as questions about what may be sent.

    An older client refuses a whole result for one content type that it does not know, and a whole ``tools/list`` for
    one schema whose root is not an object.
    """

    version: str

    @property
    def modern(self) -> bool:
        """2026-07-28 and later: structured content and output schemas may have any JSON type at their root."""
        return self.version in MODERN_PROTOCOL_VERSIONS

    @property
    def knows_audio(self) -> bool:
        """2025-03-26 brought audio content."""
        return is_version_at_least(self.version, "2025-03-26")

    @property
    def knows_links(self) -> bool:
        """2025-06-18 brought resource links in results."""
        return is_version_at_least(self.version, "2025-06-18")

    @property
    def resource_not_found(self) -> int:
        """The code of the error for a resource that does not exist."""
        return INVALID_PARAMS if self.modern else RESOURCE_NOT_FOUND
