"""`cohort explain`: the exact objective of a recipe, in words and as an equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cohort.algorithms import explain, objectives
from cohort.algorithms.equation import Shape
from cohort.algorithms.objectives import Objective
from cohort.algorithms.unified import Row, rows
from cohort.commands.unified import VIEWS
from cohort.preflight.objective import (
    asks_reference,
    equation_of,
    hash_of,
    reference_of,
    settled_objective,
    supervised_steps,
)
from cohort.preflight.parts import accuracy_name
from cohort.recipe import Recipe
from cohort.recipe.resolve import flatten
from cohort.settings import GROUPS, Stage
from cohort.settings.training import LORA_REASON
from cohort.settings.words import plain
from cohort.train.unread import refuse_unread
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console, escape
from cohort.views.plan import about, batch_arithmetic, groups_line, reward_line, rewards_line, teacher_line
from cohort.wording import counted


@dataclass(frozen=True, slots=True)
class Explained:
    """The objective of one stage. `choices` and `around` are sentences, by choice and by what they are about;
    `unified` are its row and those of other methods in DeepSeekMath's view: data, reward, gradient coefficient.
    `differences` from the preset `against` have a field, its value here and there, and the consequence.
    """

    stage: str
    objective: str
    equation: str
    latex: str
    choices: dict[str, str]
    around: dict[str, str]
    hash: str
    against: str | None
    differences: list[dict[str, Any]]
    unified: list[dict[str, str]]


def explain_recipe(recipe: Recipe, against: str | None, other: Recipe | None = None) -> list[Explained]:
    """The objective of every stage that learns from groups, compared with a preset where one is named, or with `other`,
    the recipe that is called `against`; else also of stages that keep samples or learn from pairs.
    """
    refuse_unread(recipe)
    stages = [stage for stage in recipe.stages if stage.kind in GROUPS or (stage.kind in VIEWS and against is None)]
    if not stages:
        raise UserError(
            "this recipe has no grpo stage: supervised stages minimise minus the mean log-prob of the completion "
            "tokens, reward_model stages -log sigmoid(chosen - rejected)"
        )
    return [
        _viewed(stage) if stage.kind in VIEWS else _explained(stage, settled_objective(stage), against, other)
        for stage in stages
    ]


def _viewed(stage: Stage) -> Explained:
    """What a stage of another kind than GRPO does, in the terms of the unified view."""
    view = VIEWS[stage.kind](stage)
    around = {"data": view.data, "reward": view.reward, "coefficient": view.coefficient}
    if stage.kind == "dpo":
        around["reference"] = reference_of(stage)
    around |= {} if stage.kind == "reject" else {"updates": _updates(stage)}
    return Explained(stage.name, view.line, view.equation, view.latex, {}, around, "", None, [], [])


def _explained(stage: Stage, objective: Objective, against: str | None, other: Recipe | None) -> Explained:
    around = _around(stage, objective)
    if against is None:
        rows = []
    elif other is None:
        rows = _from_preset(stage, objective, against)
    else:
        rows = stage_differences(stage, _same_stage(other, stage.name, against))
    return Explained(
        stage=stage.name,
        objective=explain.one_line(objective, stage.rollout.draws),
        equation=equation_of(stage, objective, latex=False),
        latex=equation_of(stage, objective, latex=True),
        choices={
            choice: NOTHING if _once(stage) and choice.partition("=")[0] in ACT_BETWEEN_UPDATES else sentence
            for choice, sentence in explain.sentences(objective)
            if stage.rollout.draws or not choice.startswith("surrogate=")  # of which the line of groups says more
        },
        around=around,
        hash=around["hash"],
        against=against,
        unified=[row._asdict() for row in _unified(stage, objective)],
        differences=[dict(zip(("field", "here", "there", "consequence"), row)) for row in rows],
    )


def show(console: Console, found: dict[str, list[Explained]]) -> None:
    """Every objective: a line, then what differs where it is compared; else the equation, what each choice does, and
    what else decides the gradient.
    """
    for one in found["stages"]:
        if len(found["stages"]) > 1:
            console.say(f"[bold]stage {escape(one.stage)}[/]")
        console.say(f"[bold]{escape(one.objective)}[/]\n", fold=False)
        if one.against is not None:
            _show_difference(console, one)
            continue
        console.say(escape(one.equation) + "\n", fold=False)
        console.lines(one.choices, whole=True)
        console.say()
        console.lines(one.around, whole=True)
        if not one.unified:  # a stage of another kind says its row itself
            continue
        console.say("\n[bold]in one view[/]  how methods move the log-prob of a token (2402.03300, section 5.2)")
        cells = [[escape(row[key]) for key in ("name", "data", "reward", "coefficient")] for row in one.unified]
        console.table(["", "data", "reward", "gradient coefficient"], cells, left=4)
        console.say("  [dim]cohort compare RECIPE --methods grpo,ppo,... trains them from the same start[/]")


def _unified(stage: Stage, objective: Objective) -> list[Row]:
    r, o = stage.rollout, stage.optimizer
    updates = o.updates_per_batch * o.epochs
    bypass, drops = stage.objective.bypasses, objective.zero_std != "zero"
    shape = Shape(r.prompts_per_step, r.group_size, r.max_tokens, updates, bypass, o.updates_per_batch, drops)
    shape = shape._replace(groups=r.groups)
    models = ("reward_model", "process_model", "judge")
    paid = [f"{reward_line(one)} ({'model' if one.use in models else 'rule'})" for one in stage.reward if one.weight]
    return rows(objective, shape, " + ".join(paid))


def _show_difference(console: Console, one: Explained) -> None:
    console.say(escape(f"against {one.against}{'' if one.differences else ' - the same objective'}"))
    lines = {}
    for d in one.differences:
        why = f": {d['consequence']}" if d["consequence"] else ""
        lines[str(d["field"])] = f"{_of(d['here'])} here, {_of(d['there'])} in {one.against}{why}"
    console.lines(lines, whole=True)
    console.say("\n  [dim]This is what decides the gradient; every other value: cohort config diff A B[/]")


def _of(value: Any) -> Any:
    return "nothing" if value is None else value


def show_latex(console: Console, found: dict[str, list[Explained]]) -> None:
    """The equations alone."""
    for one in found["stages"]:
        console.plain(one.latex + "\n")


def _around(stage: Stage, objective: Objective) -> dict[str, str]:
    """The settings beside the objective that decide the gradient, by name, and the hash of objective and settings."""
    r = stage.rollout
    lines = {
        "rewards": rewards_line(stage),
        "sampling": f"temperature {r.temperature:g}, which also divides the logits of every log-prob; at most "
        f"{counted(r.max_tokens, 'token')}; rollouts at most {counted(r.max_staleness, 'training step')} old",
        **groups_line(stage),
        "batch": batch_arithmetic(stage),
    }
    if stage.objective.bypasses:
        lines["bypass"] = "the ratio is taken against the sampler's own log-probs, not against those of the old policy"
    if stage.objective.pass_at_k is not None:
        lines["pass@k"] = f"advantages are those of pass@{stage.objective.pass_at_k} (2508.10751), in place of A above"
    if stage.objective.malformed_penalty:
        lines["malformed"] = (
            f"A is less by {stage.objective.malformed_penalty:g} at every token of a call that no tool takes, and of a "
            "thinking or answer tag without its pair"
        )
    if names := supervised_steps(stage.reward):
        divided = "minus their mean" if objective.scale == "none" else "normalised"
        outcomes = any(reward.weight and reward.name not in names for reward in stage.reward)
        lines["process"] = (
            f"{', '.join(names)}: the scores of all steps of a group are {divided} in one pool, and a token's A is "
            "their sum over the steps that end at it or later (2402.03300, 4.1.3), "
            f"{'added to' if outcomes else 'in place of'} A above"
        )
    if objective.zero_std == "resample":
        lines["resample"] = (
            f"groups whose {accuracy_name(stage)} is constant are replaced, until "
            f"{r.resample_cap * r.prompts_per_step} prompts are sampled for the step; then what there is is trained"
        )
    lines |= teacher_line(stage)
    if asks_reference(stage, objective):
        lines["reference"] = reference_of(stage)
    lines["updates"] = _updates(stage)
    lines |= about(stage, stage.suite)
    lines["hash"] = hash_of(stage, objective)
    return lines


def _updates(stage: Stage) -> str:
    o, because = stage.optimizer, f"; {LORA_REASON}" if stage.policy.lora is not None else ""
    return (
        f"AdamW, rate {o.learning_rate:g} ({o.schedule}, {counted(o.warmup_steps, 'warm-up step')}{because}), betas "
        f"{o.betas[0]:g} and {o.betas[1]:g}, weight decay {o.weight_decay:g}, gradient norm at most {o.gradient_clip:g}"
    )


Difference = tuple[str, Any, Any, str]  # a field, its value here and there, and what going there changes

# At a ratio of 1 none of these does anything.
ACT_BETWEEN_UPDATES = ("clip_low", "clip_high", "ratio_max", "dual_clip", "mask", "mask_low", "mask_high")
NOTHING = "Nothing in this recipe: one update a batch, so the ratio is 1."


def _from_preset(stage: Stage, objective: Objective, name: str) -> list[Difference]:
    try:
        other = objectives.preset(name)
    except ValueError as error:
        raise UnreadableError(f"--diff: {error}; a path of a recipe or of a run does, too") from None
    bypass = objectives.PRESETS[name].bypass or other.old == "sampler"
    theirs: dict[str, Any] = {"bypass": bypass, "pass_at_k": None, "malformed_penalty": 0.0}
    return _differences(objective, other, _beside(stage), theirs, once=_once(stage))


def objective_differences(stage: Stage, other: Stage | str | None) -> list[Difference]:
    """Where the objective of a GRPO stage differs from that of another one, or from a preset (None: there is none)."""
    if other is None:
        return []
    if isinstance(other, str):
        rows = _from_preset(stage, settled_objective(stage), other)
    else:
        both = _once(stage) and _once(other)
        rows = _differences(settled_objective(stage), settled_objective(other), _beside(stage), _beside(other), both)
    return [(f"objective.{field}", here, there, why) for field, here, there, why in rows]


def stage_differences(stage: Stage, other: Stage) -> list[Difference]:
    """The objectives of two GRPO stages, and every setting beside them that decides the gradient."""
    objective = settled_objective(stage)
    both = _once(stage) and _once(other)
    rows = _differences(objective, settled_objective(other), _beside(stage), _beside(other), once=both)
    order, their_order = ([reward.name for reward in one.reward] for one in (stage, other))
    if order != their_order and sorted(order) == sorted(their_order):
        rows.append(("rewards", order, their_order, "The first says what is right, and which groups have signal."))
    mine, theirs = flatten(stage), flatten(other)
    tables = (
        "rollout.",
        "optimizer.",
        "reference.",
        "critic.",
        "reward.",
        "policy.lora",
        "distillation.",
        "self_distillation.",
        "task.template",
        "task.system",
    )
    parts, their_parts = _parts(stage), _parts(other)
    lone = sorted(parts.keys() ^ their_parts.keys())
    rows += [(name, parts.get(name, "none"), their_parts.get(name, "none"), "") for name in lone]
    for path in dict.fromkeys([*mine, *theirs]):
        here, there = mine.get(path), theirs.get(path)
        if here != there and path.startswith(tables) and not any(f"{path}.".startswith(f"{name}.") for name in lone):
            rows.append((path, plain(here), plain(there), ""))
    return rows


def _parts(stage: Stage) -> dict[str, str]:
    """What a recipe may have or not, by its path, in a line."""
    parts = {f"reward.{reward.name}": reward_line(reward) for reward in stage.reward}
    lora = stage.policy.lora
    return parts if lora is None else parts | {"policy.lora": f"rank {lora.rank}"}


def _differences(
    objective: Objective, other: Objective, mine: dict[str, Any], theirs: dict[str, Any], once: bool
) -> list[Difference]:
    """Where the objectives differ, and what is beside their fields. `once`: the ratio is always 1."""
    rows: list[Difference] = [
        (field, here, there, NOTHING) if once and field in ACT_BETWEEN_UPDATES else (field, here, there, consequence)
        for field, here, there, consequence in explain.difference(objective, other)
    ]
    said = {
        "bypass": "The ratio has another denominator.",
        "pass_at_k": "Advantages are those of a single right answer, or no longer.",
        "malformed_penalty": "Tokens of malformed calls and tags have another advantage.",
    }
    return rows + [(key, mine[key], theirs[key], said[key]) for key in said if mine[key] != theirs[key]]


def _beside(stage: Stage) -> dict[str, Any]:
    table = stage.objective
    return {"bypass": table.bypasses, "pass_at_k": table.pass_at_k, "malformed_penalty": table.malformed_penalty}


def _once(stage: Stage) -> bool:
    """Whether every batch has one update, from the very weights that the ratio is taken against."""
    against_old = not stage.objective.bypasses and stage.objective.value("old") == "recompute"
    return stage.optimizer.updates_per_batch * stage.optimizer.epochs == 1 and against_old


def _same_stage(recipe: Recipe, name: str, called: str) -> Stage:
    """The stage of a recipe to compare with one called `name`: that of this name, or its only GRPO stage."""
    stages = [stage for stage in recipe.stages if stage.kind in GROUPS]
    found = stages if len(stages) == 1 else [stage for stage in stages if stage.name == name]
    if not found:
        raise UserError(
            f"--diff: {called} has no grpo stage {name!r}; it has {', '.join(s.name for s in stages) or 'none'}"
        )
    return found[0]
