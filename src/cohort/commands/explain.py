"""`cohort explain`: which GRPO exactly."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from cohort.algorithms import explain, objectives
from cohort.algorithms.objectives import Objective
from cohort.recipe import Recipe, Stage
from cohort.train.plan import batch_arithmetic
from cohort.train.setup import build_objective
from cohort.types import UserError

__all__ = ["explain_recipe"]


def explain_recipe(recipe: Recipe, latex: bool, diff: str | None) -> None:
    """Print the objective of every GRPO stage."""
    stages = [stage for stage in recipe.stages if stage.kind == "grpo"]
    if not stages:
        raise UserError("this recipe has supervised stages only: minus the mean log-prob of the completion tokens")
    console = Console(highlight=False, soft_wrap=True)
    for stage in stages:
        objective = build_objective(stage)
        if latex:
            print(_equation(stage, objective, latex=True))
            continue
        if len(recipe.stages) > 1:
            console.print(f"[bold]stage {escape(stage.name)}[/]")
        console.print(f"[bold]{escape(explain.one_line(objective))}[/]\n")
        console.print(escape(_equation(stage, objective, latex=False)) + "\n")
        for choice, sentence in explain.sentences(objective):
            console.print(f"  [dim]{escape(choice)}[/]  {escape(sentence)}")
        console.print(f"\n  [dim]batch[/]  {escape(batch_arithmetic(stage))}")
        console.print(f"  [dim]hash[/]   {objective.hash}")
        if diff is not None:
            _difference(console, objective, diff)


def _equation(stage: Stage, objective: Objective, latex: bool) -> str:
    r, o = stage.rollout, stage.optimizer
    return explain.equation(
        objective,
        prompts=r.prompts_per_step,
        group_size=r.group_size,
        max_tokens=r.max_tokens,
        updates=o.updates_per_batch * o.epochs,
        latex=latex,
    )


def _difference(console: Console, objective: Objective, name: str) -> None:
    try:
        other = objectives.preset(name)
    except ValueError as error:
        raise UserError(f"--diff: {error}") from None
    rows = explain.difference(objective, other)
    console.print(f"\n[bold]against {name}[/] {'' if rows else '- the same objective'}")
    for field, mine, theirs, consequence in rows:
        console.print(
            f"  [dim]{field}[/]  {escape(str(mine))} here, {escape(str(theirs))} in {name}: {escape(consequence)}"
        )
