"""The documents: generated parts are up to date, links lead somewhere, recipes in them are recipes."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from cohort import cli
from cohort.environments import build_environment, build_tools
from cohort.recipe import Recipe
from cohort.rewards.built_in import BUILT_IN
from cohort.types import Prompt

ROOT = Path(__file__).parent.parent
FRONT = ("README", "CONTRIBUTING", "AGENTS", "CHANGELOG", "SECURITY")
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


README = (ROOT / "README.md").read_text("utf-8")


def rows_of(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its own heading."""
    text = (ROOT / page).read_text("utf-8").split(f"## {heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def tables_of(page: str) -> list[dict[str, str]]:
    """The rows of all tables of a page, each by the heading of its columns."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text("utf-8"), re.MULTILINE):
        heads, _, *rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines())
        found += [dict(zip(heads, row)) for row in rows]
    return found


def test_the_numbers_of_the_readme_are_those_that_were_measured():
    said = re.search(
        r"of 0\.8M parameters is (\d+) to (\d+) times as fast as TRL's, one of 29M ([\d.]+) to (\d+) times, one of "
        r"135M about (\d) times, in (\d+)% to (\d+)%",
        " ".join(README.split()),
    )
    steps = [row for row in tables_of("bench/RESULTS.md") if {"TRL", "Cohort", "faster", "memory"} <= row.keys()]
    faster = {size: [] for size in ("small", "29M", "135M", "the same")}  # the last is of the one before it
    for row in steps:
        (size,) = (size for size in faster if row["case"].startswith(size))
        faster[size].append(float(row["faster"].rstrip("x")))
    small, middle, large = faster["small"], faster["29M"], faster["135M"] + faster["the same"]
    memory = [int(row["memory"].rstrip("%")) for row in steps]
    ends = [round(min(small)), round(max(small)), min(middle), round(max(middle)), round(sum(large) / len(large))]
    assert [*map(float, said.groups())] == [*ends, min(memory), max(memory)]

    sooner = [float(row[3].rstrip("x")) for row in rows_of("bench/RESULTS.md", "Time to a result")]
    low, high = re.search(r"reaches 80% accuracy (\d) to (\d) times sooner", " ".join(README.split())).groups()
    assert [int(low), int(high)] == [round(min(sooner)), round(max(sooner))]

    before, after = re.search(r"greedy ([\d.]+)% to ([\d.]+)% in \d+ minutes", README).groups()
    first, *_ = rows_of("docs/real_model.md", "Measured")
    assert (before, after) == (first[1].split("%")[0], first[3].split("%")[0])


def test_what_the_readme_counts_and_names_is_there():
    assert int(re.search(r"(\d+) built-in rewards", README)[1]) == len(BUILT_IN)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"cohort\[(\w+)\]", README)) <= set(extras)
    table = README.split("## Commands\n")[1].split("\n## ")[0]
    commands = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert commands | {"config", "record"} == set(re.findall(r"`cohort (\w+)", table.split("All take")[0]))
