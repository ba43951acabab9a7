"""AdamW, and its state as plain tensors on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["AdamW", "load_optimizer", "save_optimizer"]

FILE = "optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class AdamW:
    """Settings of the optimizer. Weight decay touches matrices only, never norms or biases."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    gradient_clip: float = 1.0  # global norm; 0 is off

    def build(self, module: torch.nn.Module) -> torch.optim.AdamW:
        """The optimizer over the trainable parameters; the learning rate is set before every step."""
        trainable = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=self.betas, eps=self.eps, fused=True)
        # The fused step changes parameters without counting it, and copies made of them are found by that count.
        optimizer.register_step_post_hook(lambda *_: torch.autograd.graph.increment_version(trainable))
        return optimizer


def save_optimizer(optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Write the optimizer's averages."""
    state = optimizer.state_dict()["state"]
    flat = {f"{index}.{key}": value.contiguous() for index, entry in state.items() for key, value in entry.items()}
    save_file(flat, directory / FILE)


def load_optimizer(optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Read the averages that `save_optimizer` wrote, bit for bit."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(directory / FILE).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
