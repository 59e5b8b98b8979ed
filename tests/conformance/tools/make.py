"""What the fixtures write: the smallest image, the smallest sound, bytes that are not text, and progress."""

import base64
import os
import pathlib
import struct
import sys
import time

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SILENCE = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
SILENCE += b"data" + struct.pack("<I", 0)


def progress() -> None:
    for done in (0, 50, 100):
        print(f"progress: {done}/100 step {done}", flush=True)
        time.sleep(0.1)


def files() -> None:
    (pathlib.Path(os.environ["PRAXIS_OUTPUT_DIR"]) / "pixel.png").write_bytes(PIXEL)
    sys.stdout.buffer.write(bytes(range(256)))


match sys.argv[1]:
    case "image":
        sys.stdout.buffer.write(PIXEL)
    case "audio":
        sys.stdout.buffer.write(SILENCE)
    case "binary":
        sys.stdout.buffer.write(bytes(range(256)))
    case "files":
        files()
    case "progress":
        progress()
