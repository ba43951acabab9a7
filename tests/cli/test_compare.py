"""`cohort compare`, as a person uses it: runs from the same weights, which a second call only reads."""

from __future__ import annotations

import json
import re
import shlex
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cohort.commands import compare
from cohort.recipe import Recipe
from cohort.train import train
from cohort.train.compare import running
from cohort.types import UserError
from cohort.views.comparison import shortened
from cohort.views.console import Console

STAGES = """
[[stage]]
kind = "sft"
name = "cold"
[stage.task]
completion = "solution"
[stage.supervised]
examples_per_step = 8
[stage.run]
steps = 1
[[stage]]
kind = "grpo"
"""


class Done:
    """A run that has ended."""

    def __init__(self, code):
        self.poll = self.wait = lambda: code


@pytest.fixture
def here(monkeypatch):
    """Runs are trained in this process, which is quicker."""

    def trained(file, resume, output, environment):
        try:
            train(Recipe.load(file), resume=resume, console=Console(quiet=True))
        except UserError:
            return Done(1)
        return Done(0)

    monkeypatch.setattr(running, "launch", trained)


def test_a_comparison_begins_once_and_ends_in_a_table(desk, cohort, monkeypatch, here):
    recipe = (desk / "recipe.toml").read_text().replace("steps = 2", "steps = 1")
    rewards = recipe[recipe.index("[[reward]]") : recipe.index("[objective]")]
    (desk / "recipe.toml").write_text(
        recipe.replace(rewards, "") + STAGES + rewards.replace("[[reward]]", "[[stage.reward]]")
    )
    words = ("compare", "recipe.toml", "--controls", "constant,random", "optimizer.learning_rate=1e-2")
    code, out, err = cohort(*words)
    assert code == 0, err
    assert "run 1 of 4, before: the stages before it, once for all" in out
    assert "recipe minus random: " in out
    assert "the recipe changes by" in out
    place = desk / "runs/mine-compare"
    kept = json.loads((place / "compare.json").read_text())
    assert [one["arm"] for one in kept["arms"]] == ["as it is", "constant", "random"]
    assert (place / "compare.png").read_bytes().startswith(b"\x89PNG")

    def weights(run):
        return sha256((place / run / "final/model.safetensors").read_bytes()).hexdigest()

    arms = ("as_it_is", "constant", "random")
    begun = [pq.read_table(place / arm / "log/eval-000000-sampled.parquet")["logprobs"].to_pylist() for arm in arms]
    assert begun[0] == begun[1] == begun[2]  # the same weights, bit by bit
    assert weights("constant") == weights("before")  # nothing was learnt
    assert len({weights(arm) for arm in arms}) == 3
    assert all((place / arm / "record.json").exists() for arm in arms)

    monkeypatch.setattr("cohort.train.run.train_stage", None)  # nothing is trained again
    code, out, err = cohort(*words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found == kept == json.loads((place / "compare.json").read_text())

    code, _, err = cohort(*words, "rollout.group_size=2")
    assert code == 1
    assert "runs/mine-compare compares another recipe: stage.1.rollout.group_size was 3 and is 2" in err
    code, _, err = cohort(*words, "optimizer.warmup_steps=1", "task.limit=9")
    assert "stage.0.task.limit was not given and is 9" in err


def test_wrong_words_are_said(desk, cohort):
    code, _, err = cohort("compare", "recipe.toml", "--controls", "randm")
    assert (code, "did you mean 'random'" in err) == (2, True), err
    code, _, err = cohort("compare", "recipe.toml")
    assert (code, "say what to compare with: --controls" in err) == (2, True), err
    code, _, err = cohort("compare", "recipe.toml", "--vary", "rollout.group_size=2,4", "--budget", "time")
    assert (code, "there is no budget 'time'" in err) == (2, True), err
    code, _, err = cohort("compare", "recipe.toml", "--controls", "random", "evaluate.problems=0")
    assert (code, "evaluates nothing to compare by" in err) == (1, True), err
    assert not (desk / "runs").exists()


def test_arms_of_methods_are_processes_that_stop_at_the_budget(desk, cohort):
    """With real processes: their memory is their own, and with several at a time their words are kept in files."""
    words = ("compare", "recipe.toml", "--methods", "dr_grpo,ppo", "--budget", "tokens", "--jobs", "2")
    words += ("rollout.prompts_per_step=2", "evaluate.problems=2")
    code, out, err = cohort(*words)
    assert code == 0, err
    assert "every arm stops when it has used the sampled tokens of dr_grpo" in " ".join(out.split())
    assert "ppo differs in critic.warmup_steps = 1" in out
    place = desk / "runs/mine-compare-tokens"
    own, other = json.loads((place / "compare.json").read_text())["arms"]
    lines = [json.loads(line) for line in (place / "ppo/metrics.jsonl").read_text().splitlines()]
    spent = [line["tokens/sampled"] for line in lines[1:]]
    assert sum(spent[:-1]) < own["tokens_sampled"] <= sum(spent) == other["tokens_sampled"]
    assert lines[1]["critic/warmup"] == 1
    assert 0 < other["memory_gb"] < 4
    assert "ppo" in (place / "recipes/ppo.txt").read_text()


def test_a_run_that_fails_stops_the_others_and_one_that_diverges_does_not(desk, cohort, here):
    broken = desk / "broken"
    broken.touch()
    (desk / "my_rewards.py").write_text(
        "from pathlib import Path\ndef vowels(completion, seed):\n"
        f"    assert not Path({str(broken)!r}).exists(), 'my slip'\n    return float(seed % 7)\n"
    )
    words = ("compare", "recipe.toml", "--vary", "optimizer.learning_rate=1e-3,1e30", "run.gate=off")
    words += ("evaluate.problems=2", "objective.zero_std=zero", "run.steps=3")
    code, _, err = cohort(*words)
    assert (code, "the run optimizer.learning_rate-1e-3 failed:" in err, "my slip" in err) == (1, True, True), err
    broken.unlink()
    code, out, err = cohort(*words)
    assert code == 0, err
    assert "optimizer.learning_rate=1e30, seed 0, has collapsed: " in out
    assert "1 of 1" in out


PAGES = Path(__file__).parents[2] / "docs"
COMMANDS = [
    line
    for page in ("claims.md", "grpo-vs-ppo.md", "rewards/process_reward.md")
    for line in (PAGES / page).read_text("utf-8").splitlines()
    if line.startswith("cohort compare recipes/")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_can_begin(cohort, monkeypatch, command):
    def begin(compared, console, jobs):
        raise UserError(f"{len(compared.arms)} arms can begin")

    monkeypatch.setattr(compare, "train_arms", begin)
    _, name, recipe, *words = shlex.split(command)
    code, _, err = cohort(name, str(PAGES.parent / recipe), *words)
    assert code == 1
    assert re.search(r"\d arms can begin", err), err


def test_keys_in_a_figure_are_shortened_where_that_leaves_them_apart():
    rates = ["grpo, optimizer.learning_rate=1e-4", "ppo, optimizer.learning_rate=3e-4"]
    assert shortened(rates) == ["grpo, learning_rate=1e-4", "ppo, learning_rate=3e-4"]
    apart = ["reward.steps.weight=1, reward.whole.weight=0", "reward.steps.weight=0, reward.whole.weight=1"]
    assert shortened(apart) == apart
    assert shortened(["recipe", "constant"]) == ["recipe", "constant"]
