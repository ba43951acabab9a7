"""A run trained again from its stored rollouts has the same bits; and another one begins from its checkpoint."""

from __future__ import annotations

import io
import shutil

import orjson
import pytest
from recorded import found, holds, rewrite

import cohort
from cohort.recipe import Recipe
from cohort.record.metrics import is_timing, read_metrics
from cohort.record.rollouts import read_groups
from cohort.train.replay.again import learn_again
from cohort.train.replay.opened import open_stage
from cohort.train.replay.weights import unlike
from cohort.train.run import train
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console

QUIET = Console(quiet=True)
EVERY = {"save_every": 1, "keep_checkpoints": 10}


@pytest.fixture
def tmp_path(place):
    return place


def again(where, start=0, steps=None, to=None):
    return learn_again(open_stage(where), start, steps, to, QUIET)


def numbers(directory):
    """The lines of the steps, but for what the clock decides."""
    lines = read_metrics(directory / "metrics.jsonl")
    return [{key: value for key, value in line.items() if not is_timing(key)} for line in lines]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"policy": {"lora": {"rank": 4, "alpha": 8}}},
        {"objective": {"preset": "ppo"}, "optimizer": {"updates_per_batch": 2}},
        {
            "objective": {"preset": "grpo", "kl_coef": 0.1},
            "reference": {"update_every": 2},
            "rollout": {"max_staleness": 1},
        },
    ],
    ids=["plain", "lora", "critic", "moving reference, staleness"],
)
def test_all_steps_learnt_again_are_the_run(run, once, changes):
    where = (run(**changes) if changes else once("plain", run)).directory
    before = {file: file.read_bytes() for file in where.rglob("*") if file.is_file()}
    for start in (0, 2):
        done = again(where, start)
        assert done.same, done.differences
        assert done.directory == where.with_name(f"small-from-{start}")
        assert unlike(done.directory / "final", where / "final") is None
        assert [line["step"] for line in numbers(done.directory)] == list(range(start + 1, 5))
        for step in range(start + 1, 5):
            log = f"log/step-00000{step}.parquet"
            assert read_groups(done.directory / log) == read_groups(where / log)
    assert before == {file: file.read_bytes() for file in where.rglob("*") if file.is_file()}


def test_some_steps_and_an_unfinished_run(run):
    where = run(run=EVERY).directory
    first = again(where, 0, (1, 3))
    assert first.same
    assert unlike(first.directory / "checkpoints/step-000003", where / "checkpoints/step-000003") is None
    without = again(where, 1, (3, 4))
    assert without.same is None
    assert without.directory.name == "small-from-1-steps-3-4"
    assert [line["step"] for line in numbers(without.directory)] == [3, 4]
    assert unlike(without.directory / "final", where / "final") is not None
    shutil.rmtree(where / "final")
    shutil.rmtree(where / "checkpoints/step-000004")
    assert again(where, 2).same
    assert again(where, 2).directory.name == "small-from-2-2"


def test_a_changed_advantage_changes_nothing_and_a_changed_token_is_seen(run, once):
    where = once("plain", run).directory
    rewrite(where / "log/step-000002.parquet", lambda rows: [row | {"advantage": row["advantage"] * 2} for row in rows])
    assert again(where).same
    rewrite(
        where / "log/step-000003.parquet", lambda rows: [row | {"tokens": [5] * len(row["tokens"])} for row in rows]
    )
    done = again(where)
    assert done.same is False
    assert any(said.startswith("step 3: grad_norm was") for said in done.differences)
    assert any(said.startswith("the weights of final: ") for said in done.differences)


def test_what_cannot_be_learnt_again_is_said(run, once, tmp_path):
    where = once("plain", run).directory
    for start, steps, said in (
        (1, None, "no checkpoint of step 1; it has those of 2, 4"),
        (0, (3, 7), "has no rollouts of step 5"),
        (2, (2, 3), r"--steps 2\.\.3 does not lie behind it"),
        (4, None, "nothing can be learnt from step 4 on"),
    ):
        with pytest.raises(UserError, match=said):
            again(where, start, steps)
    with pytest.raises(UserError, match="already holds a run"):
        again(where, 0, None, where)
    done = again(where, 2, None, tmp_path / "there")
    with pytest.raises(UserError, match="was learnt again from stored rollouts, and is not continued"):
        train(Recipe.load(done.directory / "recipe.toml"), resume=True, console=QUIET)
    (where / "log/step-000003.parquet").unlink()
    with pytest.raises(UserError, match="has no rollouts of step 3"):
        again(where)


def test_a_fork_with_the_same_recipe_is_its_parent(run, tables):
    where = run(rollout={"max_staleness": 1}).directory
    changed = {**tables, "name": "fork", "rollout": {**tables["rollout"], "max_staleness": 1}}
    forked = cohort.train(Recipe(**changed), fork=f"{where}@2", console=QUIET).directory
    with pytest.raises(UserError, match="fork begins a run and resume goes on with one"):
        cohort.train(Recipe(**changed), fork=f"{where}@2", resume=True)
    assert unlike(forked / "final", where / "final") is None
    parent = {line["step"]: line for line in numbers(where)}
    assert [line["step"] for line in numbers(forked)] == [2, 3, 4]
    assert numbers(forked)[1:] == [parent[3], parent[4]]
    for step in (3, 4):
        log = f"log/step-00000{step}.parquet"
        assert read_groups(forked / log) == read_groups(where / log)
    facts = orjson.loads((forked / "environment.json").read_bytes())["parent"]
    assert (facts["run"], facts["stage"], facts["step"]) == (str(where), "grpo", 2)
    shutil.rmtree(where)
    held = holds(forked)
    assert "4 step 3" in held
    assert "4 step 1" not in held
    assert again(forked, 2).same
    with pytest.raises(UnreadableError, match="begins from another run's checkpoint"):
        again(forked, 0)


def test_a_fork_goes_on_otherwise_and_is_resumed_without_its_parent(run, once, tables):
    where = once("plain", run).directory
    text = io.StringIO()
    console = Console(file=text, width=200)
    other = {**tables, "name": "other", "optimizer": {"learning_rate": 5e-3}, "run": {**tables["run"], "steps": 5}}
    other["run"] |= {"keep_checkpoints": 10}
    forked = train(Recipe(**other), fork=f"{where}@2", console=console).directory
    assert "other than its parent  optimizer.learning_rate was 0.01 and is 0.005" in text.getvalue()
    assert "begins from" in text.getvalue()
    assert numbers(forked)[-1]["step"] == 5
    final = (forked / "final/model.safetensors").read_bytes()
    shutil.rmtree(where)
    for gone in ("final", "checkpoints/step-000004", "checkpoints/step-000005"):
        shutil.rmtree(forked / gone)
    assert [path.name for path in (forked / "checkpoints").iterdir()] == ["step-000002"]  # its own copy
    train(Recipe(**other), resume=True, console=QUIET)
    assert (forked / "final/model.safetensors").read_bytes() == final


def test_a_fork_with_other_prompts_begins_them_anew(run, once, tables, tmp_path):
    where = once("plain", run).directory
    more = tmp_path / "more.jsonl"
    more.write_text("".join(f'{{"question": "{n} and {n}?", "solution": "{2 * n}"}}\n' for n in range(30)))
    text = io.StringIO()
    other = {**tables, "name": "other", "task": {**tables["task"], "source": str(more)}}
    forked = train(Recipe(**other), fork=f"{where}@2", console=Console(file=text, width=200)).directory
    assert "its prompts are others than its parent's, so it begins them anew" in text.getvalue()
    assert sorted(group.ticket for group in read_groups(forked / "log/step-000003.parquet")) == [0, 1, 2]


def test_what_cannot_be_forked_is_said(run, once, tables):
    where = once("plain", run).directory

    def fork(source, **changes):
        changed = {**tables, "name": "f", **{k: {**tables.get(k, {}), **v} for k, v in changes.items()}}
        train(Recipe(**changed), fork=source, console=QUIET)

    for source, changes, said in (
        (str(where), {}, "takes RUN@STEP"),
        (f"{where}@3", {}, "has no checkpoint of step 3; it has those of 2, 4"),
        (f"{where.parent}@2", {}, "is no run"),
        (f"{where}@4", {}, r"run\.steps = 4 are done at step 4"),
        (f"{where}@2", {"policy": {"lora": {"rank": 2, "alpha": 4}}}, "the checkpoint has settled that"),
        (f"{where}@2", {"objective": {"preset": "ppo"}}, "needs a critic, and the checkpoint has none"),
    ):
        with pytest.raises(UserError, match=said):
            fork(source, **changes)
        assert not (where.parent / "f").exists()
    with pytest.raises(UserError, match="already holds a run"):
        train(Recipe(**tables), fork=f"{where}@2", console=QUIET)
    (where / "checkpoints/step-000002/model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        fork(f"{where}@2")
    assert not found(where, 3)


SEVERAL = """
name = "two"
[task]
source = "word_problems"
levels = [1]
[run]
threads = 1
steps = 2
save_every = 1
gate = "off"
[evaluate]
problems = 0
[[stage]]
kind = "sft"
name = "start"
policy.scratch = { hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16, intermediate_size = 64 }
supervised.examples_per_step = 4
[[stage]]
kind = "grpo"
name = "first"
rollout = { prompts_per_step = 2, group_size = 3, max_tokens = 6 }
reward = "vowels:share_of_vowels"
objective = { preset = "grpo", kl_coef = 0.05 }
[[stage]]
kind = "grpo"
name = "second"
rollout = { prompts_per_step = 2, group_size = 3, max_tokens = 6 }
reward = "vowels:share_of_vowels"
"""


def test_several_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.toml").write_text(SEVERAL)
    where = train(Recipe.load("two.toml"), console=QUIET).directory.absolute()
    held = holds(where)
    assert {"2 first: reward share_of_vowels", "4 first: step 1", "4 second: step 1", "4 second: step 2"} <= held.keys()
    with pytest.raises(UnreadableError, match="several stages that sample: say --stage with one of first, second"):
        open_stage(where)
    for stage in ("first", "second"):
        assert learn_again(open_stage(where, stage), 0, None, None, QUIET).same
        assert learn_again(open_stage(where, stage), 1, None, None, QUIET).same
    forked = train(Recipe.load("two.toml", ["name=fork"]), fork="runs/two/stages/first@1", console=QUIET).directory
    for place in ("final", "stages/first/final"):
        assert unlike(forked / place, where / place) is None
    assert not (forked / "stages/start").exists()  # its parent has done it
    assert "4 first: step 2" in holds(forked.absolute())
    shutil.rmtree(forked / "final")
    train(Recipe.load("two.toml", ["name=fork"]), resume=True, console=QUIET)
    assert unlike(forked / "final", where / "final") is None
