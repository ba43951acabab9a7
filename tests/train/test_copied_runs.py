"""A run that was copied, moved or renamed goes on where it lies, never elsewhere and never anew in silence."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scorers import exact

import cohort
from cohort.commands.evaluate import recipe_of
from cohort.recipe import Recipe
from cohort.train import train
from cohort.types import UserError
from cohort.views.console import Console


@pytest.fixture
def printed():
    text = io.StringIO()
    return text, Console(file=text, width=200)


@pytest.fixture
def tmp_path(place):
    return place


@pytest.fixture
def cut(run, tmp_path, once):
    """A finished run, and a copy of it elsewhere that stopped after step 2."""
    whole = once("whole", lambda: run(reward=[exact], run={"save_every": 2}, rollout={"max_tokens": 4}))
    there = tmp_path / "other/jj"
    shutil.copytree(whole.directory, there)
    back_to_step_2(there)
    return whole.directory, there


def back_to_step_2(directory: Path) -> None:
    shutil.rmtree(directory / "final")
    shutil.rmtree(directory / "checkpoints/step-000004")


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = (load_file(path / "final/model.safetensors") for path in (one, other))
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("original", ["there", "gone"])
def test_a_copied_run_goes_on_where_it_lies(cut, printed, original):
    whole, there = cut
    text, console = printed
    before = whole.rename(whole.with_name("away")) if original == "gone" else whole
    kept = sorted((path, path.stat().st_mtime_ns) for path in before.rglob("*"))
    done = train(Recipe.load(there), resume=True, console=console)
    assert done.directory == there
    assert "other/jj goes on after step 2 of 4" in text.getvalue().replace("\n", " ")
    assert [line["step"] for line in done.metrics] == [0, 1, 2, 3, 4]
    assert same_weights(before, there)
    assert kept == sorted((path, path.stat().st_mtime_ns) for path in before.rglob("*"))
    assert whole.exists() == (original == "there")
    back_to_step_2(there)
    third = there.rename(there.parent.parent / "third copy")  # a name that no recipe may have
    assert train(Recipe.load(third), resume=True, console=console).directory == third
    assert same_weights(before, third)


@pytest.mark.parametrize("how", ["as a file", "from inside", "relative", "through a link", "under its new name"])
def test_every_way_to_name_a_copied_run_means_it(cut, tables, monkeypatch, how):
    whole, there = cut
    monkeypatch.chdir(there if how == "from inside" else there.parent)
    if how == "through a link":
        os.symlink(there, there.parent / "link")
    ways = {
        "as a file": lambda: Recipe.load(there / "recipe.toml"),
        "from inside": lambda: Recipe.load(Path(".")),
        "relative": lambda: Recipe.load(Path("jj")),
        "through a link": lambda: Recipe.load(Path("link")),
        "under its new name": lambda: Recipe.from_tables(
            tables
            | {"name": "jj", "reward": [exact]}
            | {"run": {**tables["run"], "directory": str(there.parent)}}
            | {"rollout": {**tables["rollout"], "max_tokens": 4}}
        ),
    }
    done = train(ways[how](), resume=True, console=Console(quiet=True))
    assert done.directory.samefile(there)
    assert same_weights(whole, there)


def test_a_copied_run_is_not_continued_under_another_name(cut):
    _, there = cut
    with pytest.raises(UserError, match=r"jj is a run that would be continued, but name or run\.directory says .*/new"):
        train(Recipe.load(there, ["name=new"]), resume=True)
    assert not (there.parent / "new").exists()


def test_a_copied_run_that_is_not_resumed_says_where_it_begins(cut, printed):
    whole, there = cut
    text, console = printed
    whole.rename(whole.with_name("away"))
    assert train(Recipe.load(there), console=console).directory == whole
    said = " ".join(text.getvalue().split())
    assert f"{there} is a run, and its recipe begins another one in {whole}; resume=True continues it" in said


def test_a_copied_run_without_its_environment_is_refused(cut):
    _, there = cut
    (there / "environment.json").unlink()
    with pytest.raises(UserError, match=r"jj/environment\.json is missing"):
        train(Recipe.load(there), resume=True)


def test_a_recipe_of_ones_own_called_recipe_is_none_of_a_run(cut, tmp_path, monkeypatch):
    _, there = cut
    own = tmp_path / "project"
    (own / "checkpoints").mkdir(parents=True)
    shutil.copy(there / "recipe.toml", own)
    done = train(Recipe.load(own / "recipe.toml", ["name=fresh"]), resume=True, console=Console(quiet=True))
    assert done.directory == tmp_path / "runs/fresh"


def test_a_copied_run_reads_its_own_rows(tmp_path, checkpoint_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = cohort.train(
        model=str(checkpoint_dir),
        data=[{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(6)],
        reward=exact,
        name="j",
        run={"steps": 4, "save_every": 2, "threads": 1},
        rollout={"prompts_per_step": 2, "group_size": 2, "max_tokens": 4},
        console=Console(quiet=True),
    ).directory
    there = tmp_path / "other/jj"
    shutil.copytree(whole, there)
    away = whole.rename(tmp_path / "away")
    back_to_step_2(there)
    done = train(Recipe.load(there), resume=True, console=Console(quiet=True))
    assert done.directory == there
    assert same_weights(away, there)
    assert recipe_of(str(there), None, [], 4)[1].stages[-1].task.source == str(there / "data.jsonl")  # of `cohort eval`
    back_to_step_2(there)
    with (there / "data.jsonl").open("a") as rows:
        rows.write('{"question": "1?", "answer": "1"}\n')
    with pytest.raises(UserError, match=r"data\.jsonl has changed since this run began"):
        train(Recipe.load(there), resume=True, console=Console(quiet=True))


def test_what_there_is_to_resume_is_said(run, printed):
    text, console = printed
    run(resume=True, reward=[exact], console=console)
    assert "nothing to resume in" in text.getvalue()
    assert "begins at step 1" in text.getvalue()
