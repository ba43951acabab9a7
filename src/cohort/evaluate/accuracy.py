"""Held-out accuracy: greedy, and sampled with pass@k, each with a 95% interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from cohort.environments import Played, Player
from cohort.evaluate.intervals import mean_interval, pass_at_k, wilson
from cohort.rewards import RewardPool, ScoredGroup, ScoringItem
from cohort.rewards.combination import first_that_applies
from cohort.seeds import derive_seed
from cohort.types import RIGHT, Group, InfrastructureError, Prompt, SampleRequest, Sampling, UserError

__all__ = ["RIGHT", "Accuracy", "evaluate"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One measurement: `mean` accuracy over problems with its interval [low, high]."""

    name: str  # "greedy" or "sampled"
    samples: int
    mean: float
    low: float
    high: float
    pass_at: dict[int, float]
    mean_tokens: float
    truncated: float
    failed: int  # problems left out because they could not be scored
    groups: tuple[Group, ...]

    @property
    def per_problem(self) -> dict[str, float]:
        """The share of right answers of each scored problem, by the prompt's id."""
        return {group.prompt.id: rate for group in self.groups if (rate := group.pass_rate) is not None}

    def metrics(self) -> dict[str, float]:
        """Under the names of metrics.jsonl."""
        if self.name == "greedy":
            return {"eval/greedy": self.mean, "eval/greedy_low": self.low, "eval/greedy_high": self.high}
        passes = {f"eval/pass@{k}": value for k, value in self.pass_at.items()}
        return passes | {
            "eval/pass@1_low": self.low,
            "eval/pass@1_high": self.high,
            "eval/mean_tokens": self.mean_tokens,
            "eval/truncated": self.truncated,
        }


def evaluate(
    play: Player,
    prompts: Sequence[Prompt],
    pool: RewardPool,
    sampling: Sampling,
    samples: int,
    seed: int,
    on_group: Callable[[], None] = lambda: None,
) -> Accuracy:
    """Play every prompt `samples` times and score the rollouts with the first of the pool's rewards that applies.

    A temperature of 0 is greedy decoding; one sample then says everything. Scoring overlaps with sampling. Raises
    `UserError` when no problem could be scored.
    """
    requests = [
        SampleRequest(i, prompt.tokens, samples, derive_seed(seed, "evaluate", prompt.id), sampling)
        for i, prompt in enumerate(prompts)
    ]
    waiting: dict[int, tuple[Played, Future[ScoredGroup] | None]] = {}
    for request, played in play(requests, dict(enumerate(prompts))):
        future = None
        if not isinstance(played, InfrastructureError):
            future = pool.submit(ScoringItem.of(prompts[request.key], played, derive_seed(request.seed, "score")))
        waiting[request.key] = (played, future)
        on_group()
    groups = tuple(_scored(i, prompt, *waiting[i]) for i, prompt in enumerate(prompts))
    return _summary("greedy" if sampling.temperature == 0 else "sampled", samples, groups)


def _scored(index: int, prompt: Prompt, played: Played, future: Future[ScoredGroup] | None) -> Group:
    if isinstance(played, InfrastructureError) or future is None:
        return Group(ticket=index, prompt=prompt, rollouts=(), disposition="error", error=str(played))
    group = Group(ticket=index, prompt=prompt, rollouts=played)
    try:
        scored = future.result()
    except InfrastructureError as error:
        return group.with_(disposition="error", error=str(error))
    # Unweighted: a weight says what a reward pays, not what is right.
    accuracy = first_that_applies(list(scored.scores.values()))
    group = group.with_(scores=scored.scores, labels=scored.labels, extra=scored.extra)
    if all(math.isnan(score) for score in accuracy):
        why = f"{' and '.join(scored.scores)} returned None for every completion of the prompt {prompt.question[:80]!r}"
        return group.with_(disposition="error", error=f"{why}; evaluate.reward names another")
    return group.with_(rewards=accuracy, accuracy=accuracy)


def _summary(name: str, samples: int, groups: tuple[Group, ...]) -> Accuracy:
    scored = [group for group in groups if group.error is None]
    if not scored:
        raise UserError(
            f"no held-out problem could be scored; the first failure: {groups[0].error if groups else 'none'}"
        )
    shares = [rate for group in scored if (rate := group.pass_rate) is not None]
    mean = math.fsum(shares) / len(shares)
    low, high = wilson(sum(shares), len(shares)) if samples == 1 else mean_interval(shares)
    fewest = min(len(_right(group)) for group in scored)
    passes = {
        k: math.fsum(pass_at_k(len(_right(g)), sum(_right(g)), k) for g in scored) / len(scored)
        for k in (1, 2, 4, 8, 16, 32, 64, 128)
        if k <= fewest
    }
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    return Accuracy(
        name=name,
        samples=samples,
        mean=mean,
        low=low,
        high=high,
        pass_at=passes,
        mean_tokens=sum(r.mask.count(True) for r in rollouts) / len(rollouts),
        truncated=sum(r.finish == "length" for r in rollouts) / len(rollouts),
        failed=len(groups) - len(scored),
        groups=groups,
    )


def _right(group: Group) -> list[bool]:
    """Which completions are right; those that the verifier does not apply to are left out."""
    return [score >= RIGHT for score in group.accuracy if not math.isnan(score)]
