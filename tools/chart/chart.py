"""Draws the bars given as JSON on standard input into a PNG file (specification: https://www.w3.org/TR/png-3/)."""

import argparse
import json
import math
import os
import struct
import sys
import zlib
from pathlib import Path

from font import GLYPHS, drawable

WIDTH, MARGIN, BAR, STEP, SCALE = 720, 16, 22, 34, 2
LETTER = 6 * SCALE
INK, PAPER, AXIS = (32, 33, 36), (255, 255, 255), (150, 150, 150)
Color = tuple[int, int, int]


class Picture:
    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows = [bytearray(bytes(PAPER) * width) for _ in range(height)]

    def fill(self, left: int, top: int, width: int, height: int, color: Color) -> None:
        for row in self.rows[top : top + height]:
            row[3 * left : 3 * (left + width)] = bytes(color) * width

    def write(self, left: int, top: int, text: str) -> None:
        for at, letter in enumerate(text):
            for y, dots in enumerate(GLYPHS[letter]):
                for x in range(5):
                    if dots >> (4 - x) & 1:
                        self.fill(left + at * LETTER + x * SCALE, top + y * SCALE, SCALE, SCALE, INK)

    def png(self) -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
        pixels = zlib.compress(b"".join(b"\0" + row for row in self.rows), 9)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def cut(text: str, letters: int) -> str:
    text = drawable(text)
    return text if len(text) <= letters else text[: letters - 2] + ".."


def draw(bars: dict[str, float], title: str, color: Color) -> Picture:
    labels = {name: cut(name, 18) for name in bars}
    numbers = {name: cut(f"{value:.6g}", 12) for name, value in bars.items()}
    top = MARGIN + (STEP if title else 0)
    picture = Picture(WIDTH, top + STEP * len(bars) - (STEP - BAR) + MARGIN + 16)
    picture.write(MARGIN, MARGIN, cut(title, (WIDTH - 2 * MARGIN) // LETTER))
    left = MARGIN + max(map(len, labels.values())) * LETTER + 8
    room = WIDTH - left - MARGIN - max(map(len, numbers.values())) * LETTER - 8
    low, high = min(0.0, *bars.values()), max(0.0, *bars.values())
    span = (high - low) or 1.0
    zero = left + round(room * -low / span)
    for number, (name, value) in enumerate(bars.items()):
        y, length = top + number * STEP, round(room * abs(value) / span)
        picture.write(MARGIN, y + 4, labels[name])
        picture.fill(zero - length if value < 0 else zero, y, length, BAR, color)
        picture.write(zero + 8 + (length if value > 0 else 0), y + 4, numbers[name])
    picture.fill(zero - 1, top - 4, 1, STEP * len(bars) - (STEP - BAR) + 8, AXIS)
    return picture


parser = argparse.ArgumentParser()
parser.add_argument("--title", default="")
parser.add_argument("--color", default="#3366cc")
options = parser.parse_args()
bars = {name: float(value) for name, value in json.load(sys.stdin.buffer).items()}
if not all(abs(value) < sys.float_info.max / 4 and math.isfinite(value) for value in bars.values()):
    sys.exit("A value is too large to be drawn.")
red, green, blue = bytes.fromhex(options.color[1:])
picture = draw(bars, options.title, (red, green, blue))
Path(os.environ["PRAXIS_OUTPUT_DIR"], "chart.png").write_bytes(picture.png())
print(f"chart.png: {len(bars)} bars, {picture.width} x {picture.height} pixels")
