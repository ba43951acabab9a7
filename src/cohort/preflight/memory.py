"""What a training step holds in memory, reckoned before the first one, and settings with which it fits.

What is counted is what the code keeps, tensor by tensor (docs/memory.md has the table, and how far it is off).
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from cohort.algorithms.objectives import Objective
from cohort.learn.adamw import BLOCK
from cohort.learn.forward import LOGITS_AT_ONCE
from cohort.machine import limits_of_groups
from cohort.policy.decode import PREFILL_TOKENS
from cohort.policy.policy import PolicyFacts
from cohort.policy.weights import LARGE
from cohort.preflight.objective import asks_reference
from cohort.settings import SAMPLED, Optimizer, Stage
from cohort.types import UserError
from cohort.wording import counted

PROMPT_TOKENS = 256  # of a prompt, where nothing says how long it may be
LIBRARIES = 0.6e9  # Python, torch and transformers themselves, and what a run keeps of its rollouts
HOLES = 1.1  # on the compiled path freed memory is kept for the next tensor, which does not always fit into it
FEW = 1024  # tokens at once, below which products of matrices become slow


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, by what holds them. What is held stays; sampling and learning take turns."""

    held: float  # weights of the policy, its reference and its teachers; Adam's averages, also those of a critic
    sampling: float  # weights in the order in which they are decoded, keys and values, and a prefill
    learning: float  # gradients, activations of a micro-batch, and the head's logits and gradient

    @property
    def gb(self) -> float:
        """The peak, in GB (1e9 bytes)."""
        return (LIBRARIES + self.held + max(self.sampling, self.learning)) / 1e9


def memory(stage: Stage, objective: Objective, policy: PolicyFacts, prompt: int | None = None) -> Memory:
    """What a stage needs whose prompts have at most `prompt` tokens; None: what its task says, or `PROMPT_TOKENS`."""
    c, r = policy.config, stage.rollout
    prompt = prompt or stage.task.max_prompt_tokens or PROMPT_TOKENS
    rows, asked, tokens = 0, 0, stage.optimizer.tokens_per_micro_batch
    if stage.kind in SAMPLED:  # a micro-batch is never more than what a step has
        rows, asked = r.prompts_per_step * r.group_size, r.prompts_per_step
        tokens = min(tokens, rows * r.max_tokens + asked * prompt)
    heads = getattr(c, "num_attention_heads", None) or 1  # a model of states alone has none, and no more to keep
    size = getattr(c, "head_dim", None) or c.hidden_size // heads
    kv = 2 * (getattr(c, "num_key_value_heads", None) or heads) * size  # numbers of a token and layer
    hidden, layers = c.hidden_size, c.num_hidden_layers
    inner = getattr(c, "intermediate_size", None) or 4 * hidden
    compiled, whole = policy.path == "compiled kernels", policy.trained == policy.parameters
    wide = 2 if policy.compute == "bfloat16" and compiled else 4  # bytes of an activation
    head = 4 * policy.vocabulary * hidden

    beside = policy.teacher_bytes
    if asks_reference(stage, objective) and stage.policy.lora is None:
        beside += policy.weight_bytes
    averages = policy.trained * average_bytes(
        stage.optimizer, policy.trained_bytes / max(1, policy.trained), policy.device
    )
    critic = 2 * policy.trained_bytes + averages if objective.baseline == "critic" else 0
    decoded = learnt = 0.0  # copies of weights, in the order and the type in which they are multiplied
    if compiled:
        body = policy.parameters - policy.vocabulary * hidden
        decoded, learnt = (body * wide + head) * stage.samples, body * 2.0 * (wide == 2)
        if r.precision == "int8":  # and for 64 weights a scale and a sum
            decoded = 1.125 * (body + policy.vocabulary * hidden) * stage.samples

    longest = 1 << (r.max_tokens - 1).bit_length()
    asks = stage.evaluate.problems if stage.samples else 0
    running = min(r.max_rows, max(rows, asks))
    cache = 1.5 * longest * running * kv * layers * wide  # which doubles: the old one is there until it is copied
    prefill = min(PREFILL_TOKENS, running * prompt) * (4 * hidden + 3 * inner) * wide
    prompts = running if asks else min(running, asked)
    sampling = cache + prompts * prompt * kv * layers * wide + prefill + 4 * running * policy.vocabulary
    if policy.path.startswith("generic"):  # every row has a prompt of its own, in the cache and in a micro-batch
        sampling = 8 * layers * kv * (prompt + r.max_tokens) * min(r.max_rows, rows)  # which is copied as it grows
        tokens = min(rows, max(1, tokens // r.max_tokens)) * (prompt + r.max_tokens)

    # Of a token and layer: the residual stream twice in float32; queries, keys and values, what attention gives, gates
    # and ups. Norms and products of gates and ups are computed again, but for adapters.
    layer = 8 * hidden + wide * (2 * heads * size + kv + 2 * inner)
    if not whole:
        layer += wide * (2 * hidden + inner)
        if wide == 2:  # an adapter's module reads a copy of its input of its own
            layer += wide * (5 * hidden + heads * size + inner)
    if not compiled:
        layer = 4 * (12 * hidden + 4 * inner)
    kept = layer
    if compiled and stage.policy.checkpointing == "on":
        kept = (4 + wide) * hidden
    passing = layer + 2 * wide * inner if compiled else 0  # of the layer that is just computed
    activations = tokens * (layers * kept + passing)
    logits = min(4 * tokens * policy.vocabulary, 4 * LOGITS_AT_ONCE) * (1 if compiled else 3)
    learning = activations + logits + (2 * head if whole else 0)
    holes = HOLES if compiled else 1
    held = policy.weight_bytes + beside + averages + critic + learnt
    if decoded < LARGE:  # a small copy stays while the weights learn
        held, decoded = held + decoded, 0.0
    # Half of the room that a large copy leaves is too cut up to be found again.
    return Memory(held, decoded + holes * sampling, policy.trained_bytes + holes * learning + decoded / 2)


def average_bytes(table: Optimizer, weight: float, device: str) -> float:
    """Bytes of Adam's two averages of a weight of so many bytes, where the weights are."""
    if table.offload and device != "cpu":
        return 0
    if table.state == "8bit":
        return 2 + 8 / BLOCK
    return 8 if table.saves_memory else 2 * weight


def machine_gb() -> float:
    """The memory that this process may have, in GB: the machine's, or what a container is limited to."""
    limits = limits_of_groups("memory", "memory.max", "memory.limit_in_bytes")
    return min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit.isdigit())]) / 1e9


def available_gb() -> float:
    """What is free of that, in GB."""
    return min(machine_gb(), psutil.virtual_memory().available / 1e9)


def fitted(stage: Stage, objective: Objective, policy: PolicyFacts) -> Stage:
    """The stage with settings that keep it within `policy.memory_gb`, or the machine's memory: as it is, where that is
    enough. Else fewer tokens at once, then fewer rows at once, then activations that are computed again, then fewer
    tokens still; none of these changes a result but for rounding. Raises `UserError` where `policy.memory_gb` is too
    little for all of it.
    """
    if policy.device != "cpu":
        return stage
    limit = machine_gb() if stage.policy.memory_gb is None else stage.policy.memory_gb

    def need(one: Stage) -> Memory:
        return memory(one, objective, policy)

    found, least = stage, stage.task.max_prompt_tokens or PROMPT_TOKENS
    least += stage.rollout.max_tokens * stage.samples
    while need(found).gb > limit:
        now, tokens = need(found), found.optimizer.tokens_per_micro_batch
        if now.sampling > now.learning and found.rollout.max_rows > 1:
            found = found.with_(rollout={"max_rows": found.rollout.max_rows // 2})
        elif tokens > max(FEW, least):
            found = found.with_(optimizer={"tokens_per_micro_batch": max(FEW, least, tokens // 2)})
        elif found.policy.checkpointing == "auto" and policy.path == "compiled kernels":
            found = found.with_(policy={"checkpointing": "on"})
        elif tokens > least:
            found = found.with_(optimizer={"tokens_per_micro_batch": max(least, tokens // 2)})
        elif stage.policy.memory_gb is None:
            break  # the reckoning may be wrong: the rehearsal finds out
        else:
            raise UserError(
                f"stage '{stage.name}' needs about {now.gb:.1f} GB, also with {counted(tokens, 'token')} at once, and "
                f"policy.memory_gb = {limit:g}: raise it, train an adapter (policy.lora)"
                + (", or lower rollout.max_tokens" if stage.samples else ", or shorten the examples")
            )
    return found


def fitting_words(asked: Stage, stage: Stage) -> str:
    """What was changed to make it fit: `; to fit, 1,024 tokens at once and activations computed again`; or nothing."""
    changed = []
    if (tokens := stage.optimizer.tokens_per_micro_batch) != asked.optimizer.tokens_per_micro_batch:
        changed.append(f"{counted(tokens, 'token')} at once")
    if (rows := stage.rollout.max_rows) != asked.rollout.max_rows:
        changed.append(f"{counted(rows, 'completion')} decoded at once")
    if stage.policy.checkpointing != asked.policy.checkpointing:
        changed.append("activations computed again in the backward pass")
    return f"; to fit, {', '.join(changed)}" if changed else ""
