"""Groups of earlier steps, completions that are cut, and penalties of single tokens, in runs as a person has them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from recorded import found, holds
from safetensors.torch import load_file

from cohort.algorithms.objectives import preset
from cohort.record.rollouts import read_groups
from cohort.train.grpo.malformed import malformed, unpaired, with_penalty
from cohort.types import Group, Observation, Prompt, Rollout, ToolCall, Turn, UserError

EVERY = {"save_every": 1, "keep_checkpoints": 10}
CORRECTED = {"correction": "token_truncate", "correction_max": 2.0}
AHEAD, THERE = {"max_staleness": 1, "in_flight": "recompute"}, {"cluster": {"address": "local"}}


def groups_of(done, step):
    return read_groups(done.directory / "log" / f"step-{step:06d}.parquet")


def test_groups_of_earlier_steps_are_learnt_from_once_more(run):
    """In an order of their own, in no number of the step; and the record holds, also of a run that was resumed."""
    settings = {"rollout": {"replay": 2, "replay_age": 2}, "objective": CORRECTED, "evaluate": {"problems": 0}}
    done = run(run=EVERY, **settings)
    assert [line["groups/replayed"] for line in done.metrics[1:]] == [0, 2, 2, 2]
    seen = {}
    for step, line in enumerate(done.metrics[1:], start=1):
        old = [group for group in groups_of(done, step) if group.rollouts[0].version < step - 1]
        assert line["groups/sampled"] == 3
        assert line["tokens/sampled"] + line["tokens/replayed"] == line["tokens/trained"] + line["tokens/wasted"]
        assert line["groups/replayed"] == len(old)
        for group in old:  # as it was drawn, and no older than was asked for
            assert group.rollouts[0].version >= step - 3
            assert [tuple(r.logprobs) for r in group.rollouts] == seen[group.ticket]
        seen |= {group.ticket: [tuple(r.logprobs) for r in group.rollouts] for group in groups_of(done, step)}
    held = holds(done.directory)
    assert "bit for bit" in held["4 weights after step 4"]
    weights = load_file(done.final / "model.safetensors")
    shutil.rmtree(done.final)
    for step in (3, 4):
        shutil.rmtree(done.directory / f"checkpoints/step-00000{step}")
    resumed = load_file(run(run=EVERY, resume=True, **settings).final / "model.safetensors")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rollout": {"in_flight": "keep"}}, r"in_flight = 'keep' .* set cluster\.address"),
        ({"rollout": {"in_flight": "keep"}, **THERE}, r"set rollout\.max_staleness = 1 or more"),
        ({"rollout": AHEAD, **THERE}, r"in_flight = 'recompute' learns from samples of older weights, uncorrected"),
        ({"rollout": {**AHEAD, "sampler": "vllm"}, **THERE, "objective": CORRECTED}, 'rollout.sampler = "local"'),
        ({"rollout": {**AHEAD, "groups": "beam"}, **THERE, "objective": CORRECTED}, 'rollout.groups = "sample"'),
        ({"rollout": {"replay": 1}}, r"older weights, uncorrected: set objective\.correction"),
        ({"rollout": {"replay": 1, "max_staleness": 1}, "objective": CORRECTED}, r"set rollout\.max_staleness = 0"),
        ({"rollout": {"replay": 1}, "objective": CORRECTED, "run": {"save_rollouts": False}}, r"run\.save_rollouts"),
        ({"rollout": {"replay_age": 2}}, r"no effect without rollout\.replay"),
        ({"rollout": {"over_sample": 1}, "environment": {"tools": ["calculator"], "format": "tags"}}, "no turns of a"),
        ({"rollout": {"over_sample": 1, "groups": "beam"}}, 'set rollout.groups = "sample"'),
    ],
)
def test_what_they_cannot_go_with_is_refused(run, changes, says):
    with pytest.raises(UserError, match=says):
        run(**changes)


def test_the_longest_of_a_group_are_cut(run):
    done = run(rollout={"over_sample": 3, "max_tokens": 24}, evaluate={"problems": 0}, run=EVERY)
    plain = run(name="plain", rollout={"group_size": 7, "max_tokens": 24}, evaluate={"problems": 0}, run={"steps": 1})
    for kept, every in zip(groups_of(done, 1), groups_of(plain, 1), strict=True):
        order = sorted(range(7), key=lambda i: len(every.rollouts[i].tokens))[:4]
        assert [r.tokens for r in kept.rollouts] == [every.rollouts[i].tokens for i in sorted(order)]
    line = done.metrics[1]
    assert line["completions/cut"] == 9
    assert line["completions/cut_tokens"] >= line["completions/mean_tokens"]
    assert line["completions/mean_tokens"] < plain.metrics[1]["completions/mean_tokens"]
    holds(done.directory)


def test_tags_without_their_pair():
    def said(text, **more):
        return [text[a:b] for a, b in unpaired(text, **more)]

    assert said("<think>a</think><answer>1</answer>") == []
    assert said("a</think>b") == ["</think>"]
    assert said("a</think>b", begun="<think>") == []
    assert unpaired("a<think>b</think>", begun="<think>\n") == [(1, 8)]  # the second is one too many
    assert said("<think>a<answer>1</answer>") == ["<think>"]
    assert said("<think>a", whole=False) == []  # it was cut off
    assert said("<answer>1</answer></answer>") == ["</answer>"]
    assert said("never closed what the prompt began", begun="<think>") == []


def characters(tokens):
    return "".join(map(chr, tokens))


def test_a_penalty_is_of_the_tokens_of_what_is_malformed_alone():
    first, said, last = "ok <tool>x</tool>", "<result>no</result>", "a</think> 7"
    text = first + said + last
    calls = (ToolCall("", {}, "error", True, (3, 17)), ToolCall("c", {}, "error: 1/0", True))
    turns = (
        Turn(0, len(first), first, Observation(({"role": "tool", "content": "no"},), calls)),
        Turn(len(first) + len(said), len(text), last),
    )
    mask = [not len(first) <= at < len(first) + len(said) for at in range(len(text))]
    bad = Rollout(tuple(map(ord, text)), tuple(mask), (0.0,) * len(text), 0, "stop", last, turns)
    good = Rollout(tuple(map(ord, "7")), (True,), (0.0,), 0, "stop", "7")
    places = malformed(bad, "", characters)
    assert characters(bad.tokens[at] for at in places) == "<tool>x</tool></think>"
    group = Group(0, Prompt.make("?"), (bad, good), advantages=(0.5, -0.5), disposition="trained")
    (done,), metrics = with_penalty([group], preset("dapo"), 0.25, characters)
    row = np.asarray(done.token_advantages[0])
    assert (row[places] == 0.25).all()
    assert (np.delete(row, places) == 0.5).all()
    assert list(done.token_advantages[1]) == [-0.5]
    assert done.advantages == pytest.approx((0.5 - 0.25 * len(places) / sum(mask), -0.5))
    assert metrics == {"tokens/malformed": len(places)}
    alike = group.with_(advantages=(0.0, 0.0), disposition="zero_std")  # all failed alike: there is something to learn
    assert with_penalty([alike], preset("dapo"), 0.25, characters)[0][0].disposition == "trained"
    clean = group.with_(rollouts=(good, good))
    assert with_penalty([clean], preset("dapo"), 0.25, characters) == ([clean], {"tokens/malformed": 0})


def test_malformed_calls_pay_in_a_run(run, monkeypatch):
    """The engine's own tokens are read as if each began a tag, so that every completion has something malformed."""
    monkeypatch.setattr("cohort.train.grpo.malformed.unpaired", lambda text, *_: [(0, 1)] if text else [])
    done = run(objective={"malformed_penalty": 0.5}, run=EVERY, evaluate={"problems": 0})
    for group in groups_of(done, 1):
        for rollout, row in zip(group.rollouts, group.token_advantages, strict=True):
            if len(rollout.text) > 1 and len(row) > 1:
                assert min(row) == pytest.approx(max(row) - 0.5)  # of one token that writes something
    assert done.metrics[1]["tokens/malformed"] > 0
    assert "level 4 recomputes" in found(done.directory, 3, "skipped")["3 advantages"]
    assert holds(done.directory)["4 advantages of step 2"].endswith(": 12, all equal")
    with pytest.raises(UserError, match="malformed_penalty is of tokens"):
        run(name="real", objective={"preset": "real", "malformed_penalty": 0.5})
