"""Which samples are kept to learn from, and how stages learn from kept samples and from pairs of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import Count, Positive, Share, Table, Text, Weight


class Reject(Table):
    """Which samples are kept, of stages that sample to learn from what is right (kinds reject and rft)."""

    least: dict[str, float] = Field(
        default={},
        description="Lowest score to keep a sample, by reward; of the one that says what is right, 0.5 if not named.",
    )
    truncated: bool = Field(default=False, description="Take samples that were cut off at rollout.max_tokens, too.")
    per_prompt: Positive = Field(default=4, description="Samples to keep of one prompt, those of the highest reward.")
    hardest: Share = Field(default=0.0, description="Leave out prompts of which a smaller share of samples is right.")
    easiest: Share = Field(default=1.0, description="Leave out prompts of which a larger share of samples is right.")
    balance: Text | None = Field(
        default=None,
        description='Column whose values get equal shares of the samples; "difficulty": quarters of the pass rate.',
    )
    shares: dict[str, Weight] = Field(
        default={}, description="Shares by value of the balance column, such as { math = 3, chat = 1 }; else equal."
    )
    pairs: Count = Field(default=1, description="Pairs of a kept and a wrong sample to write of one prompt; 0: none.")


class Rft(Table):
    """Rejection-sampling fine-tuning: supervised training on the policy's own right samples (kind = "rft")."""

    mode: Literal["online", "offline"] = Field(
        default="online",
        description="online: each step learns what is right among its own samples; offline: all are sampled first.",
    )
    sampling_steps: Positive = Field(
        default=1, description="offline: the first so many of run.steps sample, and the others learn what was kept."
    )


class Dpo(Table):
    """Learning from preference pairs without a reward model (kind = "dpo")."""

    loss: Literal["sigmoid", "ipo"] = Field(
        default="sigmoid", description="sigmoid: DPO (2305.18290); ipo: 2310.12036."
    )
    beta: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="How strongly the policy is held to the reference; of ipo the paper's tau."
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.0, description="sigmoid: the share of pairs that are taken to be labelled the wrong way round."
    )
