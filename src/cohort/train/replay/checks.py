"""All that is recomputed of a run, as checks."""

from __future__ import annotations

from pathlib import Path

from cohort.machine import quiet_libraries
from cohort.record.report import Check, Status
from cohort.train.place import where_trained
from cohort.train.replay.advantages import Advantages
from cohort.train.replay.opened import Recorded, open_run
from cohort.train.replay.policy import policy_checks
from cohort.train.replay.rewards import Scores, code_checks
from cohort.train.replay.stored import ErasedError, StoredStep
from cohort.train.replay.tally import SHOWN
from cohort.train.replay.text import Texts
from cohort.types import UserError


def checks(run: Path, level: int) -> list[Check]:
    """The checks of levels 2 to `level` (at most 4) of a run, in that order: rewards, advantages, policy.

    Works in the directory in which the run was trained. Raises `UnreadableError` for what is no run that samples.
    """
    if level < 2:
        return []
    quiet_libraries()
    found: list[Check] = []
    run = run.expanduser().absolute()
    with where_trained(str(run)):
        for recorded in open_run(run):
            found += checks_of(recorded, level)
    return sorted(found, key=lambda check: check.level)


def checks_of(recorded: Recorded, level: int, ticket: int | None = None, shown: int = SHOWN) -> list[Check]:
    """The checks of one stage; with `ticket`, of one group where a check is of groups. Of differences `shown` are
    named, and the others counted.
    """
    title, steps = recorded.title, list(recorded.steps)
    if not steps:
        why = f"{recorded.directory / 'log'} holds no rollouts (run.save_rollouts writes them)"
        return [Check(2, f"{title}rollouts", "skipped", why)]
    damaged: list[Check] = []
    with recorded.as_it_ran(), Texts(recorded) as texts, Scores(recorded) as scores:
        advantages, whole = Advantages(recorded), []
        for number in steps:
            try:
                step: StoredStep = recorded.read(number)
            except UserError as error:
                status: Status = "skipped" if isinstance(error, ErasedError) else "failed"
                damaged.append(Check(2, f"{title}rollouts of step {number}", status, str(error)))
                continue
            whole.append(number)
            texts.look(step, ticket)
            scores.look(step, ticket)
            if level >= 3:
                advantages.look(step, ticket)
        found = [*damaged, *code_checks(recorded), *texts.checks(shown), *scores.checks(shown)]
        if level >= 3:
            found += advantages.checks(shown)
    if level >= 4:
        with recorded.as_it_ran():
            found += policy_checks(recorded, whole, shown)
    return found
