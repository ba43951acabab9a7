"""What became of the rollouts of a stage, counted from its Parquet files, one file in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

# What a token was spent on. A rollout is the first of these that it fits.
OUTCOMES = ("failed", "dropped", "truncated", "signal_free", "trained")
_OF_DISPOSITION = {"error": "failed", "stale": "dropped", "quarantined": "dropped", "zero_std": "signal_free"}
_COLUMNS = ("ticket", "member", "disposition", "finish", "advantage", "mask", "prompt_tokens")


@dataclass
class Tally:
    """Sums over all rollouts. `tokens` are those that the policy wrote. A prompt's tokens count once a group."""

    groups: Counter[str] = field(default_factory=Counter)  # by disposition
    rollouts: Counter[str] = field(default_factory=Counter)  # by outcome
    tokens: Counter[str] = field(default_factory=Counter)  # by outcome
    finishes: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    learnt_prompt_tokens: int = 0  # of groups that were trained on
    read_tokens: int = 0  # that whoever reads each rollout behind its prompt goes through
    unread: list[str] = field(default_factory=list)  # files that are damaged


def tally(files: Sequence[Path]) -> Tally | None:
    """The sums over these files; None where there are none."""
    found = Tally()
    for file in files:
        try:
            _add(found, pq.read_table(file, columns=list(_COLUMNS)))
        except (pa.ArrowException, OSError, KeyError):
            found.unread.append(file.name)
    return found if files else None


def _add(found: Tally, table: pa.Table) -> None:
    disposition = table["disposition"].to_pylist()
    member, finish = table["member"].to_pylist(), table["finish"].to_pylist()
    signal = pc.fill_null(pc.not_equal(table["advantage"], 0.0), False).to_pylist()
    written = true_in(table["mask"]).tolist()
    prompts = pc.fill_null(pc.list_value_length(table["prompt_tokens"]), 0).to_pylist()
    for row, became in enumerate(disposition):
        if member[row] <= 0:  # the first of a group, or the one row of a group without rollouts
            found.groups[became or "unknown"] += 1
            found.prompt_tokens += prompts[row]
            found.learnt_prompt_tokens += prompts[row] if became == "trained" else 0
        if member[row] < 0:
            continue
        outcome = _OF_DISPOSITION.get(became or "", "")
        if not outcome or outcome == "signal_free":
            cut = finish[row] == "length" and (became == "truncated" or not signal[row])
            outcome = "truncated" if cut or became == "truncated" else "trained" if signal[row] else "signal_free"
        found.rollouts[outcome] += 1
        found.tokens[outcome] += written[row]
        found.read_tokens += prompts[row] + written[row]
        found.finishes[finish[row] or "unknown"] += 1


def true_in(lists: pa.ChunkedArray) -> NDArray[np.int64]:
    """How many values of each list are true."""
    counts = [np.zeros(0, np.int64)]
    for chunk in lists.chunks:
        values = np.asarray(pc.fill_null(chunk.flatten(), False).to_numpy(zero_copy_only=False), bool)
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
        sums = np.concatenate([[0], np.cumsum(values)])
        counts.append(np.diff(sums[np.concatenate([[0], np.cumsum(lengths)])]))
    return np.concatenate(counts)
