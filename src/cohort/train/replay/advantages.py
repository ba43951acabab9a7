"""Level 3: advantages, what became of each group, and the numbers of a step, recomputed from the stored rewards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.monitor.metrics import group_metrics
from cohort.monitor.tasks import task_metrics
from cohort.preflight.objective import supervised_steps
from cohort.record.report import Check
from cohort.train.grpo.advantages import with_advantages, with_state_advantages
from cohort.train.grpo.earlier import fresh
from cohort.train.grpo.step_rewards import with_process_advantages
from cohort.train.grpo.stream import has_signal
from cohort.train.replay.opened import Recorded
from cohort.train.replay.stored import StoredStep
from cohort.train.replay.tally import Tally, equal
from cohort.types import Group, UserError


class Advantages:
    """The advantages of a stage, by its own objective."""

    def __init__(self, recorded: Recorded):
        self._recorded, self._lines = recorded, recorded.metrics()
        self._quarantined = defaultdict[int, set[int]](set)  # by step the tickets, as log/incidents.jsonl has them
        for one in recorded.findings:
            self._quarantined[one.step] |= {*one.did.get("quarantine", ())}
        self._advantages = Tally(3, f"{recorded.title}advantages", "advantages, recomputed from the rewards")
        self._became = Tally(3, f"{recorded.title}dispositions", "what became of groups, by their scores")
        self._numbers = Tally(3, f"{recorded.title}metrics", "numbers of steps, recomputed from their groups")
        if by_policy(recorded):
            self._advantages.skipped = (
                "they come from the policy or its tokenizer (a critic, a KL in the reward, malformed_penalty): level 4 "
                "recomputes those of steps whose policy is still stored"
            )

    def look(self, step: StoredStep, only: int | None = None) -> None:
        """Recompute a step; compare all of its groups, or one, by its ticket."""
        for group in step.left_out:
            if only in (None, group.ticket):
                self._left_out(step, group)
        if step.kept and not self._advantages.skipped:
            try:
                now = _recomputed(self._recorded, [bare(group) for group in step.kept])
            except (UserError, ValueError) as error:
                self._advantages.differ(f"log/{step.file.name}: {error}")
            else:
                for stored, group in zip(step.kept, now, strict=True):
                    if only in (None, stored.ticket):
                        if stored.ticket in self._quarantined[step.step]:
                            now_is = f"{step.place(stored.ticket)}: it was quarantined, and has advantages all the same"
                            self._became.differ(now_is)
                        compare_advantages(self._advantages, self._became, step, stored, group)
        if only is None:
            self._metrics(step)

    def checks(self, shown: int) -> list[Check]:
        """The checks of advantages, of dispositions and of numbers, each with what it found."""
        numbers = self._numbers
        looked_at = [numbers] if numbers.compared or numbers.differences else []  # of one group there are none
        return [tally.check(shown) for tally in (self._advantages, self._became, *looked_at)]

    def _left_out(self, step: StoredStep, group: Group) -> None:
        recorded, place = self._recorded, step.place(group.ticket)
        drops = recorded.objective.zero_std != "zero"
        signal = group.error is None and has_signal(group, recorded.combination)
        became = "error" if group.error is not None else "zero_std" if drops and not signal else "trained"
        if became == "trained" and group.ticket in self._quarantined.get(step.step, ()):
            became = "quarantined"
        self._became.compare(f"{place}: disposition", group.disposition, became)

    def _metrics(self, step: StoredStep) -> None:
        if (line := self._lines.get(step.step)) is None:
            self._numbers.differ(f"metrics.jsonl has no line of step {step.step}")
            return
        new = fresh(step.kept, step.step, self._recorded.stage.rollout)
        now = group_metrics(new, step.left_out) | task_metrics([*new, *step.left_out])
        compare_metrics(self._numbers, step.step, line, now)


def by_policy(recorded: Recorded) -> bool:
    """Whether advantages come from the policy, its tokenizer or a critic, and not from rewards alone."""
    objective, stage = recorded.objective, recorded.stage
    if stage.objective.malformed_penalty or (objective.needs_reference and objective.kl_place == "reward"):
        return True
    return objective.baseline in ("critic", "token_optimal") and not supervised_steps(stage.reward)


def _recomputed(recorded: Recorded, groups: Sequence[Group]) -> list[Group]:
    """The groups with their advantages, as `Learning` gives them where they come from rewards alone."""
    objective, combination = recorded.objective, recorded.combination
    if names := supervised_steps(recorded.stage.reward):
        return with_process_advantages(groups, objective, combination, names)
    if objective.credit == "states":
        return with_state_advantages(groups, objective, combination)
    k, found = recorded.stage.objective.pass_at_k, recorded.stage.rollout.groups
    return with_advantages(groups, objective, combination, k=k, found=found)


def bare(group: Group) -> Group:
    """A stored group as it was before its step learnt from it."""
    return group.with_(advantages=(), token_advantages=(), disposition=None)


def compare_advantages(advantages: Tally, became: Tally, step: StoredStep, stored: Group, now: Group) -> None:
    """A stored group against what it comes to."""
    for member, (was, value) in enumerate(zip(stored.advantages, now.advantages, strict=True)):
        advantages.compare(f"{step.place(stored.ticket, member)}: advantage", was, value)
    place = step.place(stored.ticket)
    if len(stored.token_advantages) != len(now.token_advantages):
        advantages.differ(f"{place}: token_advantages are there for some rollouts only, or for none")
    for member, (of, values) in enumerate(zip(stored.token_advantages, now.token_advantages)):
        if not equal(tuple(of), tuple(values)):
            at = next((n for n, pair in enumerate(zip(of, values)) if not equal(*pair)), min(len(of), len(values)))
            advantages.differ(f"{step.place(stored.ticket, member)}: token_advantages[{at}] comes to another value")
    became.compare(f"{place}: disposition", stored.disposition, now.disposition)


def compare_metrics(tally: Tally, step: int, line: Mapping[str, Any], now: Mapping[str, float]) -> None:
    """The numbers of a step as metrics.jsonl has them against what they come to."""
    for name, value in now.items():
        if name in line:
            tally.compare(f"metrics.jsonl, step {step}: {name}", line[name], value)
        else:
            tally.differ(f"metrics.jsonl, step {step}: {name} is missing")
