"""The step that is kept, the stage that stops early, and what a person is told of both."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from cohort.record.metrics import is_timing
from cohort.record.verify import verify
from cohort.settings import Run, Stop
from cohort.train.choosing import choose, reason_to_stop
from cohort.train.grpo.training import GrpoTraining
from cohort.train.loop import _Loop
from cohort.types import UserError


def lines(*values, name="eval/greedy"):
    return [{"step": step, name: value} for step, value in enumerate(values)]


BEST = Run(keep_best="eval/greedy")


def test_the_best_step_is_kept_and_of_equals_the_earliest():
    chosen = choose(lines(0.9, 0.2, 0.5, 0.5, 0.4), BEST, first=0)
    assert (chosen.step, chosen.value, chosen.looks, chosen.confirmed) == (2, 0.5, 4, None)
    assert choose(lines(0.9), BEST, first=0) is None  # what was there before training is no step of it
    assert choose(lines(0.1, 0.2), Run(), first=0) is None
    assert choose(lines(0, 3.0, 2.0, name="eval/loss"), Run(keep_best="eval/loss"), 0).step == 2  # less is better


def test_the_half_that_chooses_is_not_the_half_that_confirms():
    def line(step, all_of_them, choosing, confirming):
        ends = {"eval/confirming/greedy_low": confirming - 0.1, "eval/confirming/greedy_high": confirming + 0.1}
        halves = {"eval/choosing/greedy": choosing, "eval/confirming/greedy": confirming}
        return {"step": step, "eval/greedy": all_of_them, **halves, **ends}

    chosen = choose([line(0, 0.1, 0.1, 0.1), line(1, 0.8, 0.5, 0.9), line(2, 0.6, 0.7, 0.5)], BEST, 0)
    assert (chosen.step, chosen.value, chosen.confirmed, chosen.before) == (2, 0.7, 0.5, 0.1)
    assert "50.0% [40.0%, 60.0%] on problems that had no part in the choice, 10.0% before" in chosen.words()


@pytest.mark.parametrize(
    ("values", "stop", "over"),
    [
        ((0.1, 0.5, 0.4, 0.4), Stop(metric="eval/greedy", patience=2), True),
        ((0.1, 0.5, 0.4, 0.6), Stop(metric="eval/greedy", patience=2), False),
        ((0.1, 0.5, 0.5, 0.5), Stop(metric="eval/greedy", patience=2), True),
        ((0.1, 0.5), Stop(metric="eval/greedy", patience=2), False),
        ((0.1, 0.95), Stop(metric="eval/greedy", threshold=0.95), True),
        ((0.96, 0.5), Stop(metric="eval/greedy", threshold=0.95), False),
        ((), Stop(metric="eval/greedy", threshold=0.95), False),
        ((0.25, 0.5, 0.25), Stop(metric="eval/greedy", total=1.0), True),  # a sum over the lines: no step counts twice
        ((0.25, 0.5), Stop(metric="eval/greedy", total=1.0), False),
    ],
)
def test_when_a_stage_stops(values, stop, over):
    assert bool(reason_to_stop(lines(*values), Run(stop=stop))) is over


def tables(**run):
    return {
        "task": {"held_out": 0.5},
        "evaluate": {"problems": 12, "samples": 4, "greedy": False, "reward": "vowels"},
        "run": {"steps": 6, "evaluate_every": 1, "save_every": 0, "keep_checkpoints": 1, "gate": "off", **run},
    }


def weights(path):
    return load_file(path / "model.safetensors")


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)


def numbers(found):
    return [{key: value for key, value in line.items() if not is_timing(key)} for line in found.metrics]


def noted(name, method, done):
    def call(self, *given):
        done.append(name)
        return method(self, *given)

    return call


def test_the_best_step_becomes_the_final_model_also_when_the_run_was_killed(run, monkeypatch, tmp_path):
    done = []
    for name in ("__init__", "close"):  # a cluster may have room for one at a time
        monkeypatch.setattr(GrpoTraining, name, noted(name, getattr(GrpoTraining, name), done))
    whole = run(name="whole", **tables(keep_best="eval/pass@4"))
    assert done[:4] == ["__init__", "close", "__init__", "close"]
    column = [line["eval/choosing/pass@4"] for line in whole.metrics[1:]]
    best = column.index(max(column)) + 1
    closed = [json.loads(line) for line in (whole.directory / "log/chain.jsonl").read_text().splitlines()][-1]
    assert (closed["kind"], closed["policy"]["step"]) == ("close", best)
    assert closed["policy"]["chosen"]["looks"] == 6
    kept = whole.directory / "checkpoints" / f"step-{best:06d}"
    assert same(weights(whole.final), weights(kept))
    assert len(list(kept.parent.glob("step-*"))) <= 2  # the best one and the last one
    record = json.loads((whole.directory / "record.json").read_text())
    assert record["stages"][0]["policies"]["result"]["value"]["step"] == best
    performance = record["stages"][0]["behaviour"]["performance"]["value"]
    assert (performance["after"]["step"], performance["chosen"]["confirmed"]) == (
        best,
        whole.metrics[best]["eval/confirming/pass@4"],
    )
    assert f"the model is that of step {best}, the best of 6 by eval/pass@4" in (
        whole.directory / "card.md"
    ).read_text().replace("\\", "")
    assert verify(whole.directory).holds

    record_line = _Loop.record

    def killed(self, step, metrics, measured):
        record_line(self, step, metrics, measured)
        if step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Loop, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        run(name="killed", **tables(keep_best="eval/pass@4"))
    monkeypatch.setattr(_Loop, "record", record_line)
    again = run(resume=True, name="killed", **tables(keep_best="eval/pass@4"))
    assert numbers(again) == numbers(whole)
    assert same(weights(again.final), weights(whole.final))


def test_a_stage_that_stops_early_is_finished(run):
    stop = {"metric": "eval/pass@1", "threshold": 0.0}
    done = run(**tables(stop=stop))
    assert [line["step"] for line in done.metrics] == [0]  # good enough before the first step
    stop = {"metric": "reward:mean", "patience": 2}
    done = run(name="flat", optimizer={"learning_rate": 0.0}, **tables(stop=stop, evaluate_every=0))
    last = done.metrics[-1]["step"]
    assert last < 6
    assert "eval/pass@1" in done.metrics[-1]  # it is measured where it ends
    again = run(resume=True, name="flat", optimizer={"learning_rate": 0.0}, **tables(stop=stop, evaluate_every=0))
    assert again.metrics == done.metrics


def test_a_budget_is_used_up_at_the_same_step_when_the_run_was_killed(run, monkeypatch):
    budget = tables(stop={"metric": "tokens/sampled", "total": 200.0}, evaluate_every=0)
    whole = run(name="whole", **budget)
    spent = [line["tokens/sampled"] for line in whole.metrics[1:]]
    assert sum(spent[:-1]) < 200 <= sum(spent)
    record_line = _Loop.record

    def killed(self, step, metrics, measured):
        record_line(self, step, metrics, measured)
        if step == len(spent) - 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Loop, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        run(name="killed", **budget)
    monkeypatch.setattr(_Loop, "record", record_line)
    assert numbers(run(resume=True, name="killed", **budget)) == numbers(whole)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"keep_best": "reward/mean"}, "no held-out metric"),
        ({"keep_best": "reward:mean", "stop": {"metric": "lr", "patience": 1}}, "neither more nor less is better"),
        ({"keep_best": "eval/gredy"}, "is no metric.*did you mean 'eval/greedy'"),
        ({"keep_best": "eval/greedy"}, "needs evaluate.greedy = true"),
        ({"keep_best": "eval/pass@8"}, "a power of two up to evaluate.samples, which is 4"),
        ({"keep_best": "eval/pass@3"}, "a power of two"),
        ({"keep_best": "eval/pass@1", "evaluate_every": 0}, "set run.evaluate_every"),
        ({"keep_best": "eval/minus/pass@1"}, "no suite is called 'minus'; there is none"),
        ({"keep_best": "eval/accuracy"}, "nothing that a stage of kind grpo measures"),
        ({"keep_best": "eval/maj@2"}, "a power of two from 4 up to"),
        ({"keep_best": "reward:vowls"}, "no reward is called 'vowls'; there is vowels"),
        ({"stop": {"metric": "pairs/accuracy", "patience": 1}}, "nothing that a stage of kind grpo measures"),
        ({"stop": {"metric": "eval/pass@1", "threshold": 95.0}}, "is a share, from 0 to 1"),
        ({"stop": {"metric": "tokens/sample", "total": 9.0}}, "adds up tokens/sampled, time/step_s.*did you mean"),
        ({"stop": {"metric": "eval/pass@1"}}, "patience, threshold or total"),
        ({"stop": {"metric": "eval/pass@1", "patience": 1, "threshold": 1.0}}, "patience, threshold or total"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused_with_a_sentence(run, given, said):
    with pytest.raises(UserError, match=said):
        run(**tables(**given))


def test_nothing_held_out_and_one_problem_cannot_choose(run):
    with pytest.raises(UserError, match="nothing is held out"):
        run(**{**tables(keep_best="eval/pass@1"), "task": {"held_out": None}})
    one = tables(keep_best="eval/pass@1")
    one["evaluate"] |= {"problems": 1}
    with pytest.raises(UserError, match=r"splits the held-out problems in two.* hold out more"):
        run(**one)


def test_a_reward_chooses_only_where_the_recipe_says_so(run):
    done = run(**tables(keep_best="reward:vowels", evaluate_every=0))
    column = [line["reward/vowels/mean"] for line in done.metrics if line["step"]]
    closed = [json.loads(line) for line in (done.directory / "log/chain.jsonl").read_text().splitlines()][-1]
    assert closed["policy"]["step"] == column.index(max(column)) + 1
