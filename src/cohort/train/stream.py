"""The stream of groups: tickets from the ledger, completions from the sampler, scores from the workers.

It holds `(max_staleness + 1) * prompts_per_step` groups. With 0 every group is sampled from the newest weights. With
more, groups of later steps are already sampled (by older weights) while the learner updates, and their scoring
overlaps with it. Groups leave in ticket order whatever order they finish in, so a run does not depend on timing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from cohort.rewards import RewardPool, ScoredGroup, ScoringItem
from cohort.seeds import derive_seed
from cohort.tasks.ledger import Ledger
from cohort.train.advantages import has_signal
from cohort.types import (
    Completion,
    Disposition,
    Group,
    InfrastructureError,
    Prompt,
    Rollout,
    Sampler,
    SampleRequest,
    Sampling,
    UserError,
)

__all__ = ["GroupStream", "Prompts", "StepGroups", "StreamSettings"]


class Prompts(Protocol):
    """Rendered prompts by index; None for one that the task's `too_long` rule drops."""

    def __getitem__(self, index: int) -> Prompt | None: ...


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How groups are sampled, and which are worth a place in a step."""

    prompts_per_step: int
    group_size: int
    sampling: Sampling
    max_staleness: int
    zero_std: str  # zero: keep groups without signal; drop: leave them out; resample: and sample others instead
    resample_cap: int  # at most so many times prompts_per_step prompts for one step
    accuracy: str  # the reward whose spread decides about signal
    seed: int


@dataclass(frozen=True, slots=True)
class StepGroups:
    """What one step gets: the groups to train on, those that were left out (each says why), and the time it took."""

    kept: list[Group]
    left_out: list[Group]
    too_long: int
    sample_s: float
    score_s: float  # waiting for scores after sampling had ended


class GroupStream:
    """An endless supply of scored groups. `pending` is everything sampled and not yet handed out, in ticket order."""

    def __init__(
        self,
        prompts: Prompts,
        ledger: Ledger,
        sampler: Sampler,
        pool: RewardPool,
        to_rollout: Callable[[Completion], Rollout],
        settings: StreamSettings,
        on_group: Callable[[], None] = lambda: None,
    ):
        self._prompts = prompts
        self.ledger = ledger
        self._sampler = sampler
        self._pool = pool
        self._to_rollout = to_rollout
        self._settings = settings
        self._on_group = on_group
        self.pending: dict[int, tuple[Group, Future[ScoredGroup]]] = {}

    def restore(self, groups: Sequence[Group]) -> None:
        """Put back groups that were sampled before a checkpoint; they are scored again, with the same result."""
        for saved in groups:
            self.ledger.claim(saved.ticket)
            # The prompt anew from the task: what a file holds of it are not the very objects that rewards were given.
            prompt = self._prompts[self.ledger.ticket(saved.ticket).index]
            group = saved.with_(prompt=prompt)
            self.pending[group.ticket] = (group, self._pool.submit(self._item(group)))

    def next(self) -> StepGroups:
        """The groups of the next step. Raises `UserError` when most of them cannot be scored, or none is left."""
        settings = self._settings
        kept: list[Group] = []
        left_out: list[Group] = []
        too_long, sample_s, score_s = 0, 0.0, 0.0
        taken, wanted = 0, settings.prompts_per_step
        while wanted and taken < settings.resample_cap * settings.prompts_per_step:
            began = time.perf_counter()
            too_long += self._fill(wanted + settings.max_staleness * settings.prompts_per_step)
            sampled = time.perf_counter()
            groups = [self._take() for _ in range(wanted)]
            sample_s, score_s = sample_s + sampled - began, score_s + time.perf_counter() - sampled
            taken += len(groups)
            judged = [group.with_(disposition=self._reason_to_leave_out(group)) for group in groups]
            dropped = [group for group in judged if group.disposition is not None]
            kept += [group for group in judged if group.disposition is None]
            left_out += dropped
            failed = [group for group in left_out if group.disposition == "error"]
            if len(failed) > settings.prompts_per_step:
                raise UserError(
                    f"{len(failed)} groups of one step could not be scored, more than the step has; the last: "
                    f"{failed[-1].error}"
                )
            # A group that could not be scored is replaced always, one without signal only where the recipe says so.
            replaced = ("error", "zero_std") if settings.zero_std == "resample" else ("error",)
            missing = sum(group.disposition in replaced for group in dropped)
            wanted = min(missing, settings.resample_cap * settings.prompts_per_step - taken)
        return StepGroups(kept, left_out, too_long, sample_s, score_s)

    def finish(self, groups: StepGroups) -> None:
        """The step is over: its tickets are done. Until now a failure would have left all of them in flight."""
        for group in (*groups.kept, *groups.left_out):
            self.ledger.finish(group.ticket, group.disposition or "trained")

    def settle(self) -> list[Group]:
        """All pending groups, for a checkpoint."""
        return [group for group, _ in self.pending.values()]

    def _fill(self, count: int) -> int:
        """Sample until `count` groups are pending. Returns how many prompts were dropped as too long."""
        requests: list[SampleRequest] = []
        prompts: dict[int, Prompt] = {}
        dropped = in_a_row = 0
        while len(self.pending) + len(requests) < count:
            ticket = self.ledger.issue()
            prompt = self._prompts[ticket.index]
            if prompt is None:
                self.ledger.finish(ticket.number, "too_long")
                dropped, in_a_row = dropped + 1, in_a_row + 1
                if in_a_row > 10_000:
                    raise UserError("10,000 prompts in a row were too long; raise task.max_prompt_tokens")
                continue
            in_a_row = 0
            prompts[ticket.number] = prompt
            seed = derive_seed(self._settings.seed, "rollout", ticket.number)
            requests.append(
                SampleRequest(ticket.number, prompt.tokens, self._settings.group_size, seed, self._settings.sampling)
            )
        finished: dict[int, tuple[Group, Future[ScoredGroup]]] = {}
        for request, completions in self._sampler.sample(requests):
            rollouts = tuple(self._to_rollout(completion) for completion in completions)
            group = Group(ticket=request.key, prompt=prompts[request.key], rollouts=rollouts)
            finished[request.key] = (group, self._pool.submit(self._item(group)))
            self._on_group()
        self.pending = dict(sorted({**self.pending, **finished}.items()))
        return dropped

    def _take(self) -> Group:
        """The next group in ticket order, scored."""
        ticket = next(iter(self.pending))
        group, future = self.pending[ticket]
        try:
            scored = future.result()
        except InfrastructureError as error:
            group = group.with_(error=str(error))
        else:
            group = group.with_(
                scores=scored.scores, rewards=scored.rewards, accuracy=scored.scores[self._settings.accuracy]
            )
        del self.pending[ticket]
        return group

    def _reason_to_leave_out(self, group: Group) -> Disposition | None:
        if group.error is not None:
            return "error"
        if self._settings.zero_std != "zero" and not has_signal(group):
            return "zero_std"
        return None

    def _item(self, group: Group) -> ScoringItem:
        seed = derive_seed(self._settings.seed, "score", group.ticket)
        return ScoringItem.of(group.prompt, group.rollouts, seed)
