"""What follows when the detectors find something while a stage trains: what [monitor] says.

Every action is a function of what is on disk, and stands in the finding that it answers (`Finding.did`), so that a run
that was killed does the same again, and whoever recomputes it knows what was done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from cohort.monitor.detectors.finding import Finding
from cohort.monitor.watcher import detectors
from cohort.preflight.objective import settled_objective
from cohort.settings import ADAPTED, Monitor, Run, Stage
from cohort.train.checkpoint import checkpoints_in
from cohort.train.stage import Context, StageKind
from cohort.types import PausedError, UserError

NUMERICAL = ("not_finite", "gradient_spike")  # failures that a run may go back from
ALONE = ("quarantine", "adapt", "roll_back")  # actions that a recipe asks for by the name of a detector


def check_actions(stage: Stage, kind: StageKind[Any]) -> None:
    """Raise `UserError` for an action of [monitor] that cannot be taken in a stage like this one."""
    table, known = stage.monitor, {one.name: one for one in detectors()}
    if table.action in ALONE:
        raise UserError(f"monitor.action = '{table.action}' is not for all detectors: name them in monitor.actions")
    for name, one in known.items():
        action, key = table.action_of(name), f"monitor.actions: {name} = "
        if action in ALONE and action not in getattr(kind, "acts", ()):
            raise UserError(
                f"{key}'{action}' is nothing that stage '{stage.name}', of kind {stage.kind}, can do: put it into the "
                "[stage.monitor] of one that can"
            )
        if action == "quarantine" and not one.of_groups:
            able = ", ".join(other.name for other in known.values() if other.of_groups)
            raise UserError(
                f"{key}'quarantine': what it finds shows in no single group before it is learnt from; say pause, or "
                f"quarantine by one of {able}"
            )
        if action == "roll_back" and name not in NUMERICAL:
            raise UserError(
                f"{key}'roll_back' is for numerical failures alone ({' and '.join(NUMERICAL)}); say pause, and begin "
                "again with `cohort train RECIPE --from RUN@STEP`"
            )
        if (action == "adapt") != (name in table.adapt):
            raise UserError(
                f"{key}'adapt' does not say what is changed: add [monitor.adapt.{name}] with setting, factor and bound"
                if action == "adapt"
                else f"{key}'{action}' and [monitor.adapt.{name}] are two answers to one finding: keep one of them"
            )
    for name in table.adapt:
        _check_adapt(stage, name)
    if table.rescore and not stage.reward:
        raise UserError("monitor.rescore has no effect here: the stage scores nothing while it trains")
    if table.rolls_back and not stage.run.save_every:
        raise UserError("monitor.actions: roll_back needs a checkpoint to go back to: set run.save_every")
    if table.rolls_back and stage.optimizer.skip_budget:
        raise UserError("monitor.actions: roll_back does not go with optimizer.skip_budget: leave one of them out")
    if table.rolls_back and stage.reference.moves:
        raise UserError("monitor.actions: roll_back does not go with a reference that moves: leave [reference] out")


def _check_adapt(stage: Stage, name: str) -> None:
    how, key = stage.monitor.adapt[name], f"monitor.adapt.{name}"
    if how.setting != "learning_rate" and stage.kind != "grpo":
        raise UserError(f"{key}: a stage of kind {stage.kind} has no {how.setting} to change; it has learning_rate")
    if how.setting == "temperature" and stage.rollout.oldest:
        raise UserError(
            f"{key}: with rollout.max_staleness or rollout.replay completions of the old temperature are still to be "
            "learnt from, whose log-probs would be taken at the new one: set it to 0, or change another setting"
        )
    now = _value(stage, how.setting)
    if not now:
        raise UserError(f"{key}: {'.'.join(ADAPTED[how.setting])} is 0, and so it stays whatever multiplies it")
    if how.factor == 1 or (how.bound - now) * (how.factor - 1) <= 0:
        raise UserError(
            f"{key}: factor {how.factor:g} never leads from {now:g} to the bound {how.bound:g}: a factor below 1 needs "
            "a bound below, one above 1 a bound above"
        )


def adapted(stage: Stage, found: Iterable[Finding], step: int | None = None) -> Stage:
    """The stage with the settings that hold in a step: what findings of the steps before it have changed."""
    changed: dict[str, float] = {}
    for one in found:
        if step is None or one.step < step:
            changed |= one.did.get("adapt", {})
    for name, value in changed.items():
        table, key = ADAPTED[name]
        stage = stage.with_(**{table: {key: value}})
    return stage


def decided(context: Context, before: Sequence[Finding], one: Finding) -> Finding:
    """A finding with what is done about it, after the others."""
    stage, table = context.stage, context.stage.monitor
    action = table.action_of(one.detector)
    if action == "adapt":
        how = table.adapt[one.detector]
        now = _value(adapted(stage, before), how.setting)
        new = (max if how.factor < 1 else min)(now * how.factor, how.bound)
        return replace(one, did={"adapt": {how.setting: new} if new != now else {}})
    if action == "roll_back" and not any("roll_back" in other.did for other in before):
        since = one.numbers.get("since", one.step)
        steps = [step for step in kept_to_go_back(stage.run, checkpoints_in(context.checkpoints)) if step < since]
        return replace(one, did={"roll_back": steps[-1]}) if steps else one
    if action == "pause" and one.step < context.last:
        return replace(one, did={"pause": one.step})
    return one


def kept_to_go_back(run: Run, saved: Iterable[int]) -> list[int]:
    """Of the steps that were saved the last two that the recipe asks for: where a run goes back to must not depend on
    when it was stopped.
    """
    return [step for step in sorted(saved) if step % max(run.save_every, 1) == 0][-2:]


def act(context: Context, found: Sequence[Finding], step: int, go_back: Callable[[int], None] = lambda _: None) -> None:
    """Do about what was found in the step what the recipe says. Raises `PausedError` where it says pause, `UserError`
    where numbers are lost and there is no way back.
    """
    table, pausing = context.stage.monitor, list[str]()
    for one in (one for one in found if one.step == step):
        if table.action_of(one.detector) != "log" and _speaks(found, one, table):
            context.console.warn(one.said)
        if "roll_back" in one.did:
            go_back(one.did["roll_back"])
        elif table.action_of(one.detector) == "roll_back":
            once = any("roll_back" in other.did for other in found)
            why = "the run went back once already" if once else "no checkpoint is there to go back to"
            if one.detector == "not_finite":
                raise UserError(f"step {step}: {one.line}, and {why}. {one.look_at}")
            if _speaks(found, one, table):
                context.console.warn(f"step {step}, {one.detector}: {why}, so training goes on")
        pausing += [one.detector] if "pause" in one.did else []
    if pausing:
        names = ", ".join(pausing)
        raise PausedError(f"paused after step {step} by {names}, as [monitor] says; `cohort diagnose` says more")


def _speaks(found: Sequence[Finding], one: Finding, table: Monitor) -> bool:
    """Whether a finding is said, and not only written down: of each detector one in a window."""
    last: int | None = None
    for other in (other for other in found if other.detector == one.detector):
        if last is None or other.step - last >= table.window:
            last = other.step
    return last == one.step


def _value(stage: Stage, setting: str) -> float:
    """What a setting comes to; of the objective, with its preset."""
    if setting == "kl_coef":
        return float(settled_objective(stage).kl_coef)
    table, key = ADAPTED[setting]
    return float(getattr(getattr(stage, table), key))
