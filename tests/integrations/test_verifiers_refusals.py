"""What is said of environments of verifiers without the library: these tests need none."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from cohort import integrations as library
from cohort.environments import build_environment
from cohort.integrations.verifiers import play as adapter
from cohort.integrations.verifiers.source import open_taskset
from cohort.recipe import Recipe
from cohort.rewards import RewardPool, RewardTable, ScoringItem, resolve, resolve_all, score_group
from cohort.tasks import open_task
from cohort.tasks.sources.base import built_in_name
from cohort.train.grpo import Grpo
from cohort.types import Prompt, UserError


def refused(call, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "verifiers", None)  # what `import` takes for a package that is not there
    monkeypatch.setitem(sys.modules, "verifiers.v1", None)
    adapter._environment.cache_clear()


def test_a_source_names_a_package():
    for source in ("verifiers:guess", "verifiers:reverse-text"):
        assert built_in_name(source) == "verifiers"
    for other in ("verifiers/rows", "train.jsonl", "reasoning_gym:ab", "my_verifiers:x"):
        assert built_in_name(other) != "verifiers"


@pytest.mark.parametrize("source", ["verifiers:", "verifiers:prime/gsm8k", "verifiers:gsm8k@1.0", "verifiers:a b"])
def test_a_package_of_the_hub_is_not_installed_on_the_way(source):
    assert "is installed first, and then named without its owner" in refused(open_task, source)


def test_a_missing_library_is_named_with_what_to_install(no_library):
    for problem in (
        refused(open_taskset, "guess", {}),
        refused(open_task, "verifiers:guess", limit=3),
        refused(open_task, [{"prompt": "2 + 2"}], held_out="verifiers:guess"),
        refused(adapter.play, {"id": "guess", "args": {}}, ["1"]),
    ):
        assert 'pip install "cohort[verifiers]"' in problem


def test_a_recipe_is_refused_before_a_model_is_loaded(no_library, tmp_path):
    recipe = Recipe(
        name="guess",
        policy={"model": str(tmp_path / "nowhere")},
        task={"source": "verifiers:guess", "limit": 8},
        environment={"use": "verifiers"},
        reward=[{"use": "verifiers"}],
    )
    assert 'pip install "cohort[verifiers]"' in refused(Grpo().prepare, recipe.stages[0], 0)


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "verifiers", ModuleType("verifiers"))
    monkeypatch.setitem(sys.modules, "verifiers.v1", ModuleType("verifiers.v1"))
    monkeypatch.setattr(library, "version", lambda name: "0.9.1")
    assert refused(adapter.require_library) == (
        "verifiers is 0.9.1 here, and Cohort was written for 0.4.0: pip install verifiers==0.4.0"
    )


def test_the_reward_is_for_prompts_of_verifiers_alone():
    reward = resolve(RewardTable(use="verifiers"), columns=["level"], has_answer=False)
    item = ScoringItem(prompt="2 + 2", completions=("4", "5"), row={"level": 1})
    assert [scored.value for scored in reward.judge(item)] == [None, None]


def test_a_worker_without_the_library_says_so(monkeypatch, tmp_path):
    """Workers are processes of their own: a package of that name without a v1 stands for one that is not installed."""
    (tmp_path / "verifiers").mkdir()
    (tmp_path / "verifiers" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    item = ScoringItem(prompt="2 + 2", completions=("4",), row={})
    with RewardPool(resolve_all([RewardTable(use="verifiers")]), workers=1) as pool, pytest.raises(UserError) as caught:
        pool.submit(item).result()
    assert 'pip install "cohort[verifiers]"' in str(caught.value)
    assert score_group(resolve_all([RewardTable(use="verifiers")]), item).scores["verifiers"]  # here it was never asked


def test_the_environment_refuses_other_prompts():
    environment = build_environment("verifiers", {})
    problem = refused(environment.reset, Prompt.make(text="What is 2 + 2?", answer="4"), 0)
    assert "'What is 2 + 2?' is none" in problem


def test_settings_without_effect_are_refused():
    assert "levels belong to" in refused(open_task, "verifiers:guess", levels=[1])
    for options in ({"held_out_split": "test"}, {"held_out": "verifiers:guess"}):
        assert "hold out a share" in refused(open_task, "verifiers:guess", **options)
    assert "environment.args" in refused(build_environment, "verifiers", {"rounds": 3})
    assert "takes no argument 'rewards'" in refused(resolve, RewardTable(use="verifiers", args={"rewards": ["won"]}))
