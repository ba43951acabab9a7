"""Numbers of a run that is well, and what each failure does to them; tools/detectors_table.py uses them, too."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cohort.types import Finish, Group, Prompt, Rollout

START, STEPS = 15, 30  # the failure begins with this step; so many are looked at
WELL = {
    "reward/mean": 0.5, "reward/std": 0.5, "groups/sampled": 16.0, "groups/signal": 0.8, "groups/all_right": 0.1,
    "groups/all_wrong": 0.1, "groups/partial": 0.0, "groups/pass_rate": 0.5, "groups/similar": 0.1,
    "groups/failed": 0.0, "groups/contradictions": 0.0, "completions/mean_tokens": 100.0, "completions/truncated": 0.02,
    "completions/right_tokens": 95.0, "completions/wrong_tokens": 105.0, "completions/length_correlation": 0.1,
    "completions/repeated": 0.1, "completions/same_answer": 0.1, "completions/bare": 0.02,
    "completions/test_aware": 0.0,
    "prompts/mean_tokens": 60.0, "policy/entropy_sampled": 0.5, "policy/kl": 0.02, "policy/clip_low": 0.01,
    "policy/clip_high": 0.02, "policy/clip_dual": 0.0, "policy/mismatch": 1e-6, "grad_norm": 0.3, "loss": 0.01,
    "advantage/below_right": 0.05, "task/level/1/share": 0.5, "task/level/2/share": 0.5,
    "reward/exact/mean": 0.5, "reward/exact/with_reward": 0.95, "reward/exact/with_accuracy": 1.0,
    "reward/form/mean": 0.3, "reward/form/with_reward": 0.3, "reward/form/with_accuracy": 0.1,
    "reward/exact/timeouts": 0.0,
}  # fmt: skip
SHARES = {name for name, value in WELL.items() if 0 < value < 1 and not name.startswith(("policy", "grad", "loss"))}


def rollout(text: str, finish: Finish = "stop") -> Rollout:
    """A completion of one token a word."""
    tokens = tuple(sum(map(ord, word)) + len(word) for word in text.split()) or (1,)
    return Rollout(tokens, (True,) * len(tokens), (-0.5,) * len(tokens), 0, finish, text)


def group(texts: list[str], accuracy: list[float], answer: Any = "7", ticket: int = 0, **scores: list[float]) -> Group:
    """A scored group."""
    advantages = tuple(a - sum(accuracy) / len(accuracy) for a in accuracy)
    return Group(
        ticket, Prompt(f"p{ticket}", text="a question", tokens=(1, 2, 3), answer=answer), tuple(map(rollout, texts)),
        scores={name: tuple(of) for name, of in (scores or {"exact": accuracy}).items()},
        rewards=tuple(accuracy), accuracy=tuple(accuracy), advantages=advantages, disposition="trained",
    )  # fmt: skip


def plain_groups() -> list[Group]:
    """Eight prompts with different answers, half of each right."""
    return [group([f"so {i} it is {i}", f"I say {i + 40}"], [1.0, 0.0], answer=str(i), ticket=i) for i in range(8)]


def one_answer() -> list[Group]:
    """All prompts answered alike."""
    return [group(["it is 5", "it is 5"], [0.0, 0.0], answer=str(i), ticket=i) for i in range(8)]


Change = Callable[[int], Mapping[str, float | None]]
# What a failure makes of the numbers, by how many steps ago it began.
INJECTED: dict[str, Change] = {
    "not_finite": lambda age: {"loss": None, "grad_norm": None},
    "gradient_spike": lambda age: {"grad_norm": 30.0 if age in (0, 3) else 0.3},
    "kl_blow_up": lambda age: {"policy/kl": 6.0},
    "reward_collapse": lambda age: {"reward/mean": 0.01, "groups/pass_rate": 0.01},
    "entropy_collapse": lambda age: {
        "policy/entropy_sampled": 0.5 * 0.4 ** (age + 1), "groups/signal": max(0.1, 0.8 - 0.2 * age),
        "groups/all_wrong": 0.6,
    },
    "entropy_explosion": lambda age: {"policy/entropy_sampled": 0.5 * 1.6 ** (age + 1)},
    "sampler_mismatch": lambda age: {"policy/mismatch": 0.2},
    "clip_fraction": lambda age: {"policy/clip_low": 0.3, "policy/clip_high": 0.4},
    "constant_reward": lambda age: {
        "reward/mean": 0.0, "reward/std": 0.0, "groups/signal": 0.0, "groups/all_right": 0.0, "groups/all_wrong": 1.0,
    },
    "no_signal": lambda age: {"groups/signal": 0.0, "groups/all_wrong": 0.9, "groups/all_right": 0.1},
    "sparse_reward": lambda age: {"groups/pass_rate": 0.01, "groups/signal": 0.1, "groups/all_wrong": 0.9},
    "similar_samples": lambda age: {"groups/similar": 0.97, "groups/pass_rate": 0.3},
    "difficulty_drift": lambda age: {"task/level/1/share": 0.0, "task/level/2/share": 0.0, "task/level/3/share": 1.0},
    "truncation": lambda age: {"completions/truncated": 0.8},
    "length_reward": lambda age: {
        "completions/length_correlation": 0.95, "completions/mean_tokens": 100 * 1.1 ** (age + 1),
    },
    "wrong_longer": lambda age: {"completions/wrong_tokens": 105 * 1.15 ** (age + 1)},
    "reward_conflict": lambda age: {"reward/form/with_accuracy": -0.9},
    "reward_dominance": lambda age: {
        "reward/form/with_reward": 0.99, "reward/exact/with_reward": 0.05, "reward/form/with_accuracy": 0.0,
    },
    "best_of_bad": lambda age: {"advantage/below_right": 0.95, "groups/pass_rate": 0.05},
    "format_only": lambda age: {"reward/form/mean": 0.95, "reward/mean": 0.8, "groups/pass_rate": 0.4},
    "proxy_gap": lambda age: {
        "reward/mean": 0.9, "reward/exact/mean": 0.9,
        "eval/pass@1": 0.2, "eval/pass@1_low": 0.18, "eval/pass@1_high": 0.22,
    },
    "held_out_drift": lambda age: {
        "groups/pass_rate": 0.95, "eval/pass@1": 0.45, "eval/pass@1_low": 0.43, "eval/pass@1_high": 0.47,
    },
    "repetition": lambda age: {"completions/repeated": 0.9},
    "constant_answer": lambda age: {"completions/same_answer": 0.95},
    "no_working": lambda age: {"completions/bare": 0.95},
    "test_aware": lambda age: {"completions/test_aware": 0.3},
    "verifier_contradiction": lambda age: {"groups/contradictions": 0.25},
    "verifier_errors": lambda age: {"groups/failed": 4.0, "reward/exact/timeouts": 4.0},
}  # fmt: skip


def steps(name: str | None, seed: int = 0) -> Iterator[tuple[dict[str, Any], list[Group]]]:
    """The numbers and groups of a run in which this fails from step `START` on; with None, of one that is well."""
    random.seed(seed)
    for step in range(1, STEPS + 1):
        line: dict[str, Any] = {"step": step}
        for key, value in WELL.items():
            noise = random.gauss(0, 0.1)
            line[key] = min(max(value * (1 + noise), 0.0), 1.0) if key in SHARES else value * math.exp(noise)
        if step % 5 == 0:
            line |= {"eval/pass@1": 0.45, "eval/pass@1_low": 0.43, "eval/pass@1_high": 0.47}
        if name is not None and step >= START:
            changes = INJECTED[name](step - START)
            line |= {key: value for key, value in changes.items() if step % 5 == 0 or not key.startswith("eval/")}
        yield line, one_answer() if name == "constant_answer" and step >= START else plain_groups()
