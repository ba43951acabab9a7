"""Several processes that learn as one: each has a shard of every weight (FSDP2) and a part of every batch.

The loss is a sum over tokens whose weights are fixed before the batch is split, so gradients of the ranks are added up,
never averaged: that is the gradient of one process but for rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cohort.algorithms.objectives import merge_metrics
from cohort.policy.attention import PackedGroups
from cohort.policy.policy import Policy
from cohort.types import UserError


class Ranks:
    """This process among `count` of them, of number `rank`."""

    def __init__(self, rank: int, count: int):
        self.rank, self.count = rank, count
        self.device = torch.device("cpu")  # where it computes, which is not where offloaded weights are
        self._root: Any = None
        self._whole: Policy | None = None  # of rank 0: the weights in one piece, as of the last `gather`

    @staticmethod
    def join(rank: int, count: int, meeting: str, deadline_s: float) -> Ranks:
        """Meet the others at `meeting`, HOST:PORT. Raises `UserError` where they do not come."""
        kind = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            dist.init_process_group(
                kind,
                init_method=f"tcp://{meeting}",
                rank=rank,
                world_size=count,
                timeout=timedelta(seconds=deadline_s),
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"rank {rank} of {count} learners did not meet the others at {meeting}: {error}") from None
        return Ranks(rank, count)

    def shard(self, policy: Policy, recompute: bool = False, offload: bool = False) -> None:
        """Shard the weights of a policy, which every rank has loaded alike, layer by layer. It takes the plain path.
        `recompute`: the backward pass computes the activations of a layer again. `offload`: weights, gradients and the
        optimizer's averages are in the CPU's memory, and a layer's weights are on the device while it computes.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

        if policy.generic is not None:
            raise UserError(f"cluster.learners = {self.count}: {policy.path} cannot be sharded; set it to 1")
        self._whole = policy.copy() if self.rank == 0 else None
        policy.fused, policy.plain_because = None, f"sharded over {self.count} learners"
        self.device = policy.device
        mesh, root = init_device_mesh(self.device.type, (self.count,)), _Root(policy.module)
        where = CPUOffloadPolicy(pin_memory=self.device.type == "cuda") if offload else OffloadPolicy()
        layers = _layers(policy)
        for layer in layers if recompute else ():
            layer.forward = functools.partial(_recomputed, layer.forward)
        for part in [*layers, root]:
            fully_shard(part, mesh=mesh, reshard_after_forward=part is not root, offload_policy=where)
            part.set_gradient_divide_factor(1.0)  # a sum, no mean
            if self.device.type == "cpu":
                part.set_force_sum_reduction_for_comms(True)  # gloo has no other
        self._root, plain = root, policy.plain_hidden
        # Through the root's forward, which gathers what is outside of the layers, for the head that follows as well.
        policy.plain_hidden = lambda *given: root(functools.partial(plain, *given))  # type: ignore[method-assign]
        policy.ranks = self

    def most(self, passes: int) -> int:
        """The most passes that any rank has to make, of which this one has so many."""
        found = torch.tensor(passes)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def idle(self, policy: Policy) -> None:
        """Take part in a pass that other ranks have more: all gathering and all sums are of all ranks."""
        layout = PackedGroups([[policy.eos_ids[0]]], [[policy.eos_ids[0]]], [0], policy.device)
        states = policy.hidden(layout.tokens, layout.positions, layout)
        if torch.is_grad_enabled():
            (policy.logits(states).sum() * 0).backward()

    def merged(self, sums: dict[str, Tensor], loss: float) -> tuple[dict[str, Tensor], float]:
        """The sums and the loss of all ranks, the same on each."""
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, ({name: value.cpu() for name, value in sums.items()}, loss))
        return functools.reduce(merge_metrics, [one for one, _ in found]), sum(each for _, each in found)

    @torch.no_grad()
    def gather(self, policy: Policy) -> Policy | None:
        """The policy in one piece on rank 0, None on the others. All ranks ask at once."""
        own = dict(self._whole.module.named_parameters()) if self._whole is not None else {}
        for name, value in policy.module.named_parameters():
            if value.requires_grad and (full := whole(value)) is not None and name in own:
                own[name].copy_(full)
        return self._whole

    def moved(self) -> None:
        """The shards have changed: what was gathered of them is old."""
        self._root.reshard()


class _Root(nn.Module):
    """The whole of a policy, as what FSDP gathers and sums around a computation of any kind."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, compute: Callable[[], Tensor]) -> Tensor:
        return compute()


def _recomputed(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """A layer whose activations are not kept."""
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)


def whole(value: Any) -> Any:
    """A tensor in one piece, where it is sharded; all ranks ask at once."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def like(value: Tensor, shard: Tensor) -> Tensor:
    """A tensor in one piece, sharded as `shard` is where that is."""
    if not hasattr(shard, "full_tensor") or value.shape != shard.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(shard.device), shard.device_mesh, shard.placements)  # type: ignore[attr-defined]


def _layers(policy: Policy) -> list[Any]:
    """The layers of a model, each of which is gathered for itself."""
    count = policy.config.num_hidden_layers
    found = (one for one in policy.model.modules() if isinstance(one, nn.ModuleList) and len(one) == count)
    return list(next(found, []))
