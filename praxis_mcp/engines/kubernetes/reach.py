"""The way to the praxis-init of a pod that runs, until it has said hello."""

from __future__ import annotations

import anyio

from praxis_mcp.engines.init.waiter import Waiter, WaiterLost
from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal, may_pass
from praxis_mcp.engines.kubernetes.channel import ForwardedChannel
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.direct import DirectChannel, address_of
from praxis_mcp.engines.kubernetes.errors import out_of_reach
from praxis_mcp.engines.kubernetes.pods import OwnPod
from praxis_mcp.engines.kubernetes.spec import CHANNEL_PORT
from praxis_mcp.settings.kubernetes import KubernetesSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import BackgroundTasks

CONNECT_AGAIN = 0.05
"""Seconds until a port is tried again at which praxis-init does not listen yet."""
MOST_WAYS = 6
"""How often a pod is asked for in vain, because the API server is away or busy, before the call fails: for 3
seconds."""
DIRECT_REACH_TIMEOUT = 30.0
"""Seconds, once a pod runs, within which its address must have been connected to."""


class WayToPods:
    """How this server reaches its pods.

    Args:
        cluster: the cluster.
        options: the engine's settings, which choose the channel.
        background: keeps channels.
    """

    def __init__(self, cluster: Cluster, options: KubernetesSettings, background: BackgroundTasks) -> None:
        self._cluster = cluster
        self._is_direct = options.channel == "direct"
        self._background = background

    async def greet(self, pod: OwnPod, secret: bytes, tool: str) -> Waiter:
        """The waiter, once it has said hello; the caller bounds the time. A container that has been started need not
        listen yet, and a connection may be lost; one that praxis-init has taken ends it.

        Args:
            pod: a pod that runs.
            secret: what its praxis-init wants to see.
            tool: whose it is.

        Raises:
            PodFailed: it does not run any more.
            EngineUnavailable: this host does not reach its address.
            Refusal, ClusterLost: as the cluster's own.
        """
        begin = anyio.current_time()
        in_vain = 0
        while True:
            failure: Refusal | ClusterLost | None = None
            reason = ""
            try:
                return await self._greet_once(pod, secret)
            except WaiterLost as exc:
                logger.debug("praxis-init of {} does not answer yet: {}", pod.name, exc)
            except (Refusal, ClusterLost) as exc:
                logger.debug("the port of {} is not forwarded: {}", pod.name, exc)
                failure = exc
            except OSError as exc:
                reason = exc.strerror or str(exc)
                logger.debug("{} is not reached: {}", pod.name, reason)
            try:
                await pod.check()
            except (Refusal, ClusterLost) as exc:
                failure = exc
            if failure is not None:
                in_vain += 1
                if in_vain == MOST_WAYS or not may_pass(failure):
                    raise failure
            elif reason and anyio.current_time() - begin > DIRECT_REACH_TIMEOUT:
                raise out_of_reach(tool, address_of(pod.last), reason, DIRECT_REACH_TIMEOUT)
            await anyio.sleep(CONNECT_AGAIN * 2**in_vain)

    async def _greet_once(self, pod: OwnPod, secret: bytes) -> Waiter:
        address = address_of(pod.last)
        if self._is_direct:
            channel = await DirectChannel.to(address)
        else:
            channel = ForwardedChannel(lambda: self._cluster.forward(pod.path, CHANNEL_PORT))
            await channel.open(self._background)
        waiter = Waiter(channel, secret=secret)
        try:
            await waiter.greet()
            # Its name, or its address, may have become another pod's, which says hello to get the call.
            await pod.check()
            if self._is_direct and address_of(pod.last) != address:
                raise WaiterLost("its address has changed", may_have_run=False)
        except BaseException:
            await waiter.aclose()
            raise
        return waiter
