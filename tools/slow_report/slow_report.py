"""Takes its time, and says how far it is on standard error."""

import argparse
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--seconds", type=float, default=1)
options = parser.parse_args()

for step in range(1, options.steps + 1):
    time.sleep(options.seconds)
    # Flushed at once: a progress line that waits in a buffer is none.
    print(f"step {step}: measured", flush=True)
    print(f"progress: {step}/{options.steps} measuring", file=sys.stderr, flush=True)
print(f"{options.steps} of {options.steps} steps done")
