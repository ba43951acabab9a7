"""How noisy the policy gradient is with each baseline: its variance over independent batches at fixed weights.

    .venv/bin/python bench/gradient_variance.py RUNS/base/final [--batches 48] [--critic-steps 0,8,32] [--to OUT.json]

A run of the recipe with learning rate 0 samples the batches: every step draws other prompts from the same weights. The
first steps teach a critic, as long as its longest warm-up says; the gradients of the others are taken, by the learner
that trains, with the same completions for every baseline. All baselines here leave the mean of the gradient as it is
(leave-one-out is the group mean times G/(G-1); the critic has lambda 1), so their variances can be compared: the trace
of the covariance, over that with the group baseline, and a bootstrap over batches for its interval. The critic with
lambda 0.95, and the group mean divided by its std, have another mean: of them the noise over the mean is comparable.

The command may be repeated: the run goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cohort.algorithms import objectives
from cohort.algorithms.objectives import Objective
from cohort.learn.batch import collate
from cohort.learn.critic import Critic
from cohort.learn.learner import Learner
from cohort.policy.load import load_policy
from cohort.policy.policy import Policy
from cohort.recipe import Recipe
from cohort.record.rollouts import read_groups
from cohort.rewards import Combination
from cohort.settings import Optimizer
from cohort.train import train
from cohort.train.directory import has_begun, run_directory
from cohort.train.grpo.advantages import Valued, with_advantages, with_token_advantages
from cohort.types import Batch, Group
from cohort.views.console import Console

RECIPE = Path(__file__).parent.parent / "recipes/claims.toml"
GROUP = "group baseline"
BASELINES = {GROUP: "leave_one_out", "batch baseline": "batch_mean", "no baseline": "none"}
KINDS = {"embed": "embedding", "attn": "attention", "mlp": "mlp", "norm": "norms"}
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Noise:
    """The gradient of one estimator: `variance` is the trace of its covariance over batches, `relative` that over the
    squared norm of its mean, `ratio` the variance over that of the group baseline with a 95% interval; `by_kind` the
    same ratio by kind of parameters.
    """

    name: str
    variance: float
    relative: float
    ratio: float
    low: float
    high: float
    by_kind: dict[str, float]


def trace(gram: NDArray[np.float64], picked: NDArray[np.int64] | None = None) -> float:
    """The trace of the sample covariance of vectors, from their products `[N, N]`; with `picked` of a resample."""
    chosen = gram if picked is None else gram[np.ix_(picked, picked)]
    n = len(chosen)
    return float((np.trace(chosen) - chosen.sum() / n) / (n - 1))


def compared(name: str, own: dict[str, NDArray[np.float64]], base: dict[str, NDArray[np.float64]]) -> Noise:
    """One estimator beside the base, both as products of gradients by kind of parameters."""
    whole, other = sum(own.values()), sum(base.values())
    assert isinstance(whole, np.ndarray)
    assert isinstance(other, np.ndarray)
    n, generator = len(whole), np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        picked = generator.integers(0, n, n)
        draws.append(trace(whole, picked) / trace(other, picked))
    low, high = np.quantile(draws, (0.025, 0.975))
    variance = trace(whole)
    mean = whole.sum() / n**2 - variance / n  # the squared norm of the mean, without what noise adds to it
    relative = variance / mean if mean > 0 else float("inf")
    by_kind = {kind: trace(gram) / trace(base[kind]) for kind, gram in own.items()}
    return Noise(name, variance, relative, variance / trace(other), float(low), float(high), by_kind)


def sampled(recipe: Recipe) -> list[list[Group]]:
    """The groups of every step of a run that learns nothing."""
    run = run_directory(recipe)
    train(recipe, resume=has_begun(run), console=Console())
    files = sorted((run / "log").glob("step-*.parquet"))
    return [[group for group in read_groups(file) if group.error is None] for file in files]


def taught(policy: Policy, batches: Sequence[list[Group]], objective: Objective, recipe: Recipe) -> Critic:
    """A critic that has learnt from these batches, one update each."""
    stage = recipe.stages[-1]
    critic = Critic(policy, stage.optimizer, stage.critic)
    rate = stage.critic.learning_rate
    assert rate is not None
    for groups in batches:
        _, valued = valued_by(critic, groups, objective, recipe, lam=1.0)
        assert valued.batch.values is not None
        critic.update(valued.batch, valued.returns, valued.batch.values, rate)
    return critic


def valued_by(
    critic: Critic, groups: list[Group], objective: Objective, recipe: Recipe, lam: float
) -> tuple[list[Group], Valued]:
    """The groups with the critic's advantages, and what it would learn from."""
    batch = collate(groups, objective, recipe.stages[-1].rollout.max_tokens)
    values = functools.partial(_with_values, critic)
    return with_token_advantages(groups, objective, batch, values, None, 1.0, lam)


def _with_values(critic: Critic, batch: Batch) -> Batch:
    return replace(batch, values=critic.values(batch))


class Gradients:
    """Takes gradients by updates of rate 0: the learner's own path, and weights that stay."""

    def __init__(self, policy: Policy, objective: Objective, max_tokens: int):
        table = Optimizer(learning_rate=0.0, gradient_clip=0.0)
        self._learner = Learner(policy, objective, table)
        self._objective, self._longest = objective, max_tokens
        self._names = [(name, p) for name, p in policy.module.named_parameters() if p.requires_grad]
        self._rows: dict[str, list[torch.Tensor]] = {}
        self._learner.optimizer.register_step_pre_hook(lambda *_: self._keep())

    def _keep(self) -> None:
        parts: dict[str, list[torch.Tensor]] = {}
        for name, p in self._names:
            kind = next((kind for part, kind in KINDS.items() if part in name), "other")
            grad = torch.zeros_like(p) if p.grad is None else p.grad
            parts.setdefault(kind, []).append(grad.flatten().clone())
        for kind, pieces in parts.items():
            self._rows.setdefault(kind, []).append(torch.cat(pieces))

    def add(self, groups: list[Group]) -> None:
        """The gradient of one batch."""
        self._learner.update(collate(groups, self._objective, self._longest), 0.0)

    def grams(self) -> dict[str, NDArray[np.float64]]:
        """The products of all gradients, `[N, N]`, by kind of parameters."""
        stacked = {kind: torch.stack(rows) for kind, rows in self._rows.items()}
        return {kind: (rows.double() @ rows.double().T).numpy() for kind, rows in stacked.items()}


def measure(recipe: Recipe, warm_ups: Sequence[int], batches: int) -> list[Noise]:
    """Every estimator on the same batches."""
    stage = recipe.stages[-1]
    assert stage.policy.model is not None
    everything = sampled(recipe)
    first, rest = everything[: max(warm_ups)], everything[max(warm_ups) :][:batches]
    policy, longest = load_policy(stage.policy.model), stage.rollout.max_tokens
    combination = Combination({one.name: one.weight for one in stage.reward}, {})
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, baseline in {**BASELINES, "group baseline, divided by std": "group_mean"}.items():
        scale = "group_std" if "std" in name else "none"
        objective = objectives.preset("dr_grpo", baseline=baseline, scale=scale)
        gradients = Gradients(policy, objective, longest)
        for groups in rest:
            gradients.add(with_advantages(groups, objective, combination))
        found[name] = gradients.grams()
    by_critic = objectives.preset("dr_grpo", baseline="critic")
    for steps in warm_ups:
        critic = taught(policy, first[:steps], by_critic, recipe)
        for lam in (1.0, 0.95):
            gradients, explained = Gradients(policy, by_critic, longest), []
            for groups in rest:
                trained, valued = valued_by(critic, groups, by_critic, recipe, lam)
                explained.append(valued.explained())
                gradients.add(trained)
            known = np.nanmean(explained)
            found[f"critic, {steps} steps, lambda {lam:g} (explains {known:.0%})"] = gradients.grams()
    return [compared(name, grams, found[GROUP]) for name, grams in found.items()]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the weights: a checkpoint directory")
    parser.add_argument("overrides", nargs="*", help="key=value of the recipe recipes/claims.toml")
    parser.add_argument("--batches", type=int, default=48, help="gradients to take")
    parser.add_argument("--critic-steps", default="0,8,32", help="batches that a critic has learnt from")
    parser.add_argument("--critic-rate", type=float, default=1e-3)
    parser.add_argument("--to", type=Path, default=Path("runs/gradient_variance.json"))
    given = parser.parse_args(argv)
    warm_ups = [int(one) for one in given.critic_steps.split(",")]
    if given.batches < 2:
        parser.error("--batches must be 2 or more: there is no variance of one")
    own = [
        *("name=gradient_variance", f"policy.model={given.model}", "optimizer.learning_rate=0.0", "run.gate=off"),
        *("optimizer.warmup_steps=0", "evaluate.problems=0", "run.evaluate_every=0", "run.save_every=0"),
        *(f"run.steps={max(warm_ups) + given.batches}", f"critic.learning_rate={given.critic_rate}"),
    ]
    found = measure(Recipe.load(RECIPE, [*own, *given.overrides]), warm_ups, given.batches)
    print("\n| estimator | variance | noise over mean | variance over the group baseline's, 95% |")
    print("|---|---|---|---|")
    for one in found:
        interval = f"{one.ratio:.2f} [{one.low:.2f}, {one.high:.2f}]"
        print(f"| {one.name} | {one.variance:.3g} | {one.relative:.3g} | {interval} |")
    given.to.parent.mkdir(parents=True, exist_ok=True)
    given.to.write_text(json.dumps([asdict(one) for one in found], indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
