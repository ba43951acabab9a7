"""A run where things are missing that most machines have, and with rows that are there twice."""

from __future__ import annotations

import json
import os
import pwd

import pytest

from cohort.record.rollouts import read_groups
from cohort.record.verify import verify
from cohort.tasks import open_task

SHORT = {"evaluate": {"problems": 0}, "run": {"steps": 1, "gate": "off"}}


@pytest.mark.fault("no HOME, a HOME that is none, a user without a name", "it trains, and the record verifies")
@pytest.mark.parametrize("home", ["unset", "no directory", "no such user"])
def test_a_run_without_a_home(run, rows, monkeypatch, home):
    def unknown(_):
        raise KeyError("uid not found")

    if home == "no directory":
        monkeypatch.setenv("HOME", str(rows / "home"))  # below a file
    else:
        monkeypatch.delenv("HOME", raising=False)
    if home == "no such user":
        monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert verify(run(**SHORT).directory).holds


@pytest.mark.fault("a working directory that cannot be written", "it trains where run.directory says")
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_working_directory_that_cannot_be_written(run, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir(mode=0o555)
    monkeypatch.chdir(here)
    assert verify(run(**SHORT).directory).holds


@pytest.mark.fault("rows and ids that are there twice", "each row is asked once, a question is on one side alone")
def test_rows_and_ids_that_are_there_twice(run, rows):
    lines = rows.read_text().splitlines()
    rows.write_text("".join(json.dumps({**json.loads(line), "id": "same"}) + "\n" for line in [*lines, *lines]))
    task = open_task(str(rows), prompt="question", answer="solution", held_out=0.25)
    sides = [{one[index].question for index in range(one.size)} for one in (task.train, task.held_out)]
    assert not sides[0] & sides[1]
    assert task.train.size + task.held_out.size == 2 * len(lines)
    steps = task.train.size // 3
    done = run(task={"held_out": 0.25}, evaluate={"problems": 0}, run={"steps": steps, "gate": "off", "save_every": 0})
    shards = sorted((done.directory / "log").glob("step-*.parquet"))
    groups = [group for shard in shards for group in read_groups(shard)]
    assert [group.ticket for group in groups] == list(range(3 * steps))
    asked = [group.prompt.id for group in groups]
    assert max(map(asked.count, asked)) == 2  # as often as it stands there
    assert verify(done.directory).holds
