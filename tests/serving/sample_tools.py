"""The contracts that the server's tests call: commands of this host, so that they need no container engine."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kit.contracts import write_contract, write_tool

PYTHON = sys.executable
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def python(code: str) -> list[str]:
    return [PYTHON, "-c", code]


def write_sample_tools(directory: Path) -> None:
    """Every tool that tests share."""
    write_tool(
        directory,
        "echo",
        python("import os; print(os.environ['TEXT'])"),
        title="Echo",
        parameters={
            "text": {"type": "string", "description": "what to say"},
            "times": {"type": "integer", "minimum": 1, "default": 1},
        },
        annotations={"read_only": True, "open_world": False},
        cache="pure",
    )
    write_tool(directory, "fail", ["sh", "-c", "echo partial; echo 'cannot frob: no widget' >&2; exit 3"])
    write_tool(directory, "crash", ["sh", "-c", "kill -SEGV $$"])
    write_tool(directory, "quiet", ["true"])
    write_tool(directory, "reader", ["cat"])
    write_tool(directory, "warn", ["sh", "-c", "echo 'no match found' >&2"])
    write_tool(directory, "no_such_command", ["praxis-no-such-command"])
    write_tool(directory, "slow", ["sleep", "30"], timeout=0.4)
    write_tool(directory, "silent", ["sleep", "1.2"])
    write_tool(directory, "big", python("import sys\nfor i in range(40000): print('line', i)"))
    write_tool(
        directory,
        "chatty",
        python(
            "import sys, time\n"
            "print('starting', flush=True)\n"
            "for i in range(1, 5):\n"
            "    print(f'progress: {i}/4 step {i}', file=sys.stderr, flush=True); time.sleep(0.15)\n"
        ),
    )
    write_tool(
        directory,
        "stats",
        python('print(\'{"words": 3, "missing": null}\')'),
        output="json",
        output_schema={
            "type": "object",
            "properties": {"words": {"type": "integer"}, "missing": {"type": "null"}},
            "required": ["words"],
        },
    )
    write_tool(
        directory,
        "numbers",
        python("print('[1, 2, 3]')"),
        output="json",
        output_schema={"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}},
    )
    write_tool(
        directory,
        "wrong",
        python('print(\'{"words": "three"}\')'),
        output="json",
        output_schema={"type": "object", "properties": {"words": {"type": "integer"}}},
    )
    write_tool(directory, "not_json", python("print('hello {')"), output="json")
    write_tool(directory, "cut_json", python("print('[' + '1,' * 4000 + '1]')"), output="json", max_output=1024)
    write_tool(directory, "surrogate", python('print(\'{"a": "\\\\ud800"}\')'), output="json")
    write_tool(directory, "picture", python(f"import base64, sys; sys.stdout.buffer.write(base64.b64decode('{PNG}'))"))
    write_tool(
        directory, "sound", python("import sys; sys.stdout.buffer.write(b'RIFF\\x24\\0\\0\\0WAVEfmt ' + bytes(20))")
    )
    write_tool(directory, "binary", python("import sys; sys.stdout.buffer.write(bytes(range(256)) * 4)"))
    write_tool(
        directory,
        "files",
        python(
            "import base64, os, pathlib\n"
            "out = pathlib.Path(os.environ['PRAXIS_OUTPUT_DIR'])\n"
            f"(out / 'dot.png').write_bytes(base64.b64decode('{PNG}'))\n"
            "(out / 'übersicht 1.csv').write_text('a,b\\n1,2\\n')\n"
            "print('made')\n"
        ),
        artifacts=["/out/*"],
    )
    write_tool(directory, "printer", ["sh", "-c", "echo to-stdout; echo to-fd1 >&1"])
    write_tool(
        directory,
        "wait_for_ever",
        ["sh", "-c", 'echo $$ > "$PIDFILE"; echo waiting; exec sleep 300'],
        parameters={"pidfile": {"type": "string"}},
    )
    write_contract(
        directory,
        "boxed",
        engine="dagger",
        description="A container without network or writable mounts.",
        image="busybox",
        command=["true"],
    )
