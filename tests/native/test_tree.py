"""Nothing that a command starts outlives it, or its deadline, however it hides."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.testing.bench import DEADLINES
from tests.native.harness import IS_ROOT, NOBODY, PATIENCE, Outcome, PraxisInit, past_its_deadline, python_for


def late(init: PraxisInit, *command: str, kill_after: float = 0.3, **more: Any) -> Outcome:
    """A command that says something, and then reaches its deadline."""
    return past_its_deadline(
        lambda seconds: init.run(
            *command, options=["--timeout", str(seconds), "--kill-after", str(kill_after)], **more
        ),
        lambda done: done.stdout,
    )


# Each prints a line once it hides, so that a test knows that there was something to find.
SETSID = "setsid sh -c 'echo hidden; exec sleep 1000' &"
DOUBLE_FORK = "(setsid sh -c '(echo hidden; exec sleep 1000) & exit 0' & exit 0) &"
IGNORING = "setsid sh -c 'trap \"\" TERM INT HUP QUIT; echo hidden; while :; do sleep 1000; done' &"
STOPPED = "setsid sh -c 'echo hidden; kill -STOP $$; sleep 1000' &"
HIDING = pytest.mark.parametrize("hiding", [SETSID, DOUBLE_FORK, IGNORING, STOPPED])


@HIDING
def test_the_deadline_ends_the_whole_tree(placed: PraxisInit, hiding: str) -> None:
    done = late(placed, "sh", "-c", f"{hiding} exec sleep 1000")
    assert (done.code, done.stdout, done.survivors) == (124, b"hidden\n", [])


@HIDING
def test_what_a_command_leaves_behind_ends_with_it(placed: PraxisInit, tmp_path: Path, hiding: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The command ends only after the hidden process has opened the fifo: no race, and no sleep.
    hiding = hiding.replace("echo hidden", f"echo hidden > {fifo}")
    done = placed.run("sh", "-c", f"{hiding} read line < {fifo}; echo $line; exit 5")
    assert (done.code, done.stdout, done.survivors) == (5, b"hidden\n", [])


def test_a_command_that_ignores_the_polite_signal_is_killed(placed: PraxisInit) -> None:
    done = late(placed, "sh", "-c", "trap '' TERM; echo ignores; while :; do sleep 1000; done", kill_after=0.3)
    assert (done.code, done.survivors) == (124, [])
    assert done.seconds >= DEADLINES[0] + 0.3


def test_a_command_may_clean_up_at_its_deadline(placed: PraxisInit) -> None:
    script = "trap 'echo cleaned; exit 0' TERM; sleep 1000 & wait"
    done = late(placed, "sh", "-c", script, kill_after=1000)
    assert (done.code, done.stdout, done.survivors) == (124, b"cleaned\n", [])


def test_a_stopped_command_is_woken_to_clean_up(placed: PraxisInit) -> None:
    script = "trap 'echo cleaned; exit 0' TERM; kill -STOP $$; echo not reached"
    done = late(placed, "sh", "-c", script, kill_after=1000)
    assert (done.code, done.stdout) == (124, b"cleaned\n")


def test_without_a_grace_period_the_deadline_kills_at_once(placed: PraxisInit) -> None:
    script = "trap 'echo cleaned' TERM; echo ready; while :; do sleep 1000; done"
    done = late(placed, "sh", "-c", script, kill_after=0)
    assert (done.code, done.stdout, done.survivors) == (124, b"ready\n", [])


def test_a_command_that_ends_in_time_is_not_held_until_the_deadline(placed: PraxisInit) -> None:
    done = placed.run("sh", "-c", "exit 4", options=["--timeout", "1000"])
    assert done.code == 4


# Not by a handler and pause(): a signal that came between "ready" and pause() would be heard by the next one only.
LISTENER = textwrap.dedent("""
    import os, signal
    numbers = {1, 2, 3, 15}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    os.write(1, b"ready\\n")
    os.write(1, f"heard {int(signal.sigwait(numbers))}\\n".encode())
""")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_request_to_end_reaches_every_process(placed: PraxisInit, number: signal.Signals) -> None:
    start = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], start_new_session=True); "
    # The command itself has no handler: it dies of the signal, the hidden one says that it heard.
    stay = "import signal; [signal.signal(n, 0) for n in (1, 2, 3, 15)]; signal.pause()"
    with placed.start(sys.executable, "-c", start + stay, sys.executable, "-c", LISTENER) as running:
        assert running.read_line() == "ready"
        running.send(number)
        assert running.read_to_end() == f"heard {number}\n".encode()
        assert running.wait() == 128 + number


def test_a_request_to_end_that_is_ignored_is_enforced(placed: PraxisInit) -> None:
    script = f"trap '' TERM; {IGNORING} while :; do sleep 1000; done"
    with placed.start("sh", "-c", script, options=["--kill-after", "0.2"]) as running:
        assert running.read_line() == "hidden"
        running.send(signal.SIGTERM)
        assert running.wait() == 128 + signal.SIGKILL
        assert running.read_to_end() == b""


def test_other_signals_are_for_the_command_alone(placed: PraxisInit) -> None:
    # SIGUSR1 would kill the sleep, which has no handler for it.
    script = "sleep 1000 & trap 'kill -0 $! && echo alive; exit 6' USR1; echo ready; while :; do wait; done"
    with placed.start("sh", "-c", script) as running:
        assert running.read_line() == "ready"
        running.send(signal.SIGUSR1)
        assert running.read_line() == "alive"
        assert running.wait() == 6


def test_killing_its_own_process_group_harms_only_the_command(init: PraxisInit) -> None:
    # In one group with praxis-init, this would reach the server that started it.
    done = init.run("sh", "-c", "kill -KILL 0", start_new_session=True)
    assert done.code == 128 + signal.SIGKILL


def test_orphans_are_reaped_while_the_command_runs(placed: PraxisInit) -> None:
    script = textwrap.dedent(f"""
        import os, time
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            if os.fork() == 0:
                os.write(writer, str(os.getpid()).encode())
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
        orphan = int(os.read(reader, 20))
        limit = time.monotonic() + {PATIENCE / 2}
        while os.path.exists(f"/proc/{{orphan}}"):
            assert time.monotonic() < limit, "still a zombie"
            os.sched_yield()
    """)
    assert placed.run(sys.executable, "-c", script).code == 0


def test_a_wide_tree_is_ended(placed: PraxisInit) -> None:
    grow = "grow() { if [ $1 -gt 0 ]; then grow $(($1 - 1)) & grow $(($1 - 1)) & fi; sleep 1000; }; grow 6"
    done = placed.run("sh", "-c", grow, options=["--timeout", "1.5", "--kill-after", "0.3"])
    assert (done.code, done.survivors) == (124, [])


@pytest.mark.skipif(not IS_ROOT, reason="needs a user of its own, whose processes can be counted")
def test_a_fork_bomb_that_refills_every_free_place_is_ended(init: PraxisInit) -> None:
    python = python_for(NOBODY)
    if python is None:
        pytest.skip("no Python that nobody can execute")
    bomb = textwrap.dedent("""
        import os, resource, signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_NPROC, (60, 60))
        os.write(1, b"lit\\n")
        while True:
            try:
                if os.fork() == 0:
                    os.setsid()
            except OSError:
                pass
    """)
    done = late(init, python, "-c", bomb, user=NOBODY, cwd="/")
    assert (done.code, done.stdout, done.survivors) == (124, b"lit\n", [])


def test_a_chain_of_short_lived_processes_is_ended(placed: PraxisInit) -> None:
    chain = "import os\nos.write(1, b'lit')\nwhile True:\n    if os.fork(): os._exit(0)\n    os.setsid()\n"
    # The command exits at once, by forking; what it leaves behind never stays the same process.
    done = placed.run(sys.executable, "-c", chain)
    assert (done.code, done.stdout, done.survivors) == (0, b"lit", [])


def test_the_command_dies_with_praxis_init(init: PraxisInit) -> None:
    with init.start("sh", "-c", "echo ready; exec sleep 1000") as running:
        assert running.read_line() == "ready"
        running.send(signal.SIGKILL)
        assert running.read_to_end() == b""


def test_the_tree_ends_with_the_parent_if_asked(init: PraxisInit) -> None:
    words = init.words(["--kill-after", "0.2", "--parent", "PARENT"], ["sh", "-c", f"{IGNORING} exec sleep 1000"])
    parent = (
        "import os, signal, subprocess, sys\n"
        "words = [str(os.getpid()) if word == 'PARENT' else word for word in sys.argv[1:]]\n"
        "subprocess.Popen(words).wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, *words], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hidden\n"
        process.kill()
        # The end of the stream: nothing of the tree holds it any more.
        assert process.communicate(timeout=PATIENCE)[0] == b""


def test_a_parent_that_is_already_gone_stops_the_run_before_it_starts(init: PraxisInit) -> None:
    done = init.run("echo", "ran", options=["--parent", "1"])
    assert (done.code, done.stdout) == (125, b"")


@pytest.mark.skipif(not IS_ROOT, reason="needs root to hide /proc")
def test_without_proc_the_commands_session_is_still_ended(init: PraxisInit) -> None:
    hide = 'mount -t tmpfs none /proc && exec "$@"'

    def run(seconds: float) -> subprocess.CompletedProcess[bytes]:
        options = ["--timeout", str(seconds), "--kill-after", "0.3"]
        words = init.words(options, ["sh", "-c", "sleep 1000 & sh -c 'sleep 1000' & echo ready; wait"])
        front = ["unshare", "--mount", "sh", "-c", hide, "sh"]
        return subprocess.run([*front, *words], capture_output=True, timeout=PATIENCE, check=False)

    done = past_its_deadline(run, lambda done: done.stdout)
    assert (done.returncode, done.stdout) == (124, b"ready\n")
