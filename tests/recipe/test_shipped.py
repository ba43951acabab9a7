"""Recipes that come with Cohort, by their names; and a path of that name, which wins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cohort import cli
from cohort.commands.explain import explain_recipe
from cohort.recipe import Recipe, load, to_toml
from cohort.recipe.loader import name_of_model, shipped
from cohort.settings import policy_of
from cohort.train.directory import as_kept
from cohort.train.run import prepare
from cohort.types import UserError

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def cohort(monkeypatch, capsys, tmp_path):
    """Run a command in an empty directory; returns (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["cohort", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return call


def test_every_recipe_of_the_repository_has_its_name():
    files = sorted(RECIPES.glob("*.toml"))
    assert {file.stem for file in files} >= {"quickstart", "calculator"}
    for file in files:
        assert shipped(file.stem) == file
        assert load(shipped(file.stem)).name == file.stem
    assert [shipped(name) for name in ("quickstart.toml", "recipes/quickstart", "..", "")] == [None] * 4


def test_a_name_is_a_recipe_and_which_one_is_said(cohort):
    code, out, err = cohort("config", "show", "quickstart", "seed=7")
    assert (code, err) == (0, f"recipe quickstart: the one that Cohort ships, {RECIPES / 'quickstart.toml'}\n")
    assert out.startswith('name = "quickstart"\nseed = 7\n')


@pytest.mark.parametrize("is_run", [False, True])
def test_an_existing_path_wins_and_that_is_said(cohort, tmp_path, is_run):
    mine = tmp_path / "quickstart"
    if is_run:
        mine.mkdir()
        mine = mine / "recipe.toml"
    mine.write_text((RECIPES / "quickstart.toml").read_text().replace('"quickstart"', '"mine"', 1))
    code, out, err = cohort("config", "show", "quickstart")
    assert (code, err) == (0, "recipe quickstart: the path here, not the recipe of that name that Cohort ships\n")
    assert out.startswith('name = "mine"\n')


def test_an_unknown_name_lists_those_that_there_are(cohort):
    code, out, err = cohort("config", "show", "quikstart")
    assert (code, out) == (2, "")
    names = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
    assert err == (
        f"error: there is no recipe 'quikstart' (did you mean 'quickstart'?); Cohort ships {names}; "
        "a file needs its full name (.toml)\n"
    )


@pytest.mark.parametrize("name", ["quickstart", "calculator"])
def test_a_printed_recipe_can_be_trained_again(name, tmp_path):
    file = tmp_path / "printed.toml"
    file.write_text(as_kept(Recipe.load(shipped(name))))
    assert [one.stage.kind for one in prepare(Recipe.load(file))][-1] == "grpo"


def test_a_table_that_says_nothing_is_no_mistake(tmp_path):
    """Tables that a kind does not read are refused where they set something, not where they repeat the defaults."""
    printed = tmp_path / "printed.toml"
    printed.write_text(
        to_toml(Recipe(name="x", policy={"model": "m"}, task={"source": "word_problems"}, reward="exact_number"))
    )
    assert "[preferences]" in printed.read_text()
    assert prepare(Recipe.load(printed))
    with pytest.raises(UserError, match=r"has \[preferences\], which a stage of kind 'grpo' does not read"):
        prepare(Recipe.load(printed, ["preferences.centring=0.5"]))


def test_an_override_of_a_table_that_is_not_read_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('name = "x"\npolicy.model = "m"\ntask.source = "word_problems"\nreward = "exact_number"\n')
    with pytest.raises(UserError, match=r"has \[supervised\], which a stage of kind 'grpo' does not read"):
        prepare(Recipe.load(file, ["supervised.examples_per_step=3"]))
    with pytest.raises(UserError, match=r"has \[supervised\]"):
        explain_recipe(Recipe.load(file, ["supervised.examples_per_step=3"]), None)
    assert prepare(Recipe.load(shipped("quickstart"), ["rollout.group_size=4"]))  # of all stages: some read it


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen3-0.6B", "Qwen3-0.6B"),
        ("runs/base/final", "base"),
        ("runs/base/checkpoints/step-000050", "base"),
        ("final", "run"),
        ("./my model", "my-model"),
    ],
)
def test_a_run_is_called_after_its_model_and_not_after_final(model, name):
    assert name_of_model(model) == name


def test_a_policy_goes_on_from_the_last_stage_that_has_one():
    stages = load(RECIPES / "process.toml").stages
    assert [one.name for one in stages] == ["base", "samples", "judge", "learner"]
    assert [policy_of(stages, index) for index in range(4)] == [None, 0, 1, 1]  # a scorer is none
