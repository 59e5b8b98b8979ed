"""What a call would do, as plain values: what `praxis-mcp explain` and the console show."""

from __future__ import annotations

from typing import Any

from praxis_mcp.contracts.values import BindKind
from praxis_mcp.execution.relays import engine_name
from praxis_mcp.execution.runner import Explanation
from praxis_mcp.execution.spill import NO_OTHER
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.plans.model import Guard, ImageBuild
from praxis_mcp.plans.secrets import MASK, Masker
from praxis_mcp.settings.base import SecretRef


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
