"""`cohort train`: what a finished run comes to. Its words are said while it runs."""

from __future__ import annotations

from typing import Any

from cohort.record.claims import read_record
from cohort.train.run import Run
from cohort.views.cards.reading import gains_of


def outcome(run: Run) -> dict[str, Any]:
    """Where everything is, the numbers of the last step, and every evaluation of the last stage."""
    lines = run.metrics
    evaluations = [{k: v for k, v in line.items() if k == "step" or k.startswith("eval/")} for line in lines]
    return {
        "run": run.directory,
        "model": run.final,
        "steps": lines[-1]["step"] if lines else 0,
        "last": lines[-1] if lines else {},
        "evaluations": [found for found in evaluations if len(found) > 1],
        "stages": gains_of(read_record(run.directory) or {"run": {}}),
    }
