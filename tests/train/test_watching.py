"""Runs that go wrong say so while they run, and again at their end; it is in the record, and resume keeps it."""

from __future__ import annotations

import io
import json
import shutil

import pytest
from scorers import never, right_if_even

from cohort.monitor.watcher import detect, read_incidents
from cohort.record.verify import verify
from cohort.settings import Monitor
from cohort.types import PausedError, UserError
from cohort.views.console import Console


@pytest.fixture
def pipe():
    file = io.StringIO()
    return file, Console(file=file)


def said(file):
    return " ".join(file.getvalue().split())


LONG = {"steps": 6, "save_every": 2, "gate": "off", "show_group_every": 0}
FEW = {"problems": 0}


def test_a_reward_that_is_0_everywhere_is_said_within_five_steps_and_at_the_end(run, pipe):
    file, console = pipe
    done = run(reward=[never], console=console, run=LONG, evaluate=FEW)
    found = read_incidents(done.directory)
    first = next(one for one in found if one.detector == "constant_reward")
    assert first.step <= 5
    assert said(file).count("constant_reward: every completion") == 2
    assert "Most likely the reward does not tell answers apart" in said(file)
    assert "cohort check" in first.look_at
    assert first.tickets
    assert verify(done.directory).holds
    assert list(detect(done.directory, Monitor())) == found
    chain = (done.directory / "log/chain.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["kind"] == "incident" for line in chain) == len({one.step for one in found})


def test_groups_of_two_on_an_impossible_task_are_said(run):
    changes = {"objective": {"preset": "dapo"}, "rollout": {"group_size": 2, "max_tokens": 4, "resample_cap": 1}}
    done = run(reward=[never], run=LONG, evaluate=FEW, **changes)
    found = {one.detector: one for one in read_incidents(done.directory)}
    assert found["constant_reward"].step <= 5
    assert "are cut off" in found["constant_reward"].line
    assert found["truncation"].step <= 5


def test_a_run_that_goes_on_neither_repeats_nor_loses_what_was_found(run, tmp_path):
    whole = run(reward=[never], run=LONG, evaluate=FEW)
    wanted = (whole.directory / "log/incidents.jsonl").read_bytes()
    shutil.rmtree(whole.directory)
    run(reward=[never], run={**LONG, "keep_checkpoints": 5}, evaluate=FEW)
    shutil.rmtree(whole.directory / "final")
    for step in (4, 6):
        shutil.rmtree(whole.directory / f"checkpoints/step-{step:06d}")
    run(reward=[never], run=LONG, evaluate=FEW, resume=True)
    assert (whole.directory / "log/incidents.jsonl").read_bytes() == wanted
    report = verify(whole.directory)
    assert report.holds, report


def test_a_pause_saves_ends_with_its_own_error_and_goes_on(run, pipe):
    file, console = pipe
    table = {"actions": {"constant_reward": "pause"}}
    with pytest.raises(PausedError, match="constant_reward"):
        run(reward=[never], run={**LONG, "save_every": 0}, evaluate=FEW, monitor=table, console=console)
    assert "saved up to step 4" in said(file)
    done = run(reward=[never], run={**LONG, "save_every": 0}, evaluate=FEW, monitor=table, resume=True)
    assert done.metrics[-1]["step"] == 6
    assert verify(done.directory).holds


def test_what_is_only_logged_is_not_said(run, pipe):
    file, console = pipe
    done = run(reward=[never], run=LONG, evaluate=FEW, monitor={"action": "log"}, console=console)
    assert read_incidents(done.directory)
    assert "constant_reward" not in said(file)


def test_watching_changes_no_number(run, tmp_path):
    first = run(reward=[right_if_even], run={"gate": "off", "steps": 3})
    weights = (first.final / "model.safetensors").read_bytes()
    shutil.rmtree(first.directory)
    second = run(reward=[right_if_even], run={"gate": "off", "steps": 3}, monitor={"window": 2, "action": "log"})
    assert (second.final / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(("table", "says"), [
    ({"action": "stop"}, "monitor.action"),
    ({"actions": {"kl_blowup": "pause"}}, "monitor.actions"),
    ({"kl": -1.0}, "monitor.kl"),
])  # fmt: skip
def test_a_table_that_asks_for_what_there_is_not_is_refused(run, table, says):
    with pytest.raises(UserError) as error:
        run(reward=[never], monitor=table)
    assert says in str(error.value)
