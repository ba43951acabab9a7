"""`cohort record`: what a run has written down."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cohort.account.traces import rows_as_shown, traces_of
from cohort.recipe.loader import of_run
from cohort.record.reading import names_of, readable
from cohort.record.rollouts import read_rows
from cohort.record.where import condition
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console
from cohort.views.rollouts import show_rollouts
from cohort.wording import counted


def rollouts(run: Path, step: int | None, where: str, stage: str, evaluation: str, limit: int) -> dict[str, Any]:
    """The rollouts of one step (the last one, if None) or of an evaluation for which a condition holds.

    `evaluation` is "" for training, else "greedy", "sampled" or "traces". Raises `UnreadableError` for what is no run.
    """
    file = _file(run, stage, step, evaluation)
    holds = condition(where) if where else None
    traces = traces_of(run)
    rows = [readable(row) for row in rows_as_shown(read_rows(file), traces)]
    if evaluation:  # which belongs to its step, but is numbered by problem
        rows = [row | {"advantage": None} for row in rows]
    names = [names_of(row) for row in rows]
    nothing = dict.fromkeys(name for of in names for name in of)  # what another rollout has, such as another reward
    found = [row for row, of in zip(rows, names, strict=True) if holds is None or holds(nothing | of)]
    shown = {"traces": traces or "exposed", "rollouts": found[:limit]}
    return {"file": str(file), "of": len(rows), "matching": len(found), **shown}


def show(console: Console, found: dict[str, Any]) -> None:
    """Every rollout to read; rollouts of one prompt under one question."""
    show_rollouts(console, found["rollouts"], found["traces"])
    shown, matching = len(found["rollouts"]), found["matching"]
    more = f"; --limit {matching} shows all" if shown < matching else ""
    console.say(
        f"\n[dim]{shown} of {counted(matching, 'rollout')} that match, of {found['of']} in {found['file']}{more}[/]"
    )


def _file(run: Path, stage: str, step: int | None, evaluation: str) -> Path:
    of_run(run)
    stages = sorted(place.name for place in (run / "stages").glob("*") if place.is_dir())
    if stage and stage not in stages:
        raise UnreadableError(f"{run} has no earlier stage {stage!r}; it has {', '.join(stages) or 'one stage only'}")
    log = (run / "stages" / stage if stage else run) / "log"
    pattern = rf"eval-(\d+)-{evaluation}\.parquet" if evaluation else r"step-(\d+)\.parquet"
    there = {int(m[1]): file for file in log.glob("*.parquet") if (m := re.fullmatch(pattern, file.name))}
    if not there:
        hint = f"; --stage takes {', '.join(stages)}" if stages and not stage else ""
        raise UserError(f"{log} holds no rollouts (run.save_rollouts writes them, in stages that sample){hint}")
    wanted = max(there) if step is None else step
    if wanted not in there:
        steps = sorted(there)
        raise UserError(f"{log} has no step {wanted}; it has {steps[0]} to {steps[-1]}, {len(steps)} in all")
    return there[wanted]


def condition_on(text: str) -> Callable[[Mapping[str, Any]], bool]:
    """A condition on a row as it is stored; what another rollout has, such as another reward, is nothing here."""
    holds = condition(text)

    def of(row: Mapping[str, Any]) -> bool:
        try:
            return holds(names_of(readable(dict(row))))
        except UserError:  # a name that this row has not
            return False

    return of
