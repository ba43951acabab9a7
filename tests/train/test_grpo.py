"""The loop on a user's own file, checkpoint and reward: what it does and what it leaves behind."""

from __future__ import annotations

import io
import json
import math
import zlib

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import cohort
from cohort.monitor.names import metric
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups
from cohort.types import UserError
from cohort.views.console import Console

NAMES = """
reward/mean reward/vowels/mean groups/signal groups/all_right groups/all_wrong completions/mean_tokens
completions/truncated policy/entropy policy/kl policy/clip_low policy/clip_high policy/mismatch grad_norm lr
time/step_s time/sample_s time/score_s time/learn_s tokens/sampled tokens/trained tokens/wasted memory/peak_gb
""".split()  # noqa: SIM905 - read better so


def rollouts(run, step):
    return read_groups(run.directory / "log" / f"step-{step:06d}.parquet")


def test_a_run_leaves_everything_behind(run):
    text = io.StringIO()
    done = run(console=Console(file=text, width=150))
    for name in ("recipe.toml", "environment.json", "metrics.jsonl", "final/config.json", "final/README.md"):
        assert (done.directory / name).exists(), name
    assert sorted(p.name for p in (done.directory / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    lines = done.metrics
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert set(NAMES) <= set(lines[1])
    assert {"eval/pass@1", "eval/greedy", "eval/pass@2"} <= set(lines[0]) & set(lines[4])
    assert lines[1]["tokens/sampled"] == lines[1]["tokens/trained"] + lines[1]["tokens/wasted"]
    for step in range(1, 5):
        groups = rollouts(done, step)
        assert len(groups) == 3
        assert all(len(g.rollouts) == 4 and g.disposition == "trained" for g in groups)
        assert {r.version for g in groups for r in g.rollouts} == {step - 1}  # strictly on-policy
    printed = text.getvalue()
    for word in ("Dr. GRPO", "3 prompts x 4 completions = 12 a step", "memory", "reward", "before", "after", "model"):
        assert word in printed


def test_the_final_model_is_a_plain_hugging_face_checkpoint(run):
    done = run()
    model = AutoModelForCausalLM.from_pretrained(done.final)
    tokenizer = AutoTokenizer.from_pretrained(done.final)
    assert tokenizer.chat_template
    (group, *_) = rollouts(done, 1)
    ids = torch.tensor([[*group.prompt.tokens, *group.rollouts[0].tokens]])
    assert torch.isfinite(model(ids).logits).all()
    assert model.config.model_type == "qwen3"


def test_recorded_logprobs_are_those_of_the_weights_that_sampled(run, checkpoint_dir):
    done = run()
    model = AutoModelForCausalLM.from_pretrained(checkpoint_dir, dtype=torch.float32)
    for group in rollouts(done, 1):
        for rollout in group.rollouts:
            ids = torch.tensor([[*group.prompt.tokens, *rollout.tokens]])
            with torch.no_grad():
                logprobs = model(ids).logits[0, len(group.prompt.tokens) - 1 : -1].log_softmax(-1)
            chosen = logprobs.gather(-1, torch.tensor(rollout.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(rollout.logprobs), chosen, atol=1e-5, rtol=0)


def test_it_learns_what_is_rewarded(run):
    done = run(run={"steps": 40, "save_every": 0}, evaluate={"problems": 0})
    rewards = [line["reward/mean"] for line in done.metrics if "reward/mean" in line]
    assert sum(rewards[-5:]) > 1.5 * sum(rewards[:5])


def test_the_same_recipe_gives_the_same_bits(run, tmp_path):
    first = run()
    second = run(run={"directory": str(tmp_path / "again")})
    a, b = (load_file(done.final / "model.safetensors") for done in (first, second))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    other = run(seed=2, run={"directory": str(tmp_path / "other")})
    c = load_file(other.final / "model.safetensors")
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_the_number_of_threads_is_recorded(run):
    done = run()
    assert '"threads": 1' in (done.directory / "environment.json").read_text()


def test_every_epoch_serves_every_prompt_once(run):
    done = run(task={"held_out": None}, rollout={"prompts_per_step": 6, "group_size": 2}, run={"steps": 8})
    asked = [g.prompt.id for step in range(1, 9) for g in rollouts(done, step)]
    assert len(set(asked[:24])) == 24
    assert sorted(asked[:24]) == sorted(asked[24:48])
    assert asked[:24] != asked[24:48]


@pytest.mark.parametrize("staleness", [1, 2])
def test_staleness_is_bounded_and_used(run, staleness):
    done = run(rollout={"max_staleness": staleness}, run={"steps": 5})
    for step in range(1, 6):
        versions = {r.version for g in rollouts(done, step) for r in g.rollouts}
        assert versions == {max(0, step - 1 - staleness)}


def test_dapo_leaves_out_dead_groups_and_samples_others(run):
    def sometimes(completion, seed):
        return 0.0 if seed % 3 else float(len(completion) % 2)

    done = run(
        reward=[{"use": sometimes, "name": "odd"}],
        objective={"preset": "dapo"},
        rollout={"prompts_per_step": 3, "group_size": 3, "resample_cap": 8},
        task={"held_out": None},
    )
    seen = set()
    for step in range(1, 5):
        groups = rollouts(done, step)
        kept = [g for g in groups if g.disposition == "trained"]
        dropped = [g for g in groups if g.disposition == "zero_std"]
        assert all(len(set(g.accuracy)) > 1 for g in kept)
        assert all(len(set(g.accuracy)) == 1 for g in dropped)
        assert len(kept) <= 3
        seen.add(len(dropped) > 0)
        line = done.metrics[step]
        assert line["groups/sampled"] == len(groups)
        assert line["tokens/wasted"] == line["tokens/sampled"] - line["tokens/trained"]
    assert True in seen


def test_dapo_at_its_cap_trains_what_there_is(run):
    done = run(reward=[{"use": lambda completion: 1.0, "name": "constant"}], objective={"preset": "dapo"})
    for step in range(1, 5):
        groups = rollouts(done, step)
        assert len(groups) == 4 * 3  # resample_cap x prompts_per_step
        assert all(g.disposition == "zero_std" for g in groups)
        assert done.metrics[step]["groups/left_out"] == 12


def test_several_updates_and_epochs_per_batch(run):
    done = run(optimizer={"updates_per_batch": 3, "epochs": 2, "learning_rate": 0.05}, objective={"preset": "grpo"})
    late = done.metrics[-1]
    assert late["policy/kl"] > 0
    assert late["policy/ratio"] != 1
    assert done.metrics[3]["policy/clip_high"] + done.metrics[3]["policy/clip_low"] > 0


def test_lora_runs_and_its_final_model_loads(run):
    done = run(policy={"lora": {"rank": 2, "alpha": 4}}, objective={"preset": "grpo"})
    assert (done.final / "adapter_config.json").exists()
    from cohort.policy.load import load_policy

    assert hasattr(load_policy(str(done.final)).module, "disable_adapter")


def test_a_live_model_and_a_callable_reward_from_python(tables, small_model, tokenizer):
    def short(completion, answer, kind):
        assert kind == "sum"
        return 1.0 / (1 + len(completion))

    recipe = cohort.Recipe(
        **{**tables, "policy": {"model": "live"}, "reward": [short], "run": {**tables["run"], "gate": "off"}}
    )
    done = cohort.train(recipe, model=small_model, tokenizer=tokenizer, console=Console(quiet=True))
    assert "reward/short/mean" in done.metrics[1]


def test_trl_style_rewards(run):
    def by_length(prompts, completions, solution, **kwargs):
        assert len(prompts) == len(completions) == len(solution)
        return [float(len(c)) for c in completions]

    done = run(reward=[{"use": by_length, "name": "length", "style": "trl"}], run={"gate": "off"})
    group = rollouts(done, 1)[0]
    assert group.rewards == tuple(float(len(r.text)) for r in group.rollouts)


def test_several_rewards_are_weighted_and_kept_apart(run):
    def one(completion):
        return 1.0

    def maybe(completion, tokens):
        return None if tokens % 2 else 0.5

    done = run(reward=[{"use": "random"}, {"use": one, "weight": 0.25}, {"use": maybe, "weight": 2.0}])
    for group in rollouts(done, 1):
        for g, rollout in enumerate(group.rollouts):
            parts = {name: values[g] for name, values in group.scores.items()}
            assert math.isnan(parts["maybe"]) == (len(rollout.tokens) % 2 == 1)
            extra = 0 if math.isnan(parts["maybe"]) else 2.0 * parts["maybe"]
            assert group.rewards[g] == pytest.approx(parts["random"] + 0.25 + extra)


def test_a_reward_that_raises_stops_the_run_and_saves_what_was_trained(run, tables, tmp_path):
    flag = tmp_path / "mended"

    def breaks(completion, seed):
        if not flag.exists() and (tmp_path / "runs/small/log/step-000003.parquet").exists():
            raise ZeroDivisionError("the unit price is zero")
        return len(completion) / 10

    reward = [{"use": breaks, "name": "breaks"}]
    settings = {"reward": reward, "evaluate": {"problems": 0}, "run": {"steps": 6, "save_every": 100}}
    with pytest.raises(UserError) as caught:
        run(**settings)
    message = str(caught.value)
    for part in ("breaks", "ZeroDivisionError", "the unit price is zero"):
        assert part in message
    assert (tmp_path / "runs/small/checkpoints/step-000003/optimizer.safetensors").exists()
    flag.touch()
    done = run(resume=True, **settings)
    assert [line["step"] for line in done.metrics] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("value", [math.nan, math.inf, "1.0", [1.0]])
def test_a_reward_that_is_no_number_stops_the_run(run, value):
    with pytest.raises(UserError, match="bad_value"):
        run(reward=[{"use": lambda completion: value, "name": "bad_value"}], evaluate={"problems": 0})


def test_a_reward_that_hangs_drops_its_group_and_is_never_a_zero(run, tmp_path):
    marks = tmp_path / "hung"
    marks.mkdir()

    def hangs(completion, prompt):
        import time

        if prompt.endswith("3 plus 4?"):
            time.sleep(60)
        return len(completion) / 10

    done = run(
        reward=[{"use": hangs, "timeout_s": 0.5}],
        task={"held_out": None},
        rollout={"prompts_per_step": 8, "group_size": 2, "max_tokens": 3},
        run={"steps": 3, "save_every": 0},
        evaluate={"problems": 0},
    )
    everything = [g for step in range(1, 4) for g in rollouts(done, step)]
    failed = [g for g in everything if g.disposition == "error"]
    assert [g.prompt.question for g in failed] == ["What is 3 plus 4?"]
    assert failed[0].scores == {}
    assert "hangs" in failed[0].error
    kept = ("trained", "zero_std")  # two texts of three tokens may have the same length
    assert all(sum(g.disposition in kept for g in rollouts(done, step)) == 8 for step in range(1, 4))


def test_prompts_that_are_too_long_are_dropped_and_counted(run, rows):
    with rows.open("a") as file:
        for i in range(6):
            file.write(json.dumps({"question": f"{'very ' * 60} {i}", "solution": "1", "kind": "sum"}) + "\n")
    done = run(task={"held_out": None, "too_long": "drop", "max_prompt_tokens": 40}, run={"steps": 8})
    assert sum(line.get("prompts/too_long", 0) for line in done.metrics) == 6
    with pytest.raises(UserError, match=r"tokens and the limit is 40"):
        run(name="strict", task={"held_out": None, "max_prompt_tokens": 40}, run={"steps": 10})


def test_two_stages_follow_each_other(run, tables, tmp_path):
    stages = [
        {"kind": "sft", "name": "start", "policy": {"scratch": {"hidden_size": 32, "layers": 1, "vocabulary": 400}},
         "task": {"careful": 0.5}, "run": {"steps": 3}, "supervised": {"examples_per_step": 8}},
        {"kind": "grpo", "name": "rl", "run": {"steps": 2}, "reward": tables["reward"]},
    ]  # fmt: skip
    outside = {k: v for k, v in tables.items() if k not in ("policy", "task", "reward")}
    recipe = cohort.Recipe(**outside, task={"source": "word_problems", "levels": [1]}, stage=stages)
    done = cohort.train(recipe, console=Console(quiet=True))
    first = done.directory / "stages" / "start"
    assert [line["step"] for line in read_metrics(first / "metrics.jsonl")] == [1, 2, 3]
    assert (first / "final" / "model.safetensors").exists()
    assert [line["step"] for line in done.metrics] == [0, 1, 2]
    table = pq.read_table(done.directory / "log" / "step-000001.parquet")
    assert {"text", "tokens", "logprobs", "reward", "advantage", "disposition"} <= set(table.column_names)


def sometimes_dead(completion, prompt):
    return float(len(completion)) if zlib.crc32(prompt.encode()) % 2 else 0.0


def test_an_entropy_that_runs_with_and_without_a_kl_share(run):
    """policy/entropy is over the rows that were computed: with a KL all, else those with an advantage."""
    settings = {"evaluate": {"problems": 0}, "run": {"steps": 1, "gate": "off"}, "reward": [{"use": sometimes_dead}]}
    without = run(name="without", objective={"preset": "dr_grpo"}, **settings).metrics[-1]
    with_kl = run(name="with", objective={"preset": "dr_grpo", "kl_coef": 0.01}, **settings).metrics[-1]
    assert without["policy/entropy_sampled"] == with_kl["policy/entropy_sampled"]
    assert with_kl["tokens/trained"] == with_kl["tokens/sampled"] > without["tokens/trained"] > 0
    assert without["policy/entropy"] != with_kl["policy/entropy"]
    for name in ("entropy", "kl", "clip_low", "clip_high", "clip_dual", "ratio", "ratio_max", "mismatch"):
        assert "over the tokens computed" in metric(f"policy/{name}").meaning
