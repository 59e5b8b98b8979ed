"""The security schemes of an API, as secrets of a contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from praxis_mcp.importing.disclosed import variable_of
from praxis_mcp.importing.docker_run import ImportedTool
from praxis_mcp.importing.foreign import as_list, as_mapping
from praxis_mcp.importing.schemas import Schemas


def add_authentication(
    tool: ImportedTool,
    requirements: Any,
    schemes: Mapping[str, Any],
    parameters: dict[str, dict[str, Any]],
    at: Schemas,
) -> None:
    """Adds to a contract the first of several ways to authenticate that a contract can have.

    Args:
        tool: gets the keys, the secrets, and a note where there is no such way.
        requirements: any of which is enough, each of which needs all of its schemes.
        schemes: by name.
        parameters: lose what is a secret now.
        at: follows references.
    """
    options = [as_mapping(option) for option in as_list(requirements)]
    if not options or any(not option for option in options):
        return
    # With its port: two servers of one machine each have their own secrets.
    host = urlsplit(str(tool.contract["url"])).netloc.rpartition("@")[2].lower() or "api"
    for option in options:
        fields: dict[str, Any] = {}
        secrets: dict[str, str] = {}
        if all(_add(fields, secrets, host, str(name), as_mapping(at.followed(schemes.get(name)))) for name in option):
            for key, value in fields.items():
                tool.contract[key] = {**tool.contract.get(key, {}), **value}
            tool.secrets |= secrets
            sent = [*tool.contract.get("headers", ()), *tool.contract.get("query", ())]
            for name in [name for name, item in parameters.items() if _place_in(item) in sent]:
                del parameters[name]
            return
    tool.notes.append(f"Its authentication is not carried over: {', '.join(map(str, options[0]))[:100]}.")


def _add(fields: dict[str, Any], secrets: dict[str, str], host: str, name: str, scheme: Mapping[str, Any]) -> bool:
    """Whether the scheme could be added to what a contract holds."""
    kind, way, place = scheme.get("type"), str(scheme.get("scheme", ""))[:16].lower(), scheme.get("in")
    is_bearer = kind in ("oauth2", "openIdConnect") or (kind == "http" and way == "bearer")
    key = scheme.get("name")
    if is_bearer and "basic_user" not in fields:
        secret = variable_of(host, "token")
        fields["auth_token"] = {"secret": secret}
        secrets[secret] = f"a bearer token of {host}"
    elif kind == "http" and way == "basic" and "auth_token" not in fields:
        user, password = variable_of(host, "user"), variable_of(host, "password")
        fields |= {"basic_user": {"secret": user}, "basic_password": {"secret": password}}
        secrets |= {user: f"the user at {host}", password: f"that user's password at {host}"}
    elif kind == "apiKey" and isinstance(key, str) and place in ("header", "query"):
        secret = variable_of(host, name)
        fields.setdefault("headers" if place == "header" else "query", {})[key] = {"secret": secret}
        secrets[secret] = f"the key {key[:64]} of {host}"
    elif kind == "apiKey" and isinstance(key, str) and place == "cookie" and "Cookie" not in fields.get("headers", {}):
        secret = variable_of(host, "cookie")
        fields.setdefault("headers", {})["Cookie"] = {"secret": secret}
        secrets[secret] = f"the cookie {key[:64]} of {host} with its name: {key[:64]}=…"
    else:
        return False
    return True


def _place_in(parameter: Mapping[str, Any]) -> Any:
    bind = as_mapping(parameter.get("bind"))
    return bind.get("query", bind.get("header"))
