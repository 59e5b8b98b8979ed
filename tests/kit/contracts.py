"""Files of contracts, for tests that need a tool or two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_contract(directory: Path, name: str, **fields: Any) -> Path:
    """Write a contract to a file of its own in that directory, which is made where it is not there; the file."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}.contract.json"
    document = {"name": name, "description": f"Test tool {name}.", **fields}
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def write_tool(directory: Path, name: str, command: list[str], **fields: Any) -> Path:
    """As `write_contract`, of a command of this host that may use its network, so that no engine need be there."""
    return write_contract(directory, name, **{"engine": "local", "network": "host", "command": command, **fields})
