"""The example recipe, made small: a cold start on demonstrations of tool calls, then GRPO with the tool."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from cohort.commands.check import check_recipe
from cohort.environments import FORMATS, open_dialogue
from cohort.recipe import Recipe
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups
from cohort.seeds import derive_seed
from cohort.tasks import Ledger, open_examples
from cohort.train import train
from cohort.train.sft import supervised_batch
from cohort.types import UserError
from cohort.views.console import Console

RECIPE = Path(__file__).parents[2] / "recipes" / "calculator.toml"
SMALL = [
    "policy.scratch.hidden_size=32",
    "policy.scratch.layers=1",
    "policy.scratch.heads=2",
    "policy.scratch.kv_heads=1",
    "policy.scratch.head_dim=16",
    "policy.scratch.intermediate_size=64",
    "cold_start.run.steps=3",
    "cold_start.supervised.examples_per_step=8",
    "grpo.run.steps=1",
    "grpo.rollout.prompts_per_step=2",
    "evaluate.problems=2",
    "run.threads=1",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(recipe, run) of the example, made small."""
    where = tmp_path_factory.mktemp("calculator")
    recipe = Recipe.load(RECIPE, [*SMALL, f"run.directory={where}"])
    run = train(recipe, console=Console(quiet=True))
    torch.use_deterministic_algorithms(False)
    return recipe, run


def test_the_cold_start_learns_the_calls_and_not_what_the_calculator_says(done):
    recipe, run = done
    tokenizer = AutoTokenizer.from_pretrained(run.final)
    seed = derive_seed(recipe.seed, "stage", 0)
    examples, ledger = (
        open_examples(recipe.stages[0].task, derive_seed(seed, "task")),
        Ledger(None, derive_seed(seed, "ledger")),
    )
    dialogue = open_dialogue(tokenizer, FORMATS["tags"], True, (), [tokenizer.eos_token_id], 256)
    for line in read_metrics(run.directory / "stages" / "cold_start" / "metrics.jsonl"):
        completions = [examples[ledger.issue().index].completion for _ in range(8)]
        assert all("<result>" in completion for completion in completions)
        runs = [one for completion in completions for one in dialogue.demonstration(completion)]
        assert line["tokens/trained"] == sum(len(tokens) for tokens, own in runs if own) + 8  # and an end token each
        assert line["tokens/trained"] < sum(len(tokens) for tokens, _ in runs)


def test_grpo_and_its_evaluations_play_with_the_tool(done):
    _, run = done
    assert {"turns/mean", "turns/limit", "tools/calls", "tools/errors", "tools/tokens"} <= run.metrics[1].keys()
    for file in (run.directory / "log").glob("*.parquet"):
        assert all(rollout.turns for group in read_groups(file) for rollout in group.rollouts), file.name


def test_a_supervised_batch_weighs_only_what_is_to_be_learnt():
    batch = supervised_batch([((5, 6), [7, 8, 9], [True, False, True]), ((5,), [7], [True])])
    assert batch.lengths.tolist() == [3, 1]
    assert batch.mask.tolist() == [True, False, True, True]
    third = pytest.approx(1 / 3)
    assert batch.token_weight.tolist() == [third, 0, third, third]
    assert batch.tokens.tolist() == [7, 8, 9, 7]
    assert batch.advantages.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ('environment.tools=["calculater"]', "there is no tool 'calculater'"),
        ('environment.tools=["my_tools:search"]', "tool 'my_tools:search': there is no module 'my_tools'"),
        ('environment.use="my_tools:search"', "keep the one to act in"),
        ("environment.args.http.hosts=[]", "environment.args.http has no effect"),
        ('environment.format="auto"', "has no tool calls in a format that Cohort reads"),
        ('environment.format="hermes"', "refuses a message with the role 'tool'"),
        ("environment.max_turns=0", "environment.max_turns must be a whole number"),
    ],
)
def test_an_environment_that_cannot_be_is_refused(override, says, tmp_path):
    with pytest.raises(UserError, match=says):
        train(Recipe.load(RECIPE, [*SMALL, f"run.directory={tmp_path}", override]), console=Console(quiet=True))


def test_a_check_says_that_a_model_cannot_call_tools():
    with pytest.raises(UserError, match="has no tool calls in a format that Cohort reads"):
        check_recipe(Recipe.load(RECIPE, [*SMALL, 'environment.format="auto"']), Console(quiet=True))
