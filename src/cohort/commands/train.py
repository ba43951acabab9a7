"""`cohort train`: what a finished run comes to. Its words are said while it runs."""

from __future__ import annotations

import contextlib
from typing import Any

from cohort.commands.place import where_trained
from cohort.recipe import Recipe
from cohort.train.run import Run, train


def train_recipe(recipe: Recipe, resume: bool) -> Run:
    """Run it, or go on with a run, whose inputs are then found from where it was begun."""
    run = recipe.file.parent if resume and recipe.file is not None else None
    with contextlib.nullcontext() if run is None else where_trained(run):
        return train(recipe, resume=resume)


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
    }
