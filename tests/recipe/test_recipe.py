"""Defaults, values, the forms in which a recipe may be written, and recipes built in Python."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from cohort.recipe import Recipe
from cohort.settings import Lora, Objective, Policy, Reward, Rollout, Stage, Task
from cohort.types import UserError


def score(completion, prompt):
    return 1.0


def test_defaults_that_others_rely_on(load, base):
    recipe = load(base())
    (stage,) = recipe.stages
    assert (recipe.name, recipe.seed, stage.kind, stage.name) == ("recipe", 0, "grpo", "grpo")
    assert (stage.rollout.prompts_per_step, stage.rollout.group_size, stage.rollout.max_tokens) == (16, 8, 512)
    assert (stage.rollout.temperature, stage.rollout.max_staleness, stage.rollout.resample_cap) == (1.0, 0, 4)
    assert (stage.optimizer.learning_rate, stage.optimizer.betas) == (1e-6, (0.9, 0.999))
    assert (stage.optimizer.gradient_clip, stage.optimizer.updates_per_batch) == (1.0, 1)
    assert (stage.evaluate.problems, stage.evaluate.greedy, stage.evaluate.reward) == (500, True, None)
    assert (stage.run.steps, stage.run.threads, stage.run.directory) == (100, "auto", "runs")
    assert (stage.policy.lora, stage.policy.scratch, stage.policy.dtype) == (None, None, "float32")
    assert (stage.objective.preset, stage.objective.fields()) == ("grpo", {})
    assert stage.reward == (Reward(use="exact_number", weight=1.0),)


def test_the_recipe_of_the_design_loads(load):
    text = """
    name = "gsm8k"
    seed = 0
    [policy]
    model = "Qwen/Qwen3-0.6B"
    dtype = "float32"
    compute = "float32"
    lora = { rank = 32, alpha = 64 }
    [task]
    source = "train.jsonl"
    prompt = "question"
    answer = "answer"
    held_out = "test.jsonl"
    [rollout]
    prompts_per_step = 16
    group_size = 8
    max_tokens = 512
    temperature = 1.0
    sampler = "local"
    [[reward]]
    use = "exact_number"
    weight = 1.0
    [[reward]]
    use = "think_format"
    weight = 0.1
    [objective]
    preset = "dapo"
    clip_high = 0.28
    [optimizer]
    learning_rate = 1e-6
    warmup_steps = 10
    gradient_clip = 1.0
    updates_per_batch = 1
    [run]
    steps = 200
    evaluate_every = 50
    save_every = 50
    directory = "runs"
    threads = "auto"
    """
    recipe = load(text)
    stage = recipe.stages[0]
    assert recipe.name == "gsm8k"
    assert stage.policy.lora == Lora(rank=32, alpha=64.0)
    assert [(reward.name, reward.weight) for reward in stage.reward] == [("exact_number", 1.0), ("think_format", 0.1)]
    assert stage.objective.fields() == {"clip_high": 0.28}
    assert (stage.optimizer.warmup_steps, stage.run.steps, stage.task.held_out) == (10, 200, "test.jsonl")


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ('"random"', ["random"]),
        ('["exact_number", "think_format"]', ["exact_number", "think_format"]),
        ('{ use = "my_rewards:score", weight = 2 }', ["score"]),
        ('["a", { use = "package.module:Class.method", name = "mine" }]', ["a", "mine"]),
    ],
)
def test_short_forms_of_reward(load, written, names):
    recipe = load(f"reward = {written}\npolicy.model = 'm'\ntask.source = 't'")
    assert [reward.name for reward in recipe.stages[0].reward] == names


def test_python_objects_are_first_class():
    recipe = Recipe(
        name="mine",
        policy=Policy(model="live"),
        task={"source": "my.jsonl"},
        rollout=Rollout(group_size=4),
        reward=[score, Reward(use=score, weight=0.5, name="half"), lambda completion, prompt: 0.0, "random"],
        evaluate={"reward": score},
    )
    stage = recipe.stages[0]
    assert stage.reward[0].use is score
    assert [reward.name for reward in stage.reward] == ["score", "half", "lambda", "random"]
    assert stage.evaluate.reward is score
    assert recipe.origins["rollout.group_size"] == "python"
    assert recipe.origins["rollout.max_tokens"] == "default"
    assert Recipe(policy={"model": "m"}, task={"source": "t"}, reward=score).stages[0].reward == (Reward(use=score),)


def test_stages_from_python_as_tables_or_objects():
    tables = {"kind": "sft", "name": "warm", "run": {"steps": 3}}
    stage = Stage(kind="grpo", name="rl", task=Task(source="other"), reward="random")  # type: ignore[arg-type]
    recipe = Recipe(policy={"model": "m"}, task={"source": "t"}, stage=[tables, stage])
    assert [(s.name, s.kind, s.task.source, s.run.steps) for s in recipe.stages] == [
        ("warm", "sft", "t", 3),
        ("rl", "grpo", "other", 100),
    ]
    assert recipe.stage("rl").reward[0].name == "random"


def test_objective_fields_turn_off_into_none():
    fields: dict[str, Any] = {"clip_low": "off", "dual_clip": "off", "correction": "off", "kl_coef": 0, "ddof": 0}
    objective = Objective(preset="dapo", **fields)
    assert objective.fields() == {"clip_low": None, "dual_clip": None, "correction": "off", "kl_coef": 0.0, "ddof": 0}


def test_recipes_are_values():
    make = lambda: Recipe(policy={"model": "m"}, task={"source": "t"}, reward="random")  # noqa: E731
    recipe = make()
    assert recipe == make()
    assert recipe != Recipe(policy={"model": "m"}, task={"source": "t"}, reward="random", seed=1)
    for other in (pickle.loads(pickle.dumps(recipe)), copy.deepcopy(recipe)):
        assert other == recipe
        assert other.origins == recipe.origins
    with pytest.raises(ValidationError, match="frozen"):
        recipe.stages[0].rollout.group_size = 3
    recipe.origins.clear()
    assert recipe.origins


def test_changing_one_table_does_not_change_the_defaults_of_the_next_recipe():
    first = Recipe(policy={"model": "m"}, task={"source": "t"}, reward={"use": "random", "args": {"a": 1}})
    first.stages[0].reward[0].args["b"] = 2
    assert Reward(use="random").args == {}
    assert Recipe(policy={"model": "m"}, task={"source": "t"}, reward="random").stages[0].reward[0].args == {}


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 101, "a\n", "dot."])
def test_names_that_cannot_be_directories(name):
    with pytest.raises(UserError, match="cannot name a directory"):
        Recipe(name=name, policy={"model": "m"}, task={"source": "t"}, reward="random")


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "0", None])
def test_seeds_that_are_none(seed):
    with pytest.raises(UserError, match="seed must be a whole number from 0 to 2\\^63 - 1"):
        Recipe(seed=seed, policy={"model": "m"}, task={"source": "t"}, reward="random")


def test_the_name_defaults_to_that_of_the_file(tmp_path, base):
    for file, name in (("quick start!.toml", "quick-start"), ("..toml", "run"), ("Übung_1.toml", "Übung_1")):
        (tmp_path / file).write_text(base())
        assert Recipe.load(tmp_path / file).name == name


def test_importing_the_recipe_imports_neither_torch_nor_a_sibling():
    code = (
        "import sys, cohort.recipe; "
        "print(sorted(m for m in sys.modules if m == 'torch' or m.startswith('cohort.') "
        "and not m.startswith(('cohort.recipe', 'cohort.settings'))))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    data = ("fields", "kinds", "objective", "presets", "terms")
    objectives = {"cohort.algorithms", *(f"cohort.algorithms.{name}" for name in data)}
    assert set(eval(printed)) <= {"cohort.types", "cohort.seeds", "cohort.wording", *objectives}


def test_a_table_with_other_values_also_of_the_tables_in_it():
    stage = Stage(task=Task(source="a", args={"levels": 1}), rollout=Rollout(group_size=4))
    other = stage.with_(name="b", rollout={"max_tokens": 7}, task={"args": {"rows": 2}}, policy=Policy(model="c"))
    assert (other.name, other.rollout.group_size, other.rollout.max_tokens) == ("b", 4, 7)
    assert (other.task.source, other.task.args, other.policy.model) == ("a", {"rows": 2}, "c")  # args are no table
    assert (stage.rollout.max_tokens, stage.task.args) == (512, {"levels": 1})
    assert "max_tokens" in other.rollout.model_fields_set
    assert stage.with_(policy=Policy(model="c", lora=Lora())).with_(policy={"lora": None}).policy.lora is None
