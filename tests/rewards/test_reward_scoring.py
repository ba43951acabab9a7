"""Scoring a group in this process: the native form, the TRL form, failures, and the weighted sum."""

import json
import math
import pickle
import random
from fractions import Fraction

import numpy as np
import pytest
import torch

from cohort.rewards import RewardFailure, RewardTable, ScoringItem, combine, resolve, resolve_all, score_group, trl
from cohort.types import Prompt, Rollout, UserError

ITEM = ScoringItem(
    prompt="What is 2 + 2?",
    completions=("4", "five", ""),
    answer="4",
    row={"level": 3, "topic": "sums"},
    finishes=("stop", "stop", "length"),
    tokens=(1, 2, 9),
    seed=7,
)


def score(function, item=ITEM, **fields):
    return resolve(RewardTable(use=function, **fields)).score(item)


def failure(function, item=ITEM, **fields):
    with pytest.raises(RewardFailure) as caught:
        score(function, item, **fields)
    assert "\n" not in str(caught.value)
    return caught.value


def test_parameters_are_filled_by_name_in_any_order():
    seen = []

    def mine(topic, seed, answer, level, tokens, finish, completion, row, prompt, missing="default"):
        seen.append((topic, answer, level, tokens, finish, completion, row, prompt, missing))
        return seed % 1000 + 1

    scores = score(mine)
    assert [entry[5] for entry in seen] == ["4", "five", ""]
    assert [entry[3:5] for entry in seen] == [(1, "stop"), (2, "stop"), (9, "length")]
    assert seen[0][:3] == ("sums", "4", 3)
    assert seen[0][6:] == ({"level": 3, "topic": "sums"}, "What is 2 + 2?", "default")
    assert len(set(scores)) == 3  # a seed for each completion


def test_columns_do_not_hide_the_completion():
    item = ScoringItem("p", ("c",), answer="gold", row={"completion": "old", "answer": "raw", "prompt": "x"})
    assert score(lambda completion, answer, prompt: (completion, answer, prompt) == ("c", "gold", "p"), item) == (1.0,)
    assert score(lambda row, tokens=0: row["completion"] == "old", item) == (1.0,)


def test_a_function_with_kwargs_gets_everything():
    keys = []
    score(lambda **everything: keys.append(sorted(everything)) or 0)
    assert keys[0] == [
        "answer",
        "completion",
        "finish",
        "level",
        "prompt",
        "row",
        "seed",
        "tokens",
        "topic",
        "transcript",
    ]


def test_args_reach_the_function_and_win_over_columns():
    assert score(lambda completion, level: level, args={"level": 9}) == (9, 9, 9)


def test_a_row_that_one_call_changes_is_whole_for_the_next():
    assert score(lambda completion, row: len(row) + (row.clear() or 0)) == (2, 2, 2)


def test_a_missing_parameter_is_named_at_the_first_scoring():
    with pytest.raises(UserError, match=r"reward 'lambda' asks for a parameter 'levle' \(did you mean 'level'\?\)"):
        score(lambda completion, levle: 1)
    with pytest.raises(UserError, match="parameter 'tokens'"):
        score(lambda tokens: tokens, ScoringItem("p", ("c",)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1),
        (False, 0),
        (3, 3),
        (0.25, 0.25),
        (-1e-3, -1e-3),
        (np.float32(0.5), 0.5),
        (np.int64(2), 2),
        (np.bool_(True), 1),
        (Fraction(1, 4), 0.25),
        (np.array(0.5), 0.5),
        (np.array([2]), 2),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([[True]]), 1),
    ],
)
def test_numbers_are_scores(value, expected):
    scores = score(lambda completion: value)
    assert scores == (expected,) * 3
    assert all(type(entry) is float for entry in scores)


def test_none_does_not_apply():
    scores = score(lambda completion: None if completion == "five" else 1)
    assert [math.isnan(entry) for entry in scores] == [False, True, False]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "returned nan (float)"),
        (math.inf, "returned inf (float)"),
        (-math.inf, "returned -inf (float)"),
        ("1", "returned '1' (str)"),
        ([1.0], "returned [1.0] (list)"),
        (1j, "returned 1j (complex)"),
        (np.str_("1"), "(str_)"),
        (np.array([1.0, 2.0]), "(ndarray)"),
        (np.array([]), "(ndarray)"),
        (np.array("1"), "(ndarray)"),
        (np.array(None), "(ndarray)"),
        (torch.tensor([1.0, 2.0]), "(Tensor)"),
        (torch.tensor(math.nan), "(Tensor)"),
        (np.float32("nan"), "(float32)"),
        (10**400, "(int)"),
        (10**5000, "returned <int> (int)"),
        ({}, "returned {} (dict)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_anything_else_is_the_functions_failure(value, shown):
    error = failure(lambda completion: value if completion == "five" else 1)
    assert shown in str(error)
    assert (error.reward, error.prompt, error.completion) == ("lambda", "'What is 2 + 2?'", "'five'")


def test_an_exception_names_function_prompt_completion_and_line():
    def mine(completion, answer):
        return int(completion) / (1 if completion else 0)

    error = failure(mine)
    assert "reward 'mine' raised ValueError: invalid literal" in str(error)
    line = mine.__code__.co_firstlineno + 1
    assert f"{__file__}:{line}" in str(error)
    assert "prompt 'What is 2 + 2?', completion 'five'" in str(error)


def test_an_exception_below_the_function_names_both_lines():
    def parses(completion):
        return json.loads("{")

    text = str(failure(parses))
    assert f"{__file__}:{parses.__code__.co_firstlineno + 1} (raised in " in text
    assert "decoder.py:" in text


def test_an_exception_of_several_lines_is_one_line():
    def lines(completion):
        raise ValueError("first\n    second\r\n\tthird")

    assert "raised ValueError: first second third at " in str(failure(lines))
    assert "raised ValueError: first second third at " in str(failure(trl(lambda completions: lines("x"))))


def test_ctrl_c_in_this_process_is_no_failure():
    def interrupted(completion):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(interrupted)


def test_exceptions_that_resist():
    class SilentError(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def silent(completion):
        raise SilentError

    def leaves(completion):
        raise SystemExit(0)

    def deep(completion):
        return deep(completion)

    def many(completion):
        raise ValueError("x" * 100_000)

    assert "SilentError: (its message cannot be shown)" in str(failure(silent))
    assert "SystemExit" in str(failure(leaves))
    assert "RecursionError" in str(failure(deep))
    assert len(str(failure(many))) < 1000


def test_long_and_odd_texts_are_shortened_on_one_line():
    item = ScoringItem("p\n\ud800" * 10_000, ("c\x1b[31m" * 10_000,))
    text = str(failure(lambda completion: "no", item))
    assert len(text) < 800
    text.encode()  # a lone surrogate would raise here
    assert "\x1b" not in text


def test_a_failure_survives_pickling():
    error = failure(lambda completion: "no")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reward, again.completion) == (str(error), "lambda", "'4'")


def test_trl_gets_the_whole_group_at_once():
    calls = []

    def theirs(prompts, completions, answer, level, **kwargs):
        calls.append((prompts, completions, answer, level, kwargs))
        return [float(text == gold) for text, gold in zip(completions, answer)]

    assert score(trl(theirs)) == score(theirs, style="trl") == (1, 0, 0)
    *named, rest = calls[0]
    assert named == [["What is 2 + 2?"] * 3, ["4", "five", ""], ["4"] * 3, [3] * 3]
    assert rest.pop("topic") == ["sums"] * 3
    assert set(rest) == {"trainer_state", "log_metric", "log_extra"}  # as in TRL; nobody knows the tokens of these


def test_trl_with_few_parameters_and_with_args():
    assert score(trl(lambda completions: [len(text) for text in completions])) == (1, 4, 0)
    assert score(trl(lambda completions, strength: [strength] * 3), args={"strength": 2}) == (2, 2, 2)
    with pytest.raises(UserError, match="parameter 'completion_ids'"):
        score(trl(lambda prompts, completion_ids: [0]))


def test_trl_of_a_conversation_gets_messages():
    messages = ({"role": "system", "content": "s"}, {"role": "user", "content": "q"})
    calls = []
    item = ScoringItem("q", ("a", "b"), messages=messages)
    score(trl(lambda prompts, completions: calls.append((prompts, completions)) or [0, None]), item)
    assert calls[0] == ([list(messages)] * 2, [[{"role": "assistant", "content": text}] for text in "ab"])


def test_trl_arrays_and_none():
    assert score(trl(lambda completions: np.array([1, 2, 3], dtype=np.float32))) == (1, 2, 3)
    assert math.isnan(score(trl(lambda completions: [1, None, 0]))[1])
    assert score(trl(lambda completions: torch.tensor([1, 2, 3]))) == (1, 2, 3)
    assert score(trl(lambda completions: [torch.tensor(0.5)] * 3)) == (0.5,) * 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([1.0], "returned 1 scores for 3 completions"),
        ([1.0] * 4, "returned 4 scores for 3 completions"),
        (None, "returned None (NoneType)"),
        (1.0, "returned 1.0 (float)"),
        (np.float64(1), "(float64)"),
        ("abc", "(str)"),
        ([1, math.nan, 1], "returned nan (float)"),
        ([1, "1", 1], "returned '1' (str)"),
    ],
)
def test_trl_failures(value, shown):
    assert shown in str(failure(trl(lambda completions: value)))


def test_trl_exception():
    assert "reward 'lambda' raised KeyError: 'x' at " in str(failure(trl(lambda completions: {}["x"])))  # type: ignore[index]


def test_combine_is_a_weighted_sum_without_what_does_not_apply():
    nan = math.nan
    scores = {"a": (1.0, nan, nan, 1.0), "b": (0.5, 2.0, nan, nan)}
    totals = combine(scores, {"a": 1.0, "b": 0.1})
    assert totals[:2] == (1.05, 0.2)
    assert math.isnan(totals[2])
    assert totals[3] == 1.0
    assert combine({"a": (3.0, nan), "b": (nan, 2.0)}, {"a": 0.0, "b": 1.0})[1] == 2.0
    assert math.isnan(combine({"a": (3.0, nan), "b": (nan, 2.0)}, {"a": 0.0, "b": 1.0})[0])  # only measured
    assert combine({"a": ()}, {"a": 1.0}) == ()
    with pytest.raises(ValueError):
        combine({"a": (1.0,), "b": (1.0, 2.0)}, {"a": 1.0, "b": 1.0})


def test_score_group():
    rewards = resolve_all(
        [
            RewardTable(use="exact_number", args={"last_number": True}),
            RewardTable(use=lambda completion, level: level, weight=-0.5),
        ]
    )
    scored = score_group(rewards, ITEM)
    assert scored.scores == {"exact_number": (1.0, 0.0, 0.0), "lambda": (3.0, 3.0, 3.0)}
    assert scored.rewards == (-0.5, -1.5, -1.5)
    assert set(scored.seconds) == {"exact_number", "lambda"}
    assert all(0 <= value < 5 for value in scored.seconds.values())
    with pytest.raises(UserError, match="two rewards"):
        score_group([*rewards, rewards[0]], ITEM)


def test_the_global_generators_are_pinned_and_put_back():
    def draws(completion):
        return random.random() + np.random.rand()

    random.seed(1)
    np.random.seed(1)
    expected = (random.random(), np.random.rand())
    random.seed(1)
    np.random.seed(1)
    first = score(draws)
    assert (random.random(), np.random.rand()) == expected
    assert score(draws) == first
    assert len(set(first)) == 3
    assert score(draws, name="other") != first
    assert score(draws, ScoringItem("p", ("a", "b", "c"), seed=8)) != first


def test_an_item_of_a_prompt_and_its_rollouts():
    prompt = Prompt.make(messages=[{"role": "user", "content": "2 + 2"}], answer="4", tags={"level": 1})
    rollout = Rollout((1, 2, 3), (True, False, True), (0.0, 0.0, 0.0), 0, "length", "4")
    item = ScoringItem.of(prompt, [rollout], seed=5)
    assert (item.prompt, item.completions, item.answer, item.row) == ("2 + 2", ("4",), "4", {"level": 1})
    assert (item.finishes, item.tokens, item.messages, item.seed) == (("length",), (2,), prompt.messages, 5)


def test_an_item_refuses_counts_that_do_not_fit():
    with pytest.raises(ValueError, match="tokens has 1 entries for 2 completions"):
        ScoringItem("p", ("a", "b"), tokens=(1,))
