"""Which tools of upstreams were approved, as they were then: a file that people may review and keep under version
control."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from praxis_mcp.errors import SettingsError
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.support.files import Stamp, replace_text, stamp_of

_VERSION = 1


class Approvals:
    """The file of approvals: upstream → the tool's name there → fingerprint. No file approves nothing."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stamp: Stamp = None
        self._approved: Mapping[str, Mapping[str, str]] = {}

    def refresh(self) -> bool:
        """Read the file, if it has changed; returns whether it had. Blocks for a moment.

        Raises:
            SettingsError: it cannot be read.
        """
        stamp = stamp_of(self.file)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._approved = _read(self.file) if stamp is not None else {}
        return True

    def approves(self, tool: RemoteTool) -> bool:
        """Whether the tool was approved as it is."""
        return self._approved.get(tool.upstream, {}).get(tool.remote_name) == tool.fingerprint

    def approved_before(self, tool: RemoteTool) -> bool:
        """Whether the tool was approved as it is, or as it was."""
        return tool.remote_name in self._approved.get(tool.upstream, {})

    def approve(self, tools: Iterable[RemoteTool]) -> None:
        """Write these tools, as they are, to the file, in addition to what is there.

        Raises:
            SettingsError: it cannot be read or written.
        """
        self.refresh()
        approved = {upstream: dict(names) for upstream, names in self._approved.items()}
        for tool in tools:
            approved.setdefault(tool.upstream, {})[tool.remote_name] = tool.fingerprint
        text = json.dumps({"version": _VERSION, "approved": approved}, indent=2, sort_keys=True) + "\n"
        try:
            replace_text(self.file, text)
        except OSError as exc:
            raise SettingsError(f"The approvals cannot be written to {self.file}: {exc.strerror}.") from exc
        self.refresh()


def _read(file: Path) -> Mapping[str, Mapping[str, str]]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if value["version"] != _VERSION:
            raise ValueError(f"version {value['version']} is not known")
        return {
            str(name): {str(tool): str(mark) for tool, mark in found.items()}
            for name, found in value["approved"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SettingsError(
            f"The approvals of upstream tools cannot be read from {file}: {exc}.",
            remedy="Fix the file, or delete it and run praxis-mcp upstreams approve.",
        ) from exc
