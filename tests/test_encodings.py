"""Text is UTF-8 whatever the locale says: every file that is opened as text names its encoding."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [file for room in ("src", "tools", "bench", "examples") for file in sorted((ROOT / room).rglob("*.py"))]
PLACE = {"read_text": 0, "write_text": 1, "open": 2}  # of the encoding among the arguments of a path's method


def says_none(call: ast.Call) -> bool:
    """Whether a call opens a text file without an encoding."""
    named = {keyword.arg for keyword in call.keywords}
    modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    modes = [mode for mode in modes if re.fullmatch(r"[rwxa][bt+]*", mode)]
    if "encoding" in named or None in named or any("b" in mode for mode in modes):
        return False
    if isinstance(call.func, ast.Name):
        return call.func.id == "open" and len(call.args) < 4
    if not isinstance(call.func, ast.Attribute):
        return False
    name = call.func.attr
    if name in ("run", "Popen", "check_output"):
        return any(keyword.arg in ("text", "universal_newlines") for keyword in call.keywords)
    if name == "open" and not modes and "newline" not in named:
        return False  # of something else than a path
    return name in PLACE and len(call.args) <= PLACE[name]


def test_every_text_file_names_its_encoding():
    for file in FILES:
        calls = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
        assert [node.lineno for node in calls if says_none(node)] == [], file


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(p)", True),
        ("open(p, 'w')", True),
        ("open(p, 'rb')", False),
        ("open(p, encoding='utf-8')", False),
        ("p.read_text()", True),
        ("p.read_text('utf-8')", False),
        ("p.write_text(x)", True),
        ("p.write_text(x, encoding='utf-8')", False),
        ("p.open('a')", True),
        ("p.open(newline='')", True),
        ("p.open('ab')", False),
        ("kind.open(context)", False),
        ("subprocess.run(c, text=True)", True),
    ],
)
def test_it_is_found(code, found):
    assert says_none(ast.parse(code, mode="eval").body) is found
