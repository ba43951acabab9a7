"""One way to score a completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from cohort.settings.table import Function, NoEffect, Resumable, Table, Text, key
from cohort.settings.words import callable_path


def reward_name(use: Any) -> str:
    """What a reward without a name is called: its function's name, or that of the built-in."""
    path = callable_path(use) if callable(use) else str(use)
    return path.rsplit(":", 1)[-1].rsplit(".", 1)[-1].strip("<>") or "reward"


class Reward(Table):
    """One way to score a completion. The reward of a rollout is the weighted sum of all of them."""

    use: Text | Function = Field(description="A built-in name, module:function, or a Python function.")
    weight: float = key(1.0, "Factor in the sum; negative: a penalty; 0: measured but not rewarded.")
    name: Text = key("", "Name in the metrics; the function's when not given.")
    style: Literal["cohort", "trl"] = key(
        "cohort", "How a function is called; trl: (prompts, completions, **columns) -> list of numbers."
    )
    args: dict[str, Any] = key({}, "Keyword arguments for the function.")
    timeout_s: Resumable[float] = key(30.0, "Seconds that scoring one group may take.", gt=0)
    split: Text | None = key(None, "The function scores steps; what separates them: blank_lines, lines or a regex.")
    fold: Literal["mean", "min", "last", "product"] | None = key(
        None, "Make one reward of the steps' scores, instead of supervising each step with its own."
    )
    when: dict[str, Any] = key({}, 'Only for prompts whose columns have these values, such as { domain = "math" }.')
    domain: NoEffect[Text | None] = key(None, "The domain that it serves, for the record, such as math or safety.")
    gate: Text | None = key(None, "Another reward by its name: where that one scores too little, this one is not paid.")
    gate_at: float = key(0.5, "Score of the gate from which this reward is paid.")
    gate_else: Literal["zero", "none"] = key(
        "zero", "Below it this reward is 0, or, with none, left out as if it did not apply."
    )

    @property
    def labels_steps(self) -> bool:
        """Whether it scores the steps of a completion one by one, as its `split` cuts them."""
        return self.split is not None and self.fold is None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Accept a bare name or function, and name the reward after its function."""
        if isinstance(given, str) or (callable(given) and not isinstance(given, Reward)):
            given = {"use": given}
        if isinstance(given, Mapping) and given.get("name") is None and given.get("use"):
            return {**given, "name": reward_name(given["use"])}
        return given
