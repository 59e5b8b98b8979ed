"""Parts of the Dagger engine that need no engine: queries as values, messages, and the double's own strictness."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.engines.dagger.cli import SessionAddress, cli_environment
from praxis_mcp.engines.dagger.errors import QueryFailed, check_version, image_failed, opening_failed, run_failed, tidy
from praxis_mcp.engines.dagger.exec import CallRequest, exec_steps
from praxis_mcp.engines.dagger.images import BaseContainer, Image
from praxis_mcp.engines.dagger.logs import LogReader, LogTap
from praxis_mcp.engines.dagger.query import INTROSPECTION, Field, Schema, chain
from praxis_mcp.engines.mounts.locks import MountLocks
from praxis_mcp.errors import CommandNotFound, EngineUnavailable, ExecutionError, ImageError
from praxis_mcp.plans.model import Blueprint, Call, Limits, Mount, Plan, Where
from praxis_mcp.settings.sections import DaggerSettings
from tests.dagger_double import schema
from tests.kit import requirements


@pytest.fixture(scope="module")
def real() -> Any:
    """The API's schema, as graphql-core has it."""
    if schema.generated_client() is None:
        requirements.give_up("dagger", "dagger-io is not installed")
    return schema.load()


@pytest.fixture(scope="module")
def known(real: Any) -> Schema:
    """What a session learns of it."""
    from graphql import graphql_sync

    answer = graphql_sync(real, INTROSPECTION.text)
    assert answer.data is not None
    return Schema(answer.data)


def problems(real: Any, text: str) -> list[str]:
    from graphql import parse, validate

    return [error.message for error in validate(real, parse(text))]


class _NoSession:
    """Stands where only the schema is asked for."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema


_ANY_TEXT = st.text(max_size=30)


@given(words=st.lists(_ANY_TEXT, min_size=1, max_size=3), env=st.dictionaries(_ANY_TEXT, _ANY_TEXT, max_size=3))
def test_no_value_of_a_call_is_part_of_the_query_and_the_api_accepts_it(
    real: Any, known: Schema, words: list[str], env: dict[str, str]
) -> None:
    blueprint = Blueprint("tool", Where.CONTAINER, ("dagger",), Limits(5), image="x")
    plan = Plan(blueprint, Call("run", argv=tuple(words), env=env))
    base = BaseContainer("id", Image("id", "x", (), "", "amd64", False), has_init=True)
    session: Any = _NoSession(known)
    steps = exec_steps(session, CallRequest(base, plan, (), Path("/nowhere")), {}, fresh=True)
    operation = known.operation(chain(steps, Field("id"), Field("exitCode")))
    assert problems(real, operation.text) == []
    assert re.fullmatch(r"[\w\s(){}$!:,\[\]]*", operation.text, re.ASCII)
    sent = next(value for value in operation.variables.values() if isinstance(value, list))
    assert sent[-len(words) :] == words


def test_a_field_that_the_api_lacks_is_named_before_anything_is_sent(known: Schema) -> None:
    with pytest.raises(LookupError, match=r"Container\.withMemoryLimit"):
        known.operation(chain([Field("container"), Field("withMemoryLimit", {"bytes": 1})], Field("id")))
    with pytest.raises(LookupError, match=r"Container\.withUser\(uid:\)"):
        known.operation(chain([Field("container"), Field("withUser", {"uid": 1})], Field("id")))


@pytest.mark.parametrize(("version", "fits"), [("v0.18.19", False), ("v0.19.0", True), ("1.0.0", True), ("dev", True)])
def test_engines_older_than_the_oldest_that_works_are_refused(version: str, fits: bool) -> None:
    if fits:
        check_version(version)
    else:
        with pytest.raises(EngineUnavailable, match=re.escape(version)):
            check_version(version)


@pytest.mark.parametrize(
    ("stderr", "host", "message", "remedy"),
    [
        ("permission denied while trying to connect to docker.sock", None, "may not use", "usermod"),
        (
            "Cannot connect to the Docker daemon. Is the docker daemon running?",
            None,
            "no running Docker",
            "Start Docker",
        ),
        ("no fallback container driver found", None, "no container runtime", "Install Docker"),
        ("client version v0.12 is incompatible with engine", "tcp://x:1", "does not fit", "same version"),
        ("failed to pull image: dial tcp: lookup registry", None, "cannot fetch", "network"),
        ('unknown command "session"', None, "does not know", "Install"),
        ("connection refused", "tcp://x:1", "at tcp://x:1 cannot be reached", "Start it"),
        ("permission denied", "unix:///s", "may not be used by this user", "right"),
        ("", None, "opened no session", "dagger version"),
    ],
)
def test_what_the_cli_says_at_its_end_becomes_a_remedy(
    stderr: str, host: str | None, message: str, remedy: str
) -> None:
    error = opening_failed(stderr, host)
    assert message in error.message
    assert remedy in (error.remedy or "")


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        ('exec: "nope": executable file not found in $PATH', CommandNotFound, 'no command "nope" in the image x.'),
        ('exec: "/nope": stat /nope: no such file or directory', CommandNotFound, "There is no command"),
        ("exec /nope: exec format error", ImageError, '"nope" in the image x is not for this machine'),
        ("unable to find user bob: no matching entries in passwd file", ImageError, 'no user "bob" in the image x.'),
        ("unable to find group dev: no matching entries in group file", ImageError, 'There is no group "dev" in'),
        ("insecure root capabilities are not allowed", ExecutionError, "forbids privileged commands"),
    ],
)  # fmt: skip
def test_a_command_that_did_not_start_is_worded_as_on_every_engine(said: str, kind: type[Exception], text: str) -> None:
    blueprint = Blueprint("tool", Where.CONTAINER, ("dagger",), Limits(60), image="x")
    error = run_failed(blueprint, QueryFailed(said, {}), "nope")
    assert type(error) is kind
    assert text in error.message


def test_what_dagger_says_is_shown_without_its_trace_ids_and_in_bounds() -> None:
    assert tidy("exit code: 137 [traceparent:0a-1b] \x1b[31mred\x1b[0m\n  more") == "exit code: 137 red more"
    assert len(tidy("x" * 10_000)) < 700
    failure = QueryFailed("unauthorized [traceparent:00-11]", {})
    assert "docker login" in str(image_failed("ghcr.io/x/y:1", failure))


@pytest.mark.anyio
async def test_paths_inside_each_other_are_one_workspace(tmp_path: Path) -> None:
    import anyio

    locks = MountLocks()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    whole, inner = Mount(tmp_path / "link", "/w", True), Mount(tmp_path / "a" / "b", "/w", True)
    other = Mount(tmp_path / "ab", "/w", True)
    read_only = Mount(tmp_path / "a", "/w")
    async with locks.hold([whole]):
        for free in ([other], [read_only], []):
            with anyio.fail_after(60):
                async with locks.hold(free):
                    pass
        with pytest.raises(TimeoutError), anyio.fail_after(0.05):
            async with locks.hold([inner]):
                pass
        with pytest.raises(TimeoutError), anyio.fail_after(0.05):
            async with locks.hold_while_read(read_only, []):
                pass
        with anyio.fail_after(60):
            async with locks.hold_while_read(read_only, [whole]):
                pass
    with anyio.fail_after(60):
        async with locks.hold([inner]):
            pass


@given(cuts=st.lists(st.integers(0, 400), max_size=6))
def test_log_records_are_distinguished_however_the_stream_is_cut(cuts: list[int]) -> None:
    received: list[tuple[str, bytes]] = []
    reader = LogReader(SessionAddress(1, "token"))
    tap = LogTap(lambda name, data: received.append((name, data)))
    line = (
        b'data: {"resourceLogs":[{"scopeLogs":[{"scope":{"name":"dagger.io/engine.buildkit"},"logRecords":['
        b'{"body":{"stringValue":"mine\\u2028\\n"},"attributes":[{"key":"stdio.stream","value":{"intValue":"2"}}],'
        b'"traceId":"' + tap.key + b'"},'
        b'{"body":{"stringValue":"yours"},"attributes":[{"key":"stdio.stream","value":{"intValue":"1"}}],'
        b'"traceId":"AAAA"}]}]}]}\n'
    )
    stream = b"id: \nevent: subscribed\ndata\n\nid: 1\nevent: logs\n" + line + b"\n"
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    with reader.listen(tap):
        for start, end in itertools.pairwise(places):
            reader.feed(stream[start:end])
    assert received == [("stderr", "mine\u2028\n".encode())]


def test_the_cli_exports_no_spans_of_its_own_in_which_arguments_would_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "TRACEPARENT", "TRACESTATE", "BAGGAGE"):
        monkeypatch.setenv(name, "of the server")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    found = cli_environment(DaggerSettings())
    assert "of the server" not in found.values()
    assert found["HTTPS_PROXY"] == "http://proxy"
