"""Recorded runs, and ways to change what they have written."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cohort.record.rollouts import SCHEMA
from cohort.train.replay import checks


def rewrite(file: Path, change) -> None:
    """Change the rows of a file of rollouts: `change` gets the list of them, and may return another."""
    rows = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist(change(rows) or rows, SCHEMA), file, compression="zstd")


def rewrite_metrics(file: Path, step: int, **numbers) -> None:
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    changed = [line | numbers if line["step"] == step else line for line in lines]
    file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in changed))


def found(run: Path, level: int, status: str = "failed") -> dict[str, str]:
    """The checks of a status, `2 text` -> what it says."""
    return {f"{c.level} {c.name}": c.detail for c in checks(run, level) if c.status == status}


def holds(run: Path, level: int = 4) -> dict[str, str]:
    """The checks that hold, where nothing failed."""
    assert not found(run, level)
    return found(run, level, "holds")
