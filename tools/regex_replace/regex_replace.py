"""Search, or search and replace, in the text on standard input."""

import argparse
import re
import signal
import sys

SECONDS = 2


class TookTooLong(Exception):
    pass


def stop(signum: int, frame: object) -> None:
    raise TookTooLong


def place(text: str, at: int) -> str:
    return f"{text.count(chr(10), 0, at) + 1}:{at - text.rfind(chr(10), 0, at)}"


parser = argparse.ArgumentParser()
parser.add_argument("--pattern", required=True)
parser.add_argument("--replacement")
parser.add_argument("--limit", type=int, required=True)
options = parser.parse_args()
text = sys.stdin.buffer.read().decode()

# The matching engine looks for signals every few thousand steps, so the alarm ends even a pattern that backtracks.
signal.signal(signal.SIGALRM, stop)
signal.alarm(SECONDS)
try:
    pattern = re.compile(options.pattern)
    if options.replacement is not None:
        sys.stdout.write(pattern.sub(options.replacement, text, count=options.limit))
    else:
        found = 0
        for match in pattern.finditer(text):
            print(f"{place(text, match.start())}: {match[0]}")
            found += 1
            if found == options.limit:
                print(f"stopped after {found} matches", file=sys.stderr)
                break
        if not found:
            print("no matches")
except TookTooLong:
    sys.exit(f"The pattern took more than {SECONDS} s. Avoid nested repetition such as (a+)+, or give less text.")
except (re.error, IndexError) as exc:
    sys.exit(f"The pattern or the replacement is wrong: {exc}.")
