"""Every preset trains from a recipe: two steps with each, and what is particular to some."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cohort.algorithms import advantages, objectives
from cohort.preflight import rehearsal
from cohort.record.rollouts import read_groups
from cohort.train.checkpoint import save_checkpoint
from cohort.train.grpo import training
from cohort.types import UserError
from cohort.views.console import Console


@pytest.fixture
def tmp_path(place):
    return place


def groups_of(done, step):
    return read_groups(done.directory / "log" / f"step-{step:06d}.parquet")


TOOLS = {"environment": {"tools": ["calculator"], "format": "tags"}}
NEEDS: dict[str, Any] = {
    "echo": TOOLS,
    "gigpo": TOOLS,
    "chord": {"task": {"completion": "solution"}},
    "interpolated": {"objective": {"preset": "m2po", "filters": [], "old": "interpolate"}},
}


@pytest.mark.parametrize("name", [*objectives.PRESETS, "interpolated"])
def test_every_preset_rehearses_its_worst_step_and_takes_two(run, name, checkpoint_dir, monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(training, "free_gb", lambda: 0.2)
    monkeypatch.setattr(rehearsal, "_peak_gb", lambda _: 0.1)
    done = run(
        console=Console(file=text, width=1000),
        run={"steps": 2, "save_every": 0},
        optimizer={"updates_per_batch": 2, "learning_rate": 1e-3},
        evaluate={"problems": 0},
        **{"objective": {"preset": name}, **NEEDS.get(name, {})},
    )
    assert "the worst step was rehearsed: 0.1 GB" in text.getvalue()
    for line in done.metrics[1:]:
        assert math.isfinite(line["loss"])
        assert line["grad_norm"] > 0
        assert line["tokens/trained"] > 0
    before, after = (load_file(d / "model.safetensors") for d in (checkpoint_dir, done.final))
    assert any(not torch.equal(before[k], after[k]) for k in after)


def test_a_kl_in_the_reward_is_taken_off_before_the_baseline(run):
    settings = {"optimizer": {"learning_rate": 0.05}, "run": {"steps": 3}, "evaluate": {"problems": 0}}
    done = run(objective={"preset": "rloo", "kl_coef": 0.5}, **settings)
    assert done.metrics[1]["policy/kl"] == pytest.approx(0, abs=1e-6)
    assert done.metrics[3]["policy/kl"] > 0
    for group in groups_of(done, 1):  # no KL yet: plain leave-one-out
        mean = sum(group.rewards) / 4
        assert group.advantages == pytest.approx([4 / 3 * (r - mean) for r in group.rewards], abs=1e-5)
    differs = [
        abs(a - 4 / 3 * (r - sum(group.rewards) / 4))
        for group in groups_of(done, 3)
        for a, r in zip(group.advantages, group.rewards, strict=True)
    ]
    assert max(differs) > 1e-3


def test_ppo_learns_values_and_gives_every_token_its_advantage(run):
    settings = {
        "objective": {"preset": "ppo"},
        "critic": {"learning_rate": 3e-3},
        "optimizer": {"learning_rate": 1e-4},
        "evaluate": {"problems": 0},
        "run": {"steps": 30, "save_every": 15},
        "rollout": {"group_size": 1, "prompts_per_step": 12},
    }
    done = run(**settings)
    losses = [line["critic/loss"] for line in done.metrics[1:]]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    group = next(g for g in groups_of(done, 30) if len(g.rollouts[0].tokens) > 2)
    assert len(group.token_advantages[0]) == len(group.rollouts[0].tokens)
    assert len(set(group.token_advantages[0])) > 1
    assert (done.directory / "checkpoints/step-000030/critic/model.safetensors").exists()


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}], ids=["all weights", "an adapter each"])
def test_first_the_critic_learns_alone(run, lora):
    settings = {"objective": {"preset": "ppo", "kl_coef": 0.0}, "evaluate": {"problems": 0}, "policy": {"lora": lora}}
    saved = {"save_every": 1, "keep_checkpoints": 9}
    done = run(critic={"warmup_steps": 2, "learning_rate": 1e-2}, run={"steps": 4, **saved}, **settings)
    lines = done.metrics[1:]
    assert [line["critic/warmup"] for line in lines] == [1, 1, 0, 0]
    assert [line.get("lr") for line in lines] == [None, None, 1e-2, 1e-2]
    assert all(line["critic/loss"] > 0 and line["tokens/trained"] > 0 for line in lines)
    where = done.directory / "checkpoints"
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    first, second, third = (load_file(where / f"step-{step:06d}" / name) for step in (1, 2, 3))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(second[key], third[key]) for key in first)
    one, two = (load_file(where / f"step-{step:06d}" / "critic/model.safetensors") for step in (1, 2))
    assert not any(torch.equal(one[key], two[key]) for key in ("head.weight", "head.bias"))
    assert all("lora_" in key or key.startswith("head.") for key in one) == bool(lora)  # the base is the policy's


def of_any_size(completion, tokens):
    return 3e20 * (tokens % 3)  # whose square, and so the critic's loss, is more than float32 holds


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_critic_whose_gradient_is_lost_stops_the_run_or_is_left_out_up_to_a_budget(run, warmup):
    settings = {
        "objective": {"preset": "ppo"},
        "reward": [{"use": of_any_size, "name": "large"}],
        "task": {"held_out": None},
        "critic": {"warmup_steps": warmup},
    }
    with pytest.raises(UserError, match=r"the gradient of the critic is not finite .* or lower critic\.learning_rate"):
        run(run={"gate": "off", "steps": 2}, **settings)
    allowed = {"optimizer": {"skip_budget": 2, "learning_rate": 1e-4}, "name": "allowed"}
    done = run(run={"gate": "off", "steps": 2, "save_every": 1, "keep_checkpoints": 9}, **settings, **allowed)
    assert [line["critic/loss"] for line in done.metrics if line["step"]] == [None, None]
    one, two = (load_file(done.directory / f"checkpoints/step-{n:06d}/critic/model.safetensors") for n in (1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    with pytest.raises(UserError, match=r"step 2: .*\(2 of 1 such steps"):
        run(run={"gate": "off", "steps": 2}, **settings, optimizer={"skip_budget": 1}, name="beyond")


def test_a_warm_up_that_never_ends_is_refused(run):
    with pytest.raises(UserError, match=r"critic\.warmup_steps \(4\) leaves the policy none of run\.steps \(4\)"):
        run(objective={"preset": "ppo"}, critic={"warmup_steps": 4})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"critic": {"warmup_steps": 3}, "policy": {"lora": {"rank": 2}}},
        {"objective": {"preset": "or1", "entropy_target": 9.0, "entropy_step": 0.1, "entropy_max": 1.0}},
    ],
    ids=["all weights", "with LoRA, in the warm-up", "an entropy bonus that is steered"],
)
def test_what_has_a_state_of_its_own_resumes_exactly(run, tmp_path, monkeypatch, changes):
    """A critic, and the coefficient of an entropy bonus."""
    settings = {"objective": {"preset": "ppo"}, "evaluate": {"problems": 0}, **changes}
    broken = tmp_path / "broken"

    def breaks(completion):
        from pathlib import Path

        if Path(str(broken)).exists():
            raise RuntimeError("once")
        return len(completion) / 10

    whole = run(name="w", reward=[{"use": breaks, "name": "r"}], **settings)
    monkeypatch.setattr("cohort.train.grpo.training.GrpoTraining.evaluate", lambda self, step: {})
    original = "cohort.train.loop.save_checkpoint"

    def save_then_break(*args):
        save_checkpoint(*args)
        broken.touch()

    monkeypatch.setattr(original, save_then_break)
    with pytest.raises(UserError, match="once"):
        run(name="b", reward=[{"use": breaks, "name": "r"}], **settings)
    broken.unlink()
    monkeypatch.setattr(original, save_checkpoint)
    resumed = run(name="b", resume=True, reward=[{"use": breaks, "name": "r"}], **settings)
    name = "adapter_model.safetensors" if "policy" in changes else "model.safetensors"
    a, b = (load_file(d.final / name) for d in (whole, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)
    if "objective" in changes:
        assert [line["policy/entropy_coef"] for line in resumed.metrics[1:]] == pytest.approx([0, 0.1, 0.2, 0.3])
        return
    a, b = (load_file(d.directory / "checkpoints/step-000004/critic/model.safetensors") for d in (whole, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_gdpo_normalises_each_reward_before_it_adds_them(run):
    def small(completion):
        return 0.01 * (len(completion) % 3)

    def large(completion, seed):
        return 100.0 * (seed % 2)

    rewards = [{"use": small}, {"use": large, "weight": 0.5}]
    done = run(reward=rewards, objective={"preset": "trl", "rewards": "normalise_then_sum"}, evaluate={"problems": 0})
    groups = groups_of(done, 1)
    scores = torch.tensor([list(zip(g.scores["small"], g.scores["large"], strict=True)) for g in groups])
    objective = objectives.preset("trl", rewards="normalise_then_sum")
    expected = objective.advantages(scores.double(), weights=[1.0, 0.5])
    torch.testing.assert_close(torch.tensor([g.advantages for g in groups]).double(), expected)


def test_bypass_takes_the_ratio_against_the_sampler(run, monkeypatch):
    from cohort.learn.learner import Learner

    seen = []
    update = Learner.update

    def spy(self, batch, rate):
        seen.append(batch.old_logprobs is batch.sampler_logprobs)
        return update(self, batch, rate)

    monkeypatch.setattr(Learner, "update", spy)
    run(name="a", objective={"preset": "scale_rl"}, evaluate={"problems": 0})
    run(name="b", objective={"preset": "dapo"}, evaluate={"problems": 0})
    run(name="c", objective={"preset": "dapo", "bypass": True}, evaluate={"problems": 0})
    assert seen == [True] * 4 + [False] * 4 + [True] * 4


@pytest.mark.parametrize("reference", [{"update_every": 2}, {"ema": 0.5}])
def test_the_reference_can_move(run, once, reference):
    settings = {"objective": {"preset": "grpo"}, "run": {"steps": 5}, "evaluate": {"problems": 0}}
    fixed = once("fixed", lambda: run(name="fixed", **settings))
    moved = run(name="moved", reference=reference, **settings)
    assert moved.metrics[5]["policy/kl"] < fixed.metrics[5]["policy/kl"]


def test_pass_at_k_can_be_trained(run):
    def odd(completion):
        return float(len(completion) % 2)

    rewards = [{"use": odd}]
    done = run(reward=rewards, objective={"preset": "dr_grpo", "pass_at_k": 2}, evaluate={"problems": 0})
    for group in groups_of(done, 1):
        expected = advantages.pass_at_k(torch.tensor([group.rewards]), 2)[0]
        torch.testing.assert_close(torch.tensor(group.advantages).double(), expected)
    with pytest.raises(UserError, match="pass_at_k"):
        run(name="graded", objective={"preset": "dr_grpo", "pass_at_k": 2}, evaluate={"problems": 0})
    with pytest.raises(UserError, match=r"at most rollout\.group_size"):
        run(name="large", reward=rewards, objective={"preset": "dr_grpo", "pass_at_k": 5})


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        ({"preset": "rloo", "pass_at_k": 2}, "a KL cannot be taken off"),
        ({"preset": "trl", "bypass": True}, "nothing to correct"),
        ({"preset": "rloo", "rewards": "normalise_then_sum"}, "normalise_then_sum|GDPO"),
    ],
)
def test_combinations_that_would_drop_a_term_are_refused(run, objective, says):
    with pytest.raises(UserError, match=says):
        run(objective=objective)


def test_with_a_critic_a_rollout_without_a_reward_is_no_evidence(run):
    def sometimes(completion, seed):
        return None if seed % 3 == 0 else float(seed % 2)

    done = run(reward=[sometimes], objective={"preset": "ppo", "kl_coef": 0.0}, evaluate={"problems": 0})
    seen = 0
    for group in groups_of(done, 1):
        for reward, advantages_of_tokens in zip(group.rewards, group.token_advantages, strict=True):
            if math.isnan(reward):
                seen += 1
                assert set(advantages_of_tokens) == {0.0}
            else:
                assert any(advantages_of_tokens)
    assert seen


def test_a_completion_that_is_cut_off_is_charged_its_kl_all_the_same(run):
    settings = {"optimizer": {"learning_rate": 0.05}, "run": {"steps": 3}, "evaluate": {"problems": 0}}
    kept = run(name="kept", objective={"preset": "rloo", "kl_coef": 0.5}, **settings)
    masked = run(name="masked", objective={"preset": "rloo", "kl_coef": 0.5, "truncated": "mask"}, **settings)
    assert any(r.finish == "length" for g in groups_of(kept, 1) for r in g.rollouts)
    for a, b in zip(groups_of(kept, 1), groups_of(masked, 1), strict=True):
        assert a.advantages == b.advantages


def test_the_cap_on_resampling_is_kept(run):
    def rarely(completion, prompt, seed):
        return float(seed % 2) if int(prompt.split()[2]) % 8 == 0 else 0.0

    done = run(
        reward=[rarely],
        objective={"preset": "dapo"},
        task={"held_out": None},
        rollout={"prompts_per_step": 5, "resample_cap": 2},
        evaluate={"problems": 0},
    )
    assert all(len(groups_of(done, step)) <= 10 for step in range(1, 5))
