"""The trackers, each with its own library and read back by it: TensorBoard, Weights & Biases (offline), trackio."""

from __future__ import annotations

import math
import sys
import time
from importlib.util import find_spec
from threading import Event

import pytest

from cohort.recipe import Recipe
from cohort.record.metrics import MetricsLog
from cohort.record.rollouts import write_groups
from cohort.train import train
from cohort.types import Group, Prompt, Rollout, UserError
from cohort.views.console import Console
from cohort.views.trackers import Sinks
from cohort.views.trackers import sinks as sinks_module
from cohort.views.trackers.tensorboard import TensorBoard
from cohort.views.trackers.trackio import Trackio
from cohort.views.trackers.wandb import WandB

SCRATCH = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 64}


def small(tmp_path, tracker, steps, resume=False):
    recipe = Recipe(
        name="t",
        policy={"scratch": SCRATCH},
        task={"source": "word_problems"},
        rollout={"prompts_per_step": 2, "group_size": 2, "max_tokens": 6},
        reward="exact_number",
        evaluate={"problems": 0},
        run={"steps": steps, "threads": 1, "trackers": [tracker], "directory": str(tmp_path), "show_group_every": 2},
    )
    return train(recipe, resume=resume, console=Console(quiet=True))


@pytest.fixture
def read():
    """The numbers in a directory of event files, by name: {name: {step: value}}."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra tensorboard"
    )

    def numbers(directory):
        found = reader.EventAccumulator(str(directory), size_guidance={reader.SCALARS: 0})
        found.Reload()
        return {name: {e.step: e.value for e in found.Scalars(name)} for name in found.Tags()["scalars"]}

    return numbers


def test_a_run_and_its_continuation(tmp_path, read):
    """Steps after the checkpoint that a run goes on from are hidden, and written again."""

    small(tmp_path, "tensorboard", 2)
    done = small(tmp_path, "tensorboard", 4, resume=True)
    found = read(done.directory / "tensorboard")
    lines = {line["step"]: line for line in done.metrics}
    assert found["grad_norm"] == pytest.approx({step: lines[step]["grad_norm"] for step in (1, 2, 3, 4)})
    assert set(found["reward/exact_number/mean"]) == {1, 2, 3, 4}


def test_what_is_no_number_is_left_out(tmp_path, read):
    sink = TensorBoard(tmp_path, -1)
    sink.write(0, {"eval/greedy": 0.5, "policy/kl": math.nan, "grad_norm": math.inf, "text": "x", "count": 3})
    sink.close()
    resumed = TensorBoard(tmp_path, 0)
    resumed.write(1, {"count": 4})
    resumed.close()
    greedy = {0: 0.5}
    found = read(tmp_path / "tensorboard")
    assert found == {"0 overview/eval greedy": greedy, "eval/greedy": greedy, "count": {0: 3.0, 1: 4.0}}


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'cohort\[tensorboard\]'"):
        TensorBoard(tmp_path, -1)


def test_wandb_gets_numbers_groups_and_the_recipe(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    small(tmp_path, "wandb", 2)
    done = small(tmp_path, "wandb", 4, resume=True)
    records = []
    for file in sorted((done.directory / "wandb").glob("offline-run-*/*.wandb")):
        content = file.read_bytes()[7:]  # LevelDB's log format behind a head of seven bytes: blocks of 32 KiB
        while len(content) > 7:
            size = int.from_bytes(content[4:6], "little")
            if content[6] == 1:  # a record in one piece
                one = wandb_internal_pb2.Record()
                one.ParseFromString(content[7 : 7 + size])
                records.append(one)
            content = content[7 + size :]
    lines = [{i.key or ".".join(i.nested_key): i.value_json for i in r.history.item} for r in records if r.history.item]
    rewards = {int(line["step"]): float(line["reward/mean"]) for line in lines if "reward/mean" in line}
    assert rewards == {line["step"]: line["reward/mean"] for line in done.metrics if "reward/mean" in line}
    assert all("0 overview/reward mean" in line for line in lines if "reward/mean" in line)
    assert {int(line["step"]) for line in lines if any(key.split(".")[0] == "groups" for key in line)} == {2, 4}
    assert len({r.run.run_id for r in records if r.run.run_id}) == 1
    config = {item.key or ".".join(item.nested_key) for r in records for item in r.config.update}
    assert "rollout.group_size" in config


def test_trackio_gets_numbers_groups_and_the_recipe(tmp_path, monkeypatch):
    if find_spec("trackio") is None:  # which reads its directory when it is imported
        pytest.skip("needs the extra trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    from trackio.sqlite_storage import SQLiteStorage

    small(tmp_path, "trackio", 2)
    done = small(tmp_path, "trackio", 4, resume=True)
    (name,) = SQLiteStorage.get_runs("cohort")
    lines = SQLiteStorage.get_logs("cohort", name)
    rewards = {line["step"]: line["reward/mean"] for line in lines if "reward/mean" in line}
    assert rewards == {line["step"]: line["reward/mean"] for line in done.metrics if "reward/mean" in line}
    assert {line["step"] for line in lines if "groups" in line} == {2, 4}
    assert SQLiteStorage.get_run_config("cohort", name)["rollout.group_size"] == 2


@pytest.mark.parametrize(("name", "tracker"), [("wandb", WandB), ("trackio", Trackio)])
def test_a_tracker_whose_library_is_missing_says_what_to_install(tmp_path, monkeypatch, name, tracker):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install 'cohort\[{name}\]'"):
        tracker(tmp_path, -1)


class Gone:
    """A tracker whose server is away for a while."""

    away, got = False, []

    def __init__(self, directory, recorded):
        self.got.append(("opened", recorded))

    def write(self, step, metrics):
        if self.away:
            raise ConnectionError("away")
        self.got.append(step)

    def close(self):
        self.got.append("closed")


class Hangs(Gone):
    """A tracker that never answers."""

    def write(self, step, metrics):
        HELD.wait(30)


HELD = Event()


def opened(tmp_path, tracker, recorded, said):
    return Sinks.open([f"{__name__}:{tracker.__name__}"], tmp_path, recorded, {}, said.append)


def write(log, sinks, *steps):
    for step in steps:
        log.write(step, {"reward/mean": step / 10})
        sinks.write(step, {"reward/mean": step / 10})
        time.sleep(0.05)


def test_a_tracker_that_was_away_gets_what_it_missed_at_the_end_or_when_the_run_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(Gone, "got", [])
    log, said = MetricsLog(tmp_path / "metrics.jsonl"), []
    sinks = opened(tmp_path, Gone, -1, said)
    write(log, sinks, 0, 1)
    monkeypatch.setattr(Gone, "away", True)
    write(log, sinks, 2, 3)
    monkeypatch.setattr(Gone, "away", False)
    sinks.close()
    assert Gone.got == [("opened", -1), 0, 1, ("opened", 1), 2, 3, "closed"]
    assert len(said) == 1
    assert not (tmp_path / "trackers.json").exists()
    monkeypatch.setattr(Gone, "away", True)
    sinks = opened(tmp_path, Gone, 3, said)
    write(log, sinks, 4, 5)
    sinks.close()
    assert said[-1].startswith("not every step has reached the trackers: ")
    monkeypatch.setattr(Gone, "away", False)
    Gone.got.clear()
    sinks = opened(tmp_path, Gone, 5, said)
    write(log, sinks, 6)
    sinks.close()
    assert Gone.got == [("opened", 3), 4, 5, 6, "closed"]


def test_a_tracker_that_hangs_slows_nothing_and_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks_module, "PATIENCE", 0.2)
    monkeypatch.setattr(sinks_module, "LAST_WORDS", 0.2)
    log, said = MetricsLog(tmp_path / "metrics.jsonl"), []
    sinks = opened(tmp_path, Hangs, -1, said)
    began = time.monotonic()
    write(log, sinks, *range(8))
    sinks.close()
    assert time.monotonic() - began < 20
    assert [line.count("it has not answered for 0.2 s") for line in said] == [1, 0]
    assert (tmp_path / "trackers.json").read_bytes().endswith(b':Hangs":-1}')
    HELD.set()


class Reads(Gone):
    """A tracker that takes rollouts."""

    def samples(self, step, rows):
        self.got.append([row["text"] for row in rows])


def test_a_tracker_sees_traces_as_the_recipe_says(tmp_path, monkeypatch):
    monkeypatch.setattr(Gone, "got", [])
    rollout = Rollout((1,), (True,), (0.0,), 0, "stop", "<think>secret</think>5")
    write_groups(tmp_path / "rows.parquet", [Group(0, Prompt.make(text="?"), (rollout,), rewards=(1.0,))], 1)
    sinks = Sinks.open([f"{__name__}:Reads"], tmp_path, -1, {}, print, "hidden")
    sinks.write(1, {"reward/mean": 0.1}, tmp_path / "rows.parquet")
    sinks.close()
    assert ["5"] in Gone.got
