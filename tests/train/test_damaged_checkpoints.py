"""Disks forget, and people copy half: every damage of a checkpoint is noticed, said, and gone around.

Tried on each file that a checkpoint holds: a flipped bit (in the middle, the first, the last byte), a truncation, an
empty file, a missing one, a replaced one; files that were added; a checkpoint under another step's name; a manifest
that is no manifest.
"""

from __future__ import annotations

import io
import shutil

import orjson
import pytest
import torch
from safetensors.torch import load_file

from cohort.record.manifest import NAME
from cohort.train.checkpoint import latest_step, load_checkpoint
from cohort.types import UserError
from cohort.views.console import Console

SETTINGS = {
    "objective": {"preset": "grpo"},
    "reference": {"update_every": 1},
    "rollout": {"max_staleness": 1},
    "evaluate": {"problems": 0},
    "run": {"save_every": 2, "keep_checkpoints": 3, "steps": 4},
}


@pytest.fixture
def tmp_path(place):
    return place


@pytest.fixture
def saved(run, once):
    """The checkpoints of a run: steps 2 and 4, with a reference, and with groups that were sampled ahead."""
    return once("saved", lambda: run(**SETTINGS)).directory / "checkpoints"


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place if place >= 0 else len(content) + place] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "the first bit": lambda file: flip(file, 0),
    "a bit in the middle": lambda file: flip(file, file.stat().st_size // 2),
    "the last bit": lambda file: flip(file, -1),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "empty": lambda file: file.write_bytes(b""),
    "missing": lambda file: file.unlink(),
    "another text": lambda file: file.write_bytes(b"[]"),
    "null": lambda file: file.write_bytes(b"null"),
}


def files(checkpoint):
    return [file for file in sorted(checkpoint.rglob("*")) if file.is_file()]


def test_any_damage_of_any_file_of_a_checkpoint_leads_to_the_one_before(saved):
    newest = saved / "step-000004"
    names = [file.relative_to(newest).as_posix() for file in files(newest)]
    for name in ("state.json", "pending.parquet", "optimizer.safetensors", "reference/model.safetensors", NAME):
        assert name in names
    copy = saved.with_name("copy")
    shutil.copytree(saved, copy)
    for name in names:
        for damage in DAMAGES.values():
            damage(newest / name)
            said = []
            found = load_checkpoint(saved, said.append)
            assert found.step == 2
            assert f"{newest} is damaged ({name}" in said[0] or f"{newest} is damaged ({name.split('/')[-1]}" in said[0]
            assert "going on from step 2" in said[0]
            shutil.rmtree(saved)
            shutil.copytree(copy, saved)
    assert load_checkpoint(saved, pytest.fail).step == 4


def rename_step(newest):
    newest.rename(newest.with_name("step-000009"))


def edit_step(newest):
    file = newest / "state.json"
    file.write_bytes(orjson.dumps({**orjson.loads(file.read_bytes()), "step": 3}))


def edit_ledger(newest):
    file = newest / "state.json"
    state = orjson.loads(file.read_bytes())
    state["ledger"]["next"] += 1
    file.write_bytes(orjson.dumps(state))


OTHERS = {
    "another step's name": rename_step,
    "another step in state.json": edit_step,
    "a ledger that does not add up": edit_ledger,
    "a file too many": lambda newest: (newest / "adapter_config.json").write_text("{}"),
    "a directory too many": lambda newest: shutil.copytree(newest / "reference", newest / "critic"),
    "nothing in it": lambda newest: (shutil.rmtree(newest), newest.mkdir()),
    "files of the checkpoint before": lambda newest: [
        shutil.copy(newest.with_name("step-000002") / name, newest) for name in ("state.json", "model.safetensors")
    ],
    "a manifest without digests": lambda newest: (newest / NAME).write_text('{"sha256": []}'),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_that_is_not_what_was_written_is_gone_around(saved, case):
    OTHERS[case](saved / "step-000004")
    said = []
    assert load_checkpoint(saved, said.append).step == 2
    assert "is damaged" in said[0]


def test_a_run_with_a_flipped_bit_goes_on_from_the_checkpoint_before_with_the_same_bits(run, saved):
    expected = load_file(saved.parent / "final/model.safetensors")
    shutil.rmtree(saved.parent / "final")
    flip(saved / "step-000004/pending.parquet", 300)
    text = io.StringIO()
    resumed = run(resume=True, console=Console(file=text, width=400), **SETTINGS)
    assert "pending.parquet is not as it was written" in text.getvalue()
    found = load_file(resumed.final / "model.safetensors")
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert sorted(path.name for path in saved.iterdir()) == ["damaged-step-000004", "step-000002", "step-000004"]


@pytest.mark.fault("every checkpoint is damaged", "it stops with a sentence", "what was trained")
def test_where_no_checkpoint_is_whole_the_run_stops_with_a_sentence(run, saved):
    metrics = (saved.parent / "metrics.jsonl").read_bytes()
    shutil.rmtree(saved.parent / "final")
    for step in ("step-000002", "step-000004"):
        flip(saved / step / "model.safetensors", -1)
    with pytest.raises(UserError, match=r"step-000004 is damaged \(model.safetensors.*no whole one before it.*delete"):
        run(resume=True, **SETTINGS)
    assert (saved.parent / "metrics.jsonl").read_bytes() == metrics
    assert latest_step(saved) == 4


@pytest.mark.fault("a file of the final model is damaged", "it is said, and written again from the last checkpoint")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_final_model_is_written_again(run, saved, name):
    final = saved.parent / "final"
    before = (final / name).read_bytes()
    flip(final / name, len(before) // 2)
    text = io.StringIO()
    run(resume=True, console=Console(file=text, width=400), **SETTINGS)
    assert f"final is damaged ({name} is not as it was written)" in text.getvalue()
    assert (final / name).read_bytes() == before


def test_a_damaged_final_model_is_no_start_of_another_run(run, saved):
    final = saved.parent / "final"
    (final / "README.md").write_text("my own words")  # a card may be edited
    run(name="second", policy={"model": str(final)}, **SETTINGS)
    flip(final / "model.safetensors", -1)
    for model in (final, final.parent):
        with pytest.raises(UserError, match=r"model in .*final is damaged \(model.safetensors.*manifest.json"):
            run(name="third", policy={"model": str(model)}, **SETTINGS)
    shutil.rmtree(saved)
    with pytest.raises(UserError, match="final is damaged"):
        run(resume=True, **SETTINGS)
