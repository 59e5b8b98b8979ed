"""What a cluster with agent-sandbox has, as small as the engine's tests need it: its definitions, and a controller that
makes pods, gives them to claims, and goes wrong as a test says. On a real cluster and on the double of the API."""

from tests.agent_sandbox.controller import SERVED, FakeController
from tests.agent_sandbox.definitions import install

__all__ = ["SERVED", "FakeController", "install"]
