"""The documents: generated parts are up to date, links lead somewhere, recipes in them are recipes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from cohort.environments import build_environment, build_tools
from cohort.recipe import Recipe
from cohort.types import Prompt

ROOT = Path(__file__).parent.parent
FRONT = ("README", "CONTRIBUTING", "AGENTS", "CHANGELOG")
PAGES = [*(ROOT / f"{name}.md" for name in FRONT), *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS_MORE = ("cohort.train(", "runs/quickstart", "import verifiers")  # a run, or an extra that has tests of its own
PROGRAMS = {page: re.findall(r"```python\n((?!>>>).*?)\n```\n", page.read_text(), re.DOTALL) for page in PAGES}


def test_generated_parts_are_up_to_date():
    spec = importlib.util.spec_from_file_location("recipe_page", ROOT / "tools" / "recipe_page.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page = generate.RECIPE.read_text()
    assert "resample_cap" in page
    assert generate.recipe_page(page) == page, "run: python tools/recipe_page.py"
    page = generate.RESUME.read_text()
    assert "`run.save_every`" in page
    assert generate.resume_page(page) == page, "run: python tools/recipe_page.py"


def test_the_page_on_reliability_is_made_of_the_tests():
    spec = importlib.util.spec_from_file_location("reliability_page", ROOT / "tools" / "reliability_page.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    page = program.PAGE.read_text("utf-8")
    assert program.reliability_page(page) == page, "run: python tools/reliability_page.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_recipes_in_the_documents_are_recipes(page, tmp_path):
    for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        file = tmp_path / "recipe.toml"
        file.write_text(completed(block))
        assert Recipe.load(file).stages


NEEDED = {  # what a recipe cannot do without: how it is found in a part of one, and what is added where it is not
    r"(?m)^\[?policy|^\[\[stage": "[policy.scratch]\n",
    r"(?m)^(\[task|task)|^\[\[stage": '[task]\nsource = "word_problems"\n',
    r"(?m)^\[\[reward|^reward\b|^kind|^\[\[stage": '[[reward]]\nuse = "exact_number"\n',
}


def completed(block: str) -> str:
    """A recipe, or a part of one with the rest around it."""
    name = "" if block.startswith("name =") else 'name = "part"\n'
    return name + block + "".join(text for found, text in NEEDED.items() if not re.search(found, block))


@pytest.mark.parametrize("page", [p for p, found in PROGRAMS.items() if found], ids=lambda p: str(p.relative_to(ROOT)))
def test_python_in_the_documents_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = (f'{{"prompt": "What is {n} plus {n}?", "answer": "{2 * n}"}}\n' for n in range(50))
    Path("train.jsonl").write_text("".join(rows))
    for number, program in enumerate(PROGRAMS[page]):
        if not any(needs in program for needs in NEEDS_MORE):
            exec(compile(program, f"{page.name}, block {number}", "exec", dont_inherit=True), {"__name__": "shown"})


def test_the_tool_and_the_environment_that_the_documents_show():
    shown = {}
    for program in PROGRAMS[ROOT / "docs" / "environments.md"]:
        exec(compile(program, "environments.md", "exec", dont_inherit=True), shown)
    (weather,) = build_tools([shown["weather"]], {}, timeout_s=10.0)
    assert weather.call({"city": "Bern"}).result == "Bern: rain"
    assert weather.call({"city": "Bern", "days": 8}).result == "error: there is no forecast for more than 7 days"
    game = build_environment(shown["Guess"], {})
    state, higher = game.reset(Prompt.make(text="Guess a number."), 142), {"role": "user", "content": "higher"}
    assert [game.step(state, said).messages for said in ("7", "it is 42")] == [(higher,), ()]


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_recipes_in_the_repository_load(recipe):
    assert Recipe.load(recipe).name == recipe.stem
