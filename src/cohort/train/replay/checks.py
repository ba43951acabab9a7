"""All that is recomputed of a run, as checks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cohort.machine import quiet_libraries
from cohort.record.report import Check
from cohort.settings import KEEPS, SAMPLED
from cohort.train.place import where_trained
from cohort.train.replay.advantages import Advantages
from cohort.train.replay.opened import Recorded, open_run
from cohort.train.replay.policy import policy_checks
from cohort.train.replay.rewards import Scores, code_checks, of_evaluations, of_training
from cohort.train.replay.stored import StoredStep
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
        for recorded in open_run(run, kinds=SAMPLED):
            found += checks_of(recorded, level)
    return sorted(found, key=lambda check: check.level)


def checks_of(recorded: Recorded, level: int, ticket: int | None = None, shown: int = SHOWN) -> list[Check]:
    """The checks of one stage; with `ticket`, of one group where a check is of groups. Of differences `shown` are
    named, and the others counted.
    """
    title, steps = recorded.title, list(recorded.steps)
    apart: list[Check] = []
    if recorded.stage.kind in KEEPS and level > 2:
        why = f"a stage of kind {recorded.stage.kind} has no objective's advantages: it keeps samples by their scores"
        level, apart = 2, [Check(3, f"{title}advantages", "skipped", why)]
    if not steps:
        why = f"{recorded.directory / 'log'} holds no rollouts (run.save_rollouts writes them)"
        apart.append(Check(2, f"{title}rollouts", "skipped", why))
        if not recorded.evaluations:
            return apart

    def opened(name: str, read: Callable[[], StoredStep]) -> StoredStep | None:
        try:
            step = read()
        except UserError as error:
            apart.append(Check(2, name, "failed", str(error)))
            return None
        if step.erased:
            which = f"texts of ticket {', '.join(map(str, step.erased))} were erased; the others are looked at alone"
            apart.append(Check(2, name, "skipped", f"log/{step.file.name}: {which}"))
        return step

    def look_at_answers(of: Recorded, texts: Texts, answers: Scores) -> None:
        names = [table.name for table in answers.scoring.tables]
        for number, kind, file in of.evaluations:
            read = partial(of.read_evaluation, number, kind, file, names)
            if (step := opened(f"{of.title}{kind} answers after step {number}", read)) is not None:
                texts.look(step)
                answers.look(step)

    with (
        recorded.as_it_ran(),
        Texts(recorded) as texts,
        Scores(recorded, of_training(recorded)) as scores,
        Scores(recorded, of_evaluations(recorded)) as answers,
    ):
        advantages, whole = Advantages(recorded), []
        for number in steps:
            if (step := opened(f"{title}rollouts of step {number}", partial(recorded.read, number))) is None:
                continue
            texts.look(step, ticket)
            scores.look(step, ticket)
            if step.erased:
                continue
            whole.append(number)
            if level >= 3:
                advantages.look(step, ticket)
        look_at_answers(recorded, texts, answers)
        of_suites: list[Check] = []
        for suite in (one for one in recorded.suites if one.evaluations):
            with Texts(suite) as own_texts, Scores(suite, of_evaluations(suite)) as own_answers:
                look_at_answers(suite, own_texts, own_answers)
                of_suites += [*own_texts.checks(shown), *own_answers.checks(shown)]
        found = [*apart, *code_checks(recorded), *texts.checks(shown), *scores.checks(shown)]
        found += [*(answers.checks(shown) if recorded.evaluations else ()), *of_suites]
        if level >= 3:
            found += advantages.checks(shown)
    if level >= 4:
        with recorded.as_it_ran():
            found += policy_checks(recorded, whole, shown)
    return found
