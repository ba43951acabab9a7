"""Runs on many GPUs, simulated: what must hold of any simulation, and a run that was made up from known times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from cohort.backends.cluster.simulate import Times, Work, best, drained, knee, overlapped, play, times_of
from cohort.commands.plan import parameters_of, plan_run, show
from cohort.record.rollouts import write_groups
from cohort.settings import Stage
from cohort.types import Group, Prompt, Rollout, UserError
from cohort.views.console import Console

TIMES = Times(0.02, 0.001, 0.0005, 0.1, tuple(range(1, 101)), 1.0, 0.0)
WORK = Work(prompts=64, group_size=8, rows=64)


def test_rows_take_the_place_that_is_free_first():
    assert drained([5, 3, 4], 1) == 12
    assert drained([5, 3, 4], 2) == 7  # 5, and 3 before 4
    assert drained([5, 3, 4], 3) == drained([5, 3, 4], 99) == 5
    assert drained([], 4) == 0


def test_one_of_each_takes_turns_and_more_of_each_is_never_slower():
    one = play(TIMES, WORK, 1, 1)
    tokens = 512 * np.mean(TIMES.lengths)
    learning = TIMES.step_s + TIMES.token_s * tokens
    assert one.learning * one.step_s == pytest.approx(learning, rel=0.02)
    assert one.sampling + one.learning == pytest.approx(1.0, abs=1e-6)
    steps = [play(TIMES, WORK, n, n).step_s for n in (1, 2, 4, 8)]
    assert steps == sorted(steps, reverse=True)
    assert play(TIMES, WORK, 1, 2).step_s > one.step_s / 2  # the learner does not get quicker


def test_staleness_hides_the_shorter_of_the_two_and_failures_cost():
    strict, stale = play(TIMES, WORK, 1, 1), play(TIMES, replace(WORK, staleness=1), 1, 1)
    longer = max(strict.sampling, strict.learning) * strict.step_s
    assert stale.step_s == pytest.approx(longer, rel=0.1)
    often = replace(WORK, hours_between_failures=1.0)
    assert play(TIMES, often, 8, 8).step_s > play(TIMES, WORK, 8, 8).step_s
    assert play(TIMES, often, 8, 8) == play(TIMES, often, 8, 8)


def test_bytes_of_a_step_are_those_that_are_sent():
    sent = play(TIMES, replace(WORK, weights_gb=2.0, gradient_gb=2.0), 4, 8)
    assert sent.gb_per_step == 2 * 8 + 4 * 2 * 3
    assert play(TIMES, replace(WORK, weights_gb=0.1), 1, 8).gb_per_step == pytest.approx(0.8)  # an adapter alone


def test_the_knee_is_where_more_gpus_stop_paying():
    plans = [best(TIMES, WORK, n) for n in (1, 2, 4, 8, 16, 64, 256, 4096)]
    found = knee(plans)
    assert 2 <= found.gpus < 4096
    longest = 100 * TIMES.iteration_s  # nothing makes the longest completion shorter
    assert plans[-1].step_s > longest


@pytest.fixture
def a_run(tmp_path):
    """A run whose steps took what `TIMES` says, but for a little."""
    random, lines = np.random.default_rng(0), []
    (tmp_path / "log").mkdir()
    for step in range(1, 12):
        groups = []
        for ticket in range(4):
            own = [int(n) for n in random.integers(1, 60, 4)]
            rollouts = tuple(Rollout((1,) * n, (True,) * n, (0.0,) * n, 0, "stop", "") for n in own)
            groups.append(Group(ticket, Prompt.make("q"), rollouts, rewards=(0.0,) * 4, accuracy=(0.0,) * 4))
        write_groups(tmp_path / "log" / f"step-{step:06d}.parquet", groups, step)
        lengths = [len(one.tokens) for group in groups for one in group.rollouts]
        sampled = TIMES.iteration_s * drained(lengths, 8) + TIMES.row_s * sum(lengths)
        learnt = TIMES.step_s + TIMES.token_s * sum(lengths)
        times = {"time/sample_s": sampled, "time/learn_s": learnt, "time/score_s": 0.0, "time/step_s": sampled + learnt}
        lines.append({"step": step, **times, "tokens/trained": sum(lengths)})
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    policies = {"grpo": {"parameters": 1_000_000, "trained": 1_000_000}}
    (tmp_path / "environment.json").write_bytes(orjson.dumps({"policies": policies}))
    rollout = "prompts_per_step = 4\ngroup_size = 4\nmax_rows = 8\nmax_tokens = 60"
    (tmp_path / "recipe.toml").write_text(
        f'name = "made"\n[policy]\nmodel = "m"\n[task]\nsource = "word_problems"\n[rollout]\n{rollout}\n'
        '[[reward]]\nuse = "exact_number"\n'
    )
    return tmp_path


def test_times_of_a_run_are_found_and_its_steps_played_again(a_run, capsys):
    found = times_of(a_run, 8)
    for name in ("iteration_s", "row_s", "token_s", "step_s"):
        assert getattr(found, name) == pytest.approx(getattr(TIMES, name), rel=1e-3), name
    how: Any = {"staleness": 1, "speed": 10.0, "larger": 2.0, "hours": 1.0, "failures_h": 1000.0}
    planned = plan_run(a_run, [8, 1, 64], **how)
    assert planned.simulated_s == pytest.approx(found.measured_s, rel=0.15)
    assert [one.gpus for one in planned.plans] == [1, 8, 64]
    show(Console(), planned)
    assert "simulated with the times of" in capsys.readouterr().out


def test_a_model_by_its_name_needs_learners_enough_for_its_memory(a_run, tmp_path, monkeypatch):
    how: Any = {"staleness": 0, "speed": 1e4, "larger": None, "hours": None, "failures_h": 1e9}
    planned = plan_run(a_run, [1, 2, 3, 64], model="8B", gpu_gb=80.0, **how)
    assert planned.parameters == 8_000_000_000
    assert planned.least == 2  # 128 GB of float32 weights, gradients and averages in four fifths of 80 each
    assert planned.too_few == (1, 2)
    assert all(one.learners >= 2 for one in planned.plans)
    assert planned.plans[0].gb_per_step == pytest.approx(32 * planned.plans[0].samplers + 4 * 32)
    slow, quick = (plan_run(a_run, [1], model=size, **how).plans[0].step_s for size in ("2M", "1M"))
    assert slow == pytest.approx(2 * quick)
    for name, says in (("70B", "a sampler has all weights, 280 GB"), ("8b or so", "neither the size of a model")):
        with pytest.raises(UserError, match=says):
            plan_run(a_run, [64], model=name, **how)
    with pytest.raises(UserError, match=r"2 GPUs of 80 GB cannot train 8B parameters: .* are 128 GB, for which 2"):
        plan_run(a_run, [2], model="8B", **how)
    (tmp_path / "runs").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no run in runs/ says how long a step takes"):
        plan_run(None, [1], **how)


def test_parameters_are_counted_from_a_config(checkpoint_dir, small_model):
    assert parameters_of(str(checkpoint_dir)) == small_model.num_parameters()
    assert parameters_of("0.5b") == 500_000_000
    for none in ("0B", "1e9B", "9999999999T"):
        with pytest.raises(UserError, match=r"size of no model|neither the size"):
            parameters_of(none)


def test_what_no_plan_can_be_made_of_is_named(a_run, tmp_path):
    (a_run / "log" / "step-000003.parquet").unlink()
    lines = (a_run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (a_run / "metrics.jsonl").write_bytes(b"".join(lines[:4]))
    with pytest.raises(UserError, match="has 2 steps with times and rollouts, and a plan needs 4"):
        times_of(a_run, 8)
    with pytest.raises(UserError, match="is no run"):
        plan_run(tmp_path / "x", [1], staleness=None, speed=1, larger=1, hours=None, failures_h=1)


def test_averages_in_bytes_leave_room_for_a_larger_model_on_one_learner(a_run, capsys):
    how: Any = {
        "staleness": 0,
        "speed": 1e4,
        "larger": None,
        "hours": None,
        "failures_h": 1e9,
        "model": "5B",
        "network": 1e6,
    }
    assert plan_run(a_run, [4], **how).least == 2  # 80 GB of weights, gradients and averages in 64
    with (a_run / "recipe.toml").open("a") as file:
        file.write('[optimizer]\nstate = "8bit"\n')
    planned = plan_run(a_run, [2, 64], **how)
    assert planned.least == 1
    show(Console(), planned)
    assert "several learners cannot have optimizer.state" in capsys.readouterr().out


def test_only_a_stage_that_is_on_the_cluster_samples_while_it_learns():
    tables: dict[str, Any] = {"task": {"source": "?"}, "cluster": {"address": "local"}, "rollout": {"max_staleness": 1}}
    assert overlapped(Stage(**tables))
    assert not overlapped(Stage(kind="distill", **tables))
