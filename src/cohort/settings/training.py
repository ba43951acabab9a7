"""How weights move: the optimizer and the batch, the critic and the reference beside it, and what a step of the other
kinds of stage takes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import Count, Later, Many, Positive, Resumable, Table, Texts, key


class Optimizer(Table):
    """AdamW and how a batch becomes updates."""

    learning_rate: float = key(1e-6, "Peak learning rate; ten times this default beside a [policy.lora] table.", ge=0)
    warmup_steps: Count = key(0, "Steps over which the learning rate rises from 0.")
    schedule: Literal["constant", "linear", "cosine"] = key("constant", "After the warm-up.")
    # 0.999 is what AdamW, TRL, verl and the DAPO recipe use, so a run moved over keeps its optimizer; 0.95, known from
    # pretraining, forgets faster than the few hundred noisy steps of a GRPO run reward.
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ] = key((0.9, 0.999), "AdamW's two averages.")
    eps: float = key(1e-8, "AdamW's epsilon.", gt=0)
    weight_decay: float = key(0.0, "AdamW's decoupled weight decay.", ge=0)
    state: Later[Literal["float32", "8bit"]] = key(
        "float32", "How AdamW's two averages are kept; 8bit: a byte each, and a scale for 256."
    )
    offload: Later[bool] = key(False, "Keep the two averages in the CPU's memory while the weights are on a GPU.")
    stochastic_rounding: Later[bool] = key(
        False, "Round bfloat16 weights up or down by chance: small steps count in the mean."
    )
    gradient_clip: float = key(1.0, "Largest gradient norm; 0 is off.", ge=0)
    skip_budget: Later[Resumable[Count]] = key(
        0, "Steps that may be left out because their gradient is not finite; then the run stops."
    )
    updates_per_batch: Many = key(1, "Optimizer updates that a batch is split into, by prompt.")
    epochs: Many = key(1, "Passes over a batch.")
    tokens_per_micro_batch: Positive = key(4096, "Tokens in memory at once; does not change the result.")

    @property
    def saves_memory(self) -> bool:
        """Whether anything of AdamW is kept in less memory, or elsewhere."""
        return self.state != "float32" or self.offload or self.stochastic_rounding


# Full training's best rate is a tenth of LoRA's, over models and tasks, supervised and in RL (J. Schulman and Thinking
# Machines Lab, "LoRA Without Regret", 2025; TRL's page of that name reproduces it for GRPO).
LORA_FACTOR = 10
LEAST_OF_LORA = 1e-5  # a rate below which an adapter hardly learns: what people copy from full training is 1e-6
LORA_REASON = f"LoRA learns best at about {LORA_FACTOR} times the rate of full training (LoRA Without Regret, 2025)"


def default_rate(lora: bool) -> float:
    """The learning rate where a recipe names none, with and without a [policy.lora] table."""
    rate: float = Optimizer.model_fields["learning_rate"].default
    return float(f"{rate * LORA_FACTOR:.9g}") if lora else rate


class Critic(Table):
    """The value model of PPO (baseline = "critic")."""

    learning_rate: float | None = key(None, "Learning rate; the optimizer's when not given.", ge=0)
    warmup_steps: Count = key(0, "First steps of run.steps, in which only the critic learns and the policy stays.")
    gamma: float = key(1.0, "Discount.", ge=0, le=1)
    lam: float = key(0.95, "GAE's lambda.", ge=0, le=1)
    value_clip: float = key(0.2, "How far values may move in one batch before the loss clips.", gt=0)


STAYS = "with LoRA the reference is what the stage starts from, and stays so: remove the [reference] table"


class Reference(Table):
    """The policy that the KL term compares with: the starting model, unless it is moved."""

    update_every: Count = key(0, "Steps between updates from the policy; 0: never.")
    ema: float | None = key(
        None,
        "Share of the old reference kept at an update (at every step if update_every is 0); else a copy.",
        gt=0,
        lt=1,
    )

    @property
    def moves(self) -> bool:
        """Whether the reference ever follows the policy."""
        return bool(self.update_every) or self.ema is not None

    def is_due(self, step: int) -> bool:
        """Whether the reference moves after this step."""
        return step % self.update_every == 0 if self.update_every else self.ema is not None


class Supervised(Table):
    """Settings of supervised stages (kind = "sft")."""

    examples_per_step: Many = key(64, "Demonstrations of one training step.")


class Preferences(Table):
    """Settings of stages that learn from preference pairs (kinds reward_model and dpo) or solutions (process_model)."""

    pairs_per_step: Many = key(64, "Preference pairs, or solutions of process_model stages, of one training step.")
    history: Later[Texts] = key((), 'Sources of earlier pairs, such as ["stage:NAME"], some of which are learnt again.')
    replay: Later[Annotated[float, Field(ge=0, lt=1)]] = key(0.1, "Share of the pairs that are of the history.")
    centring: float = key(0.01, "Weight of the term that keeps scores around 0; with 0 only differences count.", ge=0)
