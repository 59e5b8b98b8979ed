"""What a call would do, as plain values: what `praxis-mcp explain` and the console show."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from praxis_mcp.contracts.values import BindKind
from praxis_mcp.execution.relays import engine_name
from praxis_mcp.execution.runner import Explanation
from praxis_mcp.execution.spill import NO_OTHER
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.plans.model import Guard, ImageBuild
from praxis_mcp.plans.secrets import MASK, Masker
from praxis_mcp.settings.base import SecretRef
from praxis_mcp.support.text import counted, size_in_words


class FactLine(NamedTuple):
    """A fact in words, for people: `fact` is its key in `facts_of`, `name` and `text` are shown."""

    fact: str
    name: str
    text: str
    tone: Literal["", "good", "bad", "caution"] = ""


def facts_of(explanation: Explanation) -> dict[str, Any]:
    """The plan as plain values, secrets masked."""
    plan, decision = explanation.plan, explanation.decision
    capabilities = decision.capabilities
    fixed, call = plan.blueprint, plan.call
    masker = Masker(call.secrets)
    remote = fixed.remote
    # By where they come from, not by their text: whether a secret is empty is nobody's business either.
    hidden = {
        key
        for key, value in getattr(explanation.contract.engine_spec, "env", {}).items()
        if isinstance(value, SecretRef)
    }
    # The size of a placeholder says nothing.
    open_ends = [item.bind for item in explanation.contract.parameters if item.name in explanation.placeholders]
    no_stdin_yet = any(bind.kind is BindKind.STDIN for bind in open_ends)
    no_file_yet = {str(bind.target) for bind in open_ends if bind.kind is BindKind.FILE}
    return {
        "tool": fixed.tool,
        "placeholders": list(explanation.placeholders),
        "contract": str(explanation.contract.source) if explanation.contract.source else None,
        "engine": decision.engine,
        "isolation": capabilities.isolation if capabilities else None,
        "caution": (capabilities.caution if capabilities else "") or None,
        "considered": [
            {"engine": item.engine, "reason": item.reason or "chosen", "remedy": item.remedy}
            for item in decision.verdicts
        ],
        "spill": {
            "engine": explanation.standby.engine,
            "image": explanation.standby.image.digest if explanation.standby.image else None,
            "reason": explanation.standby.reason,
            "is_possible": explanation.standby.reason != NO_OTHER,
        },
        "warm": {
            "can_wait": None if explanation.cold_reason is None else not explanation.cold_reason,
            "reason": explanation.cold_reason or None,
        },
        "image": fixed.image,
        "build": _build_facts(fixed.build) if fixed.build is not None else None,
        "image_is_missing": explanation.lacks_image,
        "remote": {"address": remote.address, "tool": remote.tool, "transport": remote.transport} if remote else None,
        "request": {
            "method": fixed.http.method,
            "url": masker.text(call.url),
            "headers": {name: masker.text(value) for name, value in call.headers.items()},
            "body_bytes": None if call.body is None else len(call.body),
        }
        if fixed.http
        else None,
        "command": [masker.text(word) for word in call.argv],
        "env": {key: MASK if key in hidden else masker.text(value) for key, value in call.env.items()},
        "stdin_bytes": None if call.stdin is None or no_stdin_yet else len(call.stdin),
        "files": {item.path: None if item.path in no_file_yet else len(item.content) for item in call.files},
        "working_dir": fixed.working_dir,
        "mounts": [
            f"{item.source} → {item.target} ({'rw' if item.writable else 'ro'})"
            + (", kept from the tool: it steers the server, or is its own code" if item.guard is Guard.SHIELD else "")
            + (f", because it {item.kept}" if item.kept else "")
            + (", which a call makes" if item.is_missing else "")
            for item in fixed.mounts
            if item.guard is not Guard.PIN
        ],
        "execution": explanation.contract.execution,
        "retry": explanation.contract.retry,
        "network": fixed.network.value,
        "user": fixed.user,
        "limits": {
            "timeout_s": fixed.limits.timeout,
            "memory_bytes": fixed.limits.memory,
            "cpus": fixed.limits.cpus,
            "pids": fixed.limits.pids or (capabilities.default_pids if capabilities else None),
            "inline_output_bytes": fixed.limits.max_output,
        },
        "artifacts": list(fixed.artifacts),
        "demands": sorted(item.value for item in plan.demands),
    }


def _build_facts(build: ImageBuild) -> dict[str, Any]:
    return {
        "base": build.base,
        "requirements": str(build.requirements) if build.requirements else None,
        "packages": list(build.packages),
        "dockerfile": str(build.dockerfile) if build.dockerfile else None,
        "context": str(build.context) if build.context else None,
        "network": build.network,
        "digest": build.digest,
    }


def upstream_facts_of(tool: RemoteTool, toolbox: Toolbox) -> dict[str, Any]:
    """Where a call of an upstream's tool goes, as plain values."""
    report = next(item for item in toolbox.upstreams.reports() if item.name == tool.upstream)
    return {
        "tool": tool.name,
        "engine": engine_name(tool),
        "upstream": tool.upstream,
        "address": report.address,
        "protocol": report.version,
        "tool_there": tool.remote_name,
        "servers_behind_it": max(0, len(tool.via) - 1),
        "limits": {
            "timeout_s": toolbox.settings.upstreams[tool.upstream].timeout,
            "inline_output_bytes": toolbox.settings.calls.max_output,
        },
        "adapted": list(tool.notes),
    }


def in_words(facts: Mapping[str, Any], pull: str) -> Iterator[FactLine]:
    """What `facts_of` or `upstream_facts_of` found, a line for each part.

    Args:
        facts: what they gave.
        pull: when images are fetched, as the settings have it.
    """
    yield from _upstream_in_words(facts) if "upstream" in facts else _plan_in_words(facts, pull)


def limit_in_words(name: str, value: float | None) -> FactLine:
    """A limit: ``memory``, ``64 MiB``."""
    words = name.removesuffix("_bytes").removesuffix("_s").replace("_", " ")
    if value is None:
        text = "no limit"
    elif name.endswith("_s"):
        text = f"{value:,g} s"
    else:
        text = size_in_words(int(value)) if name.endswith("_bytes") else f"{value:,}"
    return FactLine("limits", words, text)


def missing_image(pull: str, *, is_built: bool = False) -> str:
    """What an image that an engine lacks means for the first call.

    Args:
        pull: as the settings have it.
        is_built: whether the contract says how it is made.
    """
    if is_built:
        return "not built yet: the first call waits for it (ahead of calls: praxis-mcp build)"
    if pull == "never":
        return "not here, and with pull: never a call is refused"
    return "not here yet: the first call has to pull it"


def _upstream_in_words(facts: Mapping[str, Any]) -> Iterator[FactLine]:
    for name in ("upstream", "address", "protocol", "tool_there"):
        if facts[name]:
            yield FactLine(name, name.replace("_", " "), str(facts[name]))
    for name, value in facts["limits"].items():
        yield limit_in_words(name, value)
    for note in facts["adapted"]:
        yield FactLine("adapted", "adapted", note)


def _plan_in_words(facts: Mapping[str, Any], pull: str) -> Iterator[FactLine]:
    for name in facts["placeholders"]:
        yield FactLine("placeholders", "not given", f"{name}: <{name}> stands for it")
    for item in facts["considered"]:
        if item["engine"] == facts["engine"]:
            yield FactLine("engine", item["engine"], "runs it", "good")
        else:
            yield FactLine("considered", item["engine"], item["reason"], "bad")
    if facts["image"] is not None and facts["engine"] is not None and facts["spill"]["is_possible"]:
        yield FactLine("spill", "where it would wait", _elsewhere(facts["spill"]))
    if (can_wait := facts["warm"]["can_wait"]) is not None:
        yes = "what runs a call is started ahead of it, once the tool was called"
        yield FactLine("warm", "warm", yes if can_wait else f"no: {facts['warm']['reason']}")
    if facts["engine"] is None:
        yield FactLine(
            "engine", "engine", "none: the call would be refused (what is missing: praxis-mcp doctor)", "bad"
        )
    if facts["isolation"] == "process":
        plain = "none: a plain process of this user (why: praxis-mcp doctor)"
        yield FactLine("isolation", "isolation", plain, "caution")
    elif facts["isolation"] is not None:
        yield FactLine("isolation", "isolation", facts["isolation"])
    if facts["caution"] is not None:
        yield FactLine("caution", "caution", facts["caution"], "caution")
    values = {**facts, "command": shlex.join(facts["command"]) if facts["command"] else None}
    if facts["image_is_missing"]:
        values["image"] += f" ({missing_image(pull, is_built=facts['build'] is not None)})"
    for name in ("image", "command", "working_dir", "network", "user", "stdin_bytes"):
        # A request is the network itself: its "network: none" would say the opposite of what it does.
        if values[name] is not None and not (name == "network" and facts["request"] is not None):
            yield FactLine(name, name.replace("_", " "), str(values[name]))
    if (request := facts["request"]) is not None:
        yield FactLine("request", "request", f"{request['method']} {request['url']}")
        for name, value in request["headers"].items():
            yield FactLine("request", "header", f"{name}: {value}")
        if request["body_bytes"] is not None:
            yield FactLine("request", "body", counted(request["body_bytes"], "byte"))
    if (build := facts["build"]) is not None:
        made = build["dockerfile"] or ", ".join(filter(None, (build["requirements"], *build["packages"])))
        base = f" on top of {build['base']}" if build["base"] else ""
        yield FactLine("build", "built from", f"{made}{base}; network of the build: {build['network']}")
    if facts["execution"] != "call":
        again = ", run again where its server died" if facts["retry"] == "safe" else ""
        whose = "" if facts["execution"] == "task" else " for clients that speak the tasks extension"
        yield FactLine("execution", "execution", f"a task{whose}{again} (docs/tasks.md)")
    for name, value in facts["env"].items():
        yield FactLine("env", "env", f"{name}={value}")
    for place, size in facts["files"].items():
        yield FactLine("files", "file", f"{place} ({'not given' if size is None else counted(size, 'byte')})")
    for mount in facts["mounts"]:
        yield FactLine("mounts", "mount", mount)
    for pattern in facts["artifacts"]:
        yield FactLine("artifacts", "artifacts", pattern)
    for name, value in facts["limits"].items():
        yield limit_in_words(name, value)
    yield FactLine("demands", "demands", ", ".join(facts["demands"]))


def _elsewhere(spill: Mapping[str, Any]) -> str:
    """Where a call runs that nothing waits for on the first engine."""
    if spill["engine"] is None:
        return f"it stays: {spill['reason']}"
    return f"{spill['engine']} runs it at once, with the same image ({spill['image']}), unless engines.spill is false"
