"""The README of a trained model."""

from __future__ import annotations

from cohort.recipe import Recipe, to_toml
from cohort.train.stage_run import StageRun

__all__ = ["model_card"]


def model_card(recipe: Recipe, run: StageRun) -> str:
    """What the model is, what it was measured to do, and the recipe that made it."""
    rows = []
    for label, step in (("before", 0), ("after", run.stage.run.steps)):
        m = run.evaluation_at(step)
        if m:
            cells = [
                f"{m[key]:.1%} [{m[key + '_low']:.1%}, {m[key + '_high']:.1%}]" if key in m else "-"
                for key in ("eval/greedy", "eval/pass@1")
            ]
            rows.append(f"| {label} | {cells[0]} | {cells[1]} |")
    table = ["| | greedy | sampled |", "|---|---|---|", *rows] if rows else ["No held-out evaluation was made."]
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            f"Trained with Cohort, stage `{run.stage.name}` ({run.stage.kind}), seed {recipe.seed}, "
            f"{run.stage.run.steps} steps.",
            "",
            "Held-out accuracy with 95% intervals:",
            "",
            *table,
            "",
            "```toml",
            to_toml(recipe).strip(),
            "```",
            "",
        ]
    )
