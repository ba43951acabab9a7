"""The rollouts of a step as they were recorded, looked through before anything is computed from them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.record.leaves import COMMITMENTS
from cohort.record.rollouts import SCHEMA, group_of
from cohort.types import Group, Prompt, UserError
from cohort.wording import one_line, shorten

_LATER = ("versions", "labels", "extra", "turns", "steps", "teacher_logprobs")  # columns that files may lack
_NEEDED = [name for name in SCHEMA.names if name not in _LATER]

_OF_GROUP = ("prompt_id", "prompt", "prompt_json", "prompt_tokens", "answer", "disposition", "error")


@dataclass(frozen=True, slots=True)
class StoredStep:
    """The groups of one step: those that were learnt from, in the order of the batch, and those that were left out.
    `rows[ticket]` are the rows of a group as the file has them. Groups whose texts were `erased`, as the record of the
    run says, are in neither: of an evaluation and of such a step nothing can be computed that all groups decide.
    """

    step: int
    file: Path
    kept: tuple[Group, ...]
    left_out: tuple[Group, ...]
    rows: Mapping[int, list[dict[str, Any]]]
    erased: tuple[int, ...] = ()  # tickets

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups of the step, those that were left out too."""
        return (*self.kept, *self.left_out)

    def place(self, ticket: int, member: int | None = None) -> str:
        """Where a row is: the file as a path in the run's log, the row by its group and member."""
        row = "" if member is None else f", member {member}"
        return f"log/{self.file.name}, ticket {ticket}{row}"


def read_step(file: Path, step: int, versions: range) -> StoredStep:
    """The step that a file of rollouts holds, sampled by one of the policies `versions`. Raises `UserError`, with the
    file and the row, for one that is damaged, or that no run can have written.
    """
    name = f"log/{file.name}"
    try:
        table = pq.read_table(file)
        if missing := [column for column in _NEEDED if column not in table.column_names]:
            raise UserError(f"{name} has no column {missing[0]!r}: it was not written by this version of Cohort")
        known = [name for name in SCHEMA.names if name in table.column_names]
        rows = table.select(known).cast(pa.schema([SCHEMA.field(name) for name in known])).to_pylist()
        erased = _erased(table)
        groups, by_ticket = [], dict[int, list[dict[str, Any]]]()
        for ticket, found in groupby((row for row in rows if row["ticket"] not in erased), lambda row: row["ticket"]):
            if ticket in by_ticket:
                raise UserError(f"{name} has rows of ticket {ticket} in two places")
            by_ticket[ticket] = list(found)
            groups.append(_group(by_ticket[ticket], f"{name}, ticket {ticket}", step, versions))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name} cannot be read as recorded rollouts: {one_line(error)}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{name} holds a row that is no rollout: {type(error).__name__}: {one_line(error)}") from None
    kept = [group for group in groups if group.advantages]  # what is left out has none
    left_out = tuple(group for group in groups if not group.advantages)
    return StoredStep(step, file, tuple(kept), left_out, by_ticket, erased)


def erased_in(file: Path) -> tuple[int, ...]:
    """The tickets of the groups some of whose texts were erased."""
    if COMMITMENTS not in pq.read_schema(file).names:
        return ()
    return _erased(pq.read_table(file, columns=["ticket", COMMITMENTS]))


def _erased(table: pa.Table) -> tuple[int, ...]:
    return tuple(sorted(set(table.filter(table[COMMITMENTS].is_valid())["ticket"].to_pylist())))


def _group(rows: list[dict[str, Any]], place: str, step: int, versions: range) -> Group:
    members = [row["member"] for row in rows]
    if members not in ([-1], list(range(len(rows)))):
        raise UserError(f"{place} has the members {shorten(members)}: rows were lost, added or moved")
    group = group_of(rows)
    if not _is_prompt(group.prompt):
        raise UserError(f"{place} has a prompt_json that is no prompt")
    labels = [label for of in group.labels.values() for label in of if label is not None]
    steps = [one for of in group.steps.values() for member in of for one in member]
    numbers = [*(score for of in group.scores.values() for score in of), *(one.score for one in steps)]
    if not all(isinstance(one, int | float) for one in numbers) or not all(isinstance(one, str) for one in labels):
        raise UserError(f"{place} has a score that is no number, or a label that is no text")
    for row in rows:
        if problem := next(_problems(row, rows[0], step, versions), None):
            raise UserError(f"{place}, member {row['member']}: {problem}")
    return group


def _problems(row: Mapping[str, Any], first: Mapping[str, Any], step: int, versions: range) -> Iterator[str]:
    """What no run can have written in a row."""
    if row["step"] != step:
        yield f"step is {row['step']}, in a file of step {step}"
    for column in _OF_GROUP:
        if row[column] != first[column]:
            yield f"{column} is not that of the group's first row"
    if not row["prompt_tokens"]:
        yield "there are no tokens of a prompt"
    if row["member"] < 0:
        return
    lengths = {len(row[column]) for column in ("tokens", "mask", "logprobs")}
    if len(lengths) > 1 or not lengths - {0}:
        yield "tokens, mask and logprobs have other lengths" if len(lengths) > 1 else "there are no tokens"
    if (taught := row.get("teacher_logprobs")) is not None and len(taught) != len(row["tokens"]):
        yield "tokens and teacher_logprobs have other lengths"
    if any(token is None or token < 0 for token in (*row["tokens"], *row["prompt_tokens"])):
        yield "a token is no number of a token"
    if any(value is None or not math.isfinite(value) or value > 0 for value in row["logprobs"]):
        yield "a log-prob is no number of at most 0"
    if not isinstance(row["text"], str) or row["finish"] not in ("stop", "length", "tool", "error"):
        yield "there is no text, or nothing that says how it ended"
    if row["version"] not in versions:
        older = f" or up to {len(versions) - 1} older" if len(versions) > 1 else ""
        yield f"version is {row['version']}, and what step {step} has is of version {versions[-1]}{older}"
    if row.get("versions") is not None:
        starts, drawn = zip(*json.loads(row["versions"]), strict=True)
        in_order = list(starts) == sorted({*starts}) and starts[0] == 0 and starts[-1] < len(row["tokens"])
        if not in_order or drawn[0] != row["version"] or not {*drawn} <= {*versions}:
            yield "versions are no spans of its tokens, of weights that this step may have been drawn from"


def _is_prompt(prompt: Prompt) -> bool:
    if isinstance(prompt.text, str) == (prompt.messages is not None):  # it is the one or the other
        return False
    beside = isinstance(prompt.tags, dict) and isinstance(prompt.begun, str)
    return beside and all(isinstance(message, dict) for message in prompt.messages or ())
