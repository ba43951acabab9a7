"""Gold answers are checked before the run: the row, the reward and what to do are named."""

import json

import pytest

from cohort.preflight.gate.gold import check_gold
from cohort.recipe import Recipe
from cohort.rewards import RewardTable, resolve_all
from cohort.rewards.marks import checked_by
from cohort.train.grpo import Grpo
from cohort.types import Prompt, UserError

RECIPE = """
name = "mine"
[policy]
model = "none"
[task]
source = "train.jsonl"
held_out = "test.jsonl"
[rollout]
prompts_per_step = 2
[[reward]]
use = "{use}"
args = {args}
"""


def check_unit(answer, unit="m", level=0):
    if not str(answer).endswith(unit):
        raise ValueError(f"it is not in {unit}, at level {level}")


@checked_by(check_unit)
def metres(completion, answer, unit="m"):
    return float(completion == answer)


def rows(*answers, **tags):
    return [(f"row {i}", Prompt.make(f"q{i}", answer=answer, tags=tags)) for i, answer in enumerate(answers, 1)]


def test_a_users_reward_may_check_its_rows():
    rewards = resolve_all([RewardTable(use=metres)])
    assert check_gold(rewards, rows("3 m", "4 m")) == 2
    with pytest.raises(UserError) as caught:
        check_gold(rewards, rows("3 m", "4 kg", level=7))
    assert str(caught.value) == (
        "row 2: reward 'metres' cannot score this row, whose answer is '4 kg': it is not in m, at level 7. Mend or "
        "remove the row, or change the reward or its args"
    )
    assert check_gold(resolve_all([RewardTable(use=metres, args={"unit": "km"})]), rows("4 km")) == 1


def test_rows_are_checked_only_where_the_reward_applies_and_only_if_there_is_something_to_check():
    rewards = resolve_all([RewardTable(use="math", when={"domain": "math"}), RewardTable(use="think_format")])
    assert check_gold(rewards, rows("?", domain="poems")) == 1
    with pytest.raises(UserError, match="row 1: reward 'math'"):
        check_gold(rewards, rows("?", domain="math"))
    assert check_gold(resolve_all([RewardTable(use="think_format")]), rows("?")) == 0


def task(where, monkeypatch, use, args, train, test=("1", "2")):
    for name, answers in (("train", train), ("test", test)):
        lines = [json.dumps({"prompt": f"{name} {i}", "answer": answer}) for i, answer in enumerate(answers)]
        (where / f"{name}.jsonl").write_text("\n\n".join(lines) + "\n")
    (where / "recipe.toml").write_text(RECIPE.format(use=use, args=args))
    monkeypatch.chdir(where)
    return Recipe.load(where / "recipe.toml").stages[0]


GOOD = ("72", "\\frac{1}{2}")


@pytest.mark.parametrize(
    ("use", "args", "good", "bad", "said"),
    [
        ("math", "{}", GOOD, "what?! $", "not one mathematical expression"),
        ("math", "{}", GOOD, "\\frac{", "cannot be read as mathematics"),
        ("exact_number", "{}", ("1", "2"), "two", "not a number"),
        ("choice", "{}", ("A", "D"), "E", "none of the options"),
        ("exact_text", "{}", ("yes", "no"), "...", "not a text with words"),
    ],
)
def test_an_unusable_gold_answer_is_refused_when_a_run_is_set_up(tmp_path, monkeypatch, use, args, good, bad, said):
    held_out = good if use != "choice" else ("A", "B")
    Grpo().prepare(task(tmp_path, monkeypatch, use, args, good, held_out), seed=0)
    stage = task(tmp_path, monkeypatch, use, args, (*good, bad), held_out)
    with pytest.raises(UserError, match=said) as caught:
        Grpo().prepare(stage, seed=0)
    assert str(caught.value).startswith(f"train.jsonl:5: reward '{use}' cannot score this row")
    stage = task(tmp_path, monkeypatch, use, args, good, (bad, *held_out))
    with pytest.raises(UserError, match=said) as caught:
        Grpo().prepare(stage, seed=0)
    assert str(caught.value).startswith(f"test.jsonl:1: reward '{use}'")


@pytest.mark.parametrize(
    ("use", "args", "said"),
    [
        ("regex_format", '{ pattern = "(" }', "no regular expression"),
        ("one_answer", '{ form = "box" }', "form is one of"),
        ("json_schema", '{ schema = { type = "whole" } }', "no usable JSON Schema"),
        ("language", '{ language = "english" }', "ISO 639-1"),
        ("repetition", "{ penalty = 1.0 }", "penalty is 0 or less"),
        ("target_length", "{ target = 0 }", "number of tokens"),
        ("constraints", "{ rules = [{ wrods = 3 }] }", "did you mean 'words'"),
        ("constraints", '{ column = "rules" }', "no rules in its column 'rules'"),
    ],
)
def test_unusable_args_are_refused_when_a_run_is_set_up(tmp_path, monkeypatch, use, args, said):
    stage = task(tmp_path, monkeypatch, use, args, ("1", "2"))
    with pytest.raises(UserError, match=said):
        Grpo().prepare(stage, seed=0)


def test_what_is_tried_first_ends_with_the_check(tmp_path, monkeypatch):
    import psutil

    before = len(psutil.Process().children(recursive=True))
    Grpo().prepare(task(tmp_path, monkeypatch, "math", "{}", GOOD), seed=0)
    assert len(psutil.Process().children(recursive=True)) == before
