"""What a person declares about a run: facts that no run can measure, for its record. None of them changes a number."""

from __future__ import annotations

from typing import Literal

from cohort.settings.table import NoEffect, Table, Text, Texts, key

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

    intended_use: NoEffect[Text | None] = key(None, "What the model is for.")
    out_of_scope: NoEffect[Text | None] = key(None, "What it must not be used for.")
    brittle: NoEffect[Texts | None] = key(None, "Where the reward design is known to be brittle.")
    traces: NoEffect[Traces | None] = key(
        None,
        "How reasoning is shown on the console, by commands, cards and trackers; exposed when not given. "
        "The log keeps it whole.",
    )
    inventory_id: NoEffect[Text | None] = key(None, "Number in the inventory of AI systems.")
    owner: NoEffect[Text | None] = key(None, "Who answers for the model.")
    system_card: NoEffect[Text | None] = key(None, "The card of the system that it serves.")
    change_ticket: NoEffect[Text | None] = key(None, "The change that this run belongs to.")
    monitoring_plan: NoEffect[Text | None] = key(None, "How it is watched after release.")
    data_provenance: NoEffect[Text | None] = key(None, "Where the prompts come from, on paper.")
    license: NoEffect[Text | None] = key(None, "Licence of the trained model, such as apache-2.0.")
    base_training_flops: NoEffect[float | None] = key(
        None, "Floating-point operations that the base model was trained with.", gt=0
    )
    evaluations: NoEffect[dict[Behaviour, Text]] = key(
        {}, "Files of results by behaviour: JSON with `before` and `after`, made by other tools."
    )
