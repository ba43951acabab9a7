"""Several rewards from a recipe file: gates, prompts that a reward is not for, GDPO, and what is missing."""

from __future__ import annotations

import json
import math

import pytest
import torch

from cohort.algorithms import objectives
from cohort.recipe import Recipe
from cohort.record.rollouts import read_groups
from cohort.train import train
from cohort.types import UserError
from cohort.views.console import Console

RECIPE = """
name = "combined"
seed = 3
[policy]
model = "base"
[task]
source = "mixed.jsonl"
held_out = 0.25
[rollout]
prompts_per_step = 6
group_size = 6
max_tokens = 8
{rewards}
[optimizer]
learning_rate = 1e-2
[evaluate]
problems = 12
samples = 2
[run]
steps = 2
threads = 1
gate = "off"
"""
REWARDS = """
def vowels(completion):
    return sum(c in "aeiou" for c in completion) / (1 + len(completion))

def short(completion):
    return float(len(completion) < 14)

def even(completion):
    assert len(completion) >= 0
    return float(len(completion) % 2 == 0)

def never(completion, tests):
    raise AssertionError("called for a prompt that has no tests")

def some(completion, seed):
    return None if seed % 4 == 0 else float(seed % 3)
"""


@pytest.fixture
def train_with(tmp_path, monkeypatch, checkpoint_dir):
    """Train the recipe with these rewards; the groups of its first step, and the run."""
    rows = [
        {"prompt": f"Problem number {i}?", "answer": str(i), "domain": ("math", "code", "chat")[i % 3], "tests": "x"}
        for i in range(48)
    ]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mixed_rewards.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def start(rewards, *overrides):
        (tmp_path / "recipe.toml").write_text(RECIPE.format(rewards=rewards))
        done = train(Recipe.load("recipe.toml", overrides), console=Console(quiet=True))
        return read_groups(done.directory / "log/step-000001.parquet"), done

    return start


GATED = """
[[reward]]
use = "mixed_rewards:vowels"
gate = "short"
gate_at = 1.0
{more}
[[reward]]
use = "mixed_rewards:short"
weight = 0.25
"""


@pytest.mark.parametrize(("more", "instead"), [("", 0.0), ('gate_else = "none"', math.nan)])
def test_a_gate_from_a_recipe(train_with, more, instead):
    groups, done = train_with(GATED.format(more=more), "objective.preset=dr_grpo")
    shut = 0
    for group in groups:
        for vowels, short, reward, rollout in zip(
            group.scores["vowels"], group.scores["short"], group.rewards, group.rollouts, strict=True
        ):
            assert vowels == pytest.approx(sum(c in "aeiou" for c in rollout.text) / (1 + len(rollout.text)))  # raw
            assert reward == pytest.approx(vowels + 0.25 if short else 0.0)
            shut += not short
        accuracy = [v if s else instead for v, s in zip(group.scores["vowels"], group.scores["short"], strict=True)]
        assert repr(group.accuracy) == repr(tuple(accuracy))
        expected = objectives.preset("dr_grpo").advantages(torch.tensor([group.rewards]))[0]
        torch.testing.assert_close(torch.tensor(group.advantages).double(), expected, atol=1e-6, rtol=0)
    assert 0 < shut < 36
    assert done.metrics[1]["reward/vowels/gated"] == shut
    assert done.metrics[1]["reward/vowels/scored"] == 36


@pytest.mark.parametrize("more", ["", 'gate_else = "none"'])
def test_gdpo_normalises_what_is_paid(train_with, more):
    """GDPO's conditioned reward: the gate acts before each reward is normalised."""
    third = '\n[[reward]]\nuse = "mixed_rewards:some"\nweight = 0.5\n'
    groups, done = train_with(GATED.format(more=more) + third, "objective.rewards=normalise_then_sum")
    paid = []
    for group in groups:
        shut = [not short for short in group.scores["short"]]
        instead = math.nan if more else 0.0
        vowels = [instead if closed else v for v, closed in zip(group.scores["vowels"], shut, strict=True)]
        paid.append(list(zip(vowels, group.scores["short"], group.scores["some"], strict=True)))
    objective = objectives.preset("grpo", rewards="normalise_then_sum")
    expected = objective.advantages(torch.tensor(paid, dtype=torch.float64), weights=[1.0, 0.25, 0.5])
    found = torch.tensor([group.advantages for group in groups]).double()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert found.abs().max() > 0.1
    assert done.metrics[1]["reward/some/not_applicable"] > 0
    assert done.metrics[2]["grad_norm"] > 0


ROUTED = """
[[reward]]
use = "mixed_rewards:vowels"
when = { domain = "math" }
[[reward]]
use = "mixed_rewards:even"
when = { domain = ["code", "chat"] }
[[reward]]
use = "mixed_rewards:never"
when = { domain = "poetry" }
[[reward]]
use = "mixed_rewards:short"
weight = 0.0
"""


def test_a_prompts_domain_picks_its_rewards(train_with):
    """Also where groups without signal are resampled, and in evaluations."""
    groups, done = train_with(ROUTED, "objective.preset=dapo", "rollout.resample_cap=8")
    domains = set()
    for group in groups:
        domains.add(group.prompt.tags["domain"])
        mine, other = ("vowels", "even") if group.prompt.tags["domain"] == "math" else ("even", "vowels")
        assert group.rewards == group.accuracy == group.scores[mine]
        assert all(map(math.isnan, group.scores[other] + group.scores["never"]))
        assert (group.disposition == "zero_std") == (len(set(group.accuracy)) == 1)
    assert domains == {"math", "code", "chat"}
    line = done.metrics[1]
    assert line["reward/vowels/scored"] + line["reward/even/scored"] == 6 * len(groups)
    assert line["reward/never/not_applicable"] == 6 * len(groups)
    greedy = read_groups(done.directory / "log/eval-000000-greedy.parquet")
    assert {group.prompt.tags["domain"] for group in greedy} == {"math", "code", "chat"}
    for group in greedy:
        assert group.accuracy == group.scores["vowels" if group.prompt.tags["domain"] == "math" else "even"]
        assert group.error is None


def test_a_completion_to_which_nothing_applies_is_no_evidence(train_with):
    groups, _ = train_with('[[reward]]\nuse = "mixed_rewards:some"\n', "objective.preset=dr_grpo")
    missing = 0
    for group in groups:
        known = [reward for reward in group.rewards if not math.isnan(reward)]
        for reward, advantage in zip(group.rewards, group.advantages, strict=True):
            missing += math.isnan(reward)
            expected = 0.0 if math.isnan(reward) else reward - sum(known) / len(known)
            assert advantage == pytest.approx(expected, abs=1e-6)
    assert missing


@pytest.mark.parametrize(
    ("rewards", "says"),
    [
        ('[[reward]]\nuse = "exact_number"\ngate = "think_format"', "the gate 'think_format' is no other reward"),
        ('[[reward]]\nuse = "exact_number"\ngate_at = 0.9', "gate_at has no effect without a gate"),
        ('[[reward]]\nuse = "exact_number"\nwhen = { domian = "math" }', "did you mean 'domain'"),
        ('[[reward]]\nuse = "exact_number"\nwhen = { domain = [] }', r"when\.domain must be a text"),
        ('[[reward]]\nuse = "exact_number"\nwhen = "math"', "when must be a table, not 'math'"),
        ('[[reward]]\nuse = "exact_number"\ngate_else = "nan"', "gate_else must be 'zero' or 'none', not 'nan'"),
    ],
)
def test_mistakes_get_a_sentence(train_with, rewards, says):
    with pytest.raises(UserError, match=says):
        train_with(rewards)


def test_the_plan_and_explain_say_who_is_paid_when():
    from cohort.views.plan import rewards_line

    task = {"source": "word_problems"}
    rewards = [
        {"use": "math", "when": {"domain": ["algebra", "sums"], "level": 2}, "gate": "think_format", "gate_at": 1.0},
        {"use": "exact_text", "gate": "think_format", "gate_else": "none", "weight": -2.0},
        {"use": "think_format", "weight": 0.1},
    ]
    stage = Recipe(policy={"scratch": {}}, task=task, reward=rewards).stages[0]
    assert rewards_line(stage) == (
        "1 x math (where domain is 'algebra' or 'sums'; where level is 2; 0 unless think_format >= 1)"
        " + -2 x exact_text (left out unless think_format >= 0.5) + 0.1 x think_format"
    )
