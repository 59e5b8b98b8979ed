"""What a server's garbage collector goes through: while it looks, every call waits."""

import subprocess
import sys

_SERVER = """
import gc
from praxis_mcp.cli.common import FULL_COLLECTIONS, collect_garbage

class Node:
    living = 0
    def __init__(self):
        self.itself = self
        Node.living += 1
    def __del__(self):
        Node.living -= 1

gc.disable()
collect_garbage()
made = [[] for _ in range(50_000)]
gc.collect()
print(any(each is made for each in gc.get_objects()), end=" ")
for _ in range(FULL_COLLECTIONS):
    gc.collect()
made_later = [[]]
Node()
gc.collect()
print(any(each is made_later for each in gc.get_objects()), Node.living, gc.isenabled())
"""


def test_what_a_server_has_made_is_gone_through_once_and_what_its_calls_leave_is_always_collected() -> None:
    done = subprocess.run([sys.executable, "-c", _SERVER], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "False True 0 True\n"
