"""Nothing outlives a server: ended at random moments under load, in every way there is, by processes that are real; nor
a sandbox whose own processes are killed under it.

`PRAXIS_CHAOS_ROUNDS=100` makes it a proof; `PRAXIS_CHAOS_SEED` makes other rounds; `PRAXIS_CHAOS_ENGINES=sandbox,local`
leaves Docker's daemon out, which on a busy machine takes most of a round.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from praxis_mcp.support.scratch import is_held
from tests.chaos.ground import ENGINES, Ground, Remains, Sandbox, marked_processes
from tests.chaos.peers import WAYS, StdioPeer, Way, ended, http_load, http_server, load, stdio_peer, until_torn
from tests.engines.docker.case import containers
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.sandbox]

ROUNDS = int(os.environ.get("PRAXIS_CHAOS_ROUNDS", "8"))
SEED = os.environ.get("PRAXIS_CHAOS_SEED", "1")
GONE_WITHIN = 60.0
"""Seconds until nothing is left: from the first answer of the next server, or from the end of one that had the time to
clean up. One, on an idle machine; Docker takes half of that to remove a container on one with twenty times its load."""
LIMIT = 120.0
"""Seconds for any step of a round; reached only when something hangs."""


class Chaos:
    """Rounds on one ground, each with a server of its own; those that were killed are cleared away in the next."""

    def __init__(self, ground: Ground, logs: Path) -> None:
        self.ground = ground
        self.dice = random.Random(SEED)
        self.answers = 0
        self.worst = dict.fromkeys(WAYS, 0.0)
        self.struck = {"praxis-init outside": 0, "praxis-init inside": 0}
        self.ahead = 0
        self._logs = logs
        self._number = 0
        self._gone: list[tuple[Way, Remains]] = []

    async def round(self, way: Way, *, http: bool) -> None:
        """Start a server, put load on it, see what earlier ones left go, and end it so."""
        self._number += 1
        # Some are ended while they are starting, whatever is still there of others.
        strikes = not http and self._number % 2 == 1
        early = not strikes and self.dice.random() < 0.25
        moment = self.dice.uniform(0, 1.0) if early else self.dice.uniform(0.3, 3.0)
        surroundings: dict[str, Any] = {"local_sandbox": self.dice.random() < 0.7}
        if self.dice.random() < 0.2:
            surroundings["store"] = self.ground.root / f"store-{self._number}"
        log = self._logs / f"server-{self._number:03}.log"
        with anyio.fail_after(LIMIT):
            if http:
                gone = await self._over_http(way, log, surroundings, moment, early)
            else:
                gone = await self._over_stdio(way, log, surroundings, moment, early, strikes)
        # What an earlier one left is not this one's, which had no time to clear it away.
        others = {path for _, earlier in self._gone for path in earlier.temporary}
        gone = replace(gone, temporary=tuple(path for path in gone.temporary if path not in others))
        if way == "SIGKILL" or (http and way == "disconnect"):
            self._gone.append((way, gone))
        else:
            await self._see_gone([(way, gone)])

    async def finish(self) -> None:
        """A last server, which nobody asks for anything, clears away what the others left."""
        log = self._logs / "last.log"
        async with stdio_peer(self.ground, log, local_sandbox=True) as peer, anyio.create_task_group() as tasks:
            tasks.start_soon(peer.read)
            await peer.greet()
            await self._see_earlier_gone()
            await end(peer, "closed stdin")
            tasks.cancel_scope.cancel()
        assert list(self.ground.temporary.iterdir()) == []

    async def _over_stdio(
        self, way: Way, log: Path, surroundings: dict[str, Any], moment: float, early: bool, strikes: bool
    ) -> Remains:
        refused: list[str] = []
        async with stdio_peer(self.ground, log, **surroundings) as peer, anyio.create_task_group() as tasks:
            tasks.start_soon(load, peer, self.ground, self.dice)
            if not early:
                await peer.answered.wait()
                await self._see_earlier_gone()
            if strikes:
                # Each engine has tried out by then what makes its sandboxes: that is not what is killed here.
                await peer.call("sandbox", "quick")
                await peer.call("local", "quick")
                for _ in range(self.dice.randint(4, 12)):
                    tasks.start_soon(until_torn, peer.call, "sandbox", "long")  # that there is one
                    await self._strike(peer)
            else:
                await anyio.sleep(moment)
            self.answers += peer.answers
            excused = ("local_", "sandbox_") if strikes else ("local_filed",)
            refused += [each for each in peer.refused if not each.startswith(excused)]
            self.ahead += sum(each.waits for each in Sandbox.all_of(peer.process.pid))
            await end(peer, way)
            tasks.cancel_scope.cancel()
        assert not refused, refused
        return self.ground.remains_of(peer.process.pid, peer.mark)

    async def _strike(self, peer: StdioPeer) -> None:
        """Kill praxis-init of a sandbox, and see that nothing of that is left: the server goes on."""
        found = await until(lambda: Sandbox.all_of(peer.process.pid), within=LIMIT)
        sandbox = self.dice.choice(found)
        await anyio.sleep(self.dice.choice([0, self.dice.uniform(0, 0.05)]))  # while it is made, or later
        target = self.dice.choice([sandbox.outer, sandbox.inner or sandbox.outer])
        with sandbox.watched() as left:
            if sandbox.kill(target):
                self.struck["praxis-init inside" if target == sandbox.inner else "praxis-init outside"] += 1
            what = f"round {self._number} (seed {SEED}), {target} of {sandbox} killed"
            await until_none(left, GONE_WITHIN, what)

    async def _over_http(
        self, way: Way, log: Path, surroundings: dict[str, Any], moment: float, early: bool
    ) -> Remains:
        mark = f"http-{self._number}-{os.getpid()}"
        async with http_server(self.ground, log, **surroundings) as (process, url):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(http_load, url, self.ground, self.dice, mark)
                if not early:
                    await self._see_earlier_gone()
                await anyio.sleep(moment)
                if way == "SIGTERM":
                    process.send_signal(signal.SIGTERM)
                    assert await ended(process) == 0
                tasks.cancel_scope.cancel()
            if way == "disconnect":
                await self._see_calls_gone(Remains(process.pid, mark, (), ()))
            if way != "SIGTERM":
                process.send_signal(signal.SIGKILL)
                await ended(process)
        return self.ground.remains_of(process.pid, mark)

    async def _see_calls_gone(self, server: Remains) -> None:
        """The server lives on with the sandboxes that wait for a call, and what stands by for the next one, and only
        what ran for the client that is gone must be: commands, which are seen by themselves, wherever they run."""

        def waits(process: str) -> bool:
            return " sandbox --standby " in process or (" sandbox --layout " in process and "--reply" not in process)

        def left() -> list[str]:
            return [each for each in marked_processes(server) if not waits(each)]

        await until_none(left, GONE_WITHIN, f"round {self._number}, client gone, server not")

    async def _see_earlier_gone(self) -> None:
        earlier, self._gone = self._gone, []
        await self._see_gone(earlier)

    async def _see_gone(self, servers: list[tuple[Way, Remains]]) -> None:
        since = anyio.current_time()
        for way, gone in servers:
            left = max(0.0, GONE_WITHIN - (anyio.current_time() - since))
            what = f"round {self._number} (seed {SEED}), after {way}"
            await until_none(lambda gone=gone: self.ground.leftovers(gone), left, what)
            spent = anyio.current_time() - since
            self.worst[way] = max(self.worst[way], spent)
            print(f"round {self._number}: all of the one that ended by {way} gone after {spent:.2f} s", flush=True)


async def end(peer: StdioPeer, way: Way) -> None:
    """End a server over stdio."""
    if way == "SIGKILL":
        peer.process.send_signal(signal.SIGKILL)
        await ended(peer.process)
        return
    if way == "SIGTERM":
        peer.process.send_signal(signal.SIGTERM)
    else:
        await peer.tear(output=way == "disconnect")
    code = await ended(peer.process)
    # While it is starting nobody listens to signals yet: it dies of one then.
    assert code == 0 or (way == "SIGTERM" and code == -signal.SIGTERM and not peer.answers), f"{way}: {code}"


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground.make(tmp_path)


@pytest.mark.timeout(4 * LIMIT * ROUNDS)
async def test_nothing_is_left_of_servers_that_ended_at_random_moments_under_load(
    ground: Ground, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    chaos = Chaos(ground, logs)
    for number in range(ROUNDS):
        http = number % 3 == 2
        ways: tuple[Way, ...] = tuple(way for way in WAYS if not http or way != "closed stdin")
        await chaos.round(ways[(number // 3 if http else number) % len(ways)], http=http)
    await chaos.finish()
    print(
        f"{ROUNDS} rounds, {chaos.answers} calls answered; killed under them: {chaos.struck}; sandboxes made ahead of "
        f"their calls that were there when servers were ended: {chaos.ahead}; "
        f"longest until nothing was left: {chaos.worst}"
    )
    assert chaos.answers, "no call was answered: the servers were under no load"
    assert chaos.ahead, "no sandbox waited for a call when its server was ended"
    assert sum(chaos.struck.values()), "each sandbox had ended before it could be killed"


async def test_two_servers_on_one_machine_never_remove_each_others(ground: Ground, tmp_path: Path) -> None:
    """A has calls under way and containers waiting while B starts, is killed, and C clears away what B left."""
    with anyio.fail_after(LIMIT):
        async with stdio_peer(ground, tmp_path / "a.log", local_sandbox=True) as a, anyio.create_task_group() as tasks:
            tasks.start_soon(a.read)
            await a.open()
            for engine in ENGINES:
                tasks.start_soon(a.call, engine, "long")
            await a.call("docker", "quick")
            await a.call("docker", "filed")
            mine = Remains(a.process.pid, a.mark, (), ())
            warm = await waiting(a)
            running = await settled(mine)
            held = set(ground.temporary.iterdir())

            async with (
                stdio_peer(ground, tmp_path / "b.log", local_sandbox=True) as b,
                anyio.create_task_group() as inner,
            ):
                inner.start_soon(load, b, ground, random.Random(SEED))
                await until(lambda: b.answers >= 20)
                b.process.send_signal(signal.SIGKILL)
                await ended(b.process)
                inner.cancel_scope.cancel()
            left = ground.remains_of(b.process.pid, b.mark)
            # A may have made a directory meanwhile: it holds what is its own.
            temporary = tuple(path for path in left.temporary if path not in held and not is_held(path))
            theirs = Remains(left.pid, left.mark, temporary, left.containers)
            assert ground.leftovers(theirs), "B was killed under load, and left nothing: the test proves nothing"
            async with (
                stdio_peer(ground, tmp_path / "c.log", local_sandbox=True) as c,
                anyio.create_task_group() as inner,
            ):
                inner.start_soon(c.read)
                await c.open()
                await until_none(lambda: ground.leftovers(theirs), GONE_WITHIN, "B is gone, and this is left of it")
                await end(c, "closed stdin")
                inner.cancel_scope.cancel()

            assert set(marked_processes(mine)) >= running
            assert set(await waiting(a)) >= set(warm)
            assert held <= set(ground.temporary.iterdir())
            assert not (await a.call("docker", "quick")).get("isError")
            await end(a, "SIGTERM")
            tasks.cancel_scope.cancel()


async def until_none(left: Callable[[], Collection[object]], within: float, what: str) -> None:
    """Wait until nothing is left; the failure names what is. `left` may take a while: it is asked in a thread."""
    found: Collection[object] = ()

    async def nothing() -> bool:
        nonlocal found
        found = await anyio.to_thread.run_sync(left)
        return not found

    try:
        await until(nothing, within=within, every=0.05)
    except AssertionError:
        raise AssertionError(f"{what}, after {within:.1f} s: {found}") from None


async def waiting(peer: StdioPeer) -> list[str]:
    """Ids of the containers that wait for a call of this server, once there are some."""
    labels = (f"praxis-mcp.pid={peer.process.pid}", "praxis-mcp.warm=1", "status=running")
    return [line.split()[0] for line in await until(lambda: containers(*labels))]


async def settled(server: Remains) -> set[str]:
    """The processes of the calls that do not end, once all are there: both sleeps of each."""

    def all_there() -> set[str]:
        found = set(marked_processes(server))
        sleeping = sum("sleep 1000" in each and "sh -c" not in each for each in found)
        return found if sleeping >= 2 * len(ENGINES) else set()

    return await until(all_there)
