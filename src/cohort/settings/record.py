"""What a person declares about a run: facts that no run can measure, for its record. None of them changes a number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cohort.settings.table import NoEffect, Table, Text, Texts

Behaviour = Literal[
    "performance",
    "hallucination",
    "refusal_calibration",
    "jailbreak_robustness",
    "harmful_capability",
    "benchmark_contamination",
    "multilingual",
    "tool_use",
    "safety_regressions",
]

Traces = Literal["exposed", "summarised", "filtered", "hidden"]


class Record(Table):
    """What a person declares for record.json; what is not given stands there as a gap."""

    intended_use: NoEffect[Text | None] = Field(default=None, description="What the model is for.")
    out_of_scope: NoEffect[Text | None] = Field(default=None, description="What it must not be used for.")
    brittle: NoEffect[Texts | None] = Field(default=None, description="Where the reward design is known to be brittle.")
    traces: NoEffect[Traces | None] = Field(
        default=None,
        description="How reasoning is shown on the console, by commands, cards and trackers; exposed when not given. "
        "The log keeps it whole.",
    )
    inventory_id: NoEffect[Text | None] = Field(default=None, description="Number in the inventory of AI systems.")
    owner: NoEffect[Text | None] = Field(default=None, description="Who answers for the model.")
    system_card: NoEffect[Text | None] = Field(default=None, description="The card of the system that it serves.")
    change_ticket: NoEffect[Text | None] = Field(default=None, description="The change that this run belongs to.")
    monitoring_plan: NoEffect[Text | None] = Field(default=None, description="How it is watched after release.")
    data_provenance: NoEffect[Text | None] = Field(default=None, description="Where the prompts come from, on paper.")
    license: NoEffect[Text | None] = Field(
        default=None, description="Licence of the trained model, such as apache-2.0."
    )
    base_training_flops: NoEffect[float | None] = Field(
        default=None, gt=0, description="Floating-point operations that the base model was trained with."
    )
    evaluations: NoEffect[dict[Behaviour, Text]] = Field(
        default={},
        description="Files of results by behaviour: JSON with `before` and `after`, made by other tools.",
    )
