"""What a run says of itself while it runs: its plan, its groups, its evaluations."""

from __future__ import annotations

import io
import re

import pytest

from cohort.recipe import Recipe
from cohort.train import train
from cohort.views.console import Console


@pytest.fixture
def pipe():
    file = io.StringIO()
    return file, Console(file=file)


def sometimes(completion, prompt):
    return float("3" in prompt and len(completion) % 2)


def test_a_group_with_signal_is_shown_rather_than_one_without(run):
    file, shown = io.StringIO(), []

    class Watched(Console):
        def group(self, step, group, traces=None):
            shown.append(group)

    run(reward=[sometimes], console=Watched(file=file), run={"show_group_every": 1})
    lines = [line for line in file.getvalue().splitlines() if re.match(r"  \d/4 ", line)]
    assert any(group.has_signal for group in shown)
    for line, group in zip(lines, shown, strict=True):
        assert group.has_signal or "signal   0%" in line


def all_alike(completion):
    return 0.5


def test_a_run_in_which_no_reward_differed_says_so(run, pipe):
    file, console = pipe
    run(reward=[all_alike], console=console, run={"gate": "off", "steps": 2})
    said = " ".join(file.getvalue().split())
    assert "in none of 2 steps did the rewards of a group differ" in said  # too few steps for a detector


def test_every_evaluation_is_shown_when_it_is_made(run, pipe):
    file, console = pipe
    run(console=console, run={"evaluate_every": 2})
    lines = file.getvalue().splitlines()
    starts = ("  before: held-out", "  2/4", "  step 2: held-out", "  3/4", "  step 4: held-out")
    places = [next(i for i, line in enumerate(lines) if line.startswith(start)) for start in starts]
    assert places == sorted(places)
    assert "in none of" not in file.getvalue()


@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_the_plan_has_no_evaluation_where_nothing_is_held_out(tables, pipe, kind):
    file, console = pipe
    tables["task"].pop("held_out")
    if kind == "sft":
        tables = {key: value for key, value in tables.items() if key not in ("objective", "reward")}
        tables |= {"kind": "sft", "evaluate": {"reward": "exact_number"}, "supervised": {"examples_per_step": 2}}
        tables["rollout"] = {"max_tokens": 8}
        tables["task"] |= {"completion": "solution"}
    train(Recipe.from_tables({**tables, "run": {**tables["run"], "steps": 1}}), console=console)
    assert "  task " in file.getvalue()
    assert "held-out problems" not in file.getvalue()
    assert not re.search(r"^  evaluation", file.getvalue(), re.MULTILINE)
    assert ("nothing is held out (task.held_out)" in " ".join(file.getvalue().split())) == (kind == "grpo")
    assert bool(re.search(r"^  rollouts", file.getvalue(), re.MULTILINE)) == (kind == "grpo")
