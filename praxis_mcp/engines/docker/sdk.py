"""What is needed of the Docker SDK beside its public names: all of it, and nowhere else.

Each may go with any release of the SDK, so pyproject.toml bounds its version to what was run, and
``tests/test_sdks.py`` fails when one goes.

- `set_api_version`: the SDK asks ``/version`` for the version of the API, which a busy Podman answers in seconds;
  ``/_ping`` says it at once, but only a client that exists already can ask that.
- `unix_socket_of`: where the SDK has found the daemon's socket, for connections of our own to it.
- `half_closable`: the SDK hands out an object that reads and writes, and only the socket in it can end one direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import docker


def set_api_version(api: docker.APIClient, version: str) -> None:
    """Have `api` speak that version, as its constructor would (`docker.APIClient.api_version` reads it)."""
    vars(api)["_version"] = version


def unix_socket_of(api: docker.APIClient) -> str | None:
    """Path of the daemon's Unix socket; None where it is reached in another way."""
    if not api.base_url.startswith("http+docker:"):
        return None
    return getattr(api.get_adapter(api.base_url), "socket_path", None)


def half_closable(attached: Any) -> Any:
    """What can end one direction of a connection that `docker.APIClient.attach_socket` gave: a socket, an ssh channel
    or a pipe."""
    return getattr(attached, "_sock", attached)
