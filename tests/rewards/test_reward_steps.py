"""Cutting texts into steps, and rewards that score them."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.rewards import RewardFailure, RewardPool, RewardTable, ScoringItem, resolve, score_group
from cohort.rewards.calling.steps import cut, pieces, splitter
from cohort.types import UserError


def steps_of(text, split="blank_lines"):
    ends = cut(text, splitter(split, "r"))
    return pieces(text, ends), ends


@pytest.mark.parametrize(
    ("text", "split", "steps"),
    [
        ("a\n\nb\n\nc", "blank_lines", ["a", "b", "c"]),
        ("a\nb\n\nc", "blank_lines", ["a\nb", "c"]),
        ("a\n \t\n\n\n  b", "blank_lines", ["a", "b"]),
        ("\n\na\n\n\n\nb\n\n", "blank_lines", ["a", "b"]),
        ("a\nb\n\n\nc\n", "lines", ["a", "b", "c"]),
        ("\n  a\n  b", "lines", ["a", "b"]),
        ("one. two. three.", r"\.\s*", ["one.", "two.", "three."]),
        ("Step 1: x Step 2: y", r"(?=Step \d)", ["Step 1: x", "Step 2: y"]),
        ("a", "lines", ["a"]),
        ("", "lines", [""]),
        (" \n\n ", "lines", [""]),
        ("a\r\n\r\nb", "blank_lines", ["a", "b"]),
    ],
)
def test_cutting(text, split, steps):
    found, ends = steps_of(text, split)
    assert found == steps
    assert ends[-1] == len(text)


def test_ends_are_behind_the_separator():
    assert steps_of("ab\n\ncd\n\n")[1] == [4, 8]
    assert steps_of("\n\nab\n\ncd")[1] == [6, 8]


@given(st.text(alphabet="ab \n.\t", max_size=60), st.sampled_from(["lines", "blank_lines", r"\.", r"(?=a)", r"x*"]))
def test_steps_tile_the_text(text, split):
    found, ends = steps_of(text, split)
    assert ends == sorted(set(ends)) or text == ""
    assert ends[-1] == len(text)
    if text.strip():
        assert all(found)
    else:
        assert found == [""]


def test_what_is_no_rule_is_refused():
    with pytest.raises(UserError, match=r"not '\('"):
        splitter("(", "r")


# --- a user's own function


def contains(steps, answer):
    return [float(answer in step) for step in steps]


def item(*completions, **values):
    return ScoringItem(prompt="Q", completions=completions, **{"answer": "4", **values})


def test_a_function_scores_every_step():
    reward = resolve(RewardTable(use=contains, split="lines"))
    (scored,) = reward.judge(item("so 4\nthus 5\n4 it is"))
    assert scored.steps == ((5, 1.0), (12, 0.0), (19, 1.0))
    assert scored.value == pytest.approx(2 / 3)


def test_folds_make_one_score():
    text = "a\nbb\ncccc"
    for fold, value in {"mean": 7 / 3, "min": 1, "last": 4, "product": 8}.items():
        reward = resolve(RewardTable(use=lambda steps: [len(step) for step in steps], split="lines", fold=fold))  # type: ignore[arg-type]
        (scored,) = reward.judge(item(text))
        assert scored.value == pytest.approx(value)
        assert scored.steps == ()


def test_trl_style_functions_score_the_steps_of_a_whole_group():
    def lengths(prompts, completions, steps, answer):
        assert prompts == ["Q"] * 2
        return [[float(len(step)) for step in texts] for texts in steps]

    reward = resolve(RewardTable(use=lengths, style="trl", split="lines"))
    assert [scored.steps for scored in reward.judge(item("a\nbb", "ccc"))] == [((2, 1.0), (4, 2.0)), ((3, 3.0),)]


def test_none_means_that_the_reward_does_not_apply():
    reward = resolve(RewardTable(use=lambda steps: None, split="lines"))
    (scored,) = reward.judge(item("a\nb"))
    assert (scored.value, scored.steps) == (None, ())


def test_a_column_called_steps_gives_way_to_the_steps():
    reward = resolve(RewardTable(use=lambda steps: [1.0] * len(steps), split="lines"))
    (scored,) = reward.judge(item("a\nb", row={"steps": 3}))
    assert len(scored.steps) == 2
    plain = resolve(RewardTable(use=lambda completion, steps: float(steps)))
    assert plain.score(item("a\nb", row={"steps": 3})) == (3.0,)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (1.0, "returned 1.0 (float); with split it returns a list"),
        ([1.0], "returned 1 scores for 2 steps"),
        ([1.0, 2.0, 3.0], "returned 3 scores for 2 steps"),
        ([1.0, None], "returned None for a step"),
        ([1.0, float("nan")], "returned nan"),
        (["1", "2"], "returned '1'"),
        ("ab", "returned 'ab'"),
    ],
)
def test_what_is_no_list_of_scores_is_the_functions_failure(result, said):
    reward = resolve(RewardTable(use=lambda steps: result, name="mine", split="lines"))
    with pytest.raises(RewardFailure) as failure:
        reward.judge(item("a\nb"))
    assert said in str(failure.value)
    assert "reward 'mine'" in str(failure.value)


def test_a_function_that_raises():
    reward = resolve(RewardTable(use=lambda steps: steps[99], name="mine", split="lines"))
    with pytest.raises(RewardFailure, match="IndexError"):
        reward.judge(item("a\nb"))


def refused(use, **options):
    with pytest.raises(UserError) as caught:
        resolve(RewardTable(use=use, **options), columns=("answer",))
    return str(caught.value)


def test_what_does_not_fit_is_refused():
    assert "leave split and fold out" in refused("exact_number", split="lines")
    assert "say with split what steps are" in refused(contains, fold="min")
    assert "fold must be one of 'mean', 'min', 'last' or 'product'" in refused(contains, split="lines", fold="max")
    assert 'needs split = "blank_lines"' in refused(contains)
    assert "would pay every completion of a prompt alike" in refused(lambda answer: [1.0], split="lines")
    assert "args cannot set 'steps'" in refused(contains, split="lines", args={"steps": []})
    resolve(RewardTable(use=functools.partial(contains), split="lines"), columns=("answer",))


def test_steps_come_back_from_a_worker():
    rewards = [resolve(RewardTable(use=contains, split="lines")), resolve(RewardTable(use="random"))]
    group = item("so 4\nthus 5", "", "4")
    with RewardPool(rewards, workers=1) as pool:
        scored = pool.submit(group).result()
    assert scored.steps == {"contains": (((5, 1.0), (11, 0.0)), ((0, 0.0),), ((1, 1.0),))}
    assert scored.scores["contains"] == (0.5, 0.0, 1.0)
    assert score_group(rewards, group).steps == scored.steps
