"""The relay's queue by itself: what a whole praxis-init shows only to a caller that takes no output for a minute."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.harness import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
COMPILE_SECONDS = 300  # the first one compiles musl as well

QUEUE = """
#include "events.h"
#include "relay.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct { struct relay relay; unsigned char behind[4096]; } held;
static const unsigned char text[1024];

/* Nobody reads the channel, and the command's first moments have passed since this was last looked at. */
static int wait_is_one(void)
{
    static struct relay relay;
    const int64_t pause = NANOSECONDS_PER_SECOND / 20;
    int in[2], out[2];
    if (pipe(in) != 0 || pipe(out) != 0 || relay_open(&relay, in[0], out[1]) != NULL)
        return 0;
    while (write(out[1], text, sizeof text) > 0)
        ;
    relay_queue(&relay, FRAME_STDIN_CLOSED, NULL, 0);
    int64_t begun = now();
    relay.quiet = begun - 1;
    relay_wait(&relay, begun + pause);
    return now() - begun >= pause;
}

int main(void)
{
    struct relay *relay = &held.relay;
    relay->out_end = FRAME_HEADER + OUTPUT_PAYLOAD; /* a whole piece of output that nobody takes */
    size_t before = relay->out_end;
    relay_queue(relay, FRAME_REFUSED, text, 64);
    printf("%zu\\n", relay->out_end - before);
    memset(held.behind, 'x', sizeof held.behind);
    for (int count = 0; count < 8; count++)
        relay_queue(relay, FRAME_REFUSED, text, sizeof text);
    size_t whole = 0;
    while (whole < sizeof held.behind && held.behind[whole] == 'x')
        whole++;
    printf("%d %d\\n", whole == sizeof held.behind, relay->out_end <= sizeof relay->out_held);
    printf("%d\\n", wait_is_one());
    return 0;
}
"""


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ziglang")
    place = tmp_path_factory.mktemp("relay")
    (place / "queue.c").write_text(QUEUE)
    sources = [path for path in sorted((ROOT / "native").glob("*.c")) if path.name != "praxis_init.c"]
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        f"{os.uname().machine}-linux-musl",
        "-std=c11",
        "-D_GNU_SOURCE",
        "-Os",
    ]
    command += ["-static", "-I", str(ROOT / "native"), "-o", str(place / "queue"), str(place / "queue.c")]
    subprocess.run([*command, *map(str, sources)], check=True, timeout=COMPILE_SECONDS)
    return place / "queue"


def test_last_words_fit_behind_output_that_nobody_takes_and_nothing_is_written_past_the_queue(queue: Path) -> None:
    done = subprocess.run([queue], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split()[:3] == ["72", "1", "1"]


def test_what_nobody_takes_is_waited_with_and_not_looked_at_again_and_again(queue: Path) -> None:
    """Right behind the first moments of a command, in which its output is left in its pipes."""
    done = subprocess.run([queue], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split()[3:] == ["1"]
