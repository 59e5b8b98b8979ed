"""The console's first paint in Chromium (https://www.w3.org/TR/paint-timing/), with 1,000 tools and 100,000 runs."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from benchmarks.contracts import write_noops
from benchmarks.many_runs import BUSY, add_runs
from benchmarks.measure import Report, Work, in_turns
from benchmarks.startup import serving
from praxis_mcp.execution.records.store import open_database
from praxis_mcp.settings.sections import RecordSettings

TOOLS, RUNS = 1000, 100_000
PAGES = {
    "runs": "/console/runs",
    "runs of one tool": f"/console/runs?tool={BUSY}",
    "live": "/console/live",
    "tools": "/console/tools",
    "status": "/console/status",
}
_LINK = re.compile(rb"Console at (\S+)")
_PAINT = """() => new Promise(done => {
    const look = () => {
        const found = performance.getEntriesByName("first-paint")
        found.length ? done(found[0].startTime) : requestAnimationFrame(look)
    }
    look()
})"""


async def measure(rounds: int) -> list[Report]:
    """One report, from the start of the navigation to the first paint; none where there is no Chromium."""
    program = shutil.which("chromium")
    if program is None:
        return []
    from playwright.async_api import async_playwright

    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "records").mkdir()
        with closing(open_database(RecordSettings(directory=place / "records"))) as database:
            add_runs(database, RUNS)
        async with _console(write_noops(place / "tools", TOOLS), place / "records") as link, async_playwright() as play:
            browser = await play.chromium.launch(executable_path=program, args=["--no-sandbox"])
            page = await browser.new_page()
            await page.goto(link)
            base = link.partition("/console")[0]

            def painting(path: str) -> Work:
                async def work() -> float:
                    answer = await page.goto(base + path)
                    assert answer is not None
                    assert answer.ok, answer.status
                    return await page.evaluate(_PAINT) / 1000

                return work

            rows = await in_turns({name: painting(path) for name, path in PAGES.items()}, rounds, against={})
            await browser.close()
    return [Report("First paint of the console", rows, f"{TOOLS:,} tools, {RUNS:,} runs in SQLite, Chromium.")]


@asynccontextmanager
async def _console(tools: Path, records: Path) -> AsyncIterator[str]:
    """A server with a console; the link that opens it."""
    environment = {**os.environ, "PRAXIS_RECORDS__DIRECTORY": str(records)}
    command = [*serving(tools), "--http", "--console", "--port", "0"]
    async with await anyio.open_process(
        command, env=environment, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
    ) as process:
        assert process.stderr is not None
        lines = BufferedByteReceiveStream(process.stderr)
        try:
            with anyio.fail_after(60):
                while (found := _LINK.search(await lines.receive_until(b"\n", 65536))) is None:
                    pass
            yield found[1].decode()
        finally:
            process.kill()
