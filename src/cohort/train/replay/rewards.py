"""Level 2: what was paid, recomputed from the stored text; and the text, from the stored tokens."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from platform import python_version
from typing import Any

from cohort.preflight.parts import verifier_tables
from cohort.record.inputs import fingerprints
from cohort.record.report import Check
from cohort.rewards import Reward, RewardFailure, RewardPool, ScoredGroup, ScoringItem, resolve
from cohort.rewards.combination import first_that_applies
from cohort.rewards.items import LIMITS
from cohort.rewards.marks import is_costly
from cohort.seeds import derive_seed
from cohort.settings import Reward as RewardTable
from cohort.train.inputs import code_of_stages
from cohort.train.replay.opened import Recorded
from cohort.train.replay.stored import StoredStep
from cohort.train.replay.tally import Tally, equal
from cohort.types import SECOND, Group, InfrastructureError, UserError

AGREES = ("code", "verifiers")  # built-in rewards whose scores depend on what other programs do


def code_checks(recorded: Recorded) -> list[Check]:
    """Whether the person's own functions are those that the run recorded. One whose source differs fails, by name."""
    found, now = [], code_of_stages(recorded.recipe)
    python, ours = (str(one).rpartition(".")[0] for one in (recorded.environment.get("python"), python_version()))
    for what, value in dict(recorded.environment.get("code") or {}).items():
        if not what.endswith(f"of stage {recorded.stage.name}"):
            continue
        check = partial(Check, 2, f"code of {what}")
        if what not in now:
            found.append(check("skipped", "it is not found here"))
        elif now[what] == value:
            found.append(check("holds", "its source is that of the run"))
        elif python != ours:
            found.append(check("skipped", f"the run used Python {python}, and this is {ours}: other byte code"))
        else:
            found.append(check("failed", f"the source of {what} is not that which the run recorded"))
    return found


Totals = Callable[[Mapping[str, Sequence[float]]], tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How groups of a stage were scored: by which rewards, with which seeds, and what rewards and accuracies the scores
    come to. `title` names the checks.
    """

    title: str
    tables: Sequence[RewardTable]
    seed: Callable[[Group], int]
    totals: Totals


def of_training(recorded: Recorded) -> Scoring:
    """What training paid."""
    sums = recorded.combination

    def totals(scores: Mapping[str, Sequence[float]]) -> tuple[Sequence[float], Sequence[float]]:
        return sums.total(scores), sums.accuracy(scores)

    seed = partial(derive_seed, recorded.seed, "score")
    return Scoring(recorded.title, recorded.stage.reward, lambda group: seed(group.ticket), totals)


def of_evaluations(recorded: Recorded) -> Scoring:
    """What evaluations found right."""
    seed = derive_seed(recorded.seed, "evaluate")

    def totals(scores: Mapping[str, Sequence[float]]) -> tuple[Sequence[float], Sequence[float]]:
        right = first_that_applies(list(scores.values()))
        return right, right

    return Scoring(
        f"{recorded.title}held-out ",
        verifier_tables(recorded.stage) if recorded.evaluations else (),  # a worker is started for those alone
        lambda group: derive_seed(derive_seed(seed, "evaluate", group.prompt.id), "score"),
        totals,
    )


class Scores:
    """The rewards of a stage, asked again about stored groups. A context manager: its workers end with it."""

    def __init__(self, recorded: Recorded, scoring: Scoring):
        self._recorded, self.scoring = recorded, scoring
        self.skipped: list[Check] = []
        self.tallies: dict[str, Tally] = {}
        self._agreement: dict[str, list[int]] = {}  # by reward: scores that agree, of how many
        rewards = [reward for table in scoring.tables if (reward := self._resolved(table)) is not None]
        self._pool = self._open(rewards) if rewards else None
        mended = recorded.environment.get("mended", ())
        self._exact = {
            reward.name
            for reward in rewards
            if not _depends(reward) and f"reward {reward.name} of stage {recorded.stage.name}" not in mended
        }
        for reward in rewards:
            if reward.name in self._exact:
                self.tallies[reward.name] = self._tally(f"reward {reward.name}", "scores, recomputed from the text")
            else:
                self._agreement[reward.name] = [0, 0]
        self.paid = self._tally("rewards", "rewards and accuracies, recomputed from the scores")

    def __enter__(self) -> Scores:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def look(self, step: StoredStep, only: int | None = None) -> None:
        """Score the groups of a step (or one of them, by its ticket), and compare."""
        groups = [group for group in step.groups if only in (None, group.ticket)]
        waiting = [(group, self._submit(group)) for group in groups if group.rollouts]
        for group in groups:
            self._sum(step, group)
        for group, future in waiting:
            if future is None or not group.scores:
                continue
            try:
                scored = future.result()
            except (InfrastructureError, RewardFailure, UserError) as error:
                place = step.place(group.ticket)
                for tally in self.tallies.values():
                    tally.differ(f"{place}: it was scored, and cannot be scored now: {error}")
                continue
            self._compare(step, group, scored)

    def checks(self, shown: int) -> list[Check]:
        """What was found."""
        found = [tally.check(shown) for tally in self.tallies.values()]
        for name, (same, of) in self._agreement.items():
            why = "its scores depend on time limits, on others, or on code that was mended meanwhile: they may differ"
            found.append(Check(2, self._name(f"reward {name}"), "holds", f"{same} of {of} scores agree; {why}"))
        return [*found, *self.skipped, self.paid.check(shown)]

    def _name(self, name: str) -> str:
        return self.scoring.title + name

    def _tally(self, name: str, what: str) -> Tally:
        return Tally(2, self._name(name), what)

    def _resolved(self, table: Any) -> Reward | None:
        """The reward of a table, alone; None, with the reason, for one that is not asked again."""
        recorded, name = self._recorded, self._name(f"reward {table.name}")
        try:
            reward = replace(resolve(table), gate=None, last_step=recorded.stage.run.steps)
        except UserError as error:
            self.skipped.append(Check(2, name, "skipped", str(error)))
            return None
        if is_costly(reward.function):
            self.skipped.append(_of_model(recorded, table, name))
            return None
        return reward

    def _open(self, rewards: Sequence[Reward]) -> RewardPool:
        run = self._recorded.stage.run
        return RewardPool(rewards, run.workers, run.retries, pass_environment=run.pass_environment)

    def _submit(self, group: Group) -> Any:
        if self._pool is None:
            return None
        return self._pool.submit(ScoringItem.of(group.prompt, group.rollouts, self.scoring.seed(group)))

    def _compare(self, step: StoredStep, group: Group, scored: ScoredGroup) -> None:
        again: ScoredGroup | None = None
        for name, now in scored.scores.items():
            stored = group.scores[name]
            if name not in self._exact:
                self._agreement[name][0] += sum(map(equal, stored, now))
                self._agreement[name][1] += len(now)
                continue
            if not equal(stored, now) or not equal(_labels(group, name), _labels(scored, name)):
                again = again or self._again(group)
                if again is not None and not equal(again.scores[name], now):  # it says something else each time
                    tally = self.tallies.pop(name)
                    self._exact.discard(name)
                    self._agreement[name] = [tally.compared + sum(map(equal, stored, now)), tally.compared + len(now)]
                    continue
            self._exactly(step, group, scored, name)

    def _exactly(self, step: StoredStep, group: Group, scored: ScoredGroup, name: str) -> None:
        tally, labels, now_labels = self.tallies[name], _labels(group, name), _labels(scored, name)
        steps = group.steps.get(name, ((),) * len(group.rollouts))
        now_steps = scored.steps.get(name, ((),) * len(group.rollouts))
        extra, now_extra = group.extra.get(name), scored.extra.get(name)
        for member, (stored, now) in enumerate(zip(group.scores[name], scored.scores[name], strict=True)):
            if LIMITS & {labels[member], now_labels[member]}:  # of time or memory, which has decided it then or now
                continue
            place = step.place(group.ticket, member)
            tally.compare(f"{place}: scores.{name}", stored, now)
            if labels[member] != now_labels[member]:
                tally.differ(f"{place}: labels.{name} is {labels[member]!r}, and comes to {now_labels[member]!r}")
            if not equal([one.score for one in steps[member]], [score for _, score in now_steps[member]]):
                tally.differ(f"{place}: steps.{name} are others")
            logged = {} if extra is None else {key: value for key, value in extra[member].items() if key != SECOND}
            if extra is not None and now_extra is not None and logged != now_extra[member]:
                tally.differ(f"{place}: extra.{name} is other than what the reward logs")

    def _again(self, group: Group) -> ScoredGroup | None:
        with contextlib.suppress(InfrastructureError, RewardFailure, UserError):
            found: ScoredGroup = self._submit(group).result()
            return found
        return None

    def _sum(self, step: StoredStep, group: Group) -> None:
        """The rewards and accuracies that the stored scores come to; and that a group without any was lost."""
        place, paid, lost = step.place(group.ticket), self.paid, group.disposition == "error"
        if lost != (group.error is not None):
            paid.differ(f"{place}: disposition is {group.disposition}, and error is {group.error!r}")
        if lost and (group.scores or group.rewards or group.advantages):
            paid.differ(f"{place}: the group was lost, and has scores, a reward or an advantage all the same")
        elif not lost and not group.rollouts:
            paid.differ(f"{place}: there are no rollouts, and nothing says that the group was lost")
        if lost or not group.rollouts:
            return
        try:
            rewards, accuracy = self.scoring.totals(group.scores)
        except UserError as error:
            paid.differ(f"{place}: {error}")
            return
        rewards = rewards or (math.nan,) * len(group.rollouts)  # of a stage that scores nothing
        for field, stored, now in (("reward", group.rewards, rewards), ("accuracy", group.accuracy, accuracy)):
            if len(stored) != len(now):
                paid.differ(f"{place}: {field} is missing")
                continue
            for member, (was, value) in enumerate(zip(stored, now)):
                paid.compare(f"{step.place(group.ticket, member)}: {field}", was, value)


def _labels(of: Group | ScoredGroup, name: str) -> Sequence[str | None]:
    return of.labels.get(name) or (None,) * len(of.rewards)


def _depends(reward: Reward) -> bool:
    """Whether the scores of a reward depend on more than the text, such as on what another program does."""
    function = reward.function
    ours = function.__module__.startswith("cohort.") and getattr(function, "__name__", "") in AGREES
    return ours or inspect.iscoroutinefunction(function)


def _of_model(recorded: Recorded, table: Any, name: str) -> Check:
    """A judge or a reward model: not asked again, but its files are looked at."""
    model = table.args.get("model")
    known = dict(recorded.environment.get("inputs") or {})
    if model not in known:
        why = f"of '{model}' no digest was recorded"
    elif (now := fingerprints([model]).get(model)) is None:
        why = f"{model} is not here"
    elif now != known[model]:
        return Check(2, name, "failed", f"{model} is not the model that the run recorded")
    else:
        why = f"{model} is the one that the run recorded"
    return Check(2, name, "skipped", f"a model gave these scores, which is not asked again; {why}")
