"""Sentences with numbers in them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cohort.wording import counted

SOURCES = Path(__file__).parent.parent / "src/cohort"
SEEN = ("views/*.py", "commands/check.py", "commands/sample.py", "commands/record.py", "train/run.py")
NOUNS = "prompts|steps|problems|completions|tokens|groups|stages|entries|threads|turns|pairs|rows|updates|examples"
COUNTED = re.compile(rf" (?:[a-z-]+ )?(?:{NOUNS})\b")
MANY = {"SAMPLED"}  # numbers that are never 1


def test_one_is_one():
    assert [counted(number, "prompt") for number in (0, 1, 2, 1234)] == [
        "0 prompts",
        "1 prompt",
        "2 prompts",
        "1,234 prompts",
    ]
    assert (counted(1, "entry", "entries"), counted(2, "entry", "entries")) == ("1 entry", "2 entries")


@pytest.mark.parametrize(
    "file", sorted(file for pattern in SEEN for file in SOURCES.glob(pattern)), ids=lambda f: f.name
)
def test_what_people_see_counts_things_through_one_function(file):
    """`f"{n} prompts"` would say "1 prompts"."""
    for node in ast.walk(ast.parse(file.read_text())):
        for value, text in zip(node.values, node.values[1:]) if isinstance(node, ast.JoinedStr) else ():
            if (
                isinstance(value, ast.FormattedValue)
                and isinstance(text, ast.Constant)
                and COUNTED.match(str(text.value))
            ):
                shown = ast.unparse(value.value)
                assert shown in MANY or shown.startswith("counted("), (
                    f"{file}:{value.lineno}: {{{shown}}}{text.value!s}"
                )
