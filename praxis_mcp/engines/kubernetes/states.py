"""What a pod's status says (core/v1 PodStatus): whether it runs, why it never will, how it ended. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from praxis_mcp.engines.kubernetes.spec import TOOL_CONTAINER

OUT_OF_MEMORY = "OOMKilled"
_PUT_OUT = frozenset({"Evicted", "Preempting", "Terminated"})
"""A kubelet's words for a pod that it has ended for others, or because its node is shut down."""
_NO_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError",
                       "RegistryUnavailable"})  # fmt: skip
_NO_CONTAINER = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError",
                           "CrashLoopBackOff"})  # fmt: skip


class Trouble(StrEnum):
    """Why a pod does not run."""

    IMAGE = "image"
    CONTAINER = "container"
    """It cannot be made, or not be started."""
    UNSCHEDULABLE = "unschedulable"
    """No node takes it; one may come."""
    EVICTED = "evicted"
    """Its node is short of something or drained, or others come first."""
    DEADLINE = "deadline"
    ENDED = "ended"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class PodTrouble:
    """Why a pod does not run.

    Attributes:
        kind: see `Trouble`.
        reason: the cluster's word for it.
        message: the cluster's sentence.
        is_final: whether it never will; else the cluster goes on trying.
    """

    kind: Trouble
    reason: str
    message: str
    is_final: bool = True

    @property
    def is_from_outside(self) -> bool:
        """Whether something else has ended it: its end says nothing of what ran in it."""
        return self.kind in (Trouble.EVICTED, Trouble.REMOVED)

    @property
    def is_of_this_pod(self) -> bool:
        """Whether another pod may run all the same: this one was put out, removed, or has ended with its connection,
        which praxis-init does without an error."""
        if self.is_from_outside:
            return True
        return self.kind is Trouble.ENDED and self.reason in ("Completed", "Succeeded")


def tool_status(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of the tool's container; empty before there is one."""
    for each in (pod.get("status") or {}).get("containerStatuses") or []:
        if each.get("name") == TOOL_CONTAINER:
            return each
    return {}


def is_running(pod: Mapping[str, Any]) -> bool:
    """Whether the tool's container has been started, and has not ended."""
    return "running" in (tool_status(pod).get("state") or {})


def is_over(pod: Mapping[str, Any]) -> bool:
    """Whether nothing of it runs any more."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def image_of(pod: Mapping[str, Any]) -> str | None:
    """The image with its digest, as the node knows it."""
    return str(tool_status(pod).get("imageID") or "") or None


def ran_out_of_memory(pod: Mapping[str, Any]) -> bool:
    """Whether the kernel killed a process of it for its memory limit. The exit code says nothing of it: praxis-init,
    whose container it is, ends with 0 when it has reported the end."""
    return (_terminated(pod).get("reason") or "") == OUT_OF_MEMORY


def trouble_of(pod: Mapping[str, Any]) -> PodTrouble | None:
    """Why a pod does not run; None where it runs, or is on its way."""
    status = pod.get("status") or {}
    reason = str(status.get("reason") or "")
    if reason in _PUT_OUT:
        return PodTrouble(Trouble.EVICTED, reason, _sentence(status))
    is_removed = bool((pod.get("metadata") or {}).get("deletionTimestamp"))
    for condition in status.get("conditions") or []:
        is_disrupted = condition.get("type") == "DisruptionTarget" and condition.get("status") == "True"
        if is_disrupted and (is_removed or is_over(pod)):  # else it may have been spared after all
            return PodTrouble(Trouble.EVICTED, str(condition.get("reason") or "Evicted"), _sentence(condition))
    if is_removed and not ran_out_of_memory(pod):
        return PodTrouble(Trouble.REMOVED, "Removed", "something else removes it")
    if reason == "DeadlineExceeded":
        return PodTrouble(Trouble.DEADLINE, "DeadlineExceeded", _sentence(status))
    if is_over(pod):
        ended = _terminated(pod)
        reason = str(ended.get("reason") or status.get("reason") or status.get("phase"))
        return PodTrouble(Trouble.ENDED, reason, _sentence(ended) or _sentence(status) or _code(ended))
    waiting = (tool_status(pod).get("state") or {}).get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    if reason in _NO_IMAGE:
        return PodTrouble(Trouble.IMAGE, reason, _sentence(waiting))
    if reason in _NO_CONTAINER:
        return PodTrouble(Trouble.CONTAINER, reason, _sentence(waiting))
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            word = str(condition.get("reason") or "")
            return PodTrouble(Trouble.UNSCHEDULABLE, word, _sentence(condition), is_final=False)
    return None


def _terminated(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    return (tool_status(pod).get("state") or {}).get("terminated") or {}


def _sentence(found: Mapping[str, Any]) -> str:
    return str(found.get("message") or "").strip().rstrip(".")


def _code(ended: Mapping[str, Any]) -> str:
    code = ended.get("exitCode")
    return f"exit code {code}" if code is not None else ""
