"""The README of a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cohort.recipe import Recipe
from cohort.settings import Stage
from cohort.views.console import with_interval

NO_NUMBER = "-"


def model_card(
    recipe: Recipe,
    stage: Stage,
    evaluations: Sequence[tuple[str, Mapping[str, Any]]],
    gate: Mapping[str, Any],
    recipe_text: str,
) -> str:
    """What the model is, what it was measured to do (a label and `eval/` metrics each), what the gate found (as in
    `gate.json`), and the recipe that made it.
    """
    rows = []
    for label, m in evaluations:
        greedy, sampled = (with_interval(m, key) or NO_NUMBER for key in ("eval/greedy", "eval/pass@1"))
        rows.append(f"| {label} | {greedy} | {sampled} |")
    table = ["| | greedy | sampled |", "|---|---|---|", *rows] if rows else ["No held-out evaluation was made."]
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            f"Trained with Cohort, stage `{stage.name}` ({stage.kind}), seed {recipe.seed}, {stage.run.steps} steps.",
            "",
            "Held-out accuracy with 95% intervals:",
            "",
            *table,
            "",
            *_gate(gate),
            "```toml",
            recipe_text.strip(),
            "```",
            "",
        ]
    )


def _gate(gate: Mapping[str, Any]) -> list[str]:
    """What each reward paid before training, for gold answers and for texts that know nothing of the question."""
    rewards = gate.get("rewards", [])
    kinds = list(dict.fromkeys(kind for found in rewards for kind in found["rows"]))
    if not kinds:
        return []
    lines = [
        f"What rewards paid before training, on average over {gate['prompts']} prompts (verdict: {gate['verdict']}):",
        "",
        "| | " + " | ".join(found["name"] for found in rewards) + " |",
        "|---|" + "---|" * len(rewards),
    ]
    for kind in kinds:
        means = [found["rows"].get(kind, {}).get("mean") for found in rewards]
        lines.append(f"| {kind} | " + " | ".join(NO_NUMBER if m is None else f"{m:.2f}" for m in means) + " |")
    return [*lines, ""]
