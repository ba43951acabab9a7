"""The documents: generated parts are up to date, links lead somewhere, recipes in them are recipes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from cohort.recipe import Recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_generated_parts_are_up_to_date():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page = generate.RECIPE.read_text()
    assert "resample_cap" in page
    assert generate.recipe_page(page) == page, "run: python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_recipes_in_the_documents_are_recipes(page, tmp_path):
    for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        if not re.search(r"^(name|\[task\])", block, re.MULTILINE):
            continue  # a fragment
        file = tmp_path / "recipe.toml"
        file.write_text(block)
        assert Recipe.load(file).stages


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_recipes_in_the_repository_load(recipe):
    assert Recipe.load(recipe).name == recipe.stem
