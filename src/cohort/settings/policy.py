"""The model to train: where it starts, its number types, its adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import TOKENS, Later, Table, Text, Texts, key


class Scratch(Table):
    """A small base policy made from nothing, with its own tokenizer."""

    place = ("policy", "scratch")

    architecture: Literal["qwen3"] = key("qwen3", "Model family of the new policy.")
    hidden_size: int = key(96, "Width of the model.", ge=8, le=2**16)
    layers: int = key(4, "Number of layers.", ge=1, le=1024)
    heads: int = key(4, "Attention heads.", ge=1, le=1024)
    kv_heads: int = key(2, "Key-value heads; must divide the heads.", ge=1, le=1024)
    head_dim: int = key(24, "Width of one head; must be even.", ge=2, le=4096)
    intermediate_size: int = key(256, "Width of the feed-forward layers.", ge=8, le=2**20)
    vocabulary: int = key(768, "Largest vocabulary of the tokenizer that is built.", ge=1, le=2**24)
    tokenizer: Text | None = key(
        None,
        'Directory, hub id or "stage:NAME" whose tokenizer is taken; when not given one is learnt '
        "from the task's own texts.",
    )
    max_positions: int = key(1024, "Longest sequence, prompt and completion together, in tokens.", ge=16, le=TOKENS)
    tie_embeddings: bool = key(True, "Use one matrix for input and output embeddings.")


class Lora(Table):
    """Low-rank adapters (peft): only these are trained. The reference is what the stage starts from."""

    place = ("policy", "lora")

    # What a policy gradient says in a run fits into few numbers, so ranks stay small; docs/lora.md has the reasons.
    rank: int = key(16, "Rank of the adapters.", ge=1, le=2**16)
    alpha: float = key(32.0, "Scale: the adapter's output is multiplied by alpha / rank.", gt=0)
    rslora: bool = key(False, "Multiply by alpha / sqrt(rank) instead: the scale for large ranks.")
    dora: bool = key(False, "Learn the length of every output's weights beside it (DoRA).")
    targets: Texts | Literal["all-linear"] = key("all-linear", "Modules that get an adapter.")
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)] | None = key(
        None, "Layers that get one, counted from 0; all of them when not given."
    )
    modules_to_save: Texts = key((), 'Modules trained whole beside it, such as "lm_head".')
    existing: Literal["continue", "merge"] = key(
        "continue", "An adapter that the model has: go on with it, or merge it and put a new one on."
    )


class Policy(Table):
    """The model to train. A later stage that names none continues from the stage before it."""

    model: Text | None = key(
        None, 'Hub id, directory or .gguf file to start from; "live": the model object given to cohort.train.'
    )
    scratch: Scratch | None = key(None, "Make a small new model instead of loading one.")
    dtype: Literal["float32", "bfloat16"] = key("float32", "Type of the master weights.")
    compute: Literal["float32", "bfloat16"] = key("float32", "Type of the arithmetic.")
    memory_gb: Later[float | None] = key(
        None, "GB that a stage may take, with fewer tokens at once where it must; the machine's when not given.", gt=0
    )
    checkpointing: Later[Literal["auto", "on", "off"]] = key(
        "auto", "Compute activations again in the backward pass; auto: on the compiled path, where needed."
    )
    lora: Lora | None = key(None, "Train low-rank adapters instead of all weights.")
    router_aux_coef: float = key(
        0.0, "Weight of the loss that evens out the load of a mixture's experts; 0: none, as in most RL.", ge=0
    )
    trust_remote_code: bool = key(False, "Allow code that comes with a hub model to run.")
    revision: Text | None = key(None, "Branch, tag or commit of a hub model.")
    device: Literal["auto", "cpu", "cuda"] = key("auto", "Where to train; auto: the GPU if there is one.")
