"""Held-out accuracy: greedy, and sampled with pass@k, the vote of k and the best of k, each with a 95% interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from cohort.environments import Played, Player
from cohort.evaluate.answers import answer_of
from cohort.evaluate.estimates import best_of_k, majority_at_k, pass_at_k, powers_of_two
from cohort.evaluate.intervals import mean_interval, standard_error
from cohort.rewards import RewardPool, ScoredGroup, ScoringItem
from cohort.rewards.combination import first_that_applies
from cohort.seeds import derive_seed
from cohort.types import RIGHT, Group, InfrastructureError, Prompt, SampleRequest, Sampling, UserError

__all__ = ["RIGHT", "Accuracy", "evaluate"]


@dataclass(frozen=True, slots=True)
class Measure:
    """The mean of a number in [0, 1] over problems, with its 95% interval and standard error."""

    mean: float
    low: float
    high: float
    se: float

    @staticmethod
    def of(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Measure:
        """Of one value a problem."""
        mean = math.fsum(values) / len(values)
        return Measure(mean, *mean_interval(values, clusters), standard_error(values, clusters))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One measurement: groups of `samples` completions, scored. `cluster` is the column whose value problems that
    belong together share.
    """

    name: str  # "greedy" or "sampled"
    samples: int
    groups: tuple[Group, ...]
    cluster: str | None = None

    @property
    def scored(self) -> list[Group]:
        """The groups that could be scored."""
        return [group for group in self.groups if group.error is None]

    @property
    def failed(self) -> int:
        """Problems left out because they could not be scored."""
        return len(self.groups) - len(self.scored)

    @property
    def per_problem(self) -> dict[str, float]:
        """The share of right answers of each scored problem, by the prompt's id."""
        return {group.prompt.id: rate for group in self.groups if (rate := group.pass_rate) is not None}

    @property
    def clusters(self) -> dict[str, Hashable] | None:
        """What each scored problem belongs to, by the prompt's id; None where each stands alone."""
        if self.cluster is None:
            return None
        return {group.prompt.id: str(group.prompt.tags.get(self.cluster, group.prompt.id)) for group in self.scored}

    @property
    def mean(self) -> float:
        """Mean accuracy over problems."""
        return math.fsum(self.per_problem.values()) / len(self.per_problem)

    def values(self) -> dict[str, list[float]]:
        """What is measured, one value a scored problem: `greedy`; or `pass@k` and, of 4 samples or more, `maj@k` for
        powers of two, and `best@k` where the reward is another than the accuracy.
        """
        if self.name == "greedy":
            return {"greedy": list(self.per_problem.values())}
        of = [_applying(group) for group in self.scored]
        ks = powers_of_two(min(len(right) for right, _, _ in of))
        found = {f"pass@{k}": [pass_at_k(len(right), sum(right), k) for right, _, _ in of] for k in ks}
        # Two votes are one: where they differ, either counts.
        found |= {f"maj@{k}": [majority_at_k(answers, right, k) for right, answers, _ in of] for k in ks if k > 2}
        if any(group.rewards != group.accuracy for group in self.scored):
            found |= {f"best@{k}": [best_of_k(rewards, right, k) for right, _, rewards in of] for k in ks if k > 1}
        return found

    def measures(self) -> dict[str, Measure]:
        """Everything that is measured, with intervals."""
        clusters = self.clusters
        names = None if clusters is None else [clusters[problem] for problem in self.per_problem]
        return {name: Measure.of(values, names) for name, values in self.values().items()}

    def metrics(self) -> dict[str, float]:
        """Under the names of metrics.jsonl, the intervals of the accuracies alone."""
        found = {}
        for name, one in self.measures().items():
            found[f"eval/{name}"] = one.mean
            if name in ("greedy", "pass@1"):
                found |= {f"eval/{name}_low": one.low, f"eval/{name}_high": one.high}
        if self.name == "greedy":
            return found
        rollouts = [rollout for group in self.groups for rollout in group.rollouts]
        return found | {
            "eval/mean_tokens": sum(r.mask.count(True) for r in rollouts) / len(rollouts),
            "eval/truncated": sum(r.finish == "length" for r in rollouts) / len(rollouts),
        }


def _applying(group: Group) -> tuple[list[bool], list[Hashable | None], list[float]]:
    """Of the completions that the verifier applies to: whether each is right, what it answers, and its reward."""
    scores = zip(group.accuracy, group.rollouts, group.rewards, strict=True)
    known = [one for one in scores if not math.isnan(one[0])]
    rewards = [-math.inf if math.isnan(reward) else reward for *_, reward in known]
    return [score >= RIGHT for score, *_ in known], [answer_of(rollout.text) for _, rollout, _ in known], rewards


def evaluate(
    play: Player,
    prompts: Sequence[Prompt],
    pool: RewardPool,
    sampling: Sampling,
    samples: int,
    seed: int,
    on_group: Callable[[], None] = lambda: None,
    judges: Sequence[str] = (),
    cluster: str | None = None,
) -> Accuracy:
    """Play every prompt `samples` times and score the rollouts with the first of the pool's rewards that applies, or of
    the `judges` among them, where the others are there to say which of the samples is the best.

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
    groups = tuple(_scored(i, prompt, judges, *waiting[i]) for i, prompt in enumerate(prompts))
    found = Accuracy("greedy" if sampling.temperature == 0 else "sampled", samples, groups, cluster)
    if not found.scored:
        raise UserError(
            f"no held-out problem could be scored; the first failure: {groups[0].error if groups else 'none'}"
        )
    return found


def _scored(
    index: int, prompt: Prompt, judges: Sequence[str], played: Played, future: Future[ScoredGroup] | None
) -> Group:
    if isinstance(played, InfrastructureError) or future is None:
        return Group(ticket=index, prompt=prompt, rollouts=(), disposition="error", error=str(played))
    group = Group(ticket=index, prompt=prompt, rollouts=played)
    try:
        scored = future.result()
    except InfrastructureError as error:
        return group.with_(disposition="error", error=str(error))
    # Unweighted: a weight says what a reward pays, not what is right.
    accuracy = first_that_applies([scored.scores[name] for name in judges or scored.scores])
    group = group.with_(scores=scored.scores, labels=scored.labels, extra=scored.extra)
    if all(math.isnan(score) for score in accuracy):
        why = f"{' and '.join(scored.scores)} returned None for every completion of the prompt {prompt.question[:80]!r}"
        return group.with_(disposition="error", error=f"{why}; evaluate.reward names another")
    return group.with_(rewards=scored.rewards if judges else accuracy, accuracy=accuracy)
