"""Notes as text files below /notes."""

import argparse
import sys
from pathlib import Path

FOLDER = Path("/notes")
NEEDS_NOTE = ("read", "append", "write", "delete")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.md"))


def existing(note: str) -> Path:
    path = FOLDER / f"{note}.md"
    if not path.is_file():
        sys.exit(f'There is no note "{note}". There are: {", ".join(names()) or "none yet"}.')
    return path


def replace(path: Path, text: str) -> None:
    """All or nothing: a call that is cut off never leaves half a note."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--action", choices=("list", *NEEDS_NOTE), required=True)
    parser.add_argument("--note")
    options = parser.parse_args()
    note, text = options.note, sys.stdin.buffer.read().decode()
    if options.action in NEEDS_NOTE and not note:
        sys.exit(f'"{options.action}" needs the name of a note.')
    match options.action:
        case "list":
            for name in names():
                print(f"{name}  {(FOLDER / f'{name}.md').stat().st_size} bytes")
            if not names():
                print("no notes yet")
        case "read":
            sys.stdout.write(existing(note).read_text(encoding="utf-8"))
        case "append":
            path = FOLDER / f"{note}.md"
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            gap = "" if not before or before.endswith("\n") else "\n"
            replace(path, f"{before}{gap}{text}\n")
            print(f"appended {len(text)} characters to {note}")
        case "write":
            replace(FOLDER / f"{note}.md", text)
            print(f"wrote {len(text)} characters to {note}")
        case "delete":
            existing(note).unlink()
            print(f"deleted {note}")


main()
