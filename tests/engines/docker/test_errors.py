"""What a daemon's words mean."""

import ssl

import pytest

from praxis_mcp.engines.docker.errors import init_failure, pull_failure, refused, unreachable
from praxis_mcp.errors import CommandNotFound, EngineUnavailable, ExecutionError, ImageError, LimitUnsupported
from praxis_mcp.plans.model import Blueprint, Call, Limits, Plan, Where

BLUEPRINT = Blueprint("tool", Where.CONTAINER, ("docker",), Limits(60), image="python:3.11-slim")
PLAN = Plan(BLUEPRINT, Call("run", argv=("nope", "--flag"), secrets=("s3cr3t",)))


DOCKER_20 = 'OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "nope": '
DOCKER_28 = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    'unable to start container process: error during container init: exec: "nope": '
)


@pytest.mark.parametrize(
    ("words", "expected", "saying"),
    [
        (DOCKER_20 + "executable file not found in $PATH: unknown", CommandNotFound, 'no command "nope"'),
        (DOCKER_28 + "executable file not found in $PATH", CommandNotFound, 'no command "nope"'),
        (DOCKER_28 + "permission denied: unknown", CommandNotFound, "cannot be executed"),
        ("crun: executable file `nope` not found in $PATH: No such file or directory", CommandNotFound, "nope"),
        ("exec /bin/x: exec format error", ImageError, "processor"),
        ("unable to find user bob: no matching entries in passwd file", ImageError, 'no user "bob"'),
        ("Minimum memory limit allowed is 6MB", LimitUnsupported, "6MB"),
        ("Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", LimitUnsupported, "2 CPUs"),
        ('invalid mount config for type "bind": bind source path does not exist: /x', ExecutionError, "mounted path"),
        ("Unknown runtime specified runsc", EngineUnavailable, "runsc"),
        ('rootfs_linux.go: mounting "/a" to rootfs caused: not a directory: unknown', ExecutionError, "could not run"),
    ],
)
def test_a_refusal_becomes_the_error_that_it_means(words: str, expected: type[ExecutionError], saying: str) -> None:
    error = refused(words, PLAN)
    assert type(error) is expected
    assert saying in error.message


def test_a_refusal_never_shows_a_secret() -> None:
    assert "s3cr3t" not in str(refused("invalid environment variable: X=s3cr3t", PLAN))


@pytest.mark.parametrize(
    ("code", "stderr", "expected"),
    [
        (127, b"[FATAL tini (7)] exec nope failed: No such file or directory\n", CommandNotFound),
        (126, b"[FATAL tini (7)] exec nope failed: Permission denied\n", CommandNotFound),
        (127, b"praxis-init: cannot run 'nope': No such file or directory\n", CommandNotFound),
        (126, b"praxis-init: cannot run 'nope': Exec format error\n", ImageError),
        (125, b"praxis-init: cannot set up 'fork': Resource temporarily unavailable\n", ExecutionError),
        (127, b"sh: nope: not found\n", None),
        (1, b"praxis-init: cannot run 'nope': No such file or directory\n", None),
    ],
)
def test_an_init_that_failed_is_distinguished_from_a_tool_that_did(
    code: int, stderr: bytes, expected: type[ExecutionError] | None
) -> None:
    error = init_failure(PLAN, code, stderr)
    assert (None if error is None else type(error)) is expected


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        ("manifest for python:9 not found: manifest unknown: manifest unknown", "no such tag"),
        ("pull access denied for x, repository does not exist or may require 'docker login'", "needs a login"),
        ("Get https://registry-1.docker.io/v2/: dial tcp: lookup registry-1.docker.io: no such host", "could not be"),
        ("toomanyrequests: You have reached your pull rate limit", "limits pulls"),
        ("failed to register layer: no space left on device", "no room"),
        ("invalid reference format", "not an image reference"),
    ],
)
def test_a_failed_pull_says_why_and_what_to_do(words: str, saying: str) -> None:
    error = pull_failure("python:9", words)
    assert saying in error.message
    assert error.remedy


def test_a_certificate_that_is_not_trusted_is_not_taken_for_a_missing_permission() -> None:
    error = unreachable("tcp://host:2376", ssl.SSLCertVerificationError(1, "certificate verify failed"))
    assert "TLS" in error.message


def test_an_image_that_only_the_store_of_the_sandbox_can_have_says_where_it_is() -> None:
    words = 'Get "http://localhost/v2/": dial tcp 127.0.0.1:80: connect: connection refused'
    error = pull_failure("localhost/python", words)
    assert "connection refused" in error.message
    assert "engine: sandbox" in str(error.remedy)
