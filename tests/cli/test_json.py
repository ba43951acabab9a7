"""`--json`: one JSON object on standard output, words on standard error; and the exit codes, with and without it."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time

import pytest

import cohort as package
from cohort import cli
from cohort.commands.door import Answer
from forked import Cohort


@pytest.fixture
def asked(cohort):
    """Run a command with --json; returns (exit code, the object, words)."""

    def ask(*words):
        code, out, err = cohort(*words, "--json")
        assert out.endswith("\n")
        assert out.count("\n") == 1
        found = json.loads(out)
        assert isinstance(found, dict)
        return code, found, err

    return ask


def test_every_command_takes_json():
    commands = [c for app in (cli.app, cli.config, cli.record) for c in app.registered_commands]
    assert len(commands) == 26
    for command in commands:
        assert command.callback.__annotations__["json"] == "Json", command.callback.__name__


def test_a_run(desk, asked):
    # What user code prints, here and in the worker, goes to the words.
    (desk / "my_rewards.py").write_text(
        'print("loaded")\ndef vowels(completion):\n    print("scoring")\n    return float("e" in completion)\n'
    )
    code, found, words = asked("train", "recipe.toml")
    assert code == 0
    assert found["model"] == "runs/mine/final"
    assert found["steps"] == found["last"]["step"] == 2
    assert [line["step"] for line in found["evaluations"]] == [0, 2]
    assert "held-out accuracy" in words
    assert "loaded" in words

    code, found, words = asked("train", "recipe.toml")
    assert code == found["exit"] == 1
    assert "already holds a run" in found["error"]
    assert words == f"error: {found['error']}\n"

    code, found, _ = asked("eval", "runs/mine", "--samples", 2, "--problems", 3, "--against", "base")
    assert code == 0
    assert list(found["models"]) == ["runs/mine", "base"]
    assert 0 <= found["models"]["base"]["eval/pass@1"] <= 1
    assert {name: one["problems"] for name, one in found["difference"].items()} == {"greedy": 3, "sampled": 3}


def test_a_check(desk, asked):
    code, found, words = asked("check", "recipe.toml")
    assert (code, found["holds"]) == (0, True)
    (stage,) = found["stages"]
    assert stage["gate"]["verdict"] == "passed"
    assert stage["plan"]["batch"].startswith("4 prompts x 3 completions")
    assert "gold answers score 1.00" in words
    code, found, _ = asked("check", "recipe.toml", "evaluate.reward=random")
    assert (code, found["holds"]) == (1, False)
    assert "cannot tell gold answers" in found["stages"][0]["gate"]["problems"][0]


def test_an_explanation(desk, asked):
    code, found, words = asked("explain", "recipe.toml", "--diff", "trl")
    assert (code, words) == (0, "")
    (stage,) = found["stages"]
    assert stage["objective"].startswith("DAPO")
    assert "\\begin{aligned}" in stage["latex"]
    assert len(stage["hash"]) == 64
    assert {one["field"] for one in stage["differences"]} >= {"clip_high"}
    assert all(stage["choices"].values())


def test_a_sample(desk, asked):
    code, found, words = asked("sample", "base", "What is 2 plus 3?", "-n", 3, "--max-tokens", 6, "--answer", "5")
    assert (code, words) == (0, "")
    assert [one["tokens"] <= 6 for one in found["completions"]] == [True] * 3
    assert found["mean_score"] == sum(one["score"] for one in found["completions"]) / 3
    assert asked("sample", "base", "Hello?", "-n", 1, "--max-tokens", 2)[1]["mean_score"] is None


def test_a_doctor(asked):
    code, found, words = asked("doctor")
    assert (code, words) == (0, "")
    assert str(found["threads"]) in found["medians"]
    assert found["machine"]["packages"]["torch"]


def test_configurations(desk, asked):
    code, found, words = asked("config", "show", "recipe.toml", "seed=3")
    assert (code, words) == (0, "")
    assert found["recipe"]["rollout"]["group_size"] == 3
    assert found["origins"]["seed"] == "command line"
    _, found, _ = asked("config", "diff", "recipe.toml")
    assert {"key": "rollout.group_size", "here": 3, "there": 8, "consequence": ""} in found["differences"]
    assert asked("config", "schema")[1]["type"] == "object"


UNREADABLE = {
    "no such recipe": (("train", "recpe.toml"), "did you mean 'recipe.toml'"),
    "a recipe that is no TOML": (("explain", "broken.toml"), "this is not TOML"),
    "a recipe that is a directory": (("check", "base"), "is a directory"),
    "a run that is not there": (("eval", "nosuch"), "there is no run 'nosuch' here"),
    "a model that is not there": (("sample", "./bsae", "Hello?"), "there is no directory './bsae'"),
    "a model to evaluate that is not there": (("eval", "./bsae", "--task", "word_problems"), "./bsae"),
    "data that are not there": (("init", "base", "trian.jsonl"), "Did you mean train.jsonl?"),
    "an option that there is not": (("train", "recipe.toml", "--resum"), "--resum"),
    "a command that there is not": (("trian", "recipe.toml"), "trian"),
    "an argument too few": (("sample", "base"), "prompt"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_and_wrong_usage_are_2(desk, cohort, asked, case):
    (desk / "broken.toml").write_text("name = mine\n")
    words, hint = UNREADABLE[case]
    code, out, err = cohort(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert hint in err
    code, found, _ = asked(*words)
    assert code == found["exit"] == 2
    assert hint in found["error"]


def test_a_fault_of_ours_is_an_object_too(monkeypatch, capfd):
    monkeypatch.setattr("cohort.recipe.json_schema", lambda: dict[str, int]()["nothing"])
    monkeypatch.setattr(sys, "argv", ["cohort", "config", "schema", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    assert ended.value.code == 1
    assert json.loads(out) == {"error": "KeyError: 'nothing'", "exit": 1}
    assert "Traceback" in err  # for whoever mends it
    monkeypatch.setattr(sys, "argv", ["cohort", "config", "schema"])
    with pytest.raises(KeyError):
        cli.main()


def test_an_answer_holds_unless_it_says_otherwise():
    assert Answer({}).holds


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_so(desk, sent, code):
    process = Cohort("train", "recipe.toml", "run.steps=10000", "--json", cwd=desk)
    deadline = time.monotonic() + 120
    while not (desk / "runs/mine/log/step-000002.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert json.loads(out) == {"error": "stopped; `cohort train` continues with --resume", "exit": code}
    assert err.strip().splitlines()[-1] == "stopped; `cohort train` continues with --resume"


def test_the_version_and_what_is_public(cohort):
    assert cohort("--version") == (0, f"cohort {package.__version__}\n", "")
    assert {"Recipe", "UserError", "objectives", "rewards", "train"} <= set(dir(package))
    assert all(getattr(package, name) is not None for name in dir(package))


def test_help_answers_in_half_a_second():
    """Of processor time, as others may work on this machine too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "cohort", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 0.5
