"""The pages of rewards and tasks: what they show runs, and their recipes are set up with the rows that they show."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from cohort.policy.load import Start, open_policy
from cohort.recipe import Recipe
from cohort.rewards import BUILT_IN
from cohort.rewards.guarded import end_guards
from cohort.tasks.render import prompt_limit
from cohort.train.grpo import Grpo

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["math", "format", "structured", "language", "length", "repetition", "text", "choice", "constraints"]
WITH_RECIPES = [*(f"rewards/{page}" for page in (*PAGES, "code")), "tasks/curriculum"]
OF_REASONING_GYM = ["tasks/mixtures", "tasks/reasoning_gym"]
ROWS = re.compile(r"`(\w+\.jsonl)`:\n\n```json\n(.*?)```", re.DOTALL)


@pytest.fixture(autouse=True, scope="module")
def no_process_is_left():
    yield
    end_guards()


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_is_what_happens(page):
    results = doctest.testfile(str(DOCS / "rewards" / f"{page}.md"), module_relative=False)
    assert results.attempted > 1
    assert results.failed == 0


@pytest.mark.parametrize("page", [*WITH_RECIPES, *OF_REASONING_GYM])
def test_the_recipes_of_a_page_can_be_set_up(page, tmp_path, monkeypatch):
    if page in OF_REASONING_GYM:
        pytest.importorskip("reasoning_gym")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text()
    for name, rows in ROWS.findall(text):
        Path(name).write_text(rows)
    recipes = re.findall(r"```toml\n(name = .*?)```", text, re.DOTALL)
    assert recipes
    for recipe in recipes:
        Path("recipe.toml").write_text(recipe)
        for stage in Recipe.load(Path("recipe.toml")).stages:
            prepared = Grpo().prepare(stage, seed=0)
            assert prepared.parts.rewards
            if stage.policy.scratch is not None:  # a model that can be made here
                policy = open_policy(stage.policy, 0, Start(), prepared.texts)
                assert (
                    prompt_limit(policy.facts().context, stage.rollout.max_tokens, stage.task.max_prompt_tokens) > 100
                )


def test_every_built_in_reward_is_in_the_index():
    index = (DOCS / "rewards" / "README.md").read_text()
    table = index[index.index("## Built in") : index.index("### ")]
    missing = [name for name in BUILT_IN if f"`{name}`" not in table]
    assert missing == []
