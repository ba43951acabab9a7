"""AdamW as the recipe's table has it, the rate of each step, and the optimizer's state as plain tensors on disk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cohort.learn.adamw import BLOCK, LEAST, SmallAdamW, in_bytes, unpacked
from cohort.learn.ranks import like, whole
from cohort.settings import Optimizer
from cohort.types import UserError

FILE = "optimizer.safetensors"
NOT_FINITE = (
    "the optimizer's averages are not finite, so they are not saved: set optimizer.gradient_clip and go on from the "
    "last checkpoint"
)
MOST_STUCK = 0.1  # share of the weights that a step cannot move, beyond which it is said


def open_optimizer(table: Optimizer, module: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters. Weight decay touches matrices only, never norms or biases; the learning rate
    is set before every step. Raises `UserError` where there is none, and for a way to save memory that saves none here.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise UserError(
            "all weights of the model are frozen, so there is nothing to train: call model.requires_grad_(True) before"
        )
    if not table.stochastic_rounding and (share := too_small(trainable, table.learning_rate)) > MOST_STUCK:
        warnings.warn(
            f"a step of optimizer.learning_rate = {table.learning_rate:g} is too small to move {share:.0%} of the "
            'weights, because they are bfloat16: set policy.dtype = "float32" (and policy.compute = "bfloat16" for the '
            "arithmetic) or optimizer.stochastic_rounding, or raise the rate",
            stacklevel=2,
        )
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": table.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer: torch.optim.Optimizer
    if table.saves_memory:
        _refuse_useless(table, trainable)
        if table.state == "8bit" and not any(in_bytes(p) for p in trainable):
            warnings.warn(
                'optimizer.state = "8bit" has no effect: every tensor that is trained has fewer than '
                f"{LEAST:,} numbers, or no multiple of {BLOCK}, and keeps averages in float32",
                stacklevel=2,
            )
        bits, home = 8 if table.state == "8bit" else 32, torch.device("cpu") if table.offload else None
        optimizer = SmallAdamW(groups, table.betas, table.eps, bits, home, table.stochastic_rounding)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=table.betas, eps=table.eps, fused=True)
    # The fused step changes parameters without counting it, and copies made of them are found by that count.
    optimizer.register_step_post_hook(lambda *_: torch.autograd.graph.increment_version(trainable))
    return optimizer


def _refuse_useless(table: Optimizer, trainable: Sequence[Tensor]) -> None:
    if any(hasattr(p, "full_tensor") for p in trainable):
        raise UserError(
            'optimizer.state = "8bit", offload and stochastic_rounding are for one learner, and here several share '
            "the weights: remove them, or set cluster.learners = 1"
        )
    if table.offload and all(p.device.type == "cpu" for p in trainable):
        raise UserError(
            "optimizer.offload keeps averages away from a GPU, and the weights are on the CPU: remove it (optimizer."
            'state = "8bit" takes less memory here)'
        )
    if table.stochastic_rounding and all(p.dtype is torch.float32 for p in trainable):
        raise UserError(
            "optimizer.stochastic_rounding is for weights in bfloat16, and all that is trained is float32, as "
            'adapters always are: remove it, or train all weights with policy.dtype = "bfloat16"'
        )


@torch.no_grad()
def too_small(weights: Sequence[Tensor], rate: float) -> float:
    """The share of the weights that a step of `rate`, about the largest of Adam, leaves as they are by rounding."""
    narrow = [p for p in weights if p.dtype is not torch.float32]
    stuck = sum(int(((p + rate == p) & (p - rate == p)).sum()) for p in narrow)
    return stuck / sum(p.numel() for p in weights)


@torch.no_grad()
def lost_weights(weights: Sequence[Tensor]) -> int:
    """How many weights are no numbers, or infinite."""
    return sum(int((~weight.isfinite()).sum()) for weight in weights)


def clip_gradient(
    parameters: Iterable[Tensor],
    clip: float,
    tolerant: bool,
    of: str = "",
    mend: str = "Lower optimizer.learning_rate, or look at the last rollouts for a reward or log-prob out of range.",
) -> float:
    """Hold the gradient of parameters to the norm `clip` (0: to none), and return the norm that it had. One that is not
    finite must not be learnt from: `UserError` is raised, with whose it is (`of`) and how to `mend` that, or where that
    is tolerated (`Stage.tolerant`) the caller leaves the weights as they are.
    """
    parameters = [*parameters]
    norm: float = whole(torch.nn.utils.clip_grad_norm_(parameters, clip or math.inf)).item()
    if not (norm < math.inf or tolerant):
        for weight in parameters:
            weight.grad = None
        raise UserError(f"the gradient{of} is not finite (norm {norm}), so no step was taken. {mend}")
    return norm


def rate_at(table: Optimizer, steps: int, step: int) -> float:
    """The learning rate of `step`, counted from 1, of a stage of `steps`.

    It rises linearly over the first `warmup_steps` (step 1 already takes peak / warmup_steps), then stays, or falls
    linearly or along half a cosine to a tenth of the peak at the last step, if that comes after the warm-up.
    """
    peak, warmup = table.learning_rate, table.warmup_steps
    if step <= warmup:
        return peak * step / warmup
    if table.schedule == "constant":
        return peak
    progress = min(1.0, (step - 1 - warmup) / max(1, steps - 1 - warmup))
    left = 1 - progress if table.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return peak * (0.1 + 0.9 * left)


def save_optimizer(optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Write the optimizer's averages."""
    state = optimizer.state_dict()["state"]
    flat = {
        f"{index}.{key}": whole(value).contiguous() for index, entry in state.items() for key, value in entry.items()
    }
    if any(not torch.isfinite(value).all() for value in flat.values()):  # what they belong to would never move again
        raise UserError(NOT_FINITE)
    save_file(flat, directory / FILE)


def load_optimizer(optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Read the averages that `save_optimizer` wrote, bit for bit."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(directory / FILE).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = like(tensor, parameters[int(index)])
    if not isinstance(optimizer, SmallAdamW):  # a run may go on from one that kept them in 8 bits
        state = {
            index: {key: x if key == "step" else x.view_as(parameters[index]) for key, x in unpacked(entry).items()}
            for index, entry in state.items()
        }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
