"""Which samples are kept to learn from, and how stages learn from kept samples and from pairs of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import Count, Positive, Share, Table, Text, Weight, key


class Reject(Table):
    """Which samples are kept, of stages that sample to learn from what is right (kinds reject and rft)."""

    least: dict[str, float] = key(
        {}, "Lowest score to keep a sample, by reward; of the one that says what is right, 0.5 if not named."
    )
    truncated: bool = key(False, "Take samples that were cut off at rollout.max_tokens, too.")
    per_prompt: Positive = key(4, "Samples to keep of one prompt, those of the highest reward.")
    hardest: Share = key(0.0, "Leave out prompts of which a smaller share of samples is right.")
    easiest: Share = key(1.0, "Leave out prompts of which a larger share of samples is right.")
    balance: Text | None = key(
        None, 'Column whose values get equal shares of the samples; "difficulty": quarters of the pass rate.'
    )
    shares: dict[str, Weight] = key(
        {}, "Shares by value of the balance column, such as { math = 3, chat = 1 }; else equal."
    )
    pairs: Count = key(1, "Pairs of a kept and a wrong sample to write of one prompt; 0: none.")


class Rft(Table):
    """Rejection-sampling fine-tuning: supervised training on the policy's own right samples (kind = "rft")."""

    mode: Literal["online", "offline"] = key(
        "online", "online: each step learns what is right among its own samples; offline: all are sampled first."
    )
    sampling_steps: Positive = key(
        1, "offline: the first so many of run.steps sample, and the others learn what was kept."
    )


class Dpo(Table):
    """Learning from preference pairs without a reward model (kind = "dpo")."""

    loss: Literal["sigmoid", "ipo"] = key("sigmoid", "sigmoid: DPO (2305.18290); ipo: 2310.12036.")
    beta: Annotated[float, Field(gt=0)] = key(
        0.1, "How strongly the policy is held to the reference; of ipo the paper's tau."
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = key(
        0.0, "sigmoid: the share of pairs that are taken to be labelled the wrong way round."
    )
