"""Further problems to evaluate on, each set for what it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from cohort.settings.rows import Data
from cohort.settings.table import Count, Function, Table, Text, key

Kind = Literal[
    "performance", "hallucination", "refusal", "jailbreak", "harmful_capability", "multilingual", "tool_use", "safety"
]
SUITE_KINDS: tuple[Kind, ...] = get_args(Kind)
# What judges a kind that has a verifier of its own, where `use` names no other.
JUDGES = {"refusal": "cohort.evaluate.refusal:calibrated", "jailbreak": "cohort.evaluate.refusal:refused"}


class Suite(Table):
    """A set of problems that is evaluated beside the held-out ones, before, during and after every stage."""

    source: Data = Field(description="Where its problems are: as task.source; all of them are evaluated.")
    name: Text = key("", "Name in metrics and files; that of its kind when not given.")
    kind: Kind = key("performance", "What it stands for in the record of the run.")
    prompt: Text = key("prompt", "Column that holds the question.")
    answer: Text = key("answer", "Column that holds the gold answer.")
    split: Text | None = key(None, "Split of the source.")
    use: Text | Function | None = key(None, "Verifier that says what is right; the stage's own when not given.")
    template: Literal["auto", "chat", "r1_zero", "none"] | None = key(
        None, "How a question is shown; as task.template when not given."
    )
    problems: Count | None = key(None, "Problems to use, at most; evaluate.problems when not given.")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and not given.get("name"):
            return {**given, "name": str(given.get("kind", "performance"))}
        return given
