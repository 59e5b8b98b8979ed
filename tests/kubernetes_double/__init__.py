"""A double of the Kubernetes API for faults: a server on the loopback that the engine's client really talks to.

Objects are kept, versioned and watched as an API server does; a pod is a process of this machine, started by the
command of its specification, and its port is forwarded over a websocket. So whole calls go through it, with no cluster.
What goes wrong, a test says: with a request (`KubernetesDouble.on_request`), in a pod's life (`KubernetesDouble.life`),
or on the way to its port (`KubernetesDouble.on_forward`).

It has no scheduler, no volumes and no containers: a command sees this machine's files, as this process's user.
"""

from tests.kubernetes_double.double import KubernetesDouble, write_kubeconfig
from tests.kubernetes_double.forward import Cut, Traffic
from tests.kubernetes_double.http import Answer, Asked
from tests.kubernetes_double.pods import DoublePod

__all__ = ["Answer", "Asked", "Cut", "DoublePod", "KubernetesDouble", "Traffic", "write_kubeconfig"]
