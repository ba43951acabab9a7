"""`cohort replay`: a recorded step as it was, and recomputed; or a run learnt again from what is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cohort.account.traces import rows_as_shown, traces_of
from cohort.machine import quiet_libraries
from cohort.record.reading import readable
from cohort.record.report import Check
from cohort.train.place import where_trained
from cohort.train.replay.again import Again, learn_again
from cohort.train.replay.checks import checks_of
from cohort.train.replay.opened import Recorded, open_stage
from cohort.train.replay.tokens import token_numbers
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console, escape
from cohort.views.dashboard.reader import reader
from cohort.views.dashboard.runs import RunFiles
from cohort.views.rollouts import show_rollouts
from cohort.wording import visible

LEVEL = 4  # everything: rewards, advantages, and where the policy is stored loss and log-probs
MOST = 20  # differences that are named
COLOURS = {"holds": "green", "skipped": "dim", "failed": "red"}


@contextmanager
def _opened(run: Path, stage: str) -> Iterator[Recorded]:
    """A stage of a run, in the directory that it was trained from."""
    quiet_libraries()
    run = run.expanduser().absolute()
    with where_trained(str(run)):
        yield open_stage(run, stage)


def replay_step(run: Path, step: int, group: int | None, stage: str) -> dict[str, Any]:
    """A step (or one group of it, by its ticket) as it was recorded, and the checks of all that can be recomputed.
    Raises `UserError` where there is no such step or group.
    """
    with _opened(run, stage) as recorded:
        if step not in recorded.steps:
            there = list(recorded.steps)
            listed = f"it has {there[0]} to {there[-1]}, {len(there)} in all" if there else "it has none"
            raise UserError(f"{recorded.directory / 'log'} has no rollouts of step {step}; {listed}")
        stored = recorded.read(step)
        if group in stored.erased:
            raise UserError(f"the texts of group {group} were erased, as the record of the run says")
        if group is not None and group not in stored.rows:
            tickets = ", ".join(map(str, sorted(stored.rows)))
            raise UserError(f"step {step} has no group {group}; groups go by their tickets: {tickets}")
        found = checks_of(replace(recorded, only=frozenset({step})), LEVEL, group, MOST)
    traces, kept = traces_of(run), [row for key, of in stored.rows.items() if group in (None, key) for row in of]
    return {
        "run": str(run),
        "stage": recorded.stage.name,
        "step": step,
        "traces": traces or "exposed",
        "rollouts": [readable(row) for row in rows_as_shown(kept, traces)],
        "checks": [asdict(check) for check in found],
        "holds": all(check.status != "failed" for check in found),
    }


def replay_tokens(run: Path, step: int, group: int, stage: str) -> dict[str, Any]:
    """Every token of a group: the sampler's log-prob, and what the weights before and after the step's update say.
    Raises `UserError` where they cannot be had, and for a run whose reasoning is hidden.
    """
    if (traces := traces_of(run) or "exposed") != "exposed":
        raise UserError(f"reasoning is {traces} ([record] traces of the run), so single tokens are not shown")
    with _opened(run, stage) as recorded:
        found = token_numbers(recorded, step, group)
        rows = {row["member"]: row["tokens"] for row in recorded.read(step).rows[group]}
    read = reader(RunFiles(run).stages[recorded.index].models)
    return {
        "run": str(run),
        "stage": recorded.stage.name,
        "step": step,
        "group": group,
        "completions": [asdict(one) | {"texts": read.pieces(rows[one.member])} for one in found],
    }


def show_tokens(console: Console, found: dict[str, Any]) -> None:
    """A line a token."""
    for one in found["completions"]:
        console.say(f"\n[bold]completion {one['member']}[/]  sampler, learner, entropy, after the update")
        names = ("sampler", "learner", "entropy", "after")
        for text, clipped, *values in zip(one["texts"], one["clipped"], *(one[name] for name in names), strict=True):
            numbers = " ".join(f"{'-' if value is None else format(value, '.4f'):>9}" for value in values)
            console.plain(f"  {numbers}  {'past the clip ' * clipped}{visible(text)}\n")


def show(console: Console, found: dict[str, Any]) -> None:
    """The groups to read, then what was recomputed."""
    show_rollouts(console, found["rollouts"], found["traces"])
    console.say("\n[bold]recomputed[/]")
    for check in found["checks"]:
        show_check(console, Check(**check))
    console.say(f"\n{'all of it holds' if found['holds'] else 'it is not what it was'}")


def show_check(console: Console, check: Check) -> None:
    """One check, in a line or more."""
    status = f"[{COLOURS[check.status]}]{check.status:<7}[/]"
    console.say(f"  level {check.level}  {status}  [bold]{escape(check.name)}[/]  {escape(check.detail)}")


def replay_from(run: Path, start: int, steps: str, stage: str, to: Path | None) -> Again:
    """The run learnt again from step `start` on, from the stored rollouts of all later steps or of `steps`, `A..B`."""
    wanted, to = _steps(steps), None if to is None else to.expanduser().absolute()
    with _opened(run, stage) as recorded:
        return learn_again(recorded, start, wanted, to, Console())


def show_again(console: Console, found: Again) -> None:
    """What came of it, in a sentence."""
    first, last = found.steps
    learnt = f"steps {first} to {last}" if first < last else f"step {first}"
    begun = f"from the checkpoint of step {found.start}" if found.start else "from the beginning"
    console.say(f"\n  learnt {learnt} again, {begun}: {escape(str(found.directory))}")
    if found.same is None:
        console.say(f"  without what came before step {first}, so it ends elsewhere than the run did")
    elif found.same:
        console.say(f"  [green]the same[/]: {found.compared} numbers and models are those of the run, bit for bit")
    for difference in found.differences[:MOST]:
        console.say(f"  [red]other[/]  {escape(difference)}")
    if len(found.differences) > MOST:
        console.say(f"  and {len(found.differences) - MOST} more")


def _steps(text: str) -> tuple[int, int] | None:
    """`A..B` as two numbers; None where nothing was said. Raises `UnreadableError` for anything else."""
    found = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if text and found is None:
        raise UnreadableError(f"--steps is A..B, such as 3..7, the first and the last step to learn from, not {text!r}")
    return None if found is None else (int(found[1]), int(found[2]))
