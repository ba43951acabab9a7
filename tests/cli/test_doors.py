"""What a new user met at the doors: where data are found, what is said of a name that is not there, differences."""

from __future__ import annotations

import json
import shutil
import sys
import time

import pytest

import cohort as library
from cohort.commands.place import told_apart
from cohort.types import UserError
from judge_server import JudgeServer, verdict

SHORT = ("evaluate.problems=0", "run.gate=off", "rollout.prompts_per_step=1", "rollout.group_size=2")


def test_a_copied_run_goes_on_from_another_directory(desk, cohort, tmp_path, monkeypatch):
    code, _, err = cohort("train", "recipe.toml", *SHORT, "run.steps=2", "run.save_every=1")
    assert code == 0, err
    there = tmp_path / "elsewhere"
    shutil.copytree(desk / "runs/mine", there / "copy")
    shutil.rmtree(there / "copy/final")
    shutil.rmtree(there / "copy/checkpoints/step-000002")
    monkeypatch.chdir(there)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(desk)])
    code, out, err = cohort("train", "copy", "--resume")
    assert code == 0, err
    assert f"in {desk}, where" in " ".join(out.split())
    assert (there / "copy/final/model.safetensors").exists()


def test_a_reward_of_a_program_is_not_looked_for_in_the_command(desk, cohort):
    with pytest.raises(UserError):
        library.train(model="base", data="train.jsonl", reward=lambda completion: None, name="lam", run={"steps": 1})
    code, _, err = cohort("train", "runs/lam", "--resume")
    assert code == 1
    assert "go on there with resume=True, or write it into a module" in err


def test_eval_takes_the_columns_of_a_file_as_init_does(desk, cohort):
    code, out, err = cohort("eval", "base", "--task", "train.jsonl", "--samples", 0, "--problems", 2)
    assert code == 0, err
    assert "questions in 'question'; answers in 'solution', numbers; the reward exact_number" in " ".join(out.split())
    (desk / "odd.jsonl").write_text('{"ask": "1+1?", "gold": "2"}\n')
    code, _, err = cohort("eval", "base", "--task", "odd.jsonl")
    assert code == 2
    assert "task.prompt" in err
    odd = ("eval", "base", "--task", "odd.jsonl", "task.prompt=ask", "--samples", 0)
    assert cohort(*odd)[0] == 0


def test_a_difference_is_all_that_is_shown_and_names_a_missing_part_once(desk, cohort):
    text = (desk / "recipe.toml").read_text()
    (desk / "other.toml").write_text(text.replace('model = "base"', 'model = "base"\nlora = { rank = 4 }'))
    _, out, _ = cohort("explain", "recipe.toml", 'reward=["exact_number"]', "--diff", "other.toml")
    assert "J(θ)" not in out
    rows = [line.split()[0] for line in out.split("This is what decides")[0].rstrip().splitlines() if line[:2] == "  "]
    assert rows == ["policy.lora", "reward.vowels", "reward.exact_number.weight", "optimizer.learning_rate"]
    assert "none here, rank 4 in other.toml" in out
    assert "none here, 1 x vowels in other.toml" in out


def test_a_model_that_is_not_there_is_said_by_init_and_in_one_sentence(desk, cohort):
    for command in (("init", "./no-such", "train.jsonl"), ("sample", "./no-such", "hi")):
        code, out, err = cohort(*command)
        assert (code, out) == (2, "")
        assert "there is no directory './no-such'" in err


def test_the_plan_says_whether_an_adapter_is_new(desk, cohort):
    code, out, err = cohort("train", "recipe.toml", *SHORT, "policy.lora={rank=4}", "run.steps=1", "name=a")
    assert code == 0, err
    assert "LoRA of rank 4, new" in " ".join(out.split())
    go_on = ("policy.model=runs/a", "policy.lora={rank=4}", "run.steps=1", "name=b", "optimizer.learning_rate=0.1")
    code, out, err = cohort("train", "recipe.toml", *SHORT, *go_on)
    assert code == 0, err
    assert "LoRA of rank 4, " in " ".join(out.split())


def test_no_command_is_described_by_half_a_sentence(cohort):
    for group in ((), ("config",), ("record",)):
        code, out, _ = cohort(*group, "--help")
        assert code == 0
        assert "..." not in out.split("Commands:")[1], out


def test_a_warning_is_a_note_without_a_line_of_source(desk, cohort):
    rows = [
        {"question": [{"role": "user", "content": f"{i} + 1?"}, {"role": "assistant", "content": "I add."}]}
        for i in range(4)
    ]
    (desk / "begun.jsonl").write_text("".join(json.dumps({**row, "solution": "1"}) + "\n" for row in rows))
    args = ("task.source=begun.jsonl", "task.template_args={tone=1}", "run.steps=1")
    code, out, err = cohort("train", "recipe.toml", *SHORT, *args)
    assert code == 0, err
    said = " ".join(err.split())
    assert "note the chat template of " in said
    assert "does not read task.template_args.tone: it has no effect" in said
    assert said.count("note a prompt ends with a turn of the assistant, 'I add.'") == 1
    assert "UserWarning" not in out + err
    assert ".py:" not in out + err


def test_a_table_whose_quotes_the_shell_took_is_said_to_be_no_toml(desk, cohort):
    code, _, err = cohort("explain", "recipe.toml", "reward=[{use=exact_number}]")
    assert code == 1
    assert err.count("error:") == 1
    assert "reward is no TOML: '[{use=exact_number}]'; a shell takes quotes away" in err
    assert cohort("explain", "recipe.toml", "task.system=[INST] add [/INST]")[0] == 0  # text may begin so


def test_models_are_shown_by_what_tells_them_apart(desk, cohort):
    assert told_apart(["runs/a", "/a/very/long/path/of/somebody/MODEL.gguf"]) == ["runs/a", "…/MODEL.gguf"]
    long = [f"/home/somebody/experiments/runs/{name}/final" for name in ("one", "two")]
    assert told_apart(long) == ["…/one/final", "…/two/final"]
    assert told_apart(["base", "Qwen/Qwen3-0.6B"]) == ["base", "Qwen/Qwen3-0.6B"]
    assert told_apart([long[0]]) == ["…/final"]
    other = desk / "a/very/long/path/of/somebody"
    shutil.copytree(desk / "base", other / "MODEL")
    args = ("--task", "train.jsonl", "--samples", 0, "--problems", 2, "--against", other / "MODEL")
    code, out, err = cohort("eval", "base", *args)
    assert code == 0, err
    assert "greedy: base minus …/MODEL is +0.0%" in out
    assert "very/long" not in out


def test_a_policy_that_no_prompt_tells_of_its_tools_is_said_by_the_plan_and_by_check(desk, cohort):
    tools = 'environment.tools=["calculator"]'
    untold = "calls are written <tool>NAME: ARGUMENT</tool>, which no prompt says: task.system can"
    told = "task.system=Write <tool>calculator: 1 + 1</tool> to calculate."
    plain = "task.template=none"
    for command in (("check",), ("train", *SHORT, "run.steps=1")):
        name, *more = command
        code, out, err = cohort(name, "recipe.toml", *more, tools, plain, "run.gate=off", f"name={name}-untold")
        assert code == 0, err
        assert untold in " ".join(out.split())
        code, out, err = cohort(name, "recipe.toml", *more, tools, plain, told, "run.gate=off", f"name={name}-told")
        assert code == 0, err
        assert "which no prompt says" not in " ".join(out.split())


def test_check_shows_one_completion_where_a_reward_pays_all_alike(desk, cohort):
    _, out, _ = cohort("check", "recipe.toml", 'reward=["exact_number"]')
    assert "all of exact_number  0" in out
    assert "best of exact_number" not in out


def test_a_judge_that_stops_answering_after_the_gate_is_waited_for_aloud_and_ends_the_run(desk, cohort, monkeypatch):
    monkeypatch.setattr("cohort.rewards.workers.pool.SAID_AFTER_S", 0.5)
    asked = []

    def reply(texts, body):
        asked.append(time.monotonic())
        silent = {"raw": b" " * 4000, "slow": 1}
        return verdict(score=10 if "1" in texts[-1] else 1) if len(asked) <= 4 else silent

    judge = JudgeServer(reply)
    args = f'{{url="{judge.url}", model="m", cache="off", retries=0, request_timeout_s=30, backoff_s=0.0}}'
    reward = f'reward=[{{use="judge", timeout_s=1.5, args={args}}}]'
    alone = ("evaluate.problems=0", "rollout.prompts_per_step=1", "rollout.group_size=2", "run.workers=1")
    try:
        code, out, err = cohort("train", "recipe.toml", reward, *alone, "run.failure_window=2", "objective.preset=grpo")
    finally:
        judge.close()
    assert code == 1
    assert len(asked) > 4, "the gate was good"
    assert "waiting for reward 'judge', asked " in out
    assert "and given up after 1.5 s (its timeout_s)" in " ".join(out.split())
    assert "groups could not be scored, and run.failure_budget = 0.1 allows" in err


def test_a_sampler_that_holds_other_weights_ends_the_command_with_a_sentence(desk, cohort):
    (desk / "stale.py").write_text(
        "from cohort.backends.local import open_engine\n\n\n"
        "def sampler(policy, rollout):\n"
        "    engine = open_engine(policy, rollout)\n"
        "    engine.fingerprint = lambda: '0' * 64\n"
        "    return engine\n"
    )
    code, _, errors = cohort("train", "recipe.toml", "rollout.sampler=stale:sampler", "run.gate=off")
    assert code == 1
    assert "the sampler holds other ones than were published" in " ".join(errors.split())
    assert "Traceback" not in errors
    assert not (desk / "runs/mine/final").exists()
