"""Stages that make data and learn from them: rejection sampling, RFT, DPO, evaluation; each resumed with equal bits."""

from __future__ import annotations

import io
import json
import os
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from vowels import share_of_vowels

from cohort.evaluate.compare import Verdict
from cohort.policy.load import load_policy, locate
from cohort.recipe import Recipe
from cohort.record.metrics import is_timing, read_metrics
from cohort.record.rollouts import read_groups
from cohort.record.verify import verify
from cohort.train import train
from cohort.train.replay import checks
from cohort.train.run import prepare
from cohort.types import UserError
from cohort.views.console import Console

FIRST: dict[str, Any] = {
    "kind": "reject",
    "name": "own",
    "rollout": {"prompts_per_step": 4, "group_size": 8, "max_tokens": 8},
    "reject": {"least": {"vowels": 0.25}, "per_prompt": 2, "truncated": True},
    "run": {"steps": 3},
}
SFT: dict[str, Any] = {
    "kind": "sft",
    "name": "learn",
    "task": {"source": "stage:own"},
    "supervised": {"examples_per_step": 2},
}
RFT: dict[str, Any] = {**FIRST, "kind": "rft", "name": "own_samples", "supervised": {"examples_per_step": 3}}
ROADS: dict[str, tuple[dict[str, Any], ...]] = {
    "reject": (FIRST,),
    "sft": (FIRST, {**SFT, "run": {"steps": 3}}),
    "online": ({**RFT, "run": {"steps": 4}},),
    "offline": ({**RFT, "rft": {"mode": "offline", "sampling_steps": 2}, "run": {"steps": 5}},),
    "dpo": (
        {**FIRST, "reject": {**FIRST["reject"], "pairs": 2}},
        {
            "kind": "dpo",
            "name": "pairs",
            "task": {"source": "stage:own"},
            "preferences": {"pairs_per_step": 2},
            "run": {"steps": 4},
        },
    ),
    "evaluate": ({"kind": "evaluate", "name": "look"},),
}


@pytest.fixture
def road(tables):
    """Run stages on the user's own file and model; those that come first begin from it."""

    def start(*stages, resume=False, name="road", console=None, **changes):
        shared = {key: value for key, value in tables.items() if key not in ("objective", "rollout")}
        shared["rollout"] = {"max_tokens": 8}
        recipe = Recipe(**{**shared, **changes, "name": name, "stage": [dict(stage) for stage in stages]})
        return train(recipe, resume=resume, console=console or Console(quiet=True))

    return start


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def same(a, b, places):
    for place in places:
        ours, theirs = (read_metrics(run.directory / place / "metrics.jsonl") for run in (a, b))
        assert [{k: v for k, v in line.items() if not is_timing(k)} for line in ours] == [
            {k: v for k, v in line.items() if not is_timing(k)} for line in theirs
        ]
        for file in ("data.jsonl", "pairs.jsonl", "model.safetensors"):
            one, other = (run.directory / place / "final" / file for run in (a, b))
            assert one.exists() == other.exists()
            assert not one.exists() or file.endswith("tensors") or one.read_bytes() == other.read_bytes()
            if one.exists() and file.endswith("tensors"):
                weights, others = load_file(one), load_file(other)
                assert all(torch.equal(weights[key], others[key]) for key in weights)


class Crash(BaseException):
    """Not an Exception, so that nothing handles it."""


@pytest.mark.parametrize("kind", list(ROADS))
def test_a_crash_at_any_write_is_resumed_with_equal_bits(road, tmp_path, monkeypatch, kind):
    stages = ROADS[kind]
    expected = road(*stages, name="expected")
    assert verify(expected.directory).holds
    fsync, left = os.fsync, [0]  # writes until the crash

    def failing(handle):
        left[0] -= 1
        if left[0] == 0:
            raise Crash
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    crashed = 0
    for left[0] in (5, 12, 17, 23):
        try:
            done = road(*stages, name="crashed", resume=True)
        except Crash:
            crashed += 1
            if (tmp_path / "runs/crashed/log/chain.jsonl").exists():
                assert verify(tmp_path / "runs/crashed").holds
    left[0] = -1
    done = road(*stages, name="crashed", resume=True)
    assert crashed >= 2
    assert verify(done.directory).holds
    places = [f"stages/{stage['name']}" for stage in stages[:-1]] + ["."]
    same(expected, done, places)


def test_what_is_rejected_is_counted_and_what_is_kept_says_where_it_comes_from(road, checkpoint_dir):
    run = road(FIRST)
    final = run.directory / "final"
    rows, counts = lines_of(final / "data.jsonl"), json.loads((final / "selection.json").read_text())
    assert counts["sampled"] == 3 * 4 * 8
    assert counts["kept"] == len(rows) > 0
    assert counts["kept"] + sum(counts["refused"].values()) == counts["sampled"]
    per_prompt = [row["provenance"]["prompt_id"] for row in rows]
    assert max(map(per_prompt.count, per_prompt)) <= 2
    for row in rows:
        assert row["prompt"].startswith("What is ")
        assert row["provenance"]["scores"]["vowels"] == pytest.approx(share_of_vowels(row["completion"]))
        assert row["provenance"]["scores"]["vowels"] >= 0.25
        assert row["provenance"]["model"] == str(checkpoint_dir)
        assert row["kind"] == "sum"
    for pair in lines_of(final / "pairs.jsonl"):
        assert share_of_vowels(pair["chosen"]) >= 0.25 > share_of_vowels(pair["rejected"])
    assert locate(str(run.directory)) == str(checkpoint_dir)  # no weight has moved: it leads on to what came in
    assert load_policy(str(final)).facts().parameters
    found = {check.name: check.status for check in checks(run.directory, 3)}
    assert found["reward vowels"] == found["text"] == "holds"
    assert found["advantages"] == "skipped"
    assert "failed" not in found.values()


def test_a_stage_that_keeps_nothing_says_what_was_refused_for_what(road):
    hard = {**FIRST, "reject": {"least": {"vowels": 2.0}}}
    with pytest.raises(UserError, match=r"stage 'own' keeps nothing of 32 samples: 32 wrong\. Go on with more steps"):
        road({**hard, "run": {"steps": 1}})
    with pytest.raises(UserError, match=r"stage 'own' keeps nothing of 64 samples"):  # it has gone on, as was advised
        road({**hard, "run": {"steps": 2}}, resume=True)


def test_a_model_may_be_that_of_any_stage_before(road, checkpoint_dir):
    again = {**SFT, "name": "again", "policy": {"model": "stage:learn"}, "run": {"steps": 0}}
    other = {**SFT, "name": "other", "policy": {"model": str(checkpoint_dir)}, "run": {"steps": 2}}
    run = road(FIRST, {**SFT, "run": {"steps": 2}}, other, again)
    learnt, last = (load_file(run.directory / where / "model.safetensors") for where in ("stages/learn/final", "final"))
    assert all(torch.equal(learnt[key], last[key]) for key in learnt)


def test_every_stage_is_measured_on_the_same_held_out_problems_and_what_it_gained_is_said(road):
    said = io.StringIO()
    stages = FIRST, {**SFT, "run": {"steps": 1}}, {"kind": "evaluate", "name": "look"}
    run = road(*stages, console=Console(file=said))
    table = said.getvalue().split("what each stage gained")[1].splitlines()
    assert "on 4 held-out problems" in table[0]
    rows = {line.split()[0]: line for line in table[2:7] if line.split()}
    assert "measured once" in rows["own"]
    assert rows["learn"].split()[-1] in get_args(Verdict)
    assert "measured once" in rows["look"]
    assert rows["in"].split()[-1] in get_args(Verdict)
    asked = [
        [group.prompt.id for group in read_groups(run.directory / place / "log/eval-000000-greedy.parquet")]
        for place in ("stages/own", "stages/learn", ".")
    ]
    assert asked[0] == asked[1] == asked[2]
    assert len(asked[0]) == 4


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ((SFT,), "stage 'learn' learns from the data of the stage 'own', but no stage of that name that makes data"),
        (
            (FIRST, {**SFT, "policy": {"model": "stage:wn"}}),
            "no stage of that name that leaves a policy .* there is own",
        ),
        (({**FIRST, "reward": []},), "no reward with a weight, which says which samples are right"),
        (
            ({**FIRST, "reject": {"least": {"vowel": 1}}},),
            "reject.least names 'vowel', which is no reward; there is vow",
        ),
        (({**FIRST, "reject": {"shares": {"a": 1}}},), "reject.shares has no effect without reject.balance"),
        (({**FIRST, "reject": {"balance": "knd"}},), r"reject.balance = 'knd' is no column .* it has kind"),
        (({**FIRST, "reject": {"balance": "kind", "shares": {"sum": 0}}},), "reject.shares are all 0"),
        (
            ({**FIRST, "reject": {"pairs": 0}}, ROADS["dpo"][1]),
            "learns from the pairs of the stage 'own', which writes none: leave out its reject.pairs = 0",
        ),
        (
            (FIRST, {**ROADS["dpo"][1], "preferences": {"history": ["stage:own"]}}),
            "history names the pairs of the stage 'own', which are learnt from already",
        ),
        (
            (FIRST, {**ROADS["dpo"][1], "preferences": {"history": ["a.jsonl"], "replay": 0.0}}),
            "preferences.history has no effect with preferences.replay = 0",
        ),
        (({**FIRST, "reject": {"hardest": 0.5, "easiest": 0.1}},), "leaves out every prompt"),
        (({**FIRST, "run": {"save_rollouts": False}},), "keeps no samples to choose from"),
        (({**RFT, "rft": {"mode": "offline", "sampling_steps": 3}},), "leaves no step to learn"),
        (({"kind": "evaluate", "name": "e", "evaluate": {"problems": 0}},), "only evaluates, and holds nothing out"),
        (({**ROADS["dpo"][1], "preferences": {"replay": 0.5}},), "replay has no effect without preferences.history"),
        (
            (FIRST, {**ROADS["dpo"][1], "preferences": {"pairs_per_step": 2, "history": ["stage:onw"]}}),
            "learns from the data of the stage 'onw', but no stage of that name that makes data .* there is own",
        ),
        ((FIRST, {**ROADS["dpo"][1], "reference": {"update_every": 2}}), "remove the .reference. table"),
        ((FIRST, {**ROADS["dpo"][1], "dpo": {"loss": "ipo", "label_smoothing": 0.1}}), "ipo has none"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_loads(road, stages, problem, monkeypatch):
    monkeypatch.setattr("cohort.backends.base.open_backend", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(UserError, match=problem):
        road(*stages)


def test_equal_answers_of_a_pair_are_refused_before_anything_loads(tables, tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Say {i}", "chosen": "a", "rejected": " a" if i == 7 else "b"} for i in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keep = {key: tables[key] for key in ("name", "policy", "run")}
    recipe = Recipe(**keep, kind="dpo", task={"source": str(file)}, preferences={"pairs_per_step": 2})
    with pytest.raises(UserError, match=r"pairs\.jsonl:8 \('Say 7'...\) has equal answers"):
        prepare(recipe)
