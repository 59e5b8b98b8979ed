"""Describes the CSV table on standard input; DELIMITER says what separates its values."""

import csv
import io
import json
import math
import os
import sys
from datetime import date
from typing import Any

BOOLEANS = frozenset({"true", "false", "yes", "no"})


def is_integer(text: str) -> bool:
    return text.lstrip("+-").isdecimal() and len(text) < 300


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == len("2001-02-03")


def kind_of(values: list[str]) -> str:
    if not values:
        return "empty"
    checks = {
        "integer": is_integer,
        "number": is_number,
        "date": is_date,
        "boolean": lambda value: value.lower() in BOOLEANS,
    }
    return next((kind for kind, check in checks.items() if all(map(check, values))), "text")


def describe(name: str, cells: list[str]) -> dict[str, Any]:
    values = [cell.strip() for cell in cells if cell.strip()]
    kind = kind_of(values)
    column: dict[str, Any] = {
        "name": name,
        "type": kind,
        "empty": len(cells) - len(values),
        "distinct": len(set(values)),
    }
    if kind in ("integer", "number"):
        numbers = [int(value) if kind == "integer" else float(value) for value in values]
        mean = math.fsum(number / len(numbers) for number in numbers)
        return {**column, "min": min(numbers), "max": max(numbers), "mean": float(f"{mean:.12g}")}
    if kind == "date":
        return {**column, "min": min(values), "max": max(values)}
    return column


def delimiter_of(text: str) -> str:
    """The separator that the header holds most often; a comma where it holds none."""
    header = text.split("\n", 1)[0]
    return max(",;\t|", key=header.count)


text = sys.stdin.buffer.read().decode("utf-8-sig")
wanted = os.environ["DELIMITER"]
delimiter = {"auto": delimiter_of(text), "tab": "\t"}.get(wanted, wanted)
csv.field_size_limit(len(text) + 1)
try:
    table = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
except csv.Error as exc:
    sys.exit(f"This is no CSV that can be read with the delimiter {delimiter!r}: {exc}.")
if not table:
    sys.exit("There is no header line.")
names, rows = table[0], table[1:]
for number, row in enumerate(rows, 1):
    if len(row) > len(names):
        sys.exit(f"Row {number} has {len(row)} values, but there are {len(names)} columns ({', '.join(names)[:200]}).")
columns = [describe(name, [row[at] if at < len(row) else "" for row in rows]) for at, name in enumerate(names)]
print(json.dumps({"rows": len(rows), "delimiter": delimiter, "columns": columns}, ensure_ascii=False))
