"""The command line as a person uses it: what it prints, and how it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import orjson
import pytest
import torch

from cohort.machine import threads_of
from cohort.record.manifest import sealed_directory
from forked import Cohort


def test_a_user_trains_on_their_own_data_model_and_reward(desk, cohort):
    code, out, err = cohort("train", "recipe.toml")
    assert code == 0, err
    for word in ("DAPO", "4 prompts x 3 completions = 12 a step", "memory", "before", "after", "runs/mine/final"):
        assert word in out
    code, out, err = cohort("train", "recipe.toml")
    assert (code, out) == (1, "")
    assert "already holds a run" in err
    code, out, err = cohort("train", "recipe.toml", "--resume")
    assert code == 0
    assert "after" in out
    assert "DAPO" in cohort("explain", "runs/mine")[1]
    code, out, err = cohort("eval", "runs/mine", "--samples", "2", "--problems", "3")
    assert code == 0, err
    assert "greedy" in out
    code, out, err = cohort("eval", "runs/mine", "--samples", "2", "--against", "base")
    assert code == 0, err
    assert "minus base" in out


def test_eval_of_a_plain_checkpoint(desk, cohort):
    words = ("rollout.max_tokens=12", "--task", "word_problems", "--samples", 2, "--problems", 5)
    code, out, err = cohort("eval", "base", *words)
    assert code == 0, err
    assert "pass@2" in out


def test_sample(desk, cohort):
    code, out, err = cohort("sample", "base", "What is 2 plus 3?", "-n", 3, "--max-tokens", 6, "--answer", "5")
    assert code == 0, err
    assert "mean score" in out
    assert out.count("tokens,") == 3


@pytest.fixture
def run_with_tools(desk):
    """A run whose recipe has a system prompt, a tool and rewards of which one needs a column."""
    run = desk / "runs" / "tools"
    shutil.copytree(desk / "base", run / "final")
    extra = '[environment]\ntools = ["calculator"]\nformat = "tags"\n[[reward]]\nuse = "my_rewards:of_level"\n'
    text = (desk / "recipe.toml").read_text().replace("[rollout]", 'system = "Be brief."\n[rollout]\ntemperature = 0.5')
    (run / "recipe.toml").write_text(text + extra)
    with (desk / "my_rewards.py").open("a") as file:
        file.write("def of_level(completion, level):\n    return 0.0\n")
    return run


def test_a_run_samples_as_it_did_in_training(desk, cohort, run_with_tools):
    words = ("sample", run_with_tools, "What is 2 plus 3?", "-n", 2, "--answer", "5", "--json")
    code, out, err = cohort(*words)
    assert code == 0, err
    found = json.loads(out)
    assert "system 'Be brief.'" in found["settings"]
    assert "temperature 0.5, at most 8 tokens" in found["settings"]
    assert "tools calculator" in found["settings"]
    assert set(found["completions"][0]["scores"]) == {"vowels", "exact_number"}
    assert "of_level does not score here" in found["unscored"][0]
    texts = [one["text"] for one in found["completions"]]
    assert [one["text"] for one in json.loads(cohort(*words)[1])["completions"]] == texts
    for other in (("--system", "Talk."), ("--max-tokens", 3), ("--temperature", 0), ("--template", "none")):
        code, out, err = cohort(*words, *other)
        assert code == 0, err
        assert [one["text"] for one in json.loads(out)["completions"]] != texts
    code, out, err = cohort(*words[:-1], "--reward", "one_answer")
    assert code == 0, err
    assert "mean score" in out


def test_a_run_is_measured_from_another_directory_than_where_it_was_trained(desk, cohort, tmp_path, monkeypatch):
    """Data, the base of an adapter and the module of a reward are named by relative paths; so are files here."""
    lora = ("policy.lora={rank=2}", "run.steps=1", "evaluate.problems=0", "reward=my_rewards:vowels")
    code, _, err = cohort("train", "recipe.toml", *lora, "evaluate.reward=my_rewards:vowels", "run.gate=off")
    assert code == 0, err
    short = ("--samples", 0, "--problems", 2)
    here = cohort("eval", "runs/mine", *short)
    assert here[0] == 0, here
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(desk)])
    for run in (desk / "runs/mine", "../runs/mine"):
        code, out, err = cohort("eval", run, *short)
        assert code == 0, err
        assert f"in {desk}, where" in " ".join(out.split())
    (elsewhere / "held.jsonl").write_text((desk / "train.jsonl").read_text().splitlines()[0] + "\n")
    found = cohort("eval", desk / "runs/mine", "task.held_out=held.jsonl", *short)
    assert found[0] == 0, found
    code, out, err = cohort("sample", desk / "runs/mine", "2?", "-n", 1, "--max-tokens", 2, "--template", "none")
    assert code == 0, err
    assert os.getcwd() == str(elsewhere)


@pytest.mark.parametrize("command", ["eval", "sample"])
def test_a_model_that_is_not_as_it_was_written_is_not_measured(desk, cohort, command):
    with sealed_directory(desk / "run/final") as final:
        shutil.copytree(desk / "base", final, dirs_exist_ok=True)
    words = {"eval": ("--task", "word_problems", "--problems", 2, "--samples", 0), "sample": ("2+3", "-n", 1)}[command]
    (desk / "run/final/note.txt").write_text("mine")  # what is added changes nothing
    file = desk / "run/final/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    code, _, err = cohort(command, "run", *words)
    assert code == 2
    assert err.startswith("error: the model in ")
    assert "model.safetensors is not as it was written" in err


def test_explain(desk, cohort):
    code, out, _ = cohort("explain", "recipe.toml", "--diff", "trl")
    assert code == 0
    for word in ("DAPO", "1.28", "against trl"):
        assert word in out
    changes = ("objective.preset=grpo", "objective.bypass=true", "reference.update_every=400")
    code, out, _ = cohort("explain", "recipe.toml", *changes)
    assert code == 0
    for word in (
        "vowels",
        "temperature 1",
        "hash",
        "4 prompts x 3 completions",
        "every 400 steps copied from",
        "sampler's own log-probs",
        "AdamW",
    ):
        assert word in out
    code, out, _ = cohort("explain", "recipe.toml", "--latex")
    assert code == 0
    assert "\\begin{aligned}" in out
    code, _, err = cohort("explain", "recipe.toml", "--diff", "dappo")
    assert code == 2
    assert "dapo" in err


def test_check_shows_a_prompt_as_the_policy_sees_it(desk, cohort):
    acting = "monitor.actions.truncation=quarantine"
    code, out, err = cohort("check", "recipe.toml", 'task.system="Be brief."', acting)
    assert code == 0, err
    assert "truncation: quarantine" in out  # the plan is that of the run, to its end
    assert "a prompt, as the policy sees it" in out
    shown = out[out.index("a prompt, as the policy sees it") :]
    assert "Be brief." in shown
    assert "What is" in shown
    code, out, _ = cohort("check", "recipe.toml", "--json")
    assert "What is" in json.loads(out)["stages"][0]["prompt"]


def test_check_shows_what_each_reward_pays_most_and_least(desk, cohort):
    code, out, err = cohort("check", "recipe.toml")
    assert code == 0, err
    assert "8 completions of it, of at most 8 tokens" in out
    for shown in ("best of vowels", "worst of vowels", "all of exact_number"):
        assert shown in out
    code, out, _ = cohort("check", "recipe.toml", "--json")
    ends = json.loads(out)["stages"][0]["examples"]["vowels"]
    assert ends["best"]["score"] >= ends["worst"]["score"]
    assert ends["best"]["text"]
    # A reward whose server is down is said, and the check goes on.
    (desk / "odd.py").write_text(
        "from cohort.types import InfrastructureError\n"
        "def down(completion):\n    raise InfrastructureError('no server')\n"
    )
    code, out, err = cohort("check", "recipe.toml", "reward=odd:down", "evaluate.reward=exact_number")
    assert "no completion could be scored" in out, err


def test_threads_are_those_of_the_environment_and_the_same_in_check_and_train(desk, cohort, monkeypatch):
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)  # as OMP_NUM_THREADS does
        try:
            for _ in range(2):
                assert threads_of("auto") == threads
            assert threads_of(5) == 5
            code, out, err = cohort("check", "recipe.toml", "run.threads=auto")
            assert code == 0, err
            assert f"cpu, {threads} thread" in out
        finally:
            torch.set_num_threads(before)


def test_check_passes_an_honest_verifier_and_fails_a_blind_one(desk, cohort):
    code, out, err = cohort("check", "recipe.toml")
    assert code == 0, err
    assert "gold answers score 1.00" in out
    code, out, _ = cohort("check", "recipe.toml", "evaluate.reward=random")
    assert code == 1
    assert "cannot tell gold answers" in out


def test_three_lines_are_a_reward(desk, cohort, monkeypatch):
    """A person's own reward goes through the gate and trains."""
    (desk / "mine.py").write_text("def right(completion, answer):\n    return float(completion.strip() == answer)\n")
    own = ("reward=mine:right", "evaluate.reward=mine:right")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    code, out, err = cohort("check", "recipe.toml", *own)
    assert code == 0, err
    for word in ("1.00 as it is", "another prompt's gold", "the same twice", "good  right: gold answers score 1.00"):
        assert word in out
    code, out, err = cohort("train", "recipe.toml", *own)
    assert code == 0, err
    assert "gate  right: gold answers score 1.00" in out


def test_a_run_whose_verifier_is_blind_does_not_start(desk, cohort, monkeypatch):
    (desk / "blind.py").write_text("def right(completion, answer):\n    return 0.5\n")
    monkeypatch.delitem(sys.modules, "blind", raising=False)
    code, out, err = cohort("train", "recipe.toml", "evaluate.reward=blind:right")
    assert code == 1
    assert err.count("\n") == 1
    assert "cannot tell gold answers (mean score 0.50)" in err
    assert 'run.gate = "warn"' in err
    assert "gold answer" in out
    assert not (desk / "runs/mine/metrics.jsonl").exists()
    code, out, err = cohort("train", "recipe.toml", "evaluate.reward=blind:right", "run.gate=warn")
    assert code == 0, err
    assert "training all the same" in out


def test_explain_says_which_prompts_and_gates(desk, cohort):
    gate = ("reward.exact_number.gate=vowels", "reward.exact_number.gate_at=0.1")
    code, out, _ = cohort("explain", "recipe.toml", *gate)
    assert code == 0
    assert "0.5 x exact_number (0 unless vowels >= 0.1)" in out


def test_config(desk, cohort):
    code, out, _ = cohort("config", "show", "recipe.toml", "rollout.group_size=5")
    assert code == 0
    assert "group_size = 5" in out
    (desk / "shown.toml").write_text(out)
    assert cohort("config", "show", "shown.toml")[1] == out
    assert "group_size: 3 here, 8 by default" in cohort("config", "diff", "recipe.toml")[1]
    assert "group_size: 3 here, 5 in shown.toml" in cohort("config", "diff", "recipe.toml", "shown.toml")[1]
    (desk / "other.toml").write_text(out.replace("group_size = 5", "group_size = 3") + '[[reward]]\nuse = "random"\n')
    lines = cohort("config", "diff", "other.toml", "shown.toml")[1].splitlines()
    assert [line.strip().split(":")[0] for line in lines] == ["rollout.group_size", "reward.random"]
    assert len({line.index(":") for line in lines}) == 1  # the keys end together
    preset = cohort("config", "diff", "recipe.toml", "trl")[1]
    assert " in trl: " in preset
    assert all(line.strip().startswith("objective.") for line in preset.splitlines())
    assert orjson.loads(cohort("config", "schema")[1])["type"] == "object"
    assert "command line" in cohort("config", "show", "recipe.toml", "seed=3", "--origins")[1]


def test_explain_knows_two_recipes_and_one_that_is_missing(desk, cohort):
    code, _, err = cohort("explain", "recipe.toml", "dapo")
    assert (code, "cohort explain recipe.toml --diff dapo" in err) == (2, True)
    code, _, err = cohort("explain", "recipe.toml", "--diff", "missing.toml")
    assert (code, "there is no recipe 'missing.toml'" in err) == (2, True)
    assert "cohort config diff" in cohort("explain", "recipe.toml", "--diff", "dapo")[1]


def test_doctor(cohort):
    code, out, _ = cohort("doctor")
    assert code == 0
    assert "fastest" in out
    assert "torch" in out


def test_help_needs_no_torch():
    code = "import sys, cohort.cli; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


BAD = {
    "a misspelt key": (["optimizer.learning_rat=1e-4"], r"optimizer.learning_rate"),
    "a missing source": (["task.source=trian.jsonl"], r"train.jsonl"),
    "a missing prompt column": (["task.prompt=qestion"], r"question"),
    "a missing answer column": (["task.answer=anwser"], r"answer|solution"),
    "a group of one": (["rollout.group_size=1"], r"group"),
    "an unknown reward": (["reward=exact_nmber"], r"exact_number"),
    "a missing reward module": (["reward=nowhere:score"], r"nowhere"),
    "a missing reward function": (["reward=my_rewards:vowel"], r"vowels"),
    "a model that is not there": (["policy.model=./bsae"], r"bsae"),
    "a directory without a model": (["policy.model=empty"], r"config.json"),
    "more prompts a step than there are": (["rollout.prompts_per_step=500"], r"fewer than one step"),
    "an unknown preset": (["objective.preset=dapoo"], r"dapo"),
    "a senseless objective": (["objective.baseline=critic"], r"critic"),
    "truncated sampling": (["rollout.top_p=0.9"], r"top_p"),
    "a completion longer than the context": (["rollout.max_tokens=100000"], r"max_tokens"),
    "too many updates": (["optimizer.updates_per_batch=50"], r"updates_per_batch"),
    "a directory that cannot be written": (["run.directory=/proc/nothing"], r"run.directory|cannot write"),
    "an override without a value": (["rollout.group_size"], r"rollout.group_size"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_sentence(desk, cohort, case):
    (desk / "empty").mkdir()
    overrides, hint = BAD[case]
    code, _, err = cohort("train", "recipe.toml", *overrides)
    assert code == 1
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: ")
    import re

    assert re.search(hint, err), err
    assert not (desk / "runs" / "mine" / "final").exists()


def test_bad_rows_are_named(desk, cohort):
    with (desk / "train.jsonl").open("a") as file:
        file.write('{"question": "", "solution": "3"}\n')
    code, _, err = cohort("train", "recipe.toml")
    assert code == 1
    assert "25" in err
    assert "empty" in err
    (desk / "train.jsonl").write_text('{"question": "a", "solution": "1"}\n{"question": oops}\n')
    code, _, err = cohort("train", "recipe.toml")
    assert code == 1
    assert "2" in err


def test_a_model_without_an_end_token_is_refused(desk, cohort, tokenizer):
    config = json.loads((desk / "base" / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (desk / "base" / "tokenizer_config.json").write_text(json.dumps(config))
    for name in ("generation_config.json", "config.json"):
        stored = json.loads((desk / "base" / name).read_text())
        stored["eos_token_id"] = None
        (desk / "base" / name).write_text(json.dumps(stored))
    code, _, err = cohort("train", "recipe.toml")
    assert code == 1
    assert "end-of-sequence" in err


def test_a_model_without_a_pad_token_needs_none(desk, cohort):
    config = json.loads((desk / "base" / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (desk / "base" / "tokenizer_config.json").write_text(json.dumps(config))
    code, _, err = cohort("train", "recipe.toml")
    assert code == 0, err


def test_a_reward_that_raises_is_named_with_its_place(desk, cohort):
    (desk / "my_rewards.py").write_text("def vowels(completion):\n    return 1 / 0\n")
    code, _, err = cohort("train", "recipe.toml")
    assert code == 1
    for part in ("vowels", "ZeroDivisionError", "my_rewards.py"):
        assert part in err


def test_interrupting_is_not_a_crash(desk):
    """Ctrl-C ends the process with one line, and the run can go on."""
    import signal
    import time

    process = Cohort("train", "recipe.toml", "run.steps=10000", cwd=desk)
    deadline = time.monotonic() + 120
    while not (desk / "runs/mine/log/step-000002.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "stopped; `cohort train` continues with --resume"
    assert "Traceback" not in err


def test_explain_shows_the_ratio_that_is_taken(desk, cohort):
    changes = ("objective.preset=scale_rl", "rollout.max_staleness=1")
    _, out, _ = cohort("explain", "recipe.toml", *changes)
    assert "π_θ(o_t) / μ(o_t)" in out
    assert "the ratio is 1" not in out
    _, out, _ = cohort("explain", "recipe.toml", *changes, "objective.bypass=false", "--diff", "scale_rl")
    assert "bypass" in out
    assert "the same objective" not in out


def test_explain_compares_with_a_recipe_and_with_a_run(desk, cohort):
    (desk / "other.toml").write_text((desk / "recipe.toml").read_text() + "[optimizer]\nlearning_rate = 3e-6\n")
    code, out, err = cohort("explain", "recipe.toml", "rollout.temperature=0.7", "--diff", "other.toml")
    assert code == 0, err
    assert "rollout.temperature 0.7 here, 1.0 in other.toml" in " ".join(out.split())
    assert "optimizer.learning_rate  1e-06 here, 3e-06 in other.toml" in out
    run = desk / "runs" / "earlier"
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text((desk / "recipe.toml").read_text())
    code, out, err = cohort("explain", "recipe.toml", "--diff", "runs/earlier")
    assert code == 0, err
    assert "against runs/earlier - the same objective" in out


def test_a_clip_that_cannot_act_is_not_called_wider(desk, cohort):
    _, out, _ = cohort("explain", "recipe.toml", "objective.preset=grpo", "--diff", "dapo")
    assert "clip_high 0.2 here, 0.28 in dapo: Nothing in this recipe: one update a batch" in " ".join(out.split())
    _, out, _ = cohort("explain", "recipe.toml", "objective.preset=grpo")
    assert "clip_high=0.2 Nothing in this recipe" in " ".join(out.split())
    changes = ("objective.preset=grpo", "optimizer.updates_per_batch=2")
    _, out, _ = cohort("explain", "recipe.toml", *changes, "--diff", "dapo")
    assert "clip_high 0.2 here, 0.28 in dapo: Wider." in " ".join(out.split())
