"""Counts what is in the text on standard input; TOP says how many frequent words to name."""

import json
import os
import re
import sys
from collections import Counter

WORD = re.compile(r"\w+(?:['’\-]\w+)*")  # noqa: RUF001 - the typographer's apostrophe
SENTENCE_END = re.compile(r"[.!?…。！？]+(?=\s|$)")  # noqa: RUF001 - CJK sentences end in these


def count(text: str, top: int) -> dict[str, object]:
    words = [word.casefold() for word in WORD.findall(text)]
    # Counter keeps the order of first appearance among equals, so the answer is the same in every run.
    frequent = Counter(words).most_common(top)
    unfinished = bool(WORD.search(SENTENCE_END.split(text)[-1]))
    return {
        "words": len(words),
        "unique_words": len(set(words)),
        "lines": len(text.splitlines()),
        "sentences": len(SENTENCE_END.findall(text)) + unfinished,
        "characters": len(text),
        "top": [{"word": word, "count": number} for word, number in frequent],
    }


text = sys.stdin.buffer.read().decode()
print(json.dumps(count(text, int(os.environ["TOP"])), ensure_ascii=False))
