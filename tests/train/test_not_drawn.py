"""Groups that are no draws from the policy: no ratio, no repeats, and runs that resume and verify as others do."""

from __future__ import annotations

import io
import math

import pytest
import torch
from recorded import holds

from cohort.algorithms import objectives
from cohort.algorithms.presets import preset
from cohort.preflight.objective import equation_of, hash_of, settled_objective
from cohort.record.rollouts import read_groups
from cohort.rewards import Combination
from cohort.seeds import derive_seed, generator
from cohort.settings import Objective, Reward, Rollout, Stage, Task
from cohort.train.grpo.advantages import repeats, with_advantages
from cohort.train.replay.weights import unlike
from cohort.types import Group, Prompt, UserError
from cohort.types import Rollout as Member
from cohort.views.console import Console

ALONE = Combination({"r": 1.0}, {})
BEAMS = ("beam", "diverse_beam")


def stage(groups="beam", **objective):
    task, reward = Task(source="word_problems"), (Reward(use="exact_number", name="r"),)
    return Stage(task=task, reward=reward, rollout=Rollout(groups=groups), objective=Objective(**objective))


def group(*members: tuple[str, float]) -> Group:
    rollouts = tuple(Member((5,), (True,), (-1.0,), 0, "stop", text) for text, _ in members)
    paid = tuple(reward for _, reward in members)
    return Group(0, Prompt.make(text="q"), rollouts, {"r": paid}, paid, paid)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "r1", "rloo"])
def test_the_gradient_is_that_of_a_ratio_of_one_without_a_clip(name):
    objective = settled_objective(stage(preset=name, kl_coef=0.0))
    draw = generator(derive_seed(3, "not drawn"))
    logprobs = torch.tensor(-draw.random((4, 6)), requires_grad=True)
    mask, advantages = torch.ones(4, 6, dtype=torch.bool), torch.tensor([1.0, -2.0, 0.5, 0.0])
    loss = objectives.policy_loss(
        objective,
        logprobs=logprobs,
        old_logprobs=logprobs.detach() + 3,  # whatever anybody takes for the old policy
        mask=mask,
        advantages=advantages,
        max_tokens=6,
    )
    weight = objectives.token_weight(objective, mask, max_tokens=6)
    ratio = (logprobs - logprobs.detach()).exp()
    ours, expected = (
        torch.autograd.grad(one, logprobs)[0] for one in (loss, -(ratio * advantages[:, None] * weight).sum())
    )
    torch.testing.assert_close(ours, expected)


def test_explain_says_that_there_is_no_ratio():
    found = {groups: equation_of(stage(groups), settled_objective(stage(groups)), latex=False) for groups in BEAMS}
    assert all("A·log π_θ" in text and "What was not drawn has no ratio" in text for text in found.values())
    assert "clip" not in found["beam"]
    hashes = {hash_of(stage(one), settled_objective(stage(one))) for one in (*BEAMS, "sample", "greedy_plus_sample")}
    assert len(hashes) == 4
    drawn = stage("sample")
    assert hash_of(drawn, settled_objective(drawn)) == settled_objective(drawn).hash == preset("grpo").hash


@pytest.mark.parametrize(
    ("how", "texts", "expected"),
    [
        ("sample", "aab", [False, False, False]),
        ("beam", "abab", [False, False, True, True]),
        ("diverse_beam", "abb", [False, False, True]),
        ("greedy_plus_sample", "abba", [True, False, False, False]),  # draws count as often as they were drawn
        ("greedy_plus_sample", "abbc", [False, False, False, False]),
        ("beam", "aaa", [False, True, True]),
        ("greedy_plus_sample", "aaa", [True, False, False]),
    ],
)
def test_only_what_was_not_drawn_is_a_repeat(how, texts, expected):
    assert repeats(group(*((text, 0.0) for text in texts)), how) == expected


@pytest.mark.parametrize(
    "objective",
    [
        preset("grpo"),
        preset("dr_grpo"),
        preset("rloo"),
        preset("reinforce"),
        preset("grpo", rewards="normalise_then_sum"),
    ],
    ids=lambda one: f"{one.baseline}, {one.scale}, {one.rewards}",
)
def test_repeats_are_in_no_mean_and_have_no_advantage(objective):
    alone = [group(("a", 1.0), ("b", 0.0), ("c", 0.5)), group(("d", 0.0), ("e", 1.0), ("f", 1.0))]
    whole = [
        group(("a", 1.0), ("b", 0.0), ("a", 1.0), ("c", 0.5)),
        group(("d", 0.0), ("e", 1.0), ("f", 1.0), ("f", 1.0)),
    ]
    found = with_advantages(whole, objective, ALONE, found="beam")
    expected = with_advantages(alone, objective, ALONE)
    assert found[0].advantages[2] == found[1].advantages[3] == 0
    kept = [found[0].advantages[i] for i in (0, 1, 3)] + list(found[1].advantages[:3])
    assert kept == pytest.approx([a for one in expected for a in one.advantages], abs=1e-12)
    assert found[0].rewards == whole[0].rewards  # what was paid stays in the record


@pytest.mark.parametrize("name", ["dr_grpo", "reinforce"])
@pytest.mark.parametrize("found", ["beam", "greedy_plus_sample"])
def test_a_group_with_one_thing_to_say_has_no_signal(name, found):
    groups = [group(("a", 1.0), ("a", 1.0)), group(("a", 1.0), ("b", 0.0))]
    alike, other = with_advantages(groups, preset(name), ALONE, found=found)
    assert (alike.advantages, alike.disposition) == ((0.0, 0.0), "zero_std")
    assert other.disposition == "trained"


def numbers(result):
    timed = ("time/", "tokens_per_s", "memory/")
    return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in result.metrics]


@pytest.mark.parametrize("groups", ["diverse_beam", "greedy_plus_sample"])
def test_a_run_resumes_with_its_bits_and_its_record_holds(run, groups):
    own = {"rollout": {"groups": groups}, "evaluate": {"problems": 0}}
    said = io.StringIO()
    whole = run(name="whole", console=Console(file=said, width=400), **own)
    assert said.getvalue().count("no policy gradient; see docs/beams.md") == 1
    run(name="cut", **own, run={"steps": 2})
    cut = run(name="cut", resume=True, **own)
    assert str(numbers(cut)) == str(numbers(whole))
    assert unlike(cut.directory / "final", whole.directory / "final") is None

    found = holds(whole.directory)
    assert {key for key in found if key.startswith("4 ")} >= {"4 log-probs of version 0", "4 step 1"}
    assert "groups/repeats" in whole.metrics[-1]
    assert whole.metrics[-1]["policy/mismatch"] < 1e-4  # what is recorded is what the policy says
    assert any(one.has_signal for one in read_groups(whole.directory / "log/step-000001.parquet"))
    assert math.isfinite(whole.metrics[-1]["loss"])


def test_steps_of_a_completion_are_not_supervised_in_beams():
    rewards = (Reward(use="exact_number", name="r", split="\n"),)
    with pytest.raises(UserError, match=r"rollout\.groups = 'beam'"):
        settled_objective(stage().model_copy(update={"reward": rewards}))
