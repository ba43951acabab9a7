"""What the cards show of a run beside its facts: curves of its steps, and a few groups to read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from cohort.account.sources import StageFiles
from cohort.account.traces import rows_as_shown
from cohort.record.claims import Claim, gap
from cohort.record.rollouts import by_ticket, read_rows
from cohort.types import UserError

POINTS = 200  # of a curve
CURVES = ("reward/mean", "groups/signal", "completions/mean_tokens", "policy/entropy", "policy/kl", "loss", "grad_norm")
MEMBERS, LONGEST = 4, 1200  # of a group that is shown, and characters of a text


def series(files: StageFiles) -> dict[str, Any]:
    """The curves: means over so many steps at a time that none has more than 200 points; and every evaluation."""
    steps = files.steps
    width = max(1, math.ceil(len(steps) / POINTS))
    parts = [steps[i : i + width] for i in range(0, len(steps), width)]
    curves = {name: [_mean(part, name) for part in parts] for name in CURVES if any(name in line for line in steps)}
    return {"steps": [part[-1]["step"] for part in parts], **curves, "evaluations": files.evaluations}


def _mean(lines: list[dict[str, Any]], name: str) -> float | None:
    known = [line[name] for line in lines if isinstance(line.get(name), int | float)]
    return math.fsum(known) / len(known) if known else None


def sampled_groups(files: StageFiles) -> Claim:
    """A group with signal of the first, the middle and the last step: its best and its worst members."""
    shards = sorted((files.place / "log").glob("step-*.parquet"))
    if not shards:
        return gap("measured", "no rollouts were kept", "not_applicable")
    chosen = dict.fromkeys((shards[0], shards[len(shards) // 2], shards[-1]))
    traces = files.run.declared.traces
    groups = [group for shard in chosen if (group := _group(shard, traces)) is not None]
    if not groups:
        return gap("measured", "the rollouts cannot be read")
    why = None if traces in (None, "exposed") else f"reasoning is {traces} ([record] traces)"
    return files.claim("measured", groups, *(f"log/{shard.name}" for shard in chosen), reason=why)


def _group(shard: Path, traces: str | None) -> dict[str, Any] | None:
    """The group whose rewards differ most, of those the first; None where the file cannot be read."""
    try:
        rows = rows_as_shown(read_rows(shard), traces)
    except UserError:
        return None
    groups = by_ticket(row for row in rows if row["member"] >= 0 and row["reward"] is not None)
    if not groups:
        return None
    best = max(groups.values(), key=lambda group: _spread([row["reward"] for row in group]))
    order = sorted(best, key=lambda row: -row["reward"])
    half = MEMBERS // 2
    shown = order if len(order) <= MEMBERS else [*order[:half], *order[-half:]]
    first = best[0]
    return {
        "step": first["step"],
        "ticket": first["ticket"],
        "prompt": _cut(first["prompt"]),
        "answer": _cut(first["answer"]),
        "rewards": [row["reward"] for row in order],
        "members": [*map(_member, shown)],
    }


def _spread(rewards: list[float]) -> float:
    known = [r for r in rewards if not math.isnan(r)]
    return max(known) - min(known) if known else -1.0


def _member(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("member", "reward", "advantage", "finish", "disposition")}
    return kept | {"tokens": sum(filter(None, row["mask"] or ())), "text": _cut(_said(row))}


def _said(row: Mapping[str, Any]) -> str | None:
    """What the policy wrote, and between its turns what it was told."""
    if row["text"] is None or not row["turns"]:
        return row["text"]
    parts = []
    for turn in orjson.loads(row["turns"]):
        parts += [turn["text"], *(f" => {message.get('content')}" for message in turn["observation"]["messages"])]
    return "\n".join(map(str, parts))


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST else f"{text[:LONGEST]} ... [{len(text):,} characters]"
