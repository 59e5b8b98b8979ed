"""Contracts are found below directories, kept up to date while they change, and listed without being parsed anew."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import praxis_mcp
from praxis_mcp.contracts import discovery
from praxis_mcp.contracts.catalog.catalog import Catalog, CatalogChange
from praxis_mcp.contracts.reading import loading
from praxis_mcp.contracts.schemas.schema import input_schema
from praxis_mcp.errors import ContractError, UnknownToolError
from praxis_mcp.support.logs import logger
from tests.kit.until import until

pytestmark = pytest.mark.anyio

WITHIN = 20
"""Seconds for whatever a test waits for; far more than it takes."""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    directory.mkdir()
    return directory


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def contract(name: str, more: str = "") -> str:
    return f"name: {name}\ndescription: Does {name}.\nengine: local\ncommand: ['true']\n{more}"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def names(catalog: Catalog) -> list[str]:
    return [entry.name for entry in catalog.entries()]


def errors(catalog: Catalog) -> list[str]:
    return [diagnostic.message for diagnostic in catalog.diagnostics if diagnostic.is_error]


class TestDiscovery:
    async def test_every_spelling_of_the_file_name_is_found_and_nothing_else(self, tools: Path, cache: Path) -> None:
        for index, name in enumerate(["contract.yaml", "contract.yml", "x.contract.yaml", "y.contract.yml"]):
            write(tools / f"d{index}" / name, contract(f"t{index}"))
        write(
            tools / "deep" / "er" / "contract.json", json.dumps({"name": "j", "engine": "local", "command": ["true"]})
        )
        for ignored in ["contract.yaml.bak", "mycontract.yaml", "docker-compose.yaml", ".#contract.yaml"]:
            write(tools / ignored, "{")
        for ignored in [".git", "node_modules", "__pycache__", ".venv"]:
            write(tools / ignored / "contract.yaml", contract("hidden"))
        catalog = Catalog([tools], cache_dir=cache)
        change = await catalog.load()
        assert names(catalog) == ["j", "t0", "t1", "t2", "t3"]
        assert change == CatalogChange(added=("j", "t0", "t1", "t2", "t3"))
        assert not errors(catalog)

    async def test_loops_of_links_end_and_two_ways_to_a_file_give_one_tool(self, tools: Path, cache: Path) -> None:
        file = write(tools / "a" / "contract.yaml", contract("a"))
        (tools / "a" / "loop").symlink_to(tools)
        (tools / "b").mkdir()
        (tools / "b" / "contract.yaml").symlink_to(file)
        catalog = Catalog([tools, tools / "a"], cache_dir=cache)
        await catalog.load()
        assert names(catalog) == ["a"]
        assert catalog.get("a").source == file
        assert catalog.diagnostics == ()

    async def test_a_link_that_leads_out_of_the_tools_directories_is_reported_and_not_followed(
        self, tools: Path, cache: Path, tmp_path: Path
    ) -> None:
        foreign = write(tmp_path / "elsewhere" / "contract.yaml", contract("foreign"))
        (tools / "to_directory").symlink_to(foreign.parent)
        (tools / "contract.yaml").symlink_to(foreign)
        write(tools / "..2026" / "contract.yaml", contract("inside"))  # as Kubernetes lays a ConfigMap
        (tools / "..data").symlink_to("..2026")
        (tools / "inside.contract.yaml").symlink_to("..data/contract.yaml")
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        assert names(catalog) == ["inside"]
        told = [item.message for item in catalog.diagnostics if "leads out of the tools directory" in item.message]
        assert [text.partition(" is a link")[0] for text in told] == [
            str(tools / "contract.yaml"),
            str(tools / "to_directory"),
        ]
        both = Catalog([tools, foreign.parent], cache_dir=cache)
        await both.load()
        assert names(both) == ["foreign", "inside"]

    async def test_a_missing_directory_is_reported_and_hides_no_other(self, tools: Path, cache: Path) -> None:
        write(tools / "contract.yaml", contract("a"))
        catalog = Catalog([tools / "nowhere", tools], cache_dir=cache)
        await catalog.load()
        assert names(catalog) == ["a"]
        assert errors(catalog) == [f"The tools directory {tools / 'nowhere'} does not exist."]

    async def test_a_file_may_be_named_instead_of_a_directory(self, tools: Path, cache: Path) -> None:
        catalog = Catalog([write(tools / "any.yaml", contract("a"))], cache_dir=cache)
        await catalog.load()
        assert names(catalog) == ["a"]

    async def test_a_contract_under_a_name_that_none_has_is_a_warning_with_the_name_to_give_it(
        self, tools: Path, cache: Path
    ) -> None:
        write(tools / "shout.yaml", contract("shout"))
        write(tools / "named.yml", contract("named"))
        write(tools / "compose.yaml", "name: web\nservices: {}\n")
        os.mkfifo(tools / "pipe.yaml")
        catalog = Catalog([tools, tools / "named.yml"], cache_dir=cache)
        await catalog.load()
        assert names(catalog) == ["named"]
        (warning,) = catalog.diagnostics
        assert not warning.is_error
        assert warning.path == tools / "shout.yaml"
        assert warning.message.startswith("shout.yaml looks like a contract")
        assert warning.remedy.startswith("Name it shout.contract.yaml, ")

    async def test_a_dangling_link_and_a_pipe_are_reported_and_hold_nobody_up(self, tools: Path, cache: Path) -> None:
        import os

        os.mkfifo(tools / "contract.yaml")
        (tools / "x.contract.yaml").symlink_to(tools / "nowhere")
        catalog = Catalog([tools], cache_dir=cache)
        with anyio.fail_after(WITHIN):
            await catalog.load()
        assert errors(catalog) == ["The file cannot be read: it is not a regular file."]


class TestContents:
    async def test_an_entry_shows_the_tool_without_building_its_contract(self, tools: Path, cache: Path) -> None:
        file = write(
            tools / "contract.yaml",
            "name: a\ntitle: A\ndescription: Does a.\nimage: busybox\ncommand: [x]\ncache: pure\n"
            "mounts: {./out: '/out:rw'}\noutput: json\noutput_schema: {type: object}\nparameters: {n: int}\n",
        )
        for start in ("cold", "warm"):
            catalog = Catalog([tools], cache_dir=cache)
            await catalog.load()
            entry = catalog.get("a")
            assert (entry.title, entry.description, entry.source) == ("A", "Does a.", file), start
            assert entry.output_schema == {"type": "object"}
            assert (entry.traits.engine, entry.traits.image, entry.traits.network) == ("dagger", "busybox", "none")
            assert entry.traits.writable_mounts
            assert entry.traits.pure
            assert not entry.traits.privileged
            assert entry.contract is entry.contract
            assert entry.contract.source == file
            assert entry.input_schema == input_schema(entry.contract)

    async def test_a_broken_contract_hides_no_other(self, tools: Path, cache: Path) -> None:
        write(tools / "good" / "contract.yaml", contract("good"))
        broken = write(tools / "bad" / "contract.yaml", contract("bad", "comand: x\n"))
        binary = write(tools / "binary" / "contract.yaml", "")
        binary.write_bytes(b"name: \xff\n")
        for _ in range(2):
            catalog = Catalog([tools], cache_dir=cache)
            await catalog.load()
            assert names(catalog) == ["good"]
            assert [(found.path, found.line) for found in catalog.diagnostics] == [(broken, 5), (binary, 1)]

    async def test_two_contracts_of_one_name_are_both_refused_naming_both(self, tools: Path, cache: Path) -> None:
        one = write(tools / "one" / "contract.yaml", contract("same"))
        two = write(tools / "two" / "contract.yaml", contract("same"))
        write(tools / "x.contract.yaml", contract("other"))
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        assert names(catalog) == ["other"]
        assert [found.path for found in catalog.diagnostics] == [one, two]
        assert str(two) in catalog.diagnostics[0].message
        assert str(one) in catalog.diagnostics[1].message

    async def test_an_unknown_tool_is_named_with_the_closest_one(self, tools: Path, cache: Path) -> None:
        write(tools / "contract.yaml", contract("word_counter"))
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        with pytest.raises(UnknownToolError, match="word_counter"):
            catalog.get("wordcounter")


class TestMishaps:
    async def test_a_defect_that_one_file_brings_to_light_is_a_finding_and_hides_no_other_tool(
        self, tools: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tools / "good/contract.yaml", contract("good"))
        write(tools / "odd/contract.yaml", contract("odd"))
        load = loading.load_bytes

        def load_all_but_one(data: bytes, path: Path, **more: Any) -> loading.LoadedContract:
            if path.parent.name == "odd":
                raise OverflowError("hunter2")
            return load(data, path, **more)

        monkeypatch.setattr(loading, "load_bytes", load_all_but_one)
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        assert names(catalog) == ["good"]
        (finding,) = catalog.diagnostics
        assert "unexpected OverflowError" in finding.message
        assert "hunter2" not in str(finding)

    async def test_a_user_without_a_home_has_a_catalog_without_a_cache(
        self, tools: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tools / "good/contract.yaml", contract("good"))
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv("HOME", "")
        catalog = Catalog([tools])
        await catalog.load()
        await catalog.load()
        assert names(catalog) == ["good"]
        assert not Path("praxis-mcp").exists()


class TestReload:
    async def test_looking_again_tells_what_was_added_changed_and_removed(self, tools: Path, cache: Path) -> None:
        for name in "abc":
            write(tools / name / "contract.yaml", contract(name))
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        entries = catalog.entries()
        assert not await catalog.load()
        assert catalog.entries() is entries
        write(tools / "b" / "contract.yaml", contract("b", "timeout: 5\n"))
        shutil.rmtree(tools / "c")
        write(tools / "d" / "contract.yaml", contract("d"))
        assert await catalog.load() == CatalogChange(added=("d",), changed=("b",), removed=("c",))
        assert catalog.get("b").contract.engine_spec.timeout == 5
        assert catalog.get("a") is entries[0]

    @pytest.mark.parametrize("broken", ["", "name: [", "name: a\nimage: x\n"])
    async def test_a_tool_keeps_its_last_good_version_while_its_file_is_broken(
        self, tools: Path, cache: Path, broken: str
    ) -> None:
        file = write(tools / "contract.yaml", contract("a", "timeout: 7\n"))
        Path(cache).mkdir(mode=0o700)
        await Catalog([tools], cache_dir=cache).load()
        catalog = Catalog([tools], cache_dir=cache)  # from the cache, its contract never built
        await catalog.load()
        write(file, broken)
        for _ in range(2):
            assert not await catalog.load()
            assert catalog.get("a").contract.engine_spec.timeout == 7
            assert errors(catalog)
            assert any("stays as it was" in found.message for found in catalog.diagnostics)
        write(file, contract("a", "timeout: 8\n"))
        assert await catalog.load() == CatalogChange(changed=("a",))
        assert catalog.diagnostics == ()

    async def test_a_second_file_of_a_served_name_does_not_take_the_tool_away(self, tools: Path, cache: Path) -> None:
        first = write(tools / "z" / "contract.yaml", contract("a", "timeout: 1\n"))
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        second = write(tools / "copy" / "contract.yaml", contract("a", "timeout: 2\n"))
        for _ in range(2):
            assert not await catalog.load()
            assert [found.path for found in catalog.diagnostics] == [second]
        write(first, contract("a", "timeout: 3\n"))
        assert await catalog.load() == CatalogChange(changed=("a",))
        assert catalog.get("a").source == first
        first.unlink()
        assert await catalog.load() == CatalogChange(changed=("a",))
        assert catalog.get("a").source == second

    async def test_a_renamed_tool_is_one_removed_and_one_added(self, tools: Path, cache: Path) -> None:
        file = write(tools / "contract.yaml", contract("a"))
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        write(file, contract("b"))
        assert await catalog.load() == CatalogChange(added=("b",), removed=("a",))


class TestCache:
    async def test_a_warm_start_parses_nothing(self, tools: Path, cache: Path) -> None:
        write(tools / "contract.yaml", contract("a"))
        await Catalog([tools], cache_dir=cache).load()
        code = (
            "import sys, anyio\nfrom pathlib import Path\nfrom praxis_mcp.contracts.catalog.catalog import Catalog\n"
            "catalog = Catalog([Path(sys.argv[1])], cache_dir=Path(sys.argv[2]))\nanyio.run(catalog.load)\n"
            "print([entry.name for entry in catalog.entries()],"
            " [name for name in ('yaml', 'jsonschema', 'watchfiles', 'rich', 'mcp') if name in sys.modules])"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, str(tools), str(cache)], capture_output=True, text=True, check=True, timeout=60
        )
        assert run.stdout.strip() == "['a'] []"

    @pytest.mark.parametrize("file", ["reading/checks.py", "schemas/schema.py", "model.py", "reserved_variables.txt"])
    async def test_a_change_of_what_reads_contracts_makes_faces_again(
        self, tools: Path, cache: Path, tmp_path: Path, file: str
    ) -> None:
        write(tools / "contract.yaml", contract("a"))
        package = Path(praxis_mcp.__file__).parent
        shutil.copytree(package, tmp_path / "copy" / "praxis_mcp", ignore=shutil.ignore_patterns("_native"))
        code = (
            "import sys, anyio\nfrom pathlib import Path\nfrom praxis_mcp.contracts.catalog.catalog import Catalog\n"
            "catalog = Catalog([Path(sys.argv[1])], cache_dir=Path(sys.argv[2]))\nanyio.run(catalog.load)\n"
            "print(catalog.get('a').name, 'yaml' in sys.modules)"
        )

        def load() -> str:
            run = subprocess.run(
                [sys.executable, "-c", code, str(tools), str(cache)],
                cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "copy"), "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
            return run.stdout.strip()

        assert [load(), load()] == ["a True", "a False"]
        with (tmp_path / "copy" / "praxis_mcp" / "contracts" / file).open("a") as changed:
            changed.write("\n")
        assert load() == "a True"

    async def test_the_toolbox_is_imported_without_what_reads_contracts(self) -> None:
        code = (
            "import sys, praxis_mcp.execution.toolbox\n"
            "print([name for name in ('yaml', 'jsonschema', 'praxis_mcp.contracts.reading.loading')"
            " if name in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "[]"

    async def test_the_cache_is_closed_to_others_and_holds_no_environment(self, tools: Path, cache: Path) -> None:
        write(tools / "contract.yaml", contract("a", "env: {TOKEN: hunter2}\n"))
        await Catalog([tools], cache_dir=cache).load()
        (file,) = cache.iterdir()
        assert cache.stat().st_mode & 0o077 == 0
        assert file.stat().st_mode & 0o077 == 0
        assert "hunter2" not in file.read_text()

    @pytest.mark.parametrize("damage", ["{", "[]", '{"version": "x", "items": {}}', "", "[" * 100_000])
    async def test_a_damaged_cache_is_as_good_as_none(self, tools: Path, cache: Path, damage: str) -> None:
        write(tools / "contract.yaml", contract("a"))
        await Catalog([tools], cache_dir=cache).load()
        (file,) = cache.iterdir()
        file.write_text(damage)
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        assert names(catalog) == ["a"]

    async def test_a_face_that_is_not_valid_is_read_from_the_contract(self, tools: Path, cache: Path) -> None:
        write(tools / "contract.yaml", contract("a"))
        await Catalog([tools], cache_dir=cache).load()
        (file,) = cache.iterdir()
        whole = json.loads(file.read_text())
        (item,) = whole["items"].values()
        for damage in [{"name": 3}, {"input_schema": {"type": "array"}}, {"traits": {"wings": 2}}, {"annotations": 1}]:
            face = {**item["face"], **damage}
            items = {key: {**item, "face": face} for key in whole["items"]}
            file.write_text(json.dumps({**whole, "items": items}))
            catalog = Catalog([tools], cache_dir=cache)
            await catalog.load()
            assert catalog.get("a").input_schema["type"] == "object"

    async def test_a_face_that_does_not_match_its_contract_is_found_out_before_a_call(
        self, tools: Path, cache: Path
    ) -> None:
        write(tools / "contract.yaml", contract("a"))
        await Catalog([tools], cache_dir=cache).load()
        (file,) = cache.iterdir()
        file.write_text(file.read_text().replace('"name":"a"', '"name":"b"'))
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        with pytest.raises(ContractError, match="is not what was listed"):
            _ = catalog.get("b").contract

    async def test_a_cache_that_others_can_write_is_neither_read_nor_written(self, tools: Path, cache: Path) -> None:
        write(tools / "contract.yaml", contract("a"))
        await Catalog([tools], cache_dir=cache).load()
        (file,) = cache.iterdir()
        file.write_text(file.read_text().replace("Does a.", "Poison."))
        cache.chmod(0o777)
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        assert catalog.get("a").description == "Does a."
        assert "Poison" in file.read_text()

    async def test_a_cache_that_cannot_be_written_is_done_without(self, tools: Path, tmp_path: Path) -> None:
        write(tools / "contract.yaml", contract("a"))
        catalog = Catalog([tools], cache_dir=write(tmp_path / "file", "") / "cache")
        await catalog.load()
        assert names(catalog) == ["a"]


class Changes:
    """Collects what a watch tells."""

    def __init__(self) -> None:
        self.send, self.receive = anyio.create_memory_object_stream[CatalogChange](100)

    async def next(self) -> CatalogChange:
        with anyio.fail_after(WITHIN):
            return await self.receive.receive()


@asynccontextmanager
async def watched(catalog: Catalog) -> AsyncIterator[Changes]:
    changes = Changes()
    async with changes.send, changes.receive, anyio.create_task_group() as group:
        group.start_soon(catalog.watch, changes.send.send)
        yield changes
        group.cancel_scope.cancel()


class TestWatch:
    async def test_added_changed_and_removed_tools_are_reported(self, tools: Path, cache: Path) -> None:
        file = write(tools / "a" / "contract.yaml", contract("a"))
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        async with watched(catalog) as changes:
            write(tools / "b" / "contract.yaml", contract("b"))
            assert await changes.next() == CatalogChange(added=("b",))
            # As editors save: a new file is put in the place of the old one.
            write(file.with_name("contract.yaml~new"), contract("a", "timeout: 5\n")).replace(file)
            assert await changes.next() == CatalogChange(changed=("a",))
            shutil.rmtree(tools / "a")
            assert await changes.next() == CatalogChange(removed=("a",))

    async def test_a_directory_that_is_moved_in_brings_its_tools(
        self, tools: Path, cache: Path, tmp_path: Path
    ) -> None:
        write(tmp_path / "elsewhere" / "x" / "contract.yaml", contract("x"))
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        async with watched(catalog) as changes:
            (tmp_path / "elsewhere").rename(tools / "moved")
            assert await changes.next() == CatalogChange(added=("x",))
            (tools / "moved").rename(tmp_path / "elsewhere")
            assert await changes.next() == CatalogChange(removed=("x",))

    async def test_a_directory_may_come_later_and_be_made_again(self, tools: Path, cache: Path) -> None:
        late = tools / "late"
        catalog = Catalog([late], cache_dir=cache)
        await catalog.load()
        async with watched(catalog) as changes:
            write(late / "contract.yaml", contract("a"))
            assert await changes.next() == CatalogChange(added=("a",))
            shutil.rmtree(late)
            assert await changes.next() == CatalogChange(removed=("a",))
            write(late / "contract.yaml", contract("b"))
            assert await changes.next() == CatalogChange(added=("b",))

    async def test_a_broken_edit_is_logged_and_tells_nobody(self, tools: Path, cache: Path) -> None:
        file = write(tools / "contract.yaml", contract("a"))
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        logged: list[str] = []
        sink = logger.add(lambda message: logged.append(str(message)), format="{level} {message}", level="INFO")

        async def is_broken() -> bool:
            return bool(errors(catalog))

        async with watched(catalog) as changes:
            write(file, "name: [")
            await until(is_broken)
            write(file, contract("a", "timeout: 9\n"))
            assert await changes.next() == CatalogChange(changed=("a",))
            with pytest.raises(anyio.WouldBlock):
                changes.receive.receive_nowait()
        logger.remove(sink)
        assert [line.split()[0] for line in logged if str(file) in line and "YAML" in line] == ["ERROR"], logged

    async def test_scripts_next_to_a_contract_need_no_look(self, tools: Path) -> None:
        file = tools / "contract.yaml"
        looks: list[bool] = []

        async def look() -> None:
            looks.append(file.exists())

        async def looked() -> bool:
            return len(looks) > 0

        async def looked_again() -> bool:
            return len(looks) > 1

        (tools / "scripts").mkdir()
        async with anyio.create_task_group() as group:
            group.start_soon(discovery.watch_contracts, [tools], look)
            await until(looked)
            for index in range(20):
                write(tools / "scripts" / f"main{index}.py", "print()")
                await anyio.sleep(discovery.DEBOUNCE / 10)
            write(tools / "scripts" / "a.txt", contract("a")).rename(file)
            await until(looked_again)
            group.cancel_scope.cancel()
        assert looks == [False, True]

    async def test_where_nothing_can_be_watched_it_is_polled(
        self, tools: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import watchfiles

        def refuse(*_: object, **__: object) -> object:
            raise OSError(28, "inotify watch limit reached")

        monkeypatch.setattr(watchfiles.main, "RustNotify", refuse)
        monkeypatch.setattr(discovery, "WATCH_POLL_INTERVAL", 0.05)
        catalog = Catalog([tools], cache_dir=cache)
        await catalog.load()
        async with watched(catalog) as changes:
            write(tools / "contract.yaml", contract("a"))
            assert await changes.next() == CatalogChange(added=("a",))

    async def test_an_error_of_the_listener_reaches_who_watches(self, tools: Path, cache: Path) -> None:
        write(tools / "contract.yaml", contract("a"))
        catalog = Catalog([tools], cache_dir=cache)

        async def fail(_: CatalogChange) -> None:
            raise LookupError("gone")

        with anyio.fail_after(WITHIN), pytest.raises(LookupError, match="gone"):
            await catalog.watch(fail)
