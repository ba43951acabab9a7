"""The other built-in rewards."""

import importlib
import itertools
import math
import subprocess
import sys

import cloudpickle
import pytest

from cohort.rewards import BUILT_IN, RewardTable, ScoringItem, resolve
from cohort.rewards.verifiers.chance import coin
from cohort.rewards.verifiers.format import think_format
from cohort.rewards.verifiers.length import soft_overlong
from cohort.wording import find_function


def test_every_built_in_has_its_line_and_its_function():
    assert {"math", "exact_number", "think_format", "soft_overlong", "random"} <= set(BUILT_IN)
    assert all(known.line and "\n" not in known.line for known in BUILT_IN.values())
    for name, known in BUILT_IN.items():
        assert callable(find_function(known.function, "reward")), name


@pytest.mark.parametrize(
    ("text", "paid"),
    [
        ("<think> a </think><answer> 1 </answer>", 1),
        ("\n<think>\na\n</think>\n\n<answer>\n1\n</answer>\n", 1),
        ("<think></think><answer>1</answer>", 1),
        ("<think> a </think><answer> </answer>", 0),
        ("<think></think><answer></answer>", 0),
        ("so <think> a </think><answer> 1 </answer>", 0),
        ("<think> a </think><answer> 1 </answer> ok", 0),
        ("<think> a </think> so <answer> 1 </answer>", 0),
        ("<think> a <answer> 1 </answer></think>", 0),
        ("<think> <answer> a </think> 1 </answer>", 0),
        ("<answer> 1 </answer><think> a </think>", 0),
        ("<think> a </think><think> b </think><answer> 1 </answer>", 0),
        ("<think> a </think><answer> 1 </answer><answer> 2 </answer>", 0),
        ("<think> a </think><answer> <answer> 1 </answer>", 0),
        ("<think> a </think>", 0),
        ("<answer> 1 </answer>", 0),
        ("<THINK> a </THINK><answer> 1 </answer>", 0),
        ("</think><think></answer><answer>", 0),
        ("", 0),
    ],
)
def test_think_format(text, paid):
    assert think_format(text) == paid


def test_think_format_when_the_prompt_has_opened_the_thinking():
    completion = " a </think> <answer> 1 </answer>"
    assert think_format(completion) == 0
    assert think_format(completion, opened=True) == 1
    assert think_format(completion, prompt="Question\nAssistant: <think>\n") == 1
    assert think_format(completion, prompt="Question <think>", opened=False) == 0
    assert think_format("<think>" + completion, opened=True) == 0  # it would be opened twice


@pytest.mark.parametrize(
    ("length", "penalty"),
    [
        (0, 0),
        (16384, 0),
        (16385, -0.000244140625),
        (18432, -0.5),
        (20000, -0.8828125),
        (20480, -1),
        (20481, -1),
        (10**9, -1),
    ],
)
def test_soft_overlong_is_equation_13_of_dapo(length, penalty):
    assert soft_overlong(length, max_tokens=20480, buffer=4096) == penalty
    reward = resolve(RewardTable(use="soft_overlong", args={"max_tokens": 20480, "buffer": 4096}))
    assert reward.score(ScoringItem("p", ("c",), tokens=(length,))) == (penalty,)


def test_soft_overlong_without_a_buffer_is_a_step():
    assert [soft_overlong(length, max_tokens=10, buffer=0) for length in (9, 10, 11)] == [0, 0, -1]
    for buffer in (-1, 11):
        with pytest.raises(ValueError, match="buffer"):
            soft_overlong(5, max_tokens=10, buffer=buffer)


def test_the_coin_is_fair_and_fixed_by_its_seed():
    flips = [coin(seed) for seed in range(10_000)]
    assert set(flips) == {0.0, 1.0}
    assert abs(sum(flips) / len(flips) - 0.5) < 0.02  # four standard errors
    runs = sum(before != after for before, after in itertools.pairwise(flips)) / len(flips)
    assert abs(runs - 0.5) < 0.02  # neighbouring seeds are independent
    assert flips == [coin(seed) for seed in range(10_000)]


def test_the_random_reward_flips_anew_for_every_completion_and_group():
    reward = resolve(RewardTable(use="random"))
    scores = [reward.score(ScoringItem("p", ("same",) * 64, seed=seed)) for seed in (0, 1, 0)]
    assert set(scores[0]) == {0.0, 1.0}
    assert scores[0] == scores[2] != scores[1]


def test_soft_overlong_needs_token_counts():
    reward = resolve(RewardTable(use="soft_overlong", args={"max_tokens": 8, "buffer": 2}))
    assert math.isclose(reward.score(ScoringItem("p", ("c",), tokens=(7,)))[0], -0.5)


def loaded_by_a_worker_for(use, **fields):
    """The modules in a fresh interpreter that has done what a worker does to score one item."""
    reward = resolve(RewardTable(use=use, **fields))
    item = ScoringItem("p", ("<answer>1</answer>",), answer="1", finishes=("stop",), tokens=(3,))
    code = """
import pickle, sys
import cohort.rewards.workers.worker
reward, item = pickle.loads(sys.stdin.buffer.read())
reward.judge(item)
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], input=cloudpickle.dumps((reward, item)), capture_output=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.decode().split())


def test_a_worker_imports_what_it_scores_with_and_nothing_else():
    heavy = {"torch", "transformers", "numpy", "regex", "pydantic", "httpx2", "sympy", "jsonschema", "asyncio"}
    mine = loaded_by_a_worker_for(lambda completion: 1.0)
    assert not (heavy | {"cohort.sandbox", "cohort.settings", "cohort.rewards.workers.pool"}) & mine
    assert not [name for name in mine if name.startswith(("cohort.rewards.verifiers", "cohort.rewards.guarded"))]
    number = loaded_by_a_worker_for("exact_number")
    ours = {name for name in number if name.startswith("cohort.rewards.verifiers.")}
    assert ours == {f"cohort.rewards.verifiers.{name}" for name in ("number", "final_answer", "characters", "words")}
    assert not heavy & number
    assert "regex" in loaded_by_a_worker_for("regex_format", args={"pattern": "a"})


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("number", "exact_number parse_number final_answer"),
        ("math_answer", "math_answer check_math"),
        ("code", "code check_code extract_code close_executors"),
        ("choice", "choice check_choice"),
        ("text", "exact_text fuzzy_text f1_text"),
        ("format", "regex_format one_answer"),
        ("length", "cosine cosine_length length_budget relative_length stops_properly target_length"),
        ("language", "language language_share"),
        ("repetition", "repetition repeated_share"),
        ("structured", "json_schema check_schema"),
        ("constraints", "constraints check_rules"),
        ("overlong", "soft_overlong soft_overlong_tokens"),
        ("model", "reward_model"),
        ("marks", "checked_by prepared_by stated_by stops_after costly stepwise"),
    ],
)
def test_where_documents_and_programs_import_from(module, names):
    found = importlib.import_module(f"cohort.rewards.{module}")
    assert all(callable(getattr(found, name)) for name in names.split())
