"""The unified diff of /work/before and /work/after."""

import argparse
import difflib
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--context", type=int, default=3)
parser.add_argument("--ignore-space", action="store_true")
options = parser.parse_args()

# Only \n separates lines here, as in diff(1): str.splitlines would also split at form feeds and the like.
before, after = ((Path("/work") / name).read_bytes().decode() for name in ("before", "after"))
old, new = ([line + "\n" for line in text.split("\n")] for text in (before, after))
for lines in (old, new):
    last = lines.pop()[:-1]
    if last:
        lines.append(last)
if options.ignore_space:
    # Lines that differ only in white space take the old text's form, so that the diff does not see them.
    known = {" ".join(line.split()): line for line in old}
    new = [known.get(" ".join(line.split()), line) for line in new]
diff = list(difflib.unified_diff(old, new, "before", "after", n=options.context))
for line in diff:
    print(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n", end="")
if not diff:
    print("no differences")
