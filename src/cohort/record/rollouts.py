"""Every rollout of every step as Parquet, one row a rollout, dropped ones too; and back again."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cohort.record.files import write_bytes
from cohort.record.leaves import COMMITMENTS, LEAF, SALT, SALT_BYTES, leaves
from cohort.types import Group, Observation, Prompt, Rollout, Step, ToolCall, Turn, UserError
from cohort.wording import one_line

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("ticket", pa.int64()),
        ("member", pa.int32()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("prompt_json", pa.string()),
        ("prompt_tokens", pa.list_(pa.int32())),
        ("answer", pa.string()),
        ("text", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("mask", pa.list_(pa.bool_())),
        ("logprobs", pa.list_(pa.float32())),
        ("version", pa.int64()),
        ("versions", pa.string()),  # JSON: [[first token, version], ...]; a column of files where a rollout has several
        ("finish", pa.string()),
        ("turns", pa.string()),  # JSON: the turns of the policy and what was said to it; null without an environment
        ("scores", pa.string()),  # JSON: reward name -> score (null: does not apply)
        ("labels", pa.string()),  # JSON: reward name -> why (null: no label); null unless a reward gave labels
        ("extra", pa.string()),  # JSON: reward name -> what it logged, by column; null unless a reward did
        ("reward", pa.float64()),
        ("accuracy", pa.float64()),
        ("advantage", pa.float64()),
        ("token_advantages", pa.list_(pa.float64())),  # null unless tokens of a rollout differ
        ("teacher_logprobs", pa.list_(pa.float32())),  # null without a teacher, NaN where none speaks of a token
        ("steps", pa.string()),  # JSON: reward name -> [[index of the last token, score], ...]; null without steps
        ("disposition", pa.string()),
        ("error", pa.string()),
        (SALT, pa.binary(SALT_BYTES)),  # of the row's commitments; null when it was erased
        (COMMITMENTS, pa.binary()),  # of a row whose text and salt were erased; else null
        (LEAF, pa.binary(32)),  # the row's leaf in the tree of the step
    ]
)

_OF_PROMPT = ("text", "messages", "tags", "answer", "begun")  # what prompt_json holds of a prompt
_LISTS = ("tokens", "mask", "logprobs")
_OF_ROLLOUT = ("text", *_LISTS, "version", "finish")  # columns that are a rollout's own fields
_BY_TOKEN = ("token_advantages", "teacher_logprobs")  # columns of numbers, one a token
_OF_GROUP = {  # columns that are what fields of a group have for one of its rollouts
    "reward": "rewards",
    "accuracy": "accuracy",
    "advantage": "advantages",
    "token_advantages": "token_advantages",
    "teacher_logprobs": "teacher_logprobs",
}


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of rollouts on disk: its SHA-256, and the leaf of every row."""

    path: Path
    sha256: str
    leaves: tuple[bytes, ...]
    versions: tuple[int, ...]  # of the weights that sampled them, the oldest and the newest


def write_groups(path: Path, groups: Sequence[Group], step: int) -> Shard:
    """Write the rollouts of `groups` in one atomic file. A group without rollouts leaves one row that says why."""
    rows: list[dict[str, Any]] = []
    for group in groups:
        prompt = group.prompt
        shared = {
            "step": step,
            "ticket": group.ticket,
            "prompt_id": prompt.id,
            "prompt": prompt.question,
            "prompt_json": _json({name: getattr(prompt, name) for name in _OF_PROMPT}),
            "prompt_tokens": prompt.tokens,
            "answer": None if prompt.answer is None else str(prompt.answer),
            "disposition": group.disposition,
            "error": group.error,
        }
        if not group.rollouts:
            rows.append(shared | {"member": -1})
        for member, rollout in enumerate(group.rollouts):
            row = shared | {"member": member} | {name: getattr(rollout, name) for name in _OF_ROLLOUT}
            row |= {column: values[member] for column, field in _OF_GROUP.items() if (values := getattr(group, field))}
            # As arrays, which pyarrow takes as a whole: of another sequence it asks for every item.
            row |= {name: np.asarray(row[name]) for name in (*_LISTS, *_BY_TOKEN) if name in row}
            row["scores"] = _json({name: values[member] for name, values in group.scores.items()})
            if group.labels:
                row["labels"] = _json({name: values[member] for name, values in group.labels.items()})
            if group.extra:
                row["extra"] = _json({name: values[member] for name, values in group.extra.items()})
            if rollout.versions:
                row["versions"] = _json(rollout.versions)
            if rollout.turns:
                row["turns"] = _json([dataclasses.asdict(turn) for turn in rollout.turns])
            if group.steps:
                steps = {name: [[one.end, one.score] for one in of[member]] for name, of in group.steps.items()}
                row["steps"] = _json(steps)
            rows.append(row)
    salts = os.urandom(SALT_BYTES * len(rows))
    for index, row in enumerate(rows):
        row[SALT] = salts[SALT_BYTES * index :][:SALT_BYTES]
    mixed = any("versions" in row for row in rows)
    schema = SCHEMA if mixed else SCHEMA.remove(SCHEMA.get_field_index("versions"))
    table = pa.Table.from_pylist(rows, schema)
    of_rows = leaves(table)
    table = table.set_column(table.num_columns - 1, SCHEMA.field(LEAF), pa.array(of_rows, pa.binary(32)))
    versions = [version for group in groups for rollout in group.rollouts for version, _, _ in rollout.spans]
    between = (min(versions), max(versions)) if versions else ()
    content = to_bytes(table)
    write_bytes(path, content)
    return Shard(path, hashlib.sha256(content).hexdigest(), tuple(of_rows), between)


def to_bytes(table: pa.Table) -> bytes:
    """A table of rollouts as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def shards_after(log: Path, step: int) -> list[Path]:
    """The files of rollouts in a directory that are of later steps."""
    numbered = ((file, re.match(r"(?:step|eval)-(\d+)", file.name)) for file in sorted(log.glob("*.parquet")))
    return [file for file, number in numbered if number and int(number[1]) > step]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that `write_groups` wrote, in the order of tickets and members. Raises `UserError` for a file
    that is not whole.
    """
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return sorted(rows, key=lambda row: (row["ticket"], row["member"]))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path} cannot be read as recorded rollouts: {one_line(error)}") from None


def read_groups(path: Path) -> list[Group]:
    """The groups of a file that `write_groups` wrote, in ticket order. Raises `UserError` where texts were erased."""
    rows = pq.read_table(path).to_pylist()
    if (erased := next((row for row in rows if row.get(COMMITMENTS) is not None), None)) is not None:
        raise UserError(f"the text of ticket {erased['ticket']} in {path} was erased, so its group is not whole")
    return [group_of(of) for _, of in sorted(by_ticket(rows).items())]


def by_ticket(rows: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The rows of each group."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["ticket"], []).append(row)
    return found


def group_of(rows: list[dict[str, Any]]) -> Group:
    """The group that has these rows."""
    rows = sorted(rows, key=lambda row: row["member"])
    first, members = rows[0], [row for row in rows if row["member"] >= 0]
    prompt = Prompt(id=first["prompt_id"], tokens=tuple(first["prompt_tokens"]), **json.loads(first["prompt_json"]))
    if prompt.messages is not None:
        prompt = dataclasses.replace(prompt, messages=tuple(prompt.messages))
    scores = [orjson.loads(row["scores"]) for row in members]
    return Group(
        ticket=first["ticket"],
        prompt=prompt,
        rollouts=tuple(_rollout(row) for row in members),
        scores={name: tuple(math.nan if s[name] is None else s[name] for s in scores) for name in (scores or [{}])[0]},
        labels=_by_reward(members, "labels"),
        extra=_by_reward(members, "extra"),
        rewards=_column(members, "reward"),
        accuracy=_column(members, "accuracy"),
        advantages=_column(members, "advantage"),
        **{name: tuple(tuple(of) for row in members if (of := row.get(name)) is not None) for name in _BY_TOKEN},
        steps=_steps(members),
        disposition=first["disposition"],
        error=first["error"],
    )


def _rollout(row: dict[str, Any]) -> Rollout:
    values = {name: row[name] for name in _OF_ROLLOUT} | {name: tuple(row[name]) for name in _LISTS}
    stored = json.loads(row["turns"]) if row.get("turns") is not None else []
    spans = tuple((start, version) for start, version in json.loads(row.get("versions") or "[]"))
    return Rollout(**values, turns=tuple(_turn(**turn) for turn in stored), versions=spans)


def _turn(observation: dict[str, Any], **turn: Any) -> Turn:
    calls = tuple(ToolCall(**{**call, "malformed": _span(call.get("malformed"))}) for call in observation["calls"])
    return Turn(**turn, observation=Observation(tuple(observation["messages"]), calls))


def _span(stored: list[int] | None) -> tuple[int, int] | None:
    return None if stored is None else (stored[0], stored[1])


def _by_reward(rows: list[dict[str, Any]], column: str) -> dict[str, tuple[Any, ...]]:
    stored = [orjson.loads(row[column]) for row in rows if row.get(column) is not None]
    return {name: tuple(of[name] for of in stored) for name in (stored or [{}])[0]}


def _steps(rows: list[dict[str, Any]]) -> dict[str, tuple[tuple[Step, ...], ...]]:
    stored = [orjson.loads(row["steps"]) for row in rows if row.get("steps") is not None]
    names = stored[0] if stored else {}
    return {name: tuple(tuple(Step(end, score) for end, score in of[name]) for of in stored) for name in names}


def _column(rows: list[dict[str, Any]], name: str) -> tuple[float, ...]:
    values = [row[name] for row in rows]
    return () if all(value is None for value in values) else tuple(math.nan if v is None else v for v in values)


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, orjson.JSONEncodeError):  # integers of more than 64 bits
        return json.dumps(value, default=str)
