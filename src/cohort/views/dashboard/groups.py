"""What the screens of a step, a group and its tokens show: pure functions of recorded rows."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohort.account.tally import true_in
from cohort.account.traces import rows_as_shown
from cohort.record.rollouts import by_ticket
from cohort.rewards.verifiers.final_answer import final_answer
from cohort.rewards.verifiers.number import parse_number
from cohort.settings import Stage
from cohort.types import RIGHT, UserError
from cohort.views.dashboard.reader import Reader
from cohort.views.dashboard.texts import Part, differences
from cohort.wording import one_line, visible

Row = Mapping[str, Any]
Judged = Literal["right", "wrong", "partly", "unknown"]
STRIP = ("ticket", "member", "prompt_id", "prompt", "answer", "reward", "accuracy", "disposition", "error", "mask")
_GROUP = (
    *("step", "ticket", "member", "prompt_id", "prompt", "prompt_json", "prompt_tokens", "answer", "text", "mask"),
    *("version", "finish", "turns", "scores", "labels", "reward", "accuracy", "advantage", "steps", "disposition"),
    "error",
)
DISPOSITIONS = {  # what became of a group, and what that means
    "trained": "learnt from",
    "zero_std": "all rewards equal: nothing to learn",
    "truncated": "cut off",
    "quarantined": "left out: a detector found something in it",
    "stale": "sampled by weights that were too old",
    "error": "could not be scored",
}


@dataclass(frozen=True, slots=True)
class Member:
    """One completion of a group."""

    member: int
    same: tuple[int, ...]  # others that have the very same text
    text: str | None
    parts: tuple[Part, ...]  # beside the one that it is compared with; () where it is that one
    turns: tuple[Mapping[str, Any], ...]
    reward: float | None
    scores: tuple[tuple[str, float | None, str], ...]  # reward, score, label
    accuracy: float | None
    judged: Judged
    answer: str | None  # that the text marks as its final one
    doubt: str  # where the final answer and the accuracy do not agree: a reward to look into
    advantage: float | None
    length: int
    finish: str
    version: int | None


@dataclass(frozen=True, slots=True)
class Strip:
    """A group in a line."""

    step: int
    ticket: int
    prompt_id: str
    prompt: str | None
    answer: str | None
    disposition: str
    error: str | None
    rewards: tuple[float | None, ...]
    accuracies: tuple[float | None, ...]
    length: float

    @property
    def mean(self) -> float | None:
        """The mean reward."""
        known = [r for r in self.rewards if r is not None and math.isfinite(r)]
        return statistics.fmean(known) if known else None

    @property
    def signal(self) -> float:
        """How far the rewards of the group are apart: their standard deviation."""
        known = [r for r in self.rewards if r is not None and math.isfinite(r)]
        return statistics.pstdev(known) if known else 0.0

    @property
    def right(self) -> str:
        """How many are right, of all; a dash where nothing says what is."""
        found = [judged(a) for a in self.accuracies]
        return f"{found.count('right')}/{len(found)}" if set(found) - {"unknown"} else "-"


@dataclass(frozen=True, slots=True)
class StepView:
    """The groups of a step, those with most signal first, and the steps before and after it."""

    step: int
    strips: tuple[Strip, ...]
    before: int | None
    after: int | None
    first: int
    last: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group to read: what was asked and every answer, the best first."""

    step: int
    ticket: int
    prompt_id: str
    prompt: str | None
    messages: tuple[Mapping[str, Any], ...]
    seen: str | None  # the prompt as the model saw it, special tokens and all
    tags: Mapping[str, Any]
    answer: str | None
    disposition: str
    error: str | None
    members: tuple[Member, ...]
    shown: tuple[Member, ...]  # one of each text
    compared: int  # the member that the others are compared with
    names: tuple[str, ...]  # of rewards
    weights: Mapping[str, float]
    before: int | None  # tickets of the same step
    after: int | None

    @property
    def high(self) -> float:
        """The highest reward, 1 at least: what a full mark stands for."""
        return max([1.0, *(one.reward for one in self.members if one.reward is not None and math.isfinite(one.reward))])


def judged(accuracy: float | None) -> Judged:
    """What an accuracy says of a completion."""
    if accuracy is None or not math.isfinite(accuracy):
        return "unknown"
    return "right" if accuracy >= RIGHT else "wrong" if accuracy <= 0 else "partly"


def doubt(answer: str | None, gold: str | None, found: Judged) -> str:
    """What does not agree of the answer that a text marks as its final one and of how it was judged.
    A reward that looks at more than the answer may be right all the same.
    """
    if answer is None or gold is None or found not in ("right", "wrong"):
        return ""
    numbers = parse_number(answer), parse_number(gold)
    same = answer.strip() == gold.strip() or (None not in numbers and numbers[0] == numbers[1])
    if same and found == "wrong":
        return "the gold answer, and judged wrong"
    other = not same and None not in numbers and found == "right"
    return "another number than the gold answer, and judged right" if other else ""


def columns_of(path: Path, columns: Sequence[str], ticket: int | None = None, member: int | None = None) -> pa.Table:
    """Some columns of a shard, of one ticket where it is given. Raises `UserError` for a file that is damaged."""
    try:
        there = set(pq.read_schema(path).names)
        read = pq.read_table(path, columns=[name for name in columns if name in there])
        for name, wanted in (("ticket", ticket), ("member", member)):
            read = read if wanted is None else read.filter(pc.equal(read[name], wanted))
        return read
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path.name} cannot be read as recorded rollouts: {one_line(error)}") from None


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Rows with `length`, the tokens that the policy wrote, in the place of the mask."""
    lengths = true_in(table["mask"]).tolist()
    rows = table.drop_columns(["mask"]).to_pylist()
    return sorted(
        (row | {"length": length} for row, length in zip(rows, lengths, strict=True)),
        key=lambda row: (row["ticket"], row["member"]),
    )


def step_view(path: Path, step: int, steps: Sequence[int]) -> StepView:
    """The groups of a step; `steps` are all that are recorded."""
    groups = by_ticket(rows_of(columns_of(path, STRIP)))
    strips = sorted((strip_of(step, rows) for rows in groups.values()), key=lambda one: (-one.signal, one.ticket))
    rewards = [r for one in strips for r in one.rewards if r is not None and math.isfinite(r)]
    at = steps.index(step) if step in steps else -1
    before = steps[at - 1] if at > 0 else None
    after = steps[at + 1] if 0 <= at < len(steps) - 1 else None
    low, high = min(rewards, default=0.0), max(rewards, default=1.0)
    first, last = (steps[0], steps[-1]) if steps else (step, step)
    return StepView(step, tuple(strips), before, after, first, last, min(low, 0.0), max(high, low + 1e-9))


def strip_of(step: int, rows: Sequence[Row]) -> Strip:
    """The line of a group, its best members first."""
    first = rows[0]
    members = sorted((row for row in rows if row["member"] >= 0), key=lambda row: -_number(row["reward"]))
    return Strip(
        step,
        first["ticket"],
        first["prompt_id"],
        first["prompt"],
        first["answer"],
        first["disposition"] or "",
        first["error"],
        tuple(row["reward"] for row in members),
        tuple(row["accuracy"] for row in members),
        statistics.fmean([row["length"] for row in members]) if members else 0.0,
    )


def group_view(
    path: Path,
    step: int,
    ticket: int,
    reader: Reader,
    stage: Stage | None,
    beside: int | None = None,
    traces: str = "exposed",
) -> GroupView:
    """A group of a shard; `beside` is the member that the others are compared with, the best one if None; `traces` is
    how reasoning is shown. Raises
    `UserError` where the step has no such group.
    """
    rows = rows_as_shown(rows_of(columns_of(path, _GROUP, ticket)), traces)
    if not rows:
        raise UserError(f"step {step} has no group {ticket}")
    tickets = sorted(set(columns_of(path, ("ticket",))["ticket"].to_pylist()))
    at = tickets.index(ticket)
    first = rows[0]
    members = sorted(
        (row for row in rows if row["member"] >= 0), key=lambda row: (-_number(row["reward"]), row["member"])
    )
    compared = next((row for row in members if row["member"] == beside), members[0] if members else None)
    whole = [_member(row, compared, members) for row in members]
    seen, shown = set[str | None](), []
    for one in whole:
        key = f"{one.text}\0{one.turns}" if one.text is not None else f"\0{one.member}"
        if key not in seen:
            shown.append(one)
        seen.add(key)
    said = orjson.loads(first["prompt_json"]) if first["prompt_json"] else {}
    weights = {reward.name: reward.weight for reward in stage.reward} if stage is not None else {}
    return GroupView(
        step=step,
        ticket=ticket,
        prompt_id=first["prompt_id"],
        prompt=first["prompt"],
        messages=tuple(said.get("messages") or ()),
        seen=reader.text(first["prompt_tokens"] or ()),
        tags=said.get("tags") or {},
        answer=first["answer"],
        disposition=first["disposition"] or "",
        error=first["error"],
        members=tuple(whole),
        shown=tuple(shown),
        compared=compared["member"] if compared is not None else -1,
        names=tuple(dict.fromkeys(name for one in whole for name, _, _ in one.scores)),
        weights=weights,
        before=tickets[at - 1] if at else None,
        after=tickets[at + 1] if at < len(tickets) - 1 else None,
    )


def _member(row: Row, compared: Row | None, rows: Sequence[Row]) -> Member:
    scores = orjson.loads(row["scores"]) if row["scores"] else {}
    labels = orjson.loads(row["labels"]) if row.get("labels") else {}
    text, turns = row["text"], tuple(orjson.loads(row["turns"])) if row["turns"] else ()
    other = compared["text"] if compared is not None and compared is not row else None
    alike = (one for one in rows if one is not row and (one["text"], one["turns"]) == (text, row["turns"]))
    same = tuple(one["member"] for one in alike if text is not None)
    answer, found = final_answer(text) if text else None, judged(row["accuracy"])
    return Member(
        member=row["member"],
        same=same,
        text=text,
        parts=differences(text, other) if text is not None and other is not None and text != other else (),
        turns=turns,
        reward=row["reward"],
        scores=tuple((name, score, str(labels.get(name) or "")) for name, score in scores.items()),
        accuracy=row["accuracy"],
        judged=found,
        answer=answer,
        doubt=doubt(answer, row["answer"], found),
        advantage=row["advantage"],
        length=row["length"],
        finish=row["finish"] or "",
        version=row["version"],
    )


def as_json(view: GroupView) -> dict[str, Any]:
    """A group as plain data, to copy."""
    kept = ("step", "ticket", "prompt_id", "prompt", "messages", "tags", "answer", "disposition", "error")
    of_member = ("member", "text", "turns", "reward", "accuracy", "advantage", "length", "finish", "version")
    members = [
        {name: getattr(one, name) for name in of_member}
        | {
            "scores": {name: score for name, score, _ in one.scores},
            "labels": {n: why for n, _, why in one.scores if why},
        }
        for one in view.members
    ]
    return {name: getattr(view, name) for name in kept} | {"completions": members}


def test_case(one: Member, view: GroupView) -> str:
    """A test of a reward in Python: this completion, and the score that it got."""
    name, score, _ = one.scores[0] if one.scores else ("reward", one.reward, "")
    function = "".join(c if c.isalnum() else "_" for c in name)
    return (
        f"def test_{function}_of_step_{view.step}_group_{view.ticket}_completion_{one.member}():\n"
        f"    from my_rewards import {function}  # the module:function of the reward {name!r}\n\n"
        f"    completion = {one.text!r}\n"
        f"    answer = {view.answer!r}\n"
        f"    assert {function}(completion, answer) == {score!r}  # what it was paid; write what it should be paid\n"
    )


def sample_command(view: GroupView, directory: Path) -> str:
    """What samples the prompt again from the trained model, as it is typed."""
    gold = [] if view.answer is None else ["--answer", view.answer]
    return visible(shlex.join(["cohort", "sample", str(directory), view.prompt or "", *gold]))


def _number(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else -math.inf
