"""Further problems to evaluate on, each set for what it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from cohort.settings.rows import Data
from cohort.settings.table import Count, Function, Table, Text

Kind = Literal[
    "performance", "hallucination", "refusal", "jailbreak", "harmful_capability", "multilingual", "tool_use", "safety"
]
SUITE_KINDS: tuple[Kind, ...] = get_args(Kind)
# What judges a kind that has a verifier of its own, where `use` names no other.
JUDGES = {"refusal": "cohort.evaluate.refusal:calibrated", "jailbreak": "cohort.evaluate.refusal:refused"}


class Suite(Table):
    """A set of problems that is evaluated beside the held-out ones, before, during and after every stage."""

    source: Data = Field(description="Where its problems are: as task.source; all of them are evaluated.")
    name: Text = Field(default="", description="Name in metrics and files; that of its kind when not given.")
    kind: Kind = Field(default="performance", description="What it stands for in the record of the run.")
    prompt: Text = Field(default="prompt", description="Column that holds the question.")
    answer: Text = Field(default="answer", description="Column that holds the gold answer.")
    split: Text | None = Field(default=None, description="Split of the source.")
    use: Text | Function | None = Field(
        default=None, description="Verifier that says what is right; the stage's own when not given."
    )
    template: Literal["auto", "chat", "r1_zero", "none"] | None = Field(
        default=None, description="How a question is shown; as task.template when not given."
    )
    problems: Count | None = Field(
        default=None, description="Problems to use, at most; evaluate.problems when not given."
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and not given.get("name"):
            return {**given, "name": str(given.get("kind", "performance"))}
        return given
