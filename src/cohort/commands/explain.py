"""`cohort explain`: the exact objective of a recipe, in words and as an equation."""

from __future__ import annotations

import hashlib
import json

from rich.console import Console
from rich.markup import escape

from cohort.algorithms import explain, objectives
from cohort.algorithms.objectives import Objective
from cohort.preflight.objective import settled_objective, supervised_steps
from cohort.preflight.parts import accuracy_name
from cohort.recipe import Recipe
from cohort.settings import Stage
from cohort.types import UserError
from cohort.views.plan import batch_arithmetic, rewards_line

__all__ = ["explain_recipe"]


def explain_recipe(recipe: Recipe, latex: bool, diff: str | None) -> None:
    """Print the objective of every GRPO stage."""
    stages = [stage for stage in recipe.stages if stage.kind == "grpo"]
    if not stages:
        raise UserError(
            "this recipe has no grpo stage: supervised stages minimise minus the mean log-prob of the completion "
            "tokens, reward_model stages -log sigmoid(chosen - rejected)"
        )
    console = Console(highlight=False, soft_wrap=True)
    for stage in stages:
        objective = settled_objective(stage)
        if latex:
            print(_equation(stage, objective, latex=True))
            continue
        if len(recipe.stages) > 1:
            console.print(f"[bold]stage {escape(stage.name)}[/]")
        console.print(f"[bold]{escape(explain.one_line(objective))}[/]\n")
        console.print(escape(_equation(stage, objective, latex=False)) + "\n")
        for choice, sentence in explain.sentences(objective):
            console.print(f"  [dim]{escape(choice)}[/]  {escape(sentence)}")
        console.print()
        for name, text in _around(stage, objective).items():
            console.print(f"  [dim]{name:<9}[/]  {escape(text)}")
        if diff is not None:
            _difference(console, stage, objective, diff)


def _equation(stage: Stage, objective: Objective, latex: bool) -> str:
    r, o = stage.rollout, stage.optimizer
    return explain.equation(
        objective,
        prompts=r.prompts_per_step,
        group_size=r.group_size,
        max_tokens=r.max_tokens,
        updates=o.updates_per_batch * o.epochs,
        bypass=stage.objective.bypasses,
        latex=latex,
    )


def _around(stage: Stage, objective: Objective) -> dict[str, str]:
    """The settings beside the objective that decide the gradient, by name, and the hash of objective and settings."""
    r, o = stage.rollout, stage.optimizer
    beside: dict[str, bool | int] = {}
    lines = {
        "rewards": rewards_line(stage),
        "sampling": f"temperature {r.temperature:g}, which also divides the logits of every log-prob; at most "
        f"{r.max_tokens} tokens; rollouts at most {r.max_staleness} updates old",
        "batch": batch_arithmetic(stage),
    }
    if stage.objective.bypasses:
        lines["bypass"] = "the ratio is taken against the sampler's own log-probs, not against those of the old policy"
        beside["bypass"] = True
    if stage.objective.pass_at_k is not None:
        lines["pass@k"] = f"advantages are those of pass@{stage.objective.pass_at_k} (2508.10751), in place of A above"
        beside["pass_at_k"] = stage.objective.pass_at_k
    if names := supervised_steps(stage.reward):
        divided = "minus their mean" if objective.scale == "none" else "normalised"
        outcomes = any(reward.weight and reward.name not in names for reward in stage.reward)
        lines["process"] = (
            f"{', '.join(names)}: the scores of all steps of a group are {divided} in one pool, and a token's A is "
            "their sum over the steps that end at it or later (2402.03300, 4.1.3), "
            f"{'added to' if outcomes else 'in place of'} A above"
        )
        beside["process_supervision"] = True
    if objective.zero_std == "resample":
        lines["resample"] = (
            f"groups whose {accuracy_name(stage)} is constant are replaced, until "
            f"{r.resample_cap * r.prompts_per_step} prompts are sampled for the step; then what there is is trained"
        )
    if objective.needs_reference:
        lines["reference"] = _reference(stage)
    lines["updates"] = (
        f"AdamW, rate {o.learning_rate:g} ({o.schedule}, {o.warmup_steps} warm-up steps), betas {o.betas[0]:g} and "
        f"{o.betas[1]:g}, weight decay {o.weight_decay:g}, gradient norm at most {o.gradient_clip:g}"
    )
    # A plain objective keeps its own hash; what a recipe adds to it is hashed along.
    whole = json.dumps({"objective": objective.hash, **beside}, sort_keys=True)
    lines["hash"] = hashlib.sha256(whole.encode()).hexdigest() if beside else objective.hash
    return lines


def _reference(stage: Stage) -> str:
    settings = stage.reference
    if stage.policy.lora is not None:
        return "the base model, adapter off"
    if settings.update_every:
        how = "copied from" if settings.ema is None else f"{settings.ema:g} x itself + {1 - settings.ema:g} x"
        return f"the starting policy; every {settings.update_every} steps {how} the policy"
    return "the starting policy, never moved" if settings.ema is None else f"an average with {settings.ema:g} of itself"


def _difference(console: Console, stage: Stage, objective: Objective, name: str) -> None:
    try:
        other = objectives.preset(name)
    except ValueError as error:
        raise UserError(f"--diff: {error}") from None
    rows = explain.difference(objective, other)
    mine, theirs = stage.objective.bypasses, objectives.PRESETS[name].bypass
    if mine != theirs:
        rows.append(("bypass", mine, theirs, "The ratio has another denominator."))
    if stage.objective.pass_at_k is not None:
        rows.append(("pass_at_k", stage.objective.pass_at_k, None, "Advantages are those of a single right answer."))
    console.print(f"\n[bold]against {name}[/] {'' if rows else '- the same objective'}")
    for field, here, there, consequence in rows:
        console.print(
            f"  [dim]{field}[/]  {escape(str(here))} here, {escape(str(there))} in {name}: {escape(consequence)}"
        )
