"""Controls: a stage of GRPO with other rewards. What they gain too, the recipe does not gain by right answers.

A new control is a function here and a line in `CONTROLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cohort.preflight.parts import verifier_tables
from cohort.settings import Monitor, Reward, Stage
from cohort.types import UserError

FORMATS = ("think_format", "one_answer", "regex_format", "json_schema")


@dataclass(frozen=True, slots=True)
class Paid:
    """What a control pays for, and the same in words."""

    rewards: tuple[Reward, ...]
    says: str


def _random(stage: Stage) -> Paid:
    return Paid((Reward(use="random", name="control_random"),), "a coin flip")


def _constant(stage: Stage) -> Paid:
    return Paid((Reward(use="constant", name="control_constant"),), "1 for everything: no group carries signal")


def _format_only(stage: Stage) -> Paid:
    """The recipe's own rewards for format with their weights, or the format that answers are read from."""
    own = {one.name: one for one in stage.reward if one.use in FORMATS and one.weight > 0}
    if own:
        free = (one if one.gate in own else one.with_(gate=None) for one in own.values())
        return Paid(tuple(free), f"the recipe's own rewards for format alone: {', '.join(own)}")
    use = "think_format" if stage.task.template == "r1_zero" else "one_answer"
    asked = "which its template asks for" if use == "think_format" else "the mark that answers are read from"
    return Paid((Reward(use=use, name=f"control_{use}"),), f"{use}, {asked}, as the recipe pays for no format")


def _length(stage: Stage) -> Paid:
    """Falling evenly over all lengths there can be: every group whose lengths differ carries signal."""
    limit = stage.rollout.max_tokens
    args = {"target": limit, "alpha": 1 / limit, "delta": 0.0}
    reward = Reward(use="length_budget", name="control_length", args=args)
    return Paid((reward,), f"the shorter the better: length_budget, from 1 at no token evenly to 0 at {limit}")


CONTROLS: Mapping[str, Callable[[Stage], Paid]] = {
    "random": _random,
    "format_only": _format_only,
    "constant": _constant,
    "length": _length,
}


def controlled(stage: Stage, name: str) -> tuple[Stage, str]:
    """The stage with the rewards of a control, and what these are in words. What says what is right stays what it was:
    it is measured and pays nothing. Raises `UserError` where the control is the stage itself.
    """
    paid = CONTROLS[name](stage)
    if _what(paid.rewards) == _what(one for one in stage.reward if one.weight):
        raise UserError(f"the control '{name}' is the recipe itself, which pays for nothing else: leave it out")
    judges = [one for one in verifier_tables(stage) if one in stage.reward]
    if len(judges) > 1 and all(one.when for one in judges):
        raise UserError("every reward has a `when`, so no one says what is right without them: set evaluate.reward")
    new = {one.name: one for one in paid.rewards}
    kept = [new.pop(one.name, one.with_(weight=0.0, gate=None)) for one in judges]
    changes: dict[str, Any] = {
        "reward": (*kept, *new.values()),
        "run": {"gate": "off"},  # gold answers need not pay here
        "monitor": Monitor(action="log"),  # what detectors find in a control was meant, and changes nothing in it
    }
    if len(kept) == 1:
        changes["evaluate"] = {"reward": kept[0].name}
    if name == "constant":  # another group would carry no more signal
        changes["rollout"] = {"resample_cap": 1}
    return stage.with_(**changes), paid.says


def _what(rewards: Any) -> list[dict[str, Any]]:
    """What rewards pay for; how they are called and how much of it there is are no other reward."""
    return [one.model_dump(exclude={"name", "weight", "timeout_s", "domain"}) for one in rewards]
