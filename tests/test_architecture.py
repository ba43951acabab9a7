"""The page on the architecture names what is there: every room, files and functions that exist, hops that add up."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from test_layering import LEVEL, SOURCE, modules

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FLOORS = re.findall(r"^\| (\d+) \| `([\w.]+?)(?:\.py|/)` \|", PAGE, re.MULTILINE)
WAY = PAGE[PAGE.index("## The way of one prompt") :]
HOPS = [hop for row in re.findall(r"^\| \d.*$", WAY, re.MULTILINE) for hop in re.findall(r"`([\w/]+\.py):(\w+)`", row)]


def test_every_room_is_on_the_page_and_on_its_floor():
    rooms = {package for package, _ in modules()} - {"__main__"}
    assert {name: int(floor) - 1 for floor, name in FLOORS} == {name: LEVEL[name] for name in rooms}


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`(?:\w+ )*([\w/]+(?:\.py|/))[`:]", PAGE))))
def test_every_file_on_the_page_exists(file):
    places = (SOURCE, ROOT, *(SOURCE / room for room in ("train", "views", "preflight", "rewards", "tasks")))
    assert any((place / file).exists() for place in places)


@pytest.mark.parametrize(("file", "name"), HOPS, ids=[":".join(hop) for hop in HOPS])
def test_every_function_on_the_way_is_in_its_file(file, name):
    tree = ast.parse((SOURCE / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_hops_add_up():
    said = re.search(r"\*\*(\d+) hops in (\d+) files: (\d+) before the first step, (\d+) in a step\.\*\*", WAY)
    total, files, before, of_step = map(int, said.groups())
    assert len(HOPS) == total == before + of_step
    assert len({file for file, _ in HOPS}) == files
    numbers = re.findall(r"^\| (?:(\d+)-)?(\d+) \|", WAY, re.MULTILINE)
    assert [int(first or last) for first, last in numbers] == [1, *(int(last) + 1 for _, last in numbers[:-1])]
    assert int(numbers[-1][1]) == total
