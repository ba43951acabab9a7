"""Process supervision: steps of a text at their tokens, advantages by hand, and whole recipes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import orjson
import pytest
import torch
import transformers as t
from digits import first_right, share_of_digits
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.algorithms import objectives
from cohort.algorithms.advantages import process_supervision
from cohort.policy.scratch import make_tokenizer
from cohort.preflight.objective import settled_objective, supervised_steps
from cohort.recipe import Recipe
from cohort.record.rollouts import read_groups
from cohort.rewards import Combination, Gate, RewardTable, resolve
from cohort.rewards.calling.steps import cut, splitter
from cohort.train import train
from cohort.train.grpo.step_rewards import (
    text_ends,
    token_steps,
    with_process_advantages,
)
from cohort.types import Group, Prompt, Rollout, Step, Turn, UserError
from cohort.views.console import Console
from tiny import SIZES

TOKENIZER = make_tokenizer(["one apple\n\ntwo pears and 3 plums\n\n"] * 20, 300)
DECODE: Callable[[Sequence[int]], str] = partial(TOKENIZER.decode, skip_special_tokens=True)


def rollout(tokens, text=None, finish="stop", mask=None, turns=()):
    n = len(tokens)
    text = DECODE(tokens) if text is None else text
    return Rollout(tuple(tokens), tuple(mask or (True,) * n), (0.0,) * n, 0, finish, text, turns)


# --- where steps end in tokens


def test_a_step_ends_at_the_token_with_its_last_character():
    tokens = [*TOKENIZER.encode("one apple\n\ntwo pears\n\n3"), TOKENIZER.eos_token_id]
    made = rollout(tokens)
    ends = cut(made.text, splitter("blank_lines", "r"))
    steps = token_steps(made, list(zip(ends, (0.1, 0.2, 0.3))), DECODE)
    assert [step.score for step in steps] == [0.1, 0.2, 0.3]
    assert steps[-1].end == len(tokens) - 1  # the end token is part of the last step
    for step, end in list(zip(steps, ends))[:-1]:
        assert len(DECODE(tokens[: step.end + 1])) >= end
        assert len(DECODE(tokens[: step.end])) < end


def test_two_steps_may_end_in_one_token():
    (token,) = TOKENIZER.encode(" pears")
    steps = token_steps(rollout([token, token]), [(2, 1.0), (4, 2.0), (12, 3.0)], DECODE)
    assert [step.end for step in steps] == [0, 0, 1]


def test_an_empty_completion_is_one_step():
    made = rollout([TOKENIZER.eos_token_id])
    assert made.text == ""
    assert token_steps(made, [(0, 0.5)], DECODE) == (Step(0, 0.5),)
    assert token_steps(made, [], DECODE) == ()


def test_of_several_turns_the_last_one_has_the_steps():
    first, middle = TOKENIZER.encode("one"), TOKENIZER.encode(" two")
    last = [*TOKENIZER.encode("3\n\n3"), TOKENIZER.eos_token_id]
    tokens = [*first, *middle, *last]
    start = len(first) + len(middle)
    mask = (True,) * len(first) + (False,) * len(middle) + (True,) * len(last)
    turns = (Turn(0, len(first), "one"), Turn(start, len(tokens), "3\n\n3"))
    steps = token_steps(rollout(tokens, "3\n\n3", mask=mask, turns=turns), [(3, 1.0), (4, 2.0)], DECODE)
    assert steps[-1] == Step(len(tokens) - 1, 2.0)
    assert DECODE(tokens[start : steps[0].end + 1]) == "3\n\n"


def test_a_text_that_is_not_that_of_the_tokens_is_refused():
    with pytest.raises(UserError, match="cannot be found in its tokens"):
        token_steps(rollout(TOKENIZER.encode("one"), "another"), [(3, 1.0)], DECODE)


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
@settings(max_examples=150)
def test_text_ends_are_exact_for_any_tokens(tokens):
    """Bytes that are no UTF-8 among them, as a policy that has just begun to learn writes them."""
    ends = text_ends(tokens, DECODE)
    whole = DECODE(tokens)
    assert len(ends) == len(tokens)
    assert ends == sorted(ends)
    if tokens:
        assert ends[-1] == len(whole)
    for index, end in enumerate(ends[:-1]):
        beginning = DECODE(tokens[: index + 1])
        settled = beginning.rstrip("\ufffd")
        assert len(settled) <= end or end <= len(beginning)
        if whole.startswith(beginning) and not beginning.endswith("\ufffd") and "\ufffd" not in whole:
            assert end == len(beginning)


@given(st.text(max_size=30))
@settings(max_examples=100)
def test_text_ends_of_real_text(text):
    tokens = TOKENIZER.encode(text)
    ends = text_ends(tokens, DECODE)
    for index, end in enumerate(ends):
        beginning = DECODE(tokens[: index + 1])
        if not beginning.endswith("\ufffd"):
            assert end == len(beginning)


def test_tokenizers_that_drop_the_first_space():
    """SentencePiece's way: every beginning is decoded with its first space removed."""
    words = [" one", " two", "\n", " three"]

    def decode(tokens):
        return "".join(words[i] for i in tokens).removeprefix(" ")

    assert text_ends([0, 1, 2, 3, 0], decode) == [3, 7, 8, 14, 18]


# --- advantages by hand

STEP_SCORES = [[0.9, 0.2, 0.8], [0.4, 0.1], [1.0, 0.7, 0.6, 0.9]]
STEP_ENDS = [[2, 4, 7], [1, 5], [0, 3, 4, 6]]
LENGTHS = [8, 6, 7]


def group_of(scores=STEP_SCORES, ends=STEP_ENDS, name="prm", outcome=None, **changes):
    steps = tuple(tuple(Step(e, s) for e, s in zip(es, ss)) for es, ss in zip(ends, scores))
    found = {name: tuple(math.fsum(of) / len(of) for of in scores)}
    if outcome is not None:
        found["right"] = outcome
    rollouts = tuple(rollout([5] * n, "", finish=changes.get("finish", "stop")) for n in LENGTHS)
    return Group(0, Prompt.make("Q"), rollouts, scores=found, steps={name: steps})


def combination(weight=1.0, gate=None, outcome=0.0):
    weights = {"prm": weight} | ({"right": outcome} if outcome else {})
    return Combination(weights, {"prm": gate} if gate else {})


GRPO = objectives.preset("grpo", ddof=0, eps=0.0, kl_coef=0.0)


def test_the_numbers_of_the_paper():
    """Population std 0.304695760, mean 0.622222222; sums over this and later steps."""
    (group,) = with_process_advantages([group_of()], GRPO, combination(), ["prm"])
    rows = group.token_advantages
    assert rows[0] == pytest.approx([0.109398744] * 3 + [-0.802257453] * 2 + [0.583459966] * 3, abs=1e-8)
    assert rows[1] == pytest.approx([-2.443238608] * 2 + [-1.713913650] * 4, abs=1e-8)
    assert rows[2] == pytest.approx([2.333839864] + [1.093987436] * 3 + [0.838723701] + [0.911656197] * 2, abs=1e-8)
    assert group.advantages[1] == pytest.approx((2 * -2.443238608 + 4 * -1.713913650) / 6, abs=1e-8)
    assert group.disposition == "trained"


def test_without_a_scale_the_mean_alone_goes():
    objective = objectives.preset("dr_grpo")
    (group,) = with_process_advantages([group_of()], objective, combination(), ["prm"])
    mean = sum(map(sum, STEP_SCORES)) / 9
    assert group.token_advantages[1] == pytest.approx([0.5 - 2 * mean] * 2 + [0.1 - mean] * 4)
    plain = process_supervision(STEP_SCORES, STEP_ENDS, LENGTHS, scale="none")
    assert plain[1, :6].tolist() == pytest.approx(list(group.token_advantages[1]))


def test_outcomes_are_added_to_every_token_and_weights_multiply_steps():
    outcome = (1.0, 0.0, 0.0)
    (group,) = with_process_advantages([group_of(outcome=outcome)], GRPO, combination(0.5, outcome=2.0), ["prm"])
    base = GRPO.advantages(torch.tensor([[2.0, 0.0, 0.0]]))[0].tolist()
    (steps,) = with_process_advantages([group_of()], GRPO, combination(), ["prm"])
    for row, added, own in zip(group.token_advantages, base, steps.token_advantages):
        assert row == pytest.approx([added + 0.5 * a for a in own])


def test_gates_act_on_steps():
    outcome = (1.0, 0.0, 1.0)
    for otherwise, second in (("zero", [0.0, 0.0]), ("none", [])):
        gate = Gate("right", 0.5, otherwise)  # type: ignore[arg-type]
        chosen = Combination({"prm": 1.0, "right": 0.0}, {"prm": gate})
        (group,) = with_process_advantages([group_of(outcome=outcome)], GRPO, chosen, ["prm"])
        scores = [STEP_SCORES[0], second, STEP_SCORES[2]]
        ends = [STEP_ENDS[0], STEP_ENDS[1][: len(second)], STEP_ENDS[2]]
        wanted = process_supervision(scores, ends, LENGTHS, 0, 0.0)
        assert group.token_advantages[1] == pytest.approx(wanted[1, :6].tolist())


def test_groups_without_signal():
    same = [[0.5, 0.5, 0.5], [0.5, 0.5], [0.5] * 4]
    (group,) = with_process_advantages([group_of(same)], GRPO, combination(), ["prm"])
    assert group.disposition == "zero_std"
    assert not any(any(row) for row in group.token_advantages)
    masked = objectives.preset("grpo", truncated="mask", kl_coef=0.0)
    (cut_off,) = with_process_advantages([group_of(finish="length")], masked, combination(), ["prm"])
    assert cut_off.disposition == "truncated"


# --- recipes


@pytest.fixture
def tables(tmp_path):
    rows = [{"prompt": f"Count to {i}.", "answer": str(i)} for i in range(16)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(orjson.dumps(row).decode() + "\n" for row in rows))
    return {
        "name": "steps",
        "seed": 3,
        "policy": {"scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16,
                               "intermediate_size": 64}},
        "task": {"source": str(file)},
        "rollout": {"prompts_per_step": 2, "group_size": 4, "max_tokens": 12},
        "reward": [{"use": share_of_digits, "name": "digits", "split": "[aeiou]"}],
        "objective": {"preset": "grpo", "kl_coef": 0.0},
        "optimizer": {"learning_rate": 1e-2},
        "evaluate": {"problems": 0},
        "run": {"steps": 3, "directory": str(tmp_path / "runs"), "threads": 1},
    }  # fmt: skip


def start(tables, **changes):
    return train(Recipe(**{**tables, **changes}), console=Console(quiet=True))


def test_a_users_function_supervises_steps_from_a_recipe(tables):
    run = start(tables)
    for line in run.metrics[-3:]:
        assert line["reward/digits/steps"] >= 1
        assert line["reward/digits/mean"] is not None
    groups = read_groups(run.directory / "log" / "step-000002.parquet")
    assert len(groups) == 2
    for group in groups:
        scores = [[step.score for step in of] for of in group.steps["digits"]]
        ends = [[step.end for step in of] for of in group.steps["digits"]]
        lengths = [len(r.tokens) for r in group.rollouts]
        wanted = process_supervision(scores, ends, lengths, 1, 1e-6)
        for row, found, own, made in zip(wanted.tolist(), group.token_advantages, ends, group.rollouts):
            assert found == pytest.approx(row[: len(found)], abs=1e-9)
            assert own[-1] == len(made.tokens) - 1


def test_a_token_classifier_supervises_steps_beside_an_outcome(tables, tmp_path):
    tokenizer = make_tokenizer(["Count to 3. 1 2 3"] * 9, 300)
    config = t.Qwen3Config(  # type: ignore[call-arg]
        **SIZES, head_dim=8, vocab_size=len(tokenizer), num_labels=2, pad_token_id=0, bos_token_id=None
    )
    torch.manual_seed(0)
    t.Qwen3ForTokenClassification(config).save_pretrained(tmp_path / "prm")
    tokenizer.save_pretrained(tmp_path / "prm")
    rewards = [
        {"use": "random"},
        {"use": "process_model", "weight": 0.5, "split": "[aeiou]", "args": {"model": str(tmp_path / "prm")}},
    ]
    run = start(tables, reward=rewards, objective={"preset": "dapo", "zero_std": "zero"})
    assert run.metrics[-1]["reward/process_model/steps"] >= 1
    group = read_groups(run.directory / "log" / "step-000003.parquet")[0]
    assert set(group.steps) == {"process_model"}
    assert len({a for row in group.token_advantages for a in row}) > len(group.rollouts)


def test_folded_steps_are_an_ordinary_reward(tables):
    tables["reward"][0]["fold"] = "last"
    group = read_groups(start(tables).directory / "log" / "step-000001.parquet")[0]
    assert group.steps == {}
    assert group.token_advantages == ()


def test_learning_from_steps_moves_the_policy_towards_them(tables):
    """Steps that have digits are paid: digits become more frequent."""
    tables["rollout"] = {"prompts_per_step": 4, "group_size": 8, "max_tokens": 12}
    tables["run"]["steps"] = 25
    metrics = start(tables).metrics
    first, last = (sum(line["reward/digits/mean"] for line in part) for part in (metrics[1:6], metrics[-5:]))
    assert last > 1.5 * first


def test_steps_that_differ_are_signal_even_where_their_means_agree(tables):
    """Dynamic sampling looks at the steps of a reward of steps. Every mean is 0.5 here."""
    tables["reward"] = [{"use": first_right, "name": "first", "split": "[aeiou]"}]
    run = start(tables, objective={"preset": "dapo"})
    line = run.metrics[-1]
    assert line["reward/first/mean"] == 0.5
    assert line["groups/left_out"] < line["groups/sampled"]
    assert line["tokens/trained"] > 0


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"preset": "rloo"}, "baseline = 'leave_one_out'"),
        ({"preset": "lite_ppo"}, "scale = 'batch_std'"),
        ({"preset": "grpo", "rewards": "normalise_then_sum"}, "normalise_then_sum"),
        ({"preset": "grpo", "kl_place": "reward", "kl_estimator": "k1"}, "a KL in the reward"),
        ({"preset": "grpo", "pass_at_k": 2}, "pass_at_k"),
    ],
)
def test_objectives_that_do_not_go_with_steps_are_refused(tables, objective, said):
    recipe = Recipe(**{**tables, "objective": objective})
    stage = recipe.stages[0]
    with pytest.raises(UserError, match=r"process supervision does not go with") as refused:
        settled_objective(stage)
    assert said in str(refused.value)


def test_which_rewards_supervise_steps(tables):
    rewards = [
        {"use": share_of_digits, "name": "a", "split": "lines"},
        {"use": share_of_digits, "name": "b", "split": "lines", "fold": "min"},
        {"use": share_of_digits, "name": "c", "split": "lines", "weight": 0.0},
        {"use": "process_model", "args": {"model": "x"}},
        {"use": "random"},
    ]
    stage = Recipe(**{**tables, "reward": rewards}).stages[0]
    assert supervised_steps(stage.reward) == ("a", "process_model")
    assert resolve(RewardTable(use=share_of_digits, split="lines")).split is not None
