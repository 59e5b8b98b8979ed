"""What API servers do that are away, busy, slow or strange, against the client's requests."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.abc
import pytest

from praxis_mcp.engines.kubernetes import client, lease, pods, watching
from praxis_mcp.engines.kubernetes.answers import ClusterLost
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.errors import EngineUnavailable, ExecutionError, LimitUnsupported
from praxis_mcp.settings.kubernetes import KubernetesSettings
from tests.engines.kubernetes.doubled import Doubled, doubled
from tests.kit.until import WITHIN, until
from tests.kubernetes_double import Answer, Asked, DoublePod, write_kubeconfig

pytestmark = [pytest.mark.anyio, pytest.mark.native]

STEPS = [
    ("create", "leases"),
    ("create", "configmaps"),
    ("create", "pods"),
    ("get", "pods"),
    ("get", "pods/portforward"),
]
"""What a call asks for, in this order."""
MOST_ANSWERED = 2_000_000
"""Bytes of an answer, where tests are to be beyond that: more than a ConfigMap has in JSON, in which the largest
praxis-init (of gcc and glibc) takes 1 MB."""
FORBIDDEN = (
    'pods "x" is forbidden: User "system:serviceaccount:tools:default" cannot {verb} resource "{resource}" in API '
    'group "" in the namespace "tools"'
)


def answering(step: tuple[str, str], *answers: Answer, forever: bool = False) -> Callable[[Asked], Answer | None]:
    """What is answered to the first requests of a kind, or, by the last answer, to all of them."""
    due = list(answers)

    def answer(asked: Asked) -> Answer | None:
        if (asked.verb, asked.resource) != step or not due:
            return None
        return due[0] if forever and len(due) == 1 else due.pop(0)

    return answer


async def failure_of(on: Doubled) -> ExecutionError:
    """How a call fails, in time, with a remedy."""
    with pytest.raises(ExecutionError) as caught, anyio.fail_after(WITHIN):
        await on.call()
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("step", [*STEPS, ("watch", "pods")], ids=" ".join)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_step_that_is_not_allowed_fails_the_call_with_what_to_do(
    tmp_path: Path, step: tuple[str, str], status: int
) -> None:
    async with doubled(tmp_path) as on:
        on.double.life = slow_life
        message = FORBIDDEN.format(verb=step[0], resource=step[1])
        on.double.on_request = answering(step, Answer.refusal(status, message), forever=True)
        error = await failure_of(on)
        assert isinstance(error, EngineUnavailable)
        assert "forbids" in error.message if status == 403 else "credentials" in error.message
        assert ("doctor" if status == 403 else "Log in again") in str(error.remedy)
        on.double.on_request = lambda asked: None


async def test_a_server_that_may_not_remove_pods_answers_all_the_same_and_its_end_removes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "POD_REMOVE_TIMEOUT", 0.5)
    async with doubled(tmp_path, empties=False) as on:
        message = FORBIDDEN.format(verb="delete", resource="pods")
        on.double.on_request = answering(("delete", "pods"), Answer.refusal(403, message), forever=True)
        assert await on.call() == "hello\n"
        assert on.double.store.names("pods")


@pytest.mark.parametrize(
    ("status", "message", "kind", "words", "remedy"),
    [
        pytest.param(403, 'pods "x" is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: 2',
                     ExecutionError, "quota", "ResourceQuota", id="quota"),
        pytest.param(403, 'pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
                     LimitUnsupported, "LimitRange", "limits", id="limit range"),
        pytest.param(403, 'pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found',
                     EngineUnavailable, "RuntimeClass", "runtime_class", id="runtime class"),
        pytest.param(403, 'pods "x" is forbidden: error looking up service account tools/me: serviceaccount "me" not '
                     "found", EngineUnavailable, "account", "service_account", id="account"),
        pytest.param(403, 'pods "x" is forbidden: unable to create new content in namespace tools because it is being '
                     "terminated", EngineUnavailable, "being removed", "namespace", id="namespace that ends"),
        pytest.param(400, 'admission webhook "policy.example" denied the request: no images of strangers',
                     ExecutionError, "no images of strangers", "exception", id="webhook"),
        pytest.param(403, 'admission webhook "validation.gatekeeper.sh" denied the request: [x] no',
                     ExecutionError, "policy", "exception", id="webhook that forbids"),
        pytest.param(422, "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
                     ExecutionError, "policy", "exception", id="admission policy"),
        pytest.param(500, 'Internal error occurred: failed calling webhook "policy.example": context deadline exceeded',
                     EngineUnavailable, "policy", "webhook", id="webhook that is away"),
        pytest.param(418, "short and stout", ExecutionError, "418", "log", id="something unknown"),
    ],
)  # fmt: skip
async def test_a_pod_that_the_cluster_refuses_fails_the_call_with_what_helps(
    tmp_path: Path, status: int, message: str, kind: type[ExecutionError], words: str, remedy: str
) -> None:
    async with doubled(tmp_path) as on:
        on.double.on_request = answering(("create", "pods"), Answer.refusal(status, message), forever=True)
        error = await failure_of(on)
        assert type(error) is kind
        assert words in error.message
        assert remedy in str(error.remedy)


@pytest.mark.parametrize("step", STEPS, ids=" ".join)
async def test_a_server_that_asks_for_another_try_gets_it_and_no_more_than_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[str, str]
) -> None:
    monkeypatch.setattr(client, "MOST_RETRY_PAUSE", 0.01)
    async with doubled(tmp_path) as on:
        busy = Answer.refusal(429, "Too many requests, please try again later.", retry_after="1")
        on.double.on_request = answering(step, busy, busy)
        assert await on.call() == "hello\n"
        on.double.on_request = answering(step, busy, forever=True)
        if step[1] not in ("leases", "configmaps"):  # which are there by now
            error = await failure_of(on)
            assert isinstance(error, EngineUnavailable)
            assert "later" in str(error.remedy)
        on.double.on_request = lambda asked: None


@pytest.mark.parametrize("step", [("get", "pods"), ("watch", "pods"), ("get", "pods/portforward")], ids=" ".join)
@pytest.mark.parametrize("status", [0, 429, 502])
async def test_a_server_that_is_away_while_a_pod_starts_is_asked_again(
    tmp_path: Path, step: tuple[str, str], status: int
) -> None:
    async with doubled(tmp_path) as on:
        on.double.life = slow_life
        answer = Answer.refusal(status, "not now") if status else Answer(0)
        on.double.on_request = answering(step, answer, answer)
        assert await on.call() == "hello\n"
        assert len(on.double.pods) == 1


async def test_a_server_that_is_away_altogether_while_a_port_is_forwarded_is_asked_again(tmp_path: Path) -> None:
    async with doubled(tmp_path) as on:
        due: list[Answer] = []

        def answer(asked: Asked) -> Answer | None:
            if asked.resource == "pods/portforward" and not tried:
                tried.append(asked)
                due.extend([Answer(0)] * 3)  # of this, and of all that comes next
            return due.pop() if due else None

        tried: list[Asked] = []
        on.double.on_request = answer
        assert await on.call() == "hello\n"
        assert len(on.double.pods) == 1


@pytest.mark.parametrize(
    "answer", [Answer(0, done=True), Answer.refusal(504, "Timeout", done=True)], ids=["cut", "504"]
)
@pytest.mark.parametrize("resource", ["leases", "pods"])
async def test_what_was_made_though_its_answer_was_lost_is_removed(
    tmp_path: Path, resource: str, answer: Answer
) -> None:
    async with doubled(tmp_path) as on:
        on.double.on_request = answering(("create", resource), answer)
        error = await failure_of(on)
        assert isinstance(error, EngineUnavailable)
        assert on.double.store.names(resource) or resource == "pods"


async def test_what_the_server_makes_is_owned_by_the_config_map_that_the_settings_name(tmp_path: Path) -> None:
    async with doubled(tmp_path, owner="release") as on:
        error = await failure_of(on)
        assert isinstance(error, EngineUnavailable)
        assert "engines.kubernetes.owner" in str(error.remedy)
        owner = on.double.store.create("configmaps", {"metadata": {"name": "release"}})
        assert await on.call() == "hello\n"
        (lease,) = on.double.store.find("leases", {})
        (reference,) = lease["metadata"]["ownerReferences"]
        assert (reference["kind"], reference["name"]) == ("ConfigMap", "release")
        assert reference["uid"] == owner["metadata"]["uid"]
        on.double.store.remove("configmaps", "release")


async def test_a_pod_that_is_made_long_after_its_call_has_failed_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.1)
    late: list[Asked] = []

    def answer(asked: Asked) -> Answer | None:
        if (asked.verb, asked.resource) == ("create", "pods"):
            late.append(asked)
            return Answer(0)
        return None

    async with doubled(tmp_path) as on:
        on.double.on_request = answer
        await failure_of(on)
        own = on.engine._lease
        assert own is not None
        await until(lambda: own._left)
        on.double.store.create("pods", {**late[0].body, "status": {"phase": "Succeeded"}})
        name = late[0].body["metadata"]["name"]
        on.double.pods[name] = DoublePod(on.double.store, name, Path(), lambda: None)
        await on.nothing_is_left()


async def test_a_call_that_is_cancelled_does_not_wait_for_the_answer_about_its_pod_which_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "API_ANSWER_TIMEOUT", 3600.0)
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.1)

    async with doubled(tmp_path) as on:
        on.double.on_request = answering(("create", "pods"), Answer(after=3600, done=True))
        with anyio.fail_after(WITHIN):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(on.call)
                await until(lambda: on.double.store.names("pods"), what="the request for a pod")
                tasks.cancel_scope.cancel()


async def test_an_api_server_that_removes_slowly_what_is_left_costs_no_renewal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.1)
    monkeypatch.setattr(lease, "UPKEEP_FOR", 0.1)
    async with doubled(tmp_path) as on:
        assert await on.call() == "hello\n"
        await on.nothing_is_left()
        on.double.on_request = lambda asked: Answer(after=3600) if asked.verb == "delete" else None
        assert on.engine._lease is not None
        on.engine._lease.remove_later("/api/v1/namespaces/tools/pods/left", False)

        def renewals() -> int:
            return len([asked for asked in on.double.asked if (asked.verb, asked.resource) == ("patch", "leases")])

        await until(lambda: [asked for asked in on.double.asked if asked.name == "left"])
        before = renewals()
        await until(lambda: renewals() > before + 1)
        on.double.on_request = lambda asked: None


async def test_no_call_waits_long_for_an_api_server_that_does_not_say_whose_a_waiting_pod_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "MISSED_AFTER", -1.0)
    monkeypatch.setattr(lease, "LOOK_FOR", 0.2)
    async with doubled(tmp_path) as on:
        assert await on.call() == "hello\n"
        on.double.on_request = lambda asked: Answer(after=3600) if asked.verb == "patch" else None
        assert on.engine._lease is not None
        with anyio.fail_after(WITHIN), pytest.raises(ClusterLost, match="within"):
            await on.engine._lease.is_owned("whatever")
        on.double.on_request = lambda asked: None


@pytest.mark.parametrize("step", STEPS, ids=" ".join)
@pytest.mark.parametrize("status", [0, 500])
async def test_a_server_that_stays_away_fails_the_call_in_time(
    tmp_path: Path, step: tuple[str, str], status: int
) -> None:
    async with doubled(tmp_path) as on:
        answer = Answer.refusal(status, "not now") if status else Answer(0)
        on.double.on_request = answering(step, answer, forever=True)
        error = await failure_of(on)
        assert isinstance(error, EngineUnavailable)
        assert ("cannot be reached" if not status else "cannot serve requests now") in error.message
        on.double.on_request = lambda asked: None


@pytest.mark.parametrize("step", [("create", "pods"), ("get", "pods")], ids=" ".join)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(Answer(after=3600), "did not answer in time", id="never"),
        pytest.param(Answer(body=b"{", ends=False), "did not answer in time", id="never whole"),
        pytest.param(Answer(body=b"x" * (MOST_ANSWERED + 1)), "answers with more than", id="huge"),
        pytest.param(Answer(502, body=b"x" * (MOST_ANSWERED + 1)), "answers with more than", id="a huge refusal"),
        pytest.param(Answer(body=b"<html>"), "not JSON", id="a page"),
        pytest.param(Answer(body=b"[]"), "not an object of the Kubernetes API", id="a list"),
        pytest.param(Answer(body=b"{}"), "not an object of the Kubernetes API", id="an empty object"),
    ],
)
async def test_an_answer_that_is_not_usable_fails_the_call_in_time_and_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[str, str], answer: Answer, words: str
) -> None:
    monkeypatch.setattr(client, "MAX_API_ANSWER", MOST_ANSWERED)
    if "time" in words:
        monkeypatch.setattr(client, "API_ANSWER_TIMEOUT", 0.5)
        monkeypatch.setattr(client, "API_CONNECT_TIMEOUT", 0.5)
    async with doubled(tmp_path) as on:
        on.double.on_request = answering(step, answer, forever=True)
        error = await failure_of(on)
        assert isinstance(error, EngineUnavailable)
        assert words in error.message
        on.double.on_request = lambda asked: None


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer.refusal(410, "too old resource version"), id="gone"),
        pytest.param(Answer(body=b'{"type":"ERROR","object":{"code":410,"reason":"Expired"}}\n'), id="an event of it"),
        pytest.param(Answer(body=b'{"type":"ERROR","object":{"code":500}}\n'), id="an error"),
        pytest.param(Answer(body=b""), id="closed at once"),
        pytest.param(Answer(0), id="cut"),
        pytest.param(Answer(body=b"\0nonsense\n"), id="garbage"),
        pytest.param(Answer(body=b'{"type":"MODIFIED","object":[]}\n'), id="something else"),
        pytest.param(Answer(body=b"x" * (MOST_ANSWERED + 1), ends=False), id="a line without end"),
        pytest.param(Answer(ends=False), id="silent"),
        pytest.param(Answer(after=3600), id="never answered"),
    ],
)
async def test_a_watch_that_fails_costs_a_moment_and_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(client, "MAX_API_ANSWER", MOST_ANSWERED)
    monkeypatch.setattr(watching, "WATCH_FOR", 1.0)
    async with doubled(tmp_path) as on:
        on.double.life = slow_life
        on.double.on_request = answering(("watch", "pods"), answer, forever=True)
        assert await on.call() == "hello\n"
        assert [asked for asked in on.double.asked if asked.verb == "watch"]
        on.double.on_request = lambda asked: None


async def slow_life(pod: DoublePod) -> None:
    """Of a pod that is watched before it runs."""
    pod.wait_for("ContainerCreating")
    await anyio.sleep(0.3)
    await pod.live()


async def test_a_request_that_is_cancelled_while_tls_begins_leaves_no_connection(tmp_path: Path) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def never_answers(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            begun.set()
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            ended.set()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, never_answers)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        write_kubeconfig(tmp_path / "kubeconfig", f"https://127.0.0.1:{port}")
        cluster = await Cluster.connect(KubernetesSettings(kubeconfig=tmp_path / "kubeconfig"))
        gc.disable()  # it would close what is left
        try:
            async with anyio.create_task_group() as calls:
                calls.start_soon(cluster.get, "/version")
                await begun.wait()
                calls.cancel_scope.cancel()
            with anyio.fail_after(WITHIN):
                await ended.wait()
        finally:
            gc.enable()
        await cluster.close()
        tasks.cancel_scope.cancel()
