"""Ctrl-C, SIGTERM and a terminal that is closed: the steps that were done are kept, in every kind of stage.

Tried with real processes: each signal, one kind of stage each; in this process: at several groups of a step, with
groups sampled ahead; a second signal; callers who have handlers of their own, ignore a signal, or train in a thread.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from cohort.record.metrics import is_timing, read_metrics
from cohort.train.checkpoint import latest_step
from cohort.train.stopping import Stopped, StopRequest, stopping
from cohort.views.console import Console
from forked import Cohort

POLICY = "policy.scratch = { hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16 }\n"
GRPO = """name = "stopped"
task = { source = "word_problems" }
rollout = { prompts_per_step = 4, group_size = 4, max_tokens = 24, max_staleness = 1 }
reward = "slow:score"
"""
SFT = """name = "stopped"
kind = "sft"
task = { source = "word_problems" }
supervised.examples_per_step = 8
"""
PAIRS = """name = "stopped"
kind = "reward_model"
task = { source = "pairs.jsonl", template = "none" }
preferences.pairs_per_step = 4
"""
SLOW = """import pathlib, time
def score(completion):
    time.sleep(0.002)
    while pathlib.Path(__file__).with_name("hangs").exists():
        pathlib.Path(__file__).with_name("hanging").touch()
        time.sleep(0.05)
    return completion.count("a")
"""


def begin(where, recipe, *more, alone=False):
    """Train a recipe: forked, or `alone` as `python -m cohort`."""
    text = recipe + POLICY + ("" if "reward_model" in recipe else "evaluate.problems = 0\n")
    (where / "recipe.toml").write_text(text + 'run = { threads = 1, gate = "off", save_every = 0 }\n')
    (where / "slow.py").write_text(SLOW)
    rows = [{"prompt": f"say {i}", "chosen": f"{i} it is", "rejected": "no"} for i in range(12)]
    (where / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if not alone:
        return Cohort("train", "recipe.toml", *more, cwd=where)
    command = [sys.executable, "-m", "cohort", "train", "recipe.toml", *more]
    return subprocess.Popen(command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process, metrics, steps):
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and len(metrics.read_bytes().splitlines()) >= steps:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


def wait_until_it_waits(hanging, metrics):
    """Until the reward hangs, and for a second no step has been done: what was scored already is learnt from."""
    deadline, since, done = time.monotonic() + 120, time.monotonic(), None
    while time.monotonic() < deadline and time.monotonic() - since < 1:
        time.sleep(0.01)
        if not hanging.exists() or metrics.read_bytes() != done:
            since, done = time.monotonic(), metrics.read_bytes()
    assert hanging.exists()


@pytest.mark.fault("SIGINT, SIGTERM, SIGHUP", "the step is finished or left, and what was done is saved")
@pytest.mark.parametrize(
    ("recipe", "number", "code"),
    [
        (GRPO, signal.SIGINT, 130),
        (SFT, signal.SIGTERM, 143),
        (PAIRS, signal.SIGHUP, -signal.SIGHUP),
    ],
    ids=["grpo-int", "sft-term", "reward-model-hup"],
)
def test_a_run_that_is_stopped_keeps_every_step_that_it_did(tmp_path, recipe, number, code):
    process, run = begin(tmp_path, recipe, "run.steps=5000", alone=recipe == GRPO), tmp_path / "runs/stopped"
    wait_for(process, run / "metrics.jsonl", 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    done = read_metrics(run / "metrics.jsonl")[-1]["step"]
    assert latest_step(run / "checkpoints") == done >= 2
    assert f"saved up to step {done}; continue with --resume: cohort train runs/stopped --resume" in out
    if code > 0:
        assert err.splitlines()[-1] == "stopped; `cohort train` continues with --resume"


@pytest.mark.fault("a second signal", "it stops at once", "the step")
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(first):
    heard, request = [], StopRequest()
    with pytest.raises(KeyboardInterrupt), stopping(request, lambda: heard.append(request.signal)):  # noqa: PT012
        signal.raise_signal(first)
        assert heard == [first]
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")


@pytest.mark.fault("a second signal to a process whose reward hangs", "it ends at once", "the step")
def test_a_second_signal_ends_a_process_that_cannot_finish_its_step(tmp_path):
    process, run = begin(tmp_path, GRPO, "run.steps=30", "run.save_every=1"), tmp_path / "runs/stopped"
    wait_for(process, run / "metrics.jsonl", 3)
    (tmp_path / "hangs").touch()
    wait_until_it_waits(tmp_path / "hanging", run / "metrics.jsonl")
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    done = read_metrics(run / "metrics.jsonl")[-1]["step"]
    assert latest_step(run / "checkpoints") == done < 30
    (tmp_path / "hangs").unlink()
    assert Cohort("train", "runs/stopped", "--resume", cwd=tmp_path).wait(timeout=120) == 0
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [*range(31)]


@pytest.fixture
def tmp_path(place):
    return place


@pytest.mark.parametrize("at", [1, 6, 9, 14])
def test_a_run_that_was_stopped_while_it_sampled_goes_on_with_the_same_bits(run, rows, once, tmp_path, monkeypatch, at):
    """Prompts that are too long are among those of the step that is left; groups are sampled ahead."""
    with rows.open("a") as file:
        file.write(json.dumps({"question": "very " * 30, "solution": "1", "kind": "sum"}) + "\n")
    settings = {
        "task": {"held_out": None, "too_long": "drop", "max_prompt_tokens": 40},
        "rollout": {"max_staleness": 1},
        "evaluate": {"problems": 0},
        "run": {"steps": 5, "save_every": 0},
    }
    whole = once("whole", lambda: run(name="whole", **settings))
    from cohort.train.grpo.training import GrpoTraining

    original, calls = GrpoTraining._one_group_sampled, []

    def interrupted(self):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        original(self)

    monkeypatch.setattr(GrpoTraining, "_one_group_sampled", interrupted)
    text = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run(name="stopped", console=Console(file=text), **settings)
    monkeypatch.undo()
    assert "--resume" not in text.getvalue()  # this is Python
    step = latest_step(tmp_path / "runs/stopped/checkpoints")
    said = f"saved up to step {step}; continue with resume=True: cohort.train(..., resume=True)"
    assert (said if step else "stopped before the first step was done") in text.getvalue()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = run(name="stopped", resume=True, **settings)
    a, b = (load_file(done.final / "model.safetensors") for done in (whole, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)
    for line, other in zip(whole.metrics, resumed.metrics, strict=True):
        assert {k: v for k, v in line.items() if not is_timing(k)} == {
            k: v for k, v in other.items() if not is_timing(k)
        }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_handler_of_the_caller_is_called_and_is_there_again(number):
    heard = []
    before = signal.signal(number, lambda *_: heard.append("theirs"))
    try:
        request = StopRequest()
        with pytest.raises(KeyboardInterrupt), stopping(request, lambda: heard.append("ours")):  # noqa: PT012
            signal.raise_signal(number)
            assert heard == ["ours"]
            request.check()
        assert heard == ["ours", "theirs"]
        signal.raise_signal(number)
        assert heard == ["ours", "theirs", "theirs"]
        signal.signal(number, signal.SIG_IGN)  # nohup
        with stopping(StopRequest(), pytest.fail):
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_what_goes_wrong_after_a_signal_is_still_said():
    with pytest.raises(ZeroDivisionError), stopping(StopRequest(), lambda: None):  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError
    with pytest.raises(Stopped):
        StopRequest(signal.SIGINT).check()


def test_outside_of_the_main_thread_signals_are_left_alone():
    import threading

    seen = []

    def other():
        with stopping(StopRequest(), lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [before]
