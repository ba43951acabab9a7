"""The card of a trained model, as Markdown: what it is, what it was measured to do, how it was trained, what is not
known. Every number is one that the run measured, unless its line says otherwise.
"""

from __future__ import annotations

import re
from typing import Any

from cohort.views.cards.hub import front_matter
from cohort.views.cards.reading import Record, amount, measures, percent, said, value
from cohort.views.cards.rendering import rendered

_KINDS = {
    "grpo": "reinforcement learning (GRPO)",
    "distill": "on-policy distillation from a teacher",
    "self_distill": "on-policy distillation from itself, shown a solution",
    "sft": "supervised training",
    "reward_model": "training a reward model on preference pairs",
    "process_model": "training a process reward model on steps with labels",
    "reject": "rejection sampling, which trains nothing",
    "rft": "supervised training on its own right samples (RFT)",
    "dpo": "learning from preference pairs (DPO)",
    "evaluate": "an evaluation, which trains nothing",
}
_MORE = {  # numbers of an evaluation beside its accuracy
    "mean_tokens": "mean length {} tokens",
    "truncated": "cut off {}",
    "pairs": "{} held-out pairs",
    "loss": "loss {}",
    "calibration_error": "expected calibration error {}",
    "length_correlation": "correlation of score and length {}",
}
_AUTO = {"reward_model": "Sequence", "process_model": "Token"}


def card(record: Record, index: int | None = None) -> str:
    """The card of the model of one stage; of the last one when not given."""
    index = len(record["stages"]) - 1 if index is None else index
    stage = record["stages"][index]
    performance, recipe = value(stage, "behaviour.performance"), value(record["run"], "identity.recipe") or ""
    after = performance["after"] if measures(performance) else {}
    text = rendered(
        "card.md",
        record,
        index,
        {"md": _md, "known": _known},
        front=front_matter(record, index),
        how=_KINDS.get(stage["kind"], f"a stage of kind `{stage['kind']}`"),
        more=[
            form.format(percent(after[key]) if key == "truncated" else amount(after[key]))
            for key, form in _MORE.items()
            if after.get(key) is not None
        ],
        auto=_AUTO.get(stage["kind"]),
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", recipe)), default=0)),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _known(found: Record) -> str:
    """What a claim holds, and what that rests on."""
    if found["value"] is None:
        return f"not known ({_md(found['reason'] or '')})"
    return f"{_md(said(found['value']))} ({found['basis']})"


def _md(text: Any) -> str:
    """Text that Markdown takes as it is: on one line, without markup of its own."""
    if not isinstance(text, str):
        return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", said(text))
    line = " ".join(text.split())
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
