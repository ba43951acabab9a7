"""The pages on objectives: one for each preset, generated parts up to date, recipes that load and name their preset."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from cohort.algorithms.objectives import PRESETS
from cohort.preflight.objective import settled_objective
from cohort.recipe import Recipe

ROOT = Path(__file__).parent.parent
DIRECTORY = ROOT / "docs" / "objectives"
SHARED = """name = "option"
policy.model = "Qwen/Qwen3-0.6B"
task = { source = "openai/gsm8k", config = "main", prompt = "question", answer_format = "gsm8k" }
"""
REWARD = '\n[[reward]]\nuse = "exact_number"\n'


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("objective_pages", ROOT / "tools" / "objective_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def toml_blocks(file: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL)


def load(text: str, directory: Path) -> Recipe:
    file = directory / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return Recipe.load(file)


def test_every_preset_has_a_page_and_no_page_is_left_over():
    assert {file.stem for file in DIRECTORY.glob("*.md")} == {*PRESETS, "index"}


@pytest.mark.parametrize("name", PRESETS)
def test_the_generated_part_of_a_page_is_up_to_date(generate, name):
    text = generate.page(name).read_text(encoding="utf-8")
    assert generate.preset_page(name, text) == text, "run: python tools/objective_pages.py"
    assert text.startswith(f"# {PRESETS[name].title}\n")


def test_the_generated_part_of_the_index_is_up_to_date(generate):
    text = generate.INDEX.read_text(encoding="utf-8")
    assert generate.index_page(text) == text, "run: python tools/objective_pages.py"


def test_generating_without_marks_is_an_error(generate):
    with pytest.raises(ValueError, match="equation: generated"):
        generate.preset_page("grpo", "# GRPO\n")


@pytest.mark.parametrize("name", PRESETS)
def test_the_recipe_of_a_page_loads_and_is_the_preset_unchanged(name, tmp_path):
    (block,) = toml_blocks(DIRECTORY / f"{name}.md")
    recipe = load(block, tmp_path)
    (stage,) = recipe.stages
    assert stage.objective.preset == name
    assert stage.objective.fields() == {}
    assert settled_objective(stage)
    assert len([line for line in block.splitlines() if line.strip()]) <= 13


def test_the_fragments_of_the_index_are_legal_in_a_recipe(tmp_path):
    blocks = toml_blocks(DIRECTORY / "index.md")
    assert blocks
    for block in blocks:
        text = SHARED + block + ("" if "[[reward]]" in block else REWARD)
        (stage,) = load(text, tmp_path).stages
        assert stage.objective.preset in PRESETS
        assert settled_objective(stage)


def test_the_index_links_every_page_and_says_what_each_preset_reaches():
    text = (DIRECTORY / "index.md").read_text(encoding="utf-8")
    for name in PRESETS:
        assert f"]({name}.md)" in text, name
        seed = r" \d+\.\d% \[.*?\], \d+\.\d% \|"  # sampled with its interval, and greedy
        row = re.search(rf"^\| \[`{name}`\]\({name}\.md\) \|({seed}){{2}} [+-]\d", text, re.MULTILINE)
        assert row is not None or name == "chord", name  # which asks for demonstrations


@pytest.mark.parametrize("name", PRESETS)
def test_a_page_has_all_its_parts(name):
    text = (DIRECTORY / f"{name}.md").read_text(encoding="utf-8")
    for heading in ("## What it fixes", "## Published", "## Traps", "## Recipe"):
        assert f"\n{heading}\n" in text, heading
