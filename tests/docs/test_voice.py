"""scripts/check_voice.py finds what reads like a translation, where it stands, and lets none of it in."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import check_voice


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "praxis_mcp").mkdir()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "native").mkdir()
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(check_voice, "ROOT", tmp_path)
    return tmp_path


def found_in(file: Path, text: str, *, messages: bool = False) -> list[tuple[int, str]]:
    file.write_text(text)
    return [(item.line, item.better.split()[0]) for item in check_voice.check(file, messages)]


def test_messages_docstrings_comments_and_names_are_read(root: Path) -> None:
    source = '''"""Whoever calls."""

# Look
# upon it.
def told(path):
    raise ValueError(
        f"{path.beside} is "
        "no port"
    )
'''
    module = root / "praxis_mcp" / "module.py"
    assert found_in(module, source) == [(1, "the"), (4, "on"), (5, "reported,"), (7, "is")]
    assert found_in(module, source, messages=True) == [(7, "is")]


def test_plain_english_is_left_alone(root: Path) -> None:
    source = "# There is no such file; it is no longer read. He was told to stop.\nx = None is not None\n"
    assert found_in(root / "praxis_mcp" / "module.py", source) == []


def test_c_comments_documents_and_names_of_tests_are_read(root: Path) -> None:
    assert found_in(root / "native" / "x.c", 'int told;\n/* what is no\n * frame */\nputs("to be had");\n') == [
        (2, "is"),
        (4, "could"),
    ]
    assert found_in(root / "README.md", "A\n\nline that\nlies below\n") == [(4, "is;")]
    assert found_in(root / "tests" / "test_x.py", "def test_a_user_is_told():\n    told = 1  # told\n") == [
        (1, "reported,")
    ]


def test_a_line_can_be_allowed_on_purpose(root: Path) -> None:
    assert found_in(root / "praxis_mcp" / "module.py", 'WORD = "whoever"  # voice: allowed\n') == []


def test_anything_found_is_shown_and_fails(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["check_voice.py"])
    module = root / "praxis_mcp" / "module.py"
    for text, code, shown in (("# whoever\n", 1, "praxis_mcp/module.py:1: "), ("# the caller\n", 0, "")):
        module.write_text(text)
        with pytest.raises(SystemExit) as ended:
            check_voice.main()
        out = capsys.readouterr().out
        assert (ended.value.code, out[: len(shown)], bool(out)) == (code, shown, bool(code))


def test_this_repository_has_none_of_it() -> None:
    assert [str(item) for file in check_voice.files() for item in check_voice.check(file)] == []
