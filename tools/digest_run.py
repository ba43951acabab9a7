"""Digests of a run: `python tools/digest_run.py RUN`. Two runs of one recipe that print the same have the same result.

A line for the final weights of every stage, and one for its metrics: SHA-256 of their lines as JSON with sorted keys,
without what differs from one moment to the next (times, rates, memory).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path


def is_of_the_moment(name: str) -> bool:
    """Whether a metric depends on how fast the machine was and what else it held, and not on the computation."""
    return name.startswith(("time/", "memory/")) or "per_s" in name or "seconds" in name or name == "time"


def stages(run: Path) -> Iterator[tuple[str, Path]]:
    """(name, directory) of every stage in the order of training; the last one lives in the run's own directory."""
    earlier = [directory for directory in (run / "stages").glob("*") if (directory / "metrics.jsonl").exists()]
    for directory in sorted(earlier, key=lambda directory: (directory / "metrics.jsonl").stat().st_mtime):
        yield directory.name, directory
    yield "last stage", run


def metrics_text(file: Path) -> str:
    """The metrics as they are digested: one JSON object a step, sorted keys, nothing of the moment."""
    lines = (json.loads(line) for line in file.read_text("utf-8").splitlines())
    kept = ({key: line[key] for key in sorted(line) if not is_of_the_moment(key)} for line in lines)
    return "\n".join(json.dumps(line) for line in kept)


def main(run: Path) -> None:
    """Print the digests of all stages."""
    for name, directory in stages(run):
        for file in sorted((directory / "final").glob("*.safetensors")):
            print(name, file.name, hashlib.sha256(file.read_bytes()).hexdigest())
        text = metrics_text(directory / "metrics.jsonl")
        print(name, "metrics", hashlib.sha256(text.encode()).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
