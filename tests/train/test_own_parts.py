"""Parts of one's own, named as module:name: a kind of stage, a sampler, trackers. Cohort needs no line for them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import orjson
import pytest
import torch
from own_parts import CountingSampler, Shrinking
from safetensors.torch import load_file

from cohort.recipe import Recipe
from cohort.record.metrics import is_timing, read_metrics
from cohort.train import train
from cohort.types import UserError
from cohort.views.console import Console


def weights(directory):
    return load_file(directory / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def shrink(tables, tmp_path):
    """A recipe whose only stage is of a kind of one's own."""
    run = {"steps": 5, "evaluate_every": 2, "save_every": 2, "directory": str(tmp_path / "runs"), "threads": 1}
    return {
        "name": "shrink",
        "kind": "own_parts:Shrink",
        "policy": tables["policy"],
        "task": tables["task"],
        "optimizer": {"learning_rate": 0.1},
        "run": run,
    }


def start(recipe, console=None, **changes):
    return train(Recipe(**recipe), console=console or Console(quiet=True), **changes)


def test_a_kind_of_ones_own_is_evaluated_and_saved_by_the_one_loop(shrink, checkpoint_dir):
    text = io.StringIO()
    done = start(shrink, Console(file=text, width=200))
    assert [line["step"] for line in done.metrics] == [0, 1, 2, 3, 4, 5]
    assert [line["step"] for line in done.metrics if "eval/largest" in line] == [0, 2, 4, 5]
    assert done.metrics[5]["eval/largest"] == pytest.approx(done.metrics[0]["eval/largest"] * 0.9**5, rel=1e-5)
    assert sorted(path.name for path in (done.directory / "checkpoints").iterdir()) == ["step-000004", "step-000005"]
    before, after = weights(checkpoint_dir), weights(done.final)
    name = next(name for name in before if before[name].dim() == 2)
    torch.testing.assert_close(after[name], before[name] * 0.9**5)
    assert "by 0.9 at each of 5 steps" in text.getvalue()
    assert "largest" in text.getvalue()
    assert 'kind = "own_parts:Shrink"' in (done.final / "README.md").read_text()
    assert (done.directory / "closed").exists()


def test_a_kind_of_ones_own_goes_on_with_the_same_bits(shrink, monkeypatch):
    whole = start({**shrink, "name": "whole"})
    step = Shrinking.step

    def killed(self, number):
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(Shrinking, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        start(shrink)
    monkeypatch.setattr(Shrinking, "step", step)
    resumed = start(shrink, resume=True)
    assert same(weights(whole.final), weights(resumed.final))
    assert resumed.metrics == whole.metrics


def test_a_mistake_in_a_kind_of_ones_own_keeps_what_was_trained(shrink, monkeypatch, tmp_path):
    step = Shrinking.step

    def fails(self, number):
        if number == 4:
            raise UserError("the disk of the teacher is full")
        return step(self, number)

    monkeypatch.setattr(Shrinking, "step", fails)
    text = io.StringIO()
    with pytest.raises(UserError, match="disk of the teacher"):
        start(shrink, Console(file=text, width=200))
    assert "saved up to step 3" in text.getvalue()
    assert (tmp_path / "runs/shrink/checkpoints/step-000003/model.safetensors").exists()


def test_stages_follow_a_kind_of_ones_own(shrink, tables):
    """It has the name of its class where it has no other, in directories and in overrides."""
    first = {key: shrink[key] for key in ("kind", "policy", "optimizer")} | {"run": {"steps": 2}}
    second = {key: tables[key] for key in ("rollout", "reward", "objective")} | {"kind": "grpo", "run": {"steps": 1}}
    recipe = {"name": "two", "task": tables["task"], "evaluate": tables["evaluate"], "run": shrink["run"]}
    done = start({**recipe, "stage": [first, second]})
    stages = done.directory / "stages"
    assert [path.name for path in stages.iterdir()] == ["Shrink"]
    assert [line["step"] for line in read_metrics(stages / "Shrink" / "metrics.jsonl")] == [0, 1, 2]
    assert [line["step"] for line in done.metrics] == [0, 1]
    small = weights(stages / "Shrink" / "final")
    moved = weights(done.final)
    assert all((small[name] - moved[name]).abs().max() < 0.02 for name in small)  # it went on from there


def test_what_is_wrong_with_a_kind_of_ones_own_is_said_before_a_model_loads(shrink, tmp_path):
    def refused(**changes):
        with pytest.raises(UserError) as caught:
            start({**shrink, **changes})
        assert not (tmp_path / "runs/shrink/metrics.jsonl").exists()
        return str(caught.value)

    assert "nothing is left" in refused(optimizer={"learning_rate": 1.0})
    assert "has no function 'Shrunk' (did you mean 'Shrink'?)" in refused(kind="own_parts:Shrunk")
    assert "has no tables, columns" in refused(kind="own_parts:not_a_kind")
    assert "cannot be made: AsksForMore.__init__() missing 1 required" in refused(kind="own_parts:AsksForMore")
    assert "has no facts, policy, weights_of, step, evaluate, save" in refused(kind="own_parts:Unfinished")
    stage = {"kind": "own_parts:Shrink", "policy": shrink["policy"], "rollout": {"group_size": 4}}
    with pytest.raises(UserError, match=r"has \[rollout\], which a stage of kind 'own_parts:Shrink' does not read"):
        start({"name": "shrink", "task": shrink["task"], "run": shrink["run"], "stage": [stage]})


def test_a_sampler_of_ones_own_samples_all_and_changes_nothing(run):
    usual = run(name="usual")
    counted = run(name="counted", rollout={"sampler": "own_parts:open_counting_sampler"})
    sampler = CountingSampler.opened[-1]
    steps, evaluations = 4 * 3, 2 * 2 * 4  # before and after: 4 problems, greedy and sampled
    assert sampler.groups == steps + evaluations
    assert sampler.published == [0, 1, 2, 3, 4]
    assert same(weights(usual.final), weights(counted.final))
    for a, b in zip(usual.metrics, counted.metrics, strict=True):
        plain = ({k: v for k, v in line.items() if not is_timing(k)} for line in (a, b))
        assert orjson.dumps(next(plain)) == orjson.dumps(next(plain))  # NaN is null here


def test_the_sampler_that_the_page_shows_draws_what_the_learner_finds_as_likely(run, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "engine.md").read_text("utf-8")
    (shown,) = re.findall(r"```python\n(import torch\n.*?class Slow.*?)```\n", page, re.DOTALL)
    (tmp_path / "slow_sampler.py").write_text(shown)
    monkeypatch.syspath_prepend(tmp_path)
    done = run(rollout={"sampler": "slow_sampler:Slow"}, run={"steps": 2})
    assert all(line["policy/mismatch"] < 1e-5 for line in done.metrics if line["step"])
    again = run(rollout={"sampler": "slow_sampler:Slow"}, run={"steps": 2}, name="again")
    assert same(weights(done.final), weights(again.final))


def test_trackers_of_ones_own(run):
    done = run(run={"trackers": ["own_parts:Lines"]})
    lines = [orjson.loads(line) for line in (done.directory / "lines.jsonl").read_bytes().splitlines()]
    assert lines[0] == {"recorded": -1}
    assert lines[-1] == {"closed": True}
    assert lines[1:-1] == [orjson.loads(orjson.dumps(line)) for line in done.metrics]
    run(run={"trackers": ["own_parts:Lines"], "steps": 6}, resume=True)
    later = [orjson.loads(line) for line in (done.directory / "lines.jsonl").read_bytes().splitlines()][len(lines) :]
    assert later[0] == {"recorded": 4}
    assert [line["step"] for line in later[1:-1]] == [5, 6]


def test_a_tracker_that_fails_is_named_once_and_the_run_goes_on(run):
    usual, text = run(name="usual"), io.StringIO()
    trackers = ["own_parts:Breaks", "own_parts:Lines"]
    done = run(console=Console(file=text, width=200), run={"trackers": trackers})
    assert text.getvalue().count("own_parts:Breaks") == 2  # when it fails, and at the end
    said = "the tracker 'own_parts:Breaks' failed and is left out from here on: ConnectionError: the server is gone"
    assert said in " ".join(text.getvalue().split())
    assert "not every step has reached the trackers: 'own_parts:Breaks' after step 1" in " ".join(
        text.getvalue().split()
    )
    assert (done.directory / "calls").read_text().split() == ["0", "1", "2", "2"]  # once more at the end
    assert orjson.loads((done.directory / "trackers.json").read_bytes()) == {"own_parts:Breaks": 1}
    lines = (done.directory / "lines.jsonl").read_bytes().splitlines()
    assert len(lines) == 1 + 5 + 1
    assert same(weights(usual.final), weights(done.final))


@pytest.mark.parametrize(
    ("tracker", "says"),
    [
        ("own_parts:does_not_start", "does not start: ValueError: no key of this service is set"),
        ("own_parts:Line", "has no function 'Line' (did you mean 'Lines'?)"),
        ("own_part:Lines", "there is no module 'own_part'"),
        ("own_parts:not_a_kind", "is tuple, not a function"),
    ],
)
def test_a_tracker_that_cannot_be_is_refused_before_the_first_step(run, tmp_path, tracker, says):
    with pytest.raises(UserError) as caught:
        run(run={"trackers": [tracker]})
    assert says in str(caught.value)
    assert not (tmp_path / "runs/small/checkpoints").exists()
