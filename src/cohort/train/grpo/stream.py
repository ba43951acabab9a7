"""The stream of groups: tickets from the ledger, completions from the sampler, scores from the workers.

It holds `(max_staleness + 1) * prompts_per_step` groups. With 0 every group is sampled from the newest weights. With
more, groups of later steps are sampled (by older weights) before or while the learner updates: while, where the sampler
has weights of its own, which it keeps until they are drawn. Their scoring overlaps with both. Groups leave in ticket
order whatever order they finish in, so a run does not depend on timing, and has the same bits either way.

With `rollout.in_flight` the sampler is given the next weights while it draws. All that it draws is there before the
next step begins, so the oldest token of a rollout is still at most `max_staleness` steps behind when it is learnt from.
"""

from __future__ import annotations

import functools
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from cohort.backends.base import Scorer
from cohort.environments import Player
from cohort.patience import in_a_thread
from cohort.preflight.objective import paid_by_call
from cohort.rewards import Combination, ScoredGroup, ScoringItem
from cohort.rewards.items import LIMITS
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks import Prompts, Renderer, Tickets, fit
from cohort.train.grpo.step_rewards import call_steps
from cohort.types import SECOND, Group, InfrastructureError, Prompt, Rollout, SampleRequest, Step, UserError

T = TypeVar("T")
Outcome = ScoredGroup | InfrastructureError  # what became of the scoring of a group
Scoring = tuple[Future[ScoredGroup], Future[ScoredGroup] | None]  # of a group, and a second one of the same


class Unscored:
    """A `Scorer` of a stage without rewards."""

    def submit(self, item: ScoringItem) -> Future[ScoredGroup]:
        """No scores, and no reward for any completion."""
        done: Future[ScoredGroup] = Future()
        done.set_result(ScoredGroup({}, {}, (math.nan,) * len(item.completions)))
        return done


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How groups are sampled, and which are worth a place in a step."""

    stage: Stage
    longest: int  # tokens of a prompt
    zero_std: str  # zero: keep groups without signal; drop: leave them out; resample: and sample others instead
    combination: Combination  # what the scores of a group come to, and which of them decide about signal
    seed: int


@dataclass(slots=True)
class StepGroups:
    """What one step gets: the groups to train on, those that were left out (each says why), what became of the scoring
    of both, and the time it took.
    """

    kept: list[Group] = field(default_factory=list)
    left_out: list[Group] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    prompts_too_long: int = 0
    sample_s: float = 0.0
    score_s: float = 0.0  # waiting for scores after sampling had ended


class Numbers(Protocol):
    """What a checkpoint and the metrics say of the prompts that were consumed."""

    def metrics(self) -> dict[str, float]:
        """The numbers of a step."""

    def state(self) -> Mapping[str, Any]:
        """What belongs in a checkpoint."""


class Groups(Protocol):
    """Where the groups of steps come from."""

    @property
    def ledger(self) -> Numbers:
        """Which prompts were consumed."""

    def next(self, step: int) -> StepGroups:
        """The groups of step `step`."""

    def finish(self, groups: StepGroups) -> None:
        """The step is over."""

    def in_flight(self) -> Sequence[Group]:
        """What a checkpoint has to keep."""


@dataclass(eq=False)
class GroupStream:
    """An endless supply of scored groups. `pending` is everything sampled and not yet handed out, in ticket order."""

    prompts: Prompts
    renderer: Renderer
    ledger: Tickets
    play: Player
    pool: Scorer
    settings: StreamSettings
    to_steps: Callable[[Rollout, Sequence[tuple[int, float]]], tuple[Step, ...]]
    on_group: Callable[[], None] = lambda: None
    apart: bool = False  # whether `play` draws from weights that stay what they are while the learner updates
    pending: dict[int, tuple[Group, Scoring]] = field(default_factory=dict)
    _drawing: Future[dict[int, tuple[Group, Scoring]]] | None = None  # groups of later steps, by a thread
    _taken: dict[int, Group] = field(default_factory=dict)  # of the step under way: in flight until it is finished
    _too_long: list[int] = field(default_factory=list)  # tickets of dropped prompts: in flight until then, too

    def __post_init__(self) -> None:
        self._lost = deque[bool](maxlen=self.settings.stage.run.failure_window)  # whether the last groups were lost

    def restore(self, groups: Sequence[Group]) -> None:
        """Put back groups that were sampled before a checkpoint; they are scored again, with the same result."""
        for saved in groups:
            self.ledger.claim(saved.ticket)
            # The prompt anew from the task: what a file holds of it are not the very objects that rewards were given.
            prompt = self.renderer.render(self.prompts[self.ledger.ticket(saved.ticket).index])
            group = saved.with_(prompt=replace(prompt, tokens=saved.prompt.tokens))
            seed = derive_seed(self.settings.seed, "score", group.ticket)
            item = ScoringItem.of(group.prompt, group.rollouts, seed)
            self.pending[group.ticket] = group, (self.pool.submit(item), self._second(item, group.ticket))

    def next(self, step: int) -> StepGroups:
        """The groups of the next step, which is number `step`. Raises `UserError` when more groups were lost than the
        failure budget allows.
        """
        stage, base, found = self.settings.stage, self.settings.seed, StepGroups()
        rollout = stage.rollout
        # A group that could not be scored is replaced always, one without signal only where the recipe says so.
        replaced = ("error", "zero_std") if self.settings.zero_std == "resample" else ("error",)
        wanted, left = rollout.prompts_per_step, rollout.resample_cap * rollout.prompts_per_step
        while wanted:
            began, in_a_row = time.perf_counter(), 0
            self.settle()
            requests: list[SampleRequest] = []
            prompts: dict[int, Prompt] = {}
            while len(self.pending) + len(requests) < wanted + rollout.max_staleness * rollout.prompts_per_step:
                ticket = self.ledger.issue(step)
                whole = self.renderer.render(self.prompts[ticket.index])
                prompt = fit(whole, self.settings.longest, stage.task.too_long)
                if prompt is None:
                    self._too_long.append(ticket.number)
                    found.prompts_too_long, in_a_row = found.prompts_too_long + 1, in_a_row + 1
                    if in_a_row > 10_000:
                        raise UserError("10,000 prompts in a row were too long; raise task.max_prompt_tokens")
                    continue
                in_a_row, prompts[ticket.number] = 0, prompt
                begun, seed = rollout.group_size + rollout.over_sample, derive_seed(base, "rollout", ticket.number)
                keep = rollout.group_size if rollout.over_sample else None
                requests.append(SampleRequest(ticket.number, prompt.tokens, begun, seed, rollout.of_groups(), keep))
            if self.apart and len(self.pending) >= wanted:
                self._drawing = in_a_thread(functools.partial(self._draw, requests, prompts))
            else:
                self._put(self._draw(requests, prompts, self.on_group))
            sampled = time.perf_counter()
            judged = [self._take(found.outcomes) for _ in range(wanted)]
            found.sample_s += sampled - began
            found.score_s += time.perf_counter() - sampled
            found.kept += [group for group in judged if group.disposition is None]
            found.left_out += [group for group in judged if group.disposition is not None]
            left -= wanted
            wanted = min(sum(group.disposition in replaced for group in judged), left)
        return found

    def settle(self) -> None:
        """Wait for the groups that are drawn meanwhile: the sampler may be given other weights then."""
        if (drawing := self._drawing) is not None:
            self._drawing = None
            self._put(drawing.result())

    def close(self) -> None:
        """Wait as well, when nobody wants them any more."""
        if self._drawing is not None:
            self._drawing.exception()

    def _put(self, finished: Mapping[int, tuple[Group, Scoring]]) -> None:
        self.pending = dict(sorted({**self.pending, **finished}.items()))

    def _draw(
        self, requests: Sequence[SampleRequest], prompts: dict[int, Prompt], on_group: Callable[[], None] = lambda: None
    ) -> dict[int, tuple[Group, Scoring]]:
        """The groups of these requests, by ticket, whose scoring has begun."""
        finished: dict[int, tuple[Group, Scoring]] = {}
        for request, played in self.play(requests, prompts):
            prompt = replace(prompts[request.key], tokens=request.tokens)
            if isinstance(played, InfrastructureError):  # there is nothing to score, only the failure
                failed = Future[ScoredGroup]()
                failed.set_exception(InfrastructureError(str(played)))
                finished[request.key] = Group(request.key, prompt, (), error=str(played)), (failed, None)
            else:
                group = Group(request.key, prompt, played)
                item = ScoringItem.of(prompt, played, derive_seed(self.settings.seed, "score", request.key))
                finished[request.key] = group, (self.pool.submit(item), self._second(item, request.key))
            on_group()
        return finished

    def sample_by(self, stage: Stage) -> None:
        """Sample from now on as this stage says."""
        self.settings = replace(self.settings, stage=stage)

    def finish(self, groups: StepGroups) -> None:
        """The step is over: its tickets are done, and how they went may decide what is asked next. Until now a failure
        would have left all of them in flight.
        """
        for number in self._too_long:
            self.ledger.finish(number, "too_long")
        self._too_long.clear()
        for group in sorted((*groups.kept, *groups.left_out), key=lambda group: group.ticket):
            self.ledger.finish(group.ticket, group.disposition or "trained", group.pass_rate)
        self._taken.clear()

    def in_flight(self) -> list[Group]:
        """All groups in flight, for a checkpoint: those pending, and those of a step that failed while it was made. Of
        groups that were lost while they were played there is nothing to keep: their tickets are handed out again.
        """
        self.settle()
        everything = [*self._taken.values(), *(group for group, _ in self.pending.values())]
        return [group for group in everything if group.rollouts]

    def _second(self, item: ScoringItem, ticket: int) -> Future[ScoredGroup] | None:
        """The same scored once more, of a few groups, if of any."""
        drawn = derive_seed(self.settings.seed, "rescore", ticket) / 2**63
        return self.pool.submit(item) if drawn < self.settings.stage.monitor.rescore else None

    def _take(self, outcomes: list[Outcome]) -> Group:
        """The next group in ticket order, scored, with the reason to leave it out if there is one; what became of the
        scoring goes to `outcomes`.
        """
        settings, ticket = self.settings, next(iter(self.pending))
        group, (future, again) = self.pending[ticket]
        try:
            scored = future.result()
        except InfrastructureError as error:
            group = group.with_(error=str(error), disposition="error")
            outcomes.append(error)
        else:
            accuracy = settings.combination.accuracy(scored.scores)
            # What rewards of steps said, at the tokens where the steps end.
            steps = {name: tuple(map(self.to_steps, group.rollouts, members)) for name, members in scored.steps.items()}
            steps |= {name: tuple(map(call_steps, group.rollouts)) for name in paid_by_call(settings.stage.reward)}
            extra = scored.extra if again is None else _with_second(scored, again)
            said = {"scores": scored.scores, "labels": scored.labels, "extra": extra, "rewards": scored.rewards}
            group = group.with_(**said, accuracy=accuracy, steps=steps)
            if settings.zero_std != "zero" and not has_signal(group, settings.combination):
                group = group.with_(disposition="zero_std")
            outcomes.append(scored)
        self._keep_budget(group.error)
        self._taken[ticket] = self.pending.pop(ticket)[0]
        return group

    def _keep_budget(self, error: str | None) -> None:
        """Stop when too many groups are lost: what fails that often is broken, and every try may cost a timeout."""
        self._lost.append(error is not None)
        run = self.settings.stage.run
        budget, window = run.failure_budget, run.failure_window
        if error is not None and sum(self._lost) > budget * window:
            raise UserError(
                f"{sum(self._lost)} of the last {len(self._lost)} groups could not be scored, and run.failure_budget = "
                f"{budget:g} allows {int(budget * window)} in {window}; the last: {error}"
            )


def _with_second(scored: ScoredGroup, again: Future[ScoredGroup]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """What was logged beside the scores, and of every completion that got another score the second time, that one. What
    a limit of time or memory decides is no contradiction.
    """
    extra = dict(scored.extra)
    try:
        second = again.result()
    except InfrastructureError:
        return extra
    for name, first in scored.scores.items():
        labels = zip(*(of.labels.get(name) or (None,) * len(first) for of in (scored, second)), strict=True)
        differ = [
            not (a == b or (math.isnan(a) and math.isnan(b)) or LIMITS & {*both})
            for a, b, both in zip(first, second.scores[name], labels, strict=True)
        ]
        if any(differ):
            own = extra.get(name) or ({},) * len(first)
            values = zip(own, differ, second.scores[name], strict=True)
            extra[name] = tuple({**one, SECOND: value} if other else one for one, other, value in values)
    return extra


def has_signal(group: Group, combination: Combination) -> bool:
    """Whether there is something to learn from a scored group. What decides are accuracies, or the scores of steps,
    whose means may agree.
    """
    steps = group.steps.get(combination.deciding(group.scores))
    return group.has_signal if steps is None else len({step.score for of in steps for step in of}) > 1
