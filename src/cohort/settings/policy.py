"""The model to train: where it starts, its number types, its adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import TOKENS, Later, Table, Text, Texts


class Scratch(Table):
    """A small base policy made from nothing, with its own tokenizer."""

    place = ("policy", "scratch")

    architecture: Literal["qwen3"] = Field(default="qwen3", description="Model family of the new policy.")
    hidden_size: int = Field(default=96, ge=8, le=2**16, description="Width of the model.")
    layers: int = Field(default=4, ge=1, le=1024, description="Number of layers.")
    heads: int = Field(default=4, ge=1, le=1024, description="Attention heads.")
    kv_heads: int = Field(default=2, ge=1, le=1024, description="Key-value heads; must divide the heads.")
    head_dim: int = Field(default=24, ge=2, le=4096, description="Width of one head; must be even.")
    intermediate_size: int = Field(default=256, ge=8, le=2**20, description="Width of the feed-forward layers.")
    vocabulary: int = Field(
        default=768, ge=1, le=2**24, description="Largest vocabulary of the tokenizer that is built."
    )
    tokenizer: Text | None = Field(
        default=None,
        description='Directory, hub id or "stage:NAME" whose tokenizer is taken; when not given one is learnt '
        "from the task's own texts.",
    )
    max_positions: int = Field(
        default=1024, ge=16, le=TOKENS, description="Longest sequence, prompt and completion together, in tokens."
    )
    tie_embeddings: bool = Field(default=True, description="Use one matrix for input and output embeddings.")


class Lora(Table):
    """Low-rank adapters (peft): only these are trained. The reference is what the stage starts from."""

    place = ("policy", "lora")

    # What a policy gradient says in a run fits into few numbers, so ranks stay small; docs/lora.md has the reasons.
    rank: int = Field(default=16, ge=1, le=2**16, description="Rank of the adapters.")
    alpha: float = Field(default=32.0, gt=0, description="Scale: the adapter's output is multiplied by alpha / rank.")
    rslora: bool = Field(
        default=False, description="Multiply by alpha / sqrt(rank) instead: the scale for large ranks."
    )
    dora: bool = Field(default=False, description="Learn the length of every output's weights beside it (DoRA).")
    targets: Texts | Literal["all-linear"] = Field(default="all-linear", description="Modules that get an adapter.")
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, description="Layers that get one, counted from 0; all of them when not given."
    )
    modules_to_save: Texts = Field(default=(), description='Modules trained whole beside it, such as "lm_head".')
    existing: Literal["continue", "merge"] = Field(
        default="continue",
        description="An adapter that the model has: go on with it, or merge it and put a new one on.",
    )


class Policy(Table):
    """The model to train. A later stage that names none continues from the stage before it."""

    model: Text | None = Field(
        default=None,
        description='Hub id, directory or .gguf file to start from; "live": the model object given to cohort.train.',
    )
    scratch: Scratch | None = Field(default=None, description="Make a small new model instead of loading one.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of the master weights.")
    compute: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of the arithmetic.")
    memory_gb: Later[float | None] = Field(
        default=None,
        gt=0,
        description="GB that a stage may take, with fewer tokens at once where it must; the machine's when not given.",
    )
    checkpointing: Later[Literal["auto", "on", "off"]] = Field(
        default="auto",
        description="Compute activations again in the backward pass; auto: on the compiled path, where needed.",
    )
    lora: Lora | None = Field(default=None, description="Train low-rank adapters instead of all weights.")
    router_aux_coef: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the loss that evens out the load of a mixture's experts; 0: none, as in most RL.",
    )
    trust_remote_code: bool = Field(default=False, description="Allow code that comes with a hub model to run.")
    revision: Text | None = Field(default=None, description="Branch, tag or commit of a hub model.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to train; auto: the GPU if there is one."
    )
