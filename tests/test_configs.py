"""The configurations in configs/ load, and say the truth about the defaults."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.settings.model import Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
NOT_DEFAULTS = {"root", "server.instructions"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_loads_from_any_directory(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_settings(path)


def test_the_first_configuration_serves_the_sample_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(ROOT / "configs" / "server.yaml").tool_directories == (ROOT / "tools",)


def test_the_first_configuration_names_every_setting_with_its_default() -> None:
    written = flat(yaml.safe_load((ROOT / "configs" / "server.yaml").read_text()))
    here = f"{Path.cwd()}/"
    defaults = {
        name: value.removeprefix(here) if isinstance(value, str) else value
        for name, value in flat(Settings().model_dump(mode="json")).items()
    }
    assert set(written) == set(defaults)
    different = {name for name, value in written.items() if value != defaults[name]}
    assert different == NOT_DEFAULTS


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result
