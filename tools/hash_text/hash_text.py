"""The hash of standard input."""

import argparse
import hashlib
import json
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--algorithm", required=True)
options = parser.parse_args()

data = sys.stdin.buffer.read()
digest = hashlib.new(options.algorithm, data)
print(json.dumps({"algorithm": options.algorithm, "hex": digest.hexdigest(), "bytes": len(data)}))
