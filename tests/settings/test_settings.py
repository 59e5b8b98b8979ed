"""Settings say what they mean, or are refused with the place and the remedy; none is accepted and ignored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.model import Settings, load_settings
from praxis_mcp.support.logs import logger


@pytest.fixture(autouse=True)
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PRAXIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_every_path_starts_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = Settings.model_validate(
        {
            "root": tmp_path / "project",
            "records": {"directory": "kept"},
            "secrets": {"A": {"file": "a.txt"}, "B": {"file": "~/b.txt"}},
            "engines": {"dagger": {"cli": "bin/dagger", "workdir": ".", "images": {"x": "x.tar"}}},
            "policy": {"sensitive_paths": ["../other", "~"]},
            "http": {"tls_certificate": "c.pem", "tls_key": "/k.pem"},
        }
    )
    root = tmp_path / "project"
    assert settings.records.directory == root / "kept"
    assert settings.secrets["A"].file == root / "a.txt"
    assert settings.secrets["B"].file == Path("/home/somebody/b.txt")
    assert settings.engines.dagger.cli == root / "bin/dagger"
    assert settings.engines.dagger.workdir == root
    assert settings.engines.dagger.images == {"x": root / "x.tar"}
    assert settings.policy.sensitive_paths == (tmp_path / "other", Path("/home/somebody"))
    assert (settings.http.tls_certificate, settings.http.tls_key) == (root / "c.pem", Path("/k.pem"))
    assert settings.upstream_approvals == root / "praxis-upstreams.json"


def test_a_user_without_a_home_learns_which_path_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="begins at a home directory, and there is none"):
        load_settings(flags={"records": {"directory": "~nobody-of-that-name/x"}})


@pytest.mark.parametrize("source", [{}, {"env": "A", "file": "b"}, {"env": "A", "file": "b", "keyring": "c/d"}])
def test_a_secret_has_exactly_one_source(source: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"secrets\.A: give exactly one of env, file and keyring"):
        load_settings(flags={"secrets": {"A": source}})


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRAXIS_POLCY__PRIVILEGED", "false")
    with pytest.raises(SettingsError, match=r"PRAXIS_POLCY__PRIVILEGED is not a setting .did you mean PRAXIS_POLICY"):
        load_settings()


def test_a_misspelt_section_of_the_file_is_refused_with_its_line_and_the_name_that_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("tools: [a]\n\nhtpp: {port: 1}\nupstreams:\n  one:\n    adress: http://a.invalid\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert f"{file}:3: htpp is not a setting (did you mean http?)" in caught.value.message
    assert f"{file}:6: upstreams.one.adress is not a setting (did you mean address?)" in caught.value.message


def test_a_misspelt_setting_of_a_section_is_refused_by_the_variable_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRAXIS_CALLS__MAX_CONCURENCY", "3")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "PRAXIS_CALLS__MAX_CONCURENCY: calls.max_concurency is not a setting" in caught.value.message
    assert "(did you mean max_concurrency?)" in caught.value.message


def test_a_variable_of_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRAXIS_TEST_REQUIRE", "PRAXIS_OUTPUT_DIR", "PRAXIS_MCP_DEPTH", "PRAXIS_CUSTOMER_ID"):
        monkeypatch.setenv(name, "1")
    assert load_settings()


def test_a_variable_that_the_settings_name_for_a_secret_is_not_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("records: {url: postgresql://praxis@db.example/r, password: {env: PRAXIS_DATABASE_PASSWORD}}\n")
    monkeypatch.setenv("PRAXIS_DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("PRAXIS_CUSTOMER_ID", "1")
    lines: list[str] = []
    logger.enable("praxis_mcp")
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    try:
        load_settings(file)
    finally:
        logger.remove(sink)
    assert lines == ["the environment variable PRAXIS_CUSTOMER_ID is not a setting, and is ignored"]


@pytest.mark.parametrize("text", ["docker,sandbox", '["docker", "sandbox"]', " docker , sandbox "])
def test_a_list_may_be_written_with_commas(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PRAXIS_ENGINES__ORDER", text)
    monkeypatch.setenv("PRAXIS_TOOLS", "tools,more/tools")
    settings = load_settings()
    assert settings.engines.order == ("docker", "sandbox")
    assert settings.tool_directories == (Path.cwd() / "tools", Path.cwd() / "more/tools")


@pytest.mark.parametrize(("name", "text"), [("PRAXIS_TOOLS", '["a'), ("PRAXIS_SECRETS", "a=b")])
def test_a_value_that_cannot_be_read_says_how_to_write_it(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError, match="write a list as"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("records: false", "records: write a mapping of its settings"),
        ("records: {max_age: 30d}", "records.max_age: write a number"),
        ("records: {max_bytes: 1GiB}", "records.max_bytes: write a whole number"),
        ("records: {audit: maybe}", "records.audit: write true or false"),
        ("records: {arguments: all}", "records.arguments: write 'none', 'masked' or 'hashed'"),
        ("warm: {max_containers: -1}", "warm.max_containers: write 0 or more"),
        ("calls: {max_timeout: 0}", "calls.max_timeout: write more than 0.0"),
        ("tools: [[a]]", "tools.0: write a path"),
        ("policy: {sensitive_paths: /srv}", "policy.sensitive_paths: write a list"),
        ("server: {name: [a]}", "server.name: write text"),
        ("secrets: {A: {keyring: a}}", "secrets.A.keyring: write what matches ^[^/]+/[^/]+$"),
        ("upstreams: [a]", "upstreams: write a mapping"),
    ],
)
def test_a_value_of_the_wrong_kind_says_what_to_write(tmp_path: Path, text: str, wanted: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert caught.value.message == f"The settings are wrong: {file}:1: {wanted}."


def test_reload_says_in_one_sentence_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, value in (("approved", "approved"), ("false", False), ("yes", True)):
        monkeypatch.setenv("PRAXIS_RELOAD", text)
        assert load_settings().reload == value
    monkeypatch.setenv("PRAXIS_RELOAD", "aproved")
    with pytest.raises(SettingsError, match=r"PRAXIS_RELOAD: reload: write true, false or approved\. praxis"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (
            "agent:\n  name: one\n  tools:\n"
            "  - {name: count, engine: dagger, engineSpec: {image: x}}\n  - {name: read_file, engine: local}\n"
            "p2p: {enabled: true}\nhttp: {port: 8000}\n",
            "Each of its tools with an engineSpec is a contract (count): write it to a file of its own",
        ),
        ("p2p: {port: 4001}\nhttp: {enabled: true}\ntools: [{name: a, engine: mcp}]\n", "No entry of it is a contract"),
    ],
)
def test_the_configuration_of_an_agent_is_called_that(tmp_path: Path, text: str, remedy: str) -> None:
    file = tmp_path / "agent1.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match="is the configuration of an agent of the older Praxis SDK") as caught:
        load_settings(file)
    assert remedy in (caught.value.remedy or "")


def test_the_schema_of_the_settings_takes_the_file_that_has_all_of_them() -> None:
    schema = Settings.model_json_schema()
    validator = Draft202012Validator(schema)
    values = yaml.safe_load((Path(__file__).parents[2] / "configs" / "server.yaml").read_text(encoding="utf-8"))
    validator.validate(values)
    assert not validator.is_valid({"calls": {"max_concurency": 1}})
