"""Which samples are kept, as properties of the choice."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cohort.rewards import Combination
from cohort.settings import Reject
from cohort.train.reject.selection import judge, select
from cohort.types import Group, Prompt, Rollout, UserError

BY = Combination({"right": 1.0, "style": 0.0}, {})


def group(ticket, texts, right, style=None, finish="stop", prompt=None, **tags):
    rollouts = tuple(Rollout((1,), (True,), (0.0,), 0, finish, text) for text in texts)
    scores = {"right": tuple(right), "style": tuple(style or [1.0] * len(texts))}
    asked = Prompt.make(text=prompt or f"q{ticket}", answer="1", tags=tags)
    return Group(ticket, asked, rollouts, scores, rewards=tuple(right), accuracy=tuple(right))


def chosen(*groups, **table: Any):
    settings = Reject(**table)
    return select([one for of in groups for one in judge(of, settings, BY)], settings)


def texts(selection):
    return [one.text for one in selection.kept]


def test_every_refusal_has_its_reason_and_all_are_counted():
    found = chosen(
        group(0, ["a", "b", "a ", "c", "d"], [1, 0, 1, 1, math.nan], style=[1, 1, 1, 0, 1]),
        group(1, ["e"], [1], finish="length"),
        least={"style": 0.5},
    )
    assert texts(found) == ["a"]
    assert found.refused == {"wrong": 1, "duplicate": 1, "low style": 1, "not scored": 1, "cut off": 1}
    assert found.sampled == len(found.kept) + sum(found.refused.values()) == 6


def test_of_one_prompt_the_best_stay_over_all_its_groups():
    settings = {"per_prompt": 2, "least": {"right": 0.1}}
    found = chosen(group(0, "abc", [0.5, 0.9, 0.2], prompt="q"), group(7, "de", [0.7, 0.1], prompt="q"), **settings)
    assert texts(found) == ["b", "d"]
    assert found.refused == {"over per_prompt": 3}


def test_prompts_that_are_too_hard_or_too_easy_are_left_out():
    easy, fair, hard = group(0, "ab", [1, 1]), group(1, "cd", [1, 0]), group(2, "efgh", [1, 0, 0, 0])
    found = chosen(easy, fair, hard, hardest=0.3, easiest=0.9)
    assert texts(found) == ["c"]
    assert found.refused == {"wrong": 4, "too easy": 2, "too hard": 1}


def test_values_of_a_column_get_their_shares_and_every_prompt_its_first_place():
    groups = [group(i, ["a", "b"], [1, 1], kind="math") for i in range(4)]
    groups += [group(10 + i, ["c"], [1], kind="chat") for i in range(2)]
    kinds = [one.prompt.tags["kind"] for one in chosen(*groups, balance="kind").kept]
    assert (kinds.count("math"), kinds.count("chat")) == (2, 2)
    found = chosen(*groups, balance="kind", shares={"math": 2, "chat": 1})
    assert texts(found) == ["a"] * 4 + ["c"] * 2  # no prompt twice before each was there once
    with pytest.raises(UserError, match=r"reject.balance = 'level' is no column of the prompt .* it has kind"):
        chosen(*groups, balance="level")
    with pytest.raises(UserError, match=r"reject.shares gives 'code' a share"):
        chosen(*groups, balance="kind", shares={"code": 1})


def test_pairs_are_of_a_kept_and_a_wrong_answer_to_one_prompt():
    found = chosen(group(0, "abcd", [1, 0, 1, 0]), group(1, "ef", [1, 1]), group(2, "gh", [0, 0]), pairs=1)
    assert [(better.text, worse.text) for better, worse in found.pairs] == [("a", "b")]
    found = chosen(group(0, "abcd", [1, 0, 1, 0]), pairs=9)
    assert [(better.text, worse.text) for better, worse in found.pairs] == [("a", "b"), ("c", "d")]


def test_the_order_in_which_groups_come_changes_nothing():
    groups = [group(i, "abca", [i % 2, 1, 0.2, 1], prompt=f"q{i % 3}") for i in range(6)]
    forward, backward = chosen(*groups, per_prompt=1), chosen(*groups[::-1], per_prompt=1)
    assert [one.prompt.id for one in forward.kept] == sorted(
        [one.prompt.id for one in backward.kept], key=[one.prompt.id for one in forward.kept].index
    )
