"""metrics.jsonl: one object a step, flat keys, appended; and read back, as JSON objects of other files are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from cohort.record.files import write_bytes


class MetricsLog:
    """Appends one line a step and syncs it. `keep_until` drops what a resumed run will write again."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, metrics: Mapping[str, Any]) -> bytes:
        """Append one step, and return its line. Values that are not finite are written as null, as JSON has no word for
        them.
        """
        line = orjson.dumps({"step": step, **metrics})
        with self.path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return line

    def keep_until(self, step: int) -> set[int]:
        """Drop lines of later steps, and damaged ones. Returns the steps that are left."""
        if not self.path.exists():
            return set()
        kept = {line["step"]: raw for raw, line in _lines(self.path) if line["step"] <= step}
        write_bytes(self.path, b"".join(line + b"\n" for line in kept.values()))
        return set(kept)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file: objects with a step. One that was torn by a crash while it was written is left
    out, and written again by a resumed run, which says what else is missing.
    """
    return [line for _, line in _lines(path)]


def lines_after(path: Path, step: int) -> list[bytes]:
    """The lines of later steps, as they are written; of a file that is not there none."""
    return [raw for raw, line in _lines(path) if line["step"] > step] if path.exists() else []


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    return ((raw, line) for raw, line in objects(path.read_bytes().splitlines()) if type(line.get("step")) is int)


def objects(lines: Iterable[bytes]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines that are JSON objects, each with what it says; what a crash or damage left of others is passed over."""
    for raw in lines:
        with contextlib.suppress(orjson.JSONDecodeError):
            if isinstance(line := orjson.loads(raw), dict):
                yield raw, line


def object_in(file: Path, *keys: str) -> dict[str, Any]:
    """The JSON object in a file, or what lies under these keys of it; empty where there is no such object."""
    try:
        found = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def is_timing(key: str) -> bool:
    """Whether a metric depends on the clock or the machine, so that two identical runs may differ in it."""
    return key.startswith(("time/", "memory/", "energy/")) or key.endswith("_per_s")
