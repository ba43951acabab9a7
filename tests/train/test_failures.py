"""What goes wrong in a run: each gets a sentence, nothing is silently wrong, and what was trained is kept."""

from __future__ import annotations

import io
import json

import pytest
import torch
from safetensors.torch import load_file

from cohort.learn.learner import Learner
from cohort.record.rollouts import read_groups
from cohort.train.grpo.training import GrpoTraining
from cohort.types import UserError
from cohort.views.console import Console
from cohort.wording import visible


@pytest.fixture
def tmp_path(place):
    return place


def weights(done):
    return load_file(done.final / "model.safetensors")


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.fault("an error in the middle of a step", "it goes back to the last checkpoint", "the step")
def test_a_failure_while_learning_goes_back_to_the_last_checkpoint(run, monkeypatch):
    """Half of the updates of step 4 have moved the weights: they must not be saved as those of step 3."""
    settings = {"optimizer": {"updates_per_batch": 3}, "evaluate": {"problems": 0}}
    whole = run(name="whole", **settings)
    update, calls = Learner.update, []

    def failing(self, batch, rate):
        calls.append(rate)
        if len(calls) == 11:  # the second update of step 4
            raise UserError("the gradient is not finite")
        return update(self, batch, rate)

    monkeypatch.setattr(Learner, "update", failing)
    with pytest.raises(UserError, match="not finite"):
        run(name="broken", **settings)
    monkeypatch.setattr(Learner, "update", update)
    resumed = run(name="broken", resume=True, **settings)
    assert same(weights(whole), weights(resumed))
    assert [line["step"] for line in resumed.metrics] == [0, 1, 2, 3, 4]


def test_a_failure_while_evaluating_loses_no_metrics(run, monkeypatch):
    settings = {"run": {"evaluate_every": 3}}
    whole = run(name="whole", **settings)
    original = GrpoTraining.evaluate

    def failing(self, step):
        if step == 3:
            raise UserError("the verifier is broken")
        return original(self, step)

    monkeypatch.setattr(GrpoTraining, "evaluate", failing)
    with pytest.raises(UserError, match="verifier"):
        run(name="broken", **settings)
    monkeypatch.setattr(GrpoTraining, "evaluate", original)
    resumed = run(name="broken", resume=True, **settings)
    assert same(weights(whole), weights(resumed))
    assert [line["step"] for line in resumed.metrics] == [0, 1, 2, 3, 4]
    assert "eval/greedy" in resumed.metrics[3]


def test_the_weight_of_a_reward_does_not_change_what_is_right(run):
    def always(completion):
        return 1.0

    done = run(reward=[{"use": always, "weight": 0.1}])
    assert done.metrics[0]["eval/greedy"] == 1.0
    assert done.metrics[0]["eval/pass@1"] == 1.0


def test_a_reward_of_weight_0_does_not_decide_about_signal(run):
    def watched(completion):
        return 1.0

    rewards = [{"use": watched, "weight": 0.0}, {"use": "vowels:share_of_vowels", "name": "vowels"}]
    done = run(reward=rewards, objective={"preset": "dapo"}, evaluate={"problems": 0})
    assert done.metrics[1]["groups/signal"] > 0


def test_with_drop_only_groups_that_failed_are_replaced(run):
    def sometimes_hangs(completion, prompt, seed):
        import time

        number = int(prompt.split()[2])
        if number == 3:
            time.sleep(60)
        return 0.5 if number % 2 else float(len(completion) % 5)  # odd prompts carry no signal

    done = run(
        reward=[{"use": sometimes_hangs, "timeout_s": 0.4}],
        objective={"preset": "grpo", "zero_std": "drop", "kl_coef": 0.0},
        task={"held_out": None},
        rollout={"prompts_per_step": 24, "group_size": 4},
        run={"steps": 1},
        evaluate={"problems": 0},
    )
    groups = read_groups(done.directory / "log/step-000001.parquet")
    assert sum(g.disposition == "error" for g in groups) == 1
    assert len(groups) == 25  # one more than the step takes, for the one that failed


def test_long_prompts_are_found_before_the_first_step(run, rows):
    with rows.open("a") as file:
        file.write(json.dumps({"question": "very " * 70, "solution": "1", "kind": "sum"}) + "\n")
    with pytest.raises(UserError, match="too_long"):
        run(task={"held_out": None, "max_prompt_tokens": 60}, run={"steps": 1})


def test_a_start_that_failed_does_not_take_the_name(run):
    with pytest.raises(UserError, match="max_tokens"):
        run(rollout={"max_tokens": 1024})
    run()


def test_more_steps_may_be_asked_for(run):
    whole = run(name="whole", run={"steps": 6})
    run(name="longer")
    longer = run(name="longer", resume=True, run={"steps": 6})
    assert same(weights(whole), weights(longer))
    assert longer.metrics[-1]["step"] == 6
    with pytest.raises(UserError, match=r"run\.steps was 6 and is 4"):
        run(name="longer", resume=True)
    run(name="falling", optimizer={"schedule": "cosine"})
    with pytest.raises(UserError, match=r"run\.steps was 4 and is 6"):
        run(name="falling", resume=True, optimizer={"schedule": "cosine"}, run={"steps": 6})


def test_a_tilde_in_the_run_directory_is_the_home_directory(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    done = run(run={"directory": "~/my runs", "steps": 1}, evaluate={"problems": 0})
    assert done.directory == tmp_path / "home/my runs/small"
    assert not (tmp_path / "~").exists()
    with pytest.raises(UserError, match="already holds a run"):
        run(run={"directory": "~/my runs", "steps": 1}, evaluate={"problems": 0})


def test_broken_weights_stop_the_run(run):
    with pytest.raises(UserError, match="not finite"):
        run(optimizer={"learning_rate": 1e30, "gradient_clip": 0.0}, evaluate={"problems": 0})


@pytest.mark.parametrize("victim", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncate", "delete"])
def test_a_damaged_checkpoint_is_named_and_gone_around(run, once, tmp_path, victim, damage):
    def stops(completion):
        from pathlib import Path

        if Path(PATH, "step-000003.parquet").exists():
            raise RuntimeError("stop here")
        return len(completion) / 10

    PATH = str(tmp_path / "runs/small/log")
    settings = {"reward": [{"use": stops}], "evaluate": {"problems": 0}}

    def stopped():
        with pytest.raises(UserError, match="stop here"):
            run(**settings)

    once("stopped", stopped)
    newest = sorted((tmp_path / "runs/small/checkpoints").iterdir())[-1]
    file = newest / victim
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:50])
    else:
        file.unlink()
    text = io.StringIO()
    with pytest.raises(UserError, match="stop here"):  # as the reward is still what it was
        run(resume=True, console=Console(file=text, width=400), **settings)
    assert f"{newest.name} is damaged ({victim}" in text.getvalue()
    assert "going on from step 2" in text.getvalue()


def test_changed_inputs_are_noticed(run, rows, tmp_path):
    run()
    rows.write_text(rows.read_text().replace("What is 3", "What was 3"))
    with pytest.raises(UserError, match=r"mine.jsonl has changed since"):
        run(resume=True, run={"steps": 6})


def test_steps_without_any_signal_and_contaminated_held_out_sets_are_said(run, rows):
    text = io.StringIO()
    run(
        console=Console(file=text, width=200),
        reward=[{"use": lambda completion: 0.0, "name": "nothing"}],
        objective={"preset": "dapo"},
        task={"held_out": str(rows)},
    )
    assert "trains on 0 groups: 12 left out" in text.getvalue()
    assert "24 held-out questions are also trained on" in text.getvalue()


def test_what_a_model_writes_does_not_drive_the_terminal():
    assert visible("a\x1b[2Jb\x07\tc\n") == "a\\x1b[2Jb\\x07\tc\n"


def test_a_live_model_is_given_back_usable(tables, small_model, tokenizer):
    import cohort

    recipe = cohort.Recipe(**{**tables, "policy": {"model": "live"}})
    cohort.train(recipe, model=small_model, tokenizer=tokenizer, console=Console(quiet=True))
    assert torch.isfinite(small_model(torch.tensor([[5, 6, 7]])).logits).all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_lora_needs_a_base_that_can_be_found_again(run, tables, small_model, tokenizer):
    from_scratch = {"model": None, "scratch": {"hidden_size": 32}, "lora": {"rank": 2}}
    words = {"source": "word_problems", "prompt": "prompt", "answer": "answer", "held_out": None}
    with pytest.raises(UserError, match="nothing to adapt"):
        run(policy=from_scratch, task=words)
    import cohort

    recipe = cohort.Recipe(**{**tables, "policy": {"model": "live", "lora": {"rank": 2}}})
    with pytest.raises(UserError, match="nowhere on disk"):
        cohort.train(recipe, model=small_model, tokenizer=tokenizer, console=Console(quiet=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bfloat16_trains(run, dtype):
    done = run(policy={"dtype": dtype, "compute": "bfloat16"}, objective={"preset": "grpo"})
    assert done.metrics[4]["grad_norm"] > 0
    assert abs(done.metrics[1]["policy/mismatch"]) < 0.1


def large(completion, tokens):
    return 1e100 * tokens


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_an_advantage_that_the_loss_cannot_hold_stops_the_run_with_a_sentence(run):
    with pytest.raises(UserError, match=r"an advantage of step 1 is too large for the loss.*scale the rewards"):
        run(reward=[{"use": large}], objective={"preset": "dr_grpo"}, evaluate={"problems": 0}, run={"gate": "off"})


def prints(completion):
    return print(end="")


def forgot(completion):
    len(completion)


def test_a_reward_without_a_return_is_refused_at_the_gate(run):
    settings = {"reward": [{"use": forgot}], "evaluate": {"problems": 0}}
    with pytest.raises(UserError, match="reward 'forgot' never returns a score, only None"):
        run(**settings)
    with pytest.raises(UserError, match="no completion of step 1 has a reward"):
        run(**settings, run={"gate": "off"}, name="without")


def test_a_reward_that_gives_nothing_does_not_train_on_nothing(run):
    with pytest.raises(UserError, match="no completion of step 1 has a reward: prints returned None"):
        run(reward=[{"use": prints}], evaluate={"problems": 0})
