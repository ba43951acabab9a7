"""What is said of a run after it has ended, and what is erased of it: entries that are appended to its chain."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.record.chain import CHAIN, Chain
from cohort.record.files import write_bytes
from cohort.record.leaves import COMMITMENTS, SALT, SENSITIVE, commitments
from cohort.record.rollouts import to_bytes
from cohort.types import UnreadableError, UserError

KINDS = ("incident", "change", "monitoring", "evaluation")
ATTACHED = "log/attached"


def amend(chain: Chain, kind: str, text: str, file: Path | None) -> dict[str, Any]:
    """Append what happened to a run: a text, or a file, which is copied into the run, or both."""
    _refuse_empty(chain)
    if kind not in KINDS:
        raise UnreadableError(f"--kind {kind} is none of {', '.join(KINDS)}")
    if not text and file is None:
        raise UnreadableError("there is nothing to append: give --text or --file")
    shards = []
    if file is not None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UnreadableError(f"{file} cannot be read: {error.strerror or error}") from None
        name = f"{ATTACHED}/{chain.size:06d}-{re.sub(r'[^A-Za-z0-9._-]', '_', file.name)}"
        (chain.run / ATTACHED).mkdir(parents=True, exist_ok=True)
        write_bytes(chain.run / name, content)
        shards = [{"path": name, "sha256": hashlib.sha256(content).hexdigest(), "rows": None}]
    metrics = {"amend": kind, "text": text}
    head = chain.append("incident" if kind == "incident" else "amend", shards=shards, metrics=metrics)
    return {"entry": chain.size - 1, "head": head, "kind": kind, "signed": chain.key is not None}


def redact(
    chain: Chain, files: Sequence[Path], matches: Callable[[Mapping[str, Any]], bool], reason: str
) -> dict[str, Any]:
    """Erase the sensitive fields and the salts of the rows of rollouts that match. The commitments stay, so that the
    tree over the rows is what it was. Raises `UserError` where no row matches.
    """
    _refuse_empty(chain)
    rewritten: dict[Path, tuple[bytes, list[int], int]] = {}
    for file in files:
        table = pq.read_table(file)
        rows = table.to_pylist()
        numbers = [at for at, row in enumerate(rows) if row[SALT] is not None and matches(row)]
        for number in numbers:
            rows[number] |= {COMMITMENTS: commitments(rows[number])} | dict.fromkeys((SALT, *SENSITIVE))
        if numbers:
            rewritten[file] = (to_bytes(pa.Table.from_pylist(rows, table.schema)), numbers, len(rows))
    if not rewritten:
        raise UserError("no row matches that still has its text, so nothing is erased")
    shards = [
        {"path": chain.relative(file), "sha256": hashlib.sha256(content).hexdigest(), "rows": rows}
        for file, (content, _, rows) in rewritten.items()
    ]
    erased = {chain.relative(file): numbers for file, (_, numbers, _) in rewritten.items()}
    head = chain.append("amend", shards=shards, metrics={"amend": "redaction", "text": reason, "rows": erased})
    for file, (content, _, _) in rewritten.items():
        write_bytes(file, content)
    return {"entry": chain.size - 1, "head": head, "erased": erased, "signed": chain.key is not None}


def _refuse_empty(chain: Chain) -> None:
    if not chain.size:
        raise UnreadableError(f"{chain.run / CHAIN} holds no entry: {chain.run} is no run with a record")
