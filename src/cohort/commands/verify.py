"""`cohort record verify`, `redact` and `amend`: the record of a run is checked, parts of it erased, or added to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cohort.commands.record import condition_on
from cohort.record import amend as amending
from cohort.record.chain import CHAIN, HEADS, Chain, head_of
from cohort.record.claims import NAME
from cohort.record.keys import own_key
from cohort.record.report import Check, Report
from cohort.record.verify import HIGHEST, verify
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console, escape

MARKS = {"holds": "holds  ", "skipped": "skipped", "failed": "FAILED "}


def checked(run: Path, level: int | None, key: Path | None, anchor: str) -> dict[str, Any]:
    """The report on a run up to a level, the highest that there is if None, and its head."""
    report = verify(run, HIGHEST if level is None else level, key=key, anchor=anchor)
    checks, reached = list(report.checks), report.level
    if (level is None or level > HIGHEST) and report.holds:
        from cohort.train.replay import checks as recomputed  # with torch

        checks += (more := recomputed(run, level or 4))
        reached = max([reached, *(check.level for check in more)])
    elif level is None or level > HIGHEST:
        checks.append(Check(2, "replay", "skipped", "nothing is recomputed of a run that is not as it was recorded"))
    return {**Report(str(run), reached, tuple(checks)).as_json(), "head": head_of(run)}


def show_report(console: Console, found: dict[str, Any]) -> None:
    """Every check on a line, and the verdict."""
    for check in found["checks"]:
        console.say(f"  {check['level']}  {MARKS[check['status']]}  {check['name']:<11} {escape(check['detail'])}")
    failed = sum(check["status"] == "failed" for check in found["checks"])
    verdict = "holds" if not failed else f"does NOT hold: {failed} failed"
    console.say(f"\nrecord {verdict}, up to level {found['level']}; head {found['head']}")


def redacted(run: Path, rows: str, step: int | None, stage: str, reason: str) -> dict[str, Any]:
    """Erase the texts of the rollouts for which a condition holds. A run that is not as it was recorded is refused:
    what was changed in it would be signed anew.
    """
    holds = condition_on(rows)
    with _chain(run) as chain:
        wrong = (check for check in verify(run).checks if check.status == "failed" and check.name != "key")
        if (failed := next(wrong, None)) is not None:
            raise UserError(f"{run} is not as it was recorded, so nothing is erased in it: {failed.detail}")
        place = run / "stages" / stage if stage else run
        pattern = "*.parquet" if step is None else f"*-{step:06d}*.parquet"
        logs = [place / "log"] if stage else [run / "log", *sorted(run.glob("stages/*/log"))]
        files = [file for log in logs for file in sorted(log.glob(pattern))]
        found = amending.redact(chain, files, holds, reason)
        _renew_account(run)
    others = [*run.glob("data*.jsonl"), *run.rglob("pending.parquet"), *run.rglob("rewards.log")]
    return {**found, "not_erased": [str(path) for path in others if path.stat().st_size]}


def amended(run: Path, kind: str, text: str, file: Path | None) -> dict[str, Any]:
    """Append to the chain of a run."""
    with _chain(run) as chain:
        found = amending.amend(chain, kind, text, file)
        _renew_account(run)
        return found


def _renew_account(run: Path) -> None:
    """Make record.json and its pages again, which show some of the rollouts, and what was appended. The cards beside
    the models, which may have been edited, show neither.
    """
    from cohort.recipe import Recipe
    from cohort.train.keeping import keep_account

    if (run / NAME).is_file():
        keep_account(run, Recipe.load(run / "recipe.toml"), models=False)


def show_entry(console: Console, found: dict[str, Any]) -> None:
    """What was appended."""
    for path, rows in found.get("erased", {}).items():
        console.say(f"  {escape(path)}: erased row {', '.join(map(str, rows))}")
    for path in found.get("not_erased", ()):
        console.warn(f"{path} was not looked at, and may hold the same text")
    signed = "signed" if found["signed"] else "NOT signed: there is no key"
    console.say(f"entry {found['entry']}, {signed}; head {found['head']}")


@contextlib.contextmanager
def _chain(run: Path) -> Iterator[Chain]:
    """The chain of a run that is there, while no other process trains in it."""
    from cohort.train.directory import locked

    if not (run / CHAIN).is_file():
        raise UnreadableError(
            f"{run / CHAIN} is not there: {run} is no run with a record. Runs of an older Cohort have none"
        )
    with locked(run):
        key = own_key(run)
        if isinstance(key, str) and (run / HEADS).is_file():
            raise UserError(
                f"the record of {run} is signed, and there is no key here to sign with ({key}): $COHORT_KEY names one"
            )
        yield Chain.open(run, None if isinstance(key, str) else key, Console().warn)
