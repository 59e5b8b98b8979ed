"""The images that a Dockerfile is made from, found and named by their digests."""

from __future__ import annotations

import pytest

from praxis_mcp.plans.bases import find_bases, pin_bases

WHOLE = """\
# FROM comment
ARG VERSION=3.13
ARG UNSAID
FROM --platform=$BUILDPLATFORM python:${VERSION}-slim AS Made
RUN select \\
  # FROM comment
  FROM users
RUN tar --from=archive
RUN <<EOF
FROM text
EOF
COPY --chown=1 --from=busybox:1.36 /bin/x /
FROM made
FROM alpine:$UNSAID
FROM node:${TAG:-22}
FROM scratch
RUN --mount=type=bind,from=golang:1,target=/x cat /x
COPY --from=0 --from=made /a /b
from python:3.13-slim
"""


def test_images_are_found_where_an_instruction_names_them_with_their_variables_replaced() -> None:
    assert find_bases(WHOLE) == ("python:3.13-slim", "busybox:1.36", "alpine:$UNSAID", "node:22", "golang:1")


def test_a_pinned_image_stands_wherever_it_was_named_and_nothing_else_changes() -> None:
    pins = {"python:3.13-slim": "python@sha256:1", "golang:1": "golang@sha256:2", "text": "wrong", "users": "wrong"}
    found = pin_bases(WHOLE, pins)
    expected = (
        WHOLE.replace("python:${VERSION}-slim AS", "python@sha256:1 AS")
        .replace("from python:3.13-slim", "from python@sha256:1")
        .replace("golang:1,", "golang@sha256:2,")
    )
    assert found == expected
    assert pin_bases(WHOLE, {}) == WHOLE


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing", "RUN x \\", "FROM", "FROM a\\", "RUN <<EOF\nnever ended", "FROM a\r\n"]
)
def test_odd_text_is_read_to_its_end_and_kept(text: str) -> None:
    assert pin_bases(text, {}) == text
    assert find_bases(text) in ((), ("a",), ("a\\",))


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffFROM {}\n",
        "FROM a\nRUN echo $((1 << n)) $((1<<n))\nFROM {}\n",
        "FROM a\nRUN read x <<<word\nFROM {}\n",
        "FROM a\nRUN echo '<<word' \"<<word\"\nFROM {}\n",
        "FROM a\nRUN cat <<'END-OF'\nFROM text\nEND-OF\nFROM {}\n",
        "FROM a\nRUN echo it's <<EOF\nFROM {}\n",
        "FROM a\nRUN echo \\\\\nFROM {}\n",
        "# syntax=x\n# escape=`\nFROM a\nRUN dir c:\\\nFROM {}\n",
        "FROM a\nRUN x \\\r\n  y\r\nFROM\x0c{}\r\n",
        "FROM a\nRUN echo \u2028FROM text\nFROM {}\n",
        "FROM a\nCOPY \\\n  --from={} \\\n  /x /y\n",
        "FROM a\nCOPY --chown=1 \\\n  # said\n  --from={} /x /y\n",
        "FROM a\nONBUILD COPY --from={} /x /y\n",
        "FROM a\nRUN --mount=type=cache,target=/c \\\n --mount=type=bind,from={},target=/x true\n",
    ],
)
def test_no_image_hides_behind_what_only_looks_like_a_text_or_a_line_that_goes_on(text: str) -> None:
    assert [base for base in find_bases(text.format("hidden")) if base != "a"] == ["hidden"]
    assert pin_bases(text.format("hidden"), {"hidden": "b@sha256:1"}) == text.format("b@sha256:1")


def test_a_text_may_begin_where_a_line_goes_on() -> None:
    assert find_bases("FROM a\nRUN x \\\n<<EOF\nfrom text import x\nEOF\nFROM b\n") == ("a", "b")
