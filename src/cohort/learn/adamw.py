"""AdamW in less memory: averages in 8 bits, averages on the CPU beside weights on a GPU, and bfloat16 weights that are
rounded by chance.

A parameter is stepped in pieces, by torch's own fused AdamW: what is unpacked for it is never more than a piece. 8-bit
averages are those of Dettmers et al. (2110.02861): a byte each, which says where in a dynamic map the number is, as a
share of the largest of its block.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from cohort.seeds import derive_seed

BLOCK = 256  # numbers that share a scale
LEAST = 4096  # numbers of a parameter, below which its averages stay float32, as in bitsandbytes and torchao
PIECE = 1 << 18  # numbers that are stepped at once, a multiple of BLOCK
FINER = 14  # bits of a float32 number that do not matter to its place in the dynamic map
DECADES = 7  # of the dynamic map; each has half of the values of the next larger one

State = dict[str, Tensor]


class SmallAdamW(torch.optim.Optimizer):
    """AdamW whose averages are float32, or with `bits = 8` a byte each. `home`: the device that they are kept on, when
    that is not their parameter's. With `by_chance` bfloat16 parameters are rounded stochastically.

    The numbers of a step depend on the parameters, the gradients, the averages and the count of steps alone.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        betas: tuple[float, float],
        eps: float,
        bits: int = 32,
        home: torch.device | None = None,
        by_chance: bool = False,
    ):
        super().__init__(groups, {"lr": 0.0, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._bits, self._home, self._by_chance = bits, home, by_chance
        for group in self.param_groups:
            for parameter in group["params"]:
                self._begin(parameter)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of AdamW (Loshchilov & Hutter 2019) on every parameter that has a gradient."""
        number = -1
        for group in self.param_groups:
            how = {"lr": group["lr"], "eps": group["eps"], "weight_decay": group["weight_decay"]}
            how |= dict(zip(("beta1", "beta2"), group["betas"], strict=True))
            for parameter in group["params"]:
                number += 1
                if parameter.grad is not None:
                    self._step(parameter, number, how)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take averages bit for bit, or in the form that these are to have, where they were kept in another one."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        for number, given in state_dict["state"].items():
            own = self._begin(parameters[number])
            if own.keys() == given.keys():
                for key, value in own.items():
                    value.copy_(given[key].view_as(value))
                continue
            for name, average in unpacked(given).items():
                if name == "step":
                    own[name].copy_(average)
                else:
                    _pack(own, name, slice(0, average.numel()), average.float().reshape(-1))

    def _step(self, parameter: Tensor, number: int, how: Mapping[str, float]) -> None:
        state = self.state[parameter]
        state["step"] += 1
        weights, gradient = parameter.detach().reshape(-1), parameter.grad.reshape(-1)  # type: ignore[union-attr]
        draw: torch.Generator | None = None
        if self._by_chance and weights.dtype is torch.bfloat16:
            draw = torch.Generator(weights.device)
            draw.manual_seed(derive_seed(0, "rounding", number, int(state["step"])))
        size = PIECE if weights.device.type == "cpu" else 64 * PIECE
        for at in range(0, len(weights), size):
            piece = slice(at, min(at + size, len(weights)))
            before, change = weights[piece], gradient[piece].float()
            now = before.float()  # float32 weights themselves
            averages = [_unpacked(state, name, piece).to(now.device) for name in ("exp_avg", "exp_avg_sq")]
            # A count of its own: the fused step counts on.
            step = (state["step"] - 1).to(now.device)
            adamw(
                [now], [change], [averages[0]], [averages[1]], [], [step],
                fused=True, amsgrad=False, maximize=False, **how,  # type: ignore[arg-type]
            )  # fmt: skip
            for name, average in zip(("exp_avg", "exp_avg_sq"), averages, strict=True):
                _pack(state, name, piece, average)
            if before.dtype is not torch.float32:
                before.copy_(now if draw is None else rounded_by_chance(now, draw))
        if weights.data_ptr() != parameter.data_ptr():  # its numbers do not lie side by side: they were a copy
            parameter.copy_(weights.view_as(parameter))

    def _begin(self, parameter: Tensor) -> State:
        size, home = parameter.numel(), self._home or parameter.device
        state = {"step": torch.zeros((), dtype=torch.float32)}
        for name in ("exp_avg", "exp_avg_sq"):
            if self._bits == 8 and in_bytes(parameter):
                zero = int(dynamic_map(name == "exp_avg").abs().argmin())
                state[name] = torch.full((size,), zero, dtype=torch.uint8, device=home)
                state[f"{name}_scale"] = torch.zeros(size // BLOCK, device=home)
            else:
                state[name] = torch.zeros(size, device=home)
        self.state[parameter] = state
        return state


def in_bytes(parameter: Tensor) -> bool:
    """Whether the averages of a parameter can have a byte a number."""
    return parameter.numel() >= LEAST and parameter.numel() % BLOCK == 0


def rounded_by_chance(x: Tensor, draw: torch.Generator) -> Tensor:
    """float32 -> bfloat16, up or down with chances that make the mean exact: 16 random bits are added to the 16 that
    bfloat16 has not.
    """
    noise = torch.randint(0, 1 << 16, x.shape, generator=draw, dtype=torch.int32, device=x.device)
    bits = (x.view(torch.int32) + noise) & -(1 << 16)
    return torch.where(x.isfinite(), bits.view(torch.float32), x).bfloat16()


def unpacked(state: State) -> State:
    """What is kept of a parameter, its averages as float32."""
    names = [name for name in state if not name.endswith("_scale")]
    whole = slice(0, max(state[name].numel() for name in names))
    return {name: _unpacked(state, name, whole) if f"{name}_scale" in state else state[name] for name in names}


@functools.cache
def dynamic_map(signed: bool) -> Tensor:
    """The 256 numbers that a byte stands for, ascending, from -1 or 0 to 1: spaced evenly within each power of ten."""
    found = [0.0, 1.0]
    for decade in range(DECADES):
        values = (1 << decade) * (1 if signed else 2)
        edges = torch.linspace(0.1, 1, values + 1)
        middles = (10.0 ** (decade + 1 - DECADES) * (edges[:-1] + edges[1:]) / 2).tolist()
        found += middles + ([-x for x in middles] if signed else [])
    return torch.tensor(sorted(found))


@functools.cache
def _codes(signed: bool) -> Tensor:
    """The nearest place in the map, uint8, of a float32 number by its first 18 bits: that is finer than the map is.

    What is above 0 never becomes 0: an average of squares that did would turn the next step into one over epsilon.
    """
    first = torch.arange(-(1 << 17), 1 << 17, dtype=torch.int32)
    numbers = ((first << FINER) + (1 << FINER - 1)).view(torch.float32).nan_to_num(0.0)
    numbers[first == 0] = 0.0
    of = dynamic_map(signed)
    found = torch.bucketize(numbers, (of[1:] + of[:-1]) / 2, right=True)
    if not signed:
        found[numbers > 0] = found[numbers > 0].clamp(min=1)
    return found.to(torch.uint8)


@functools.cache
def _on(table: Any, signed: bool, device: torch.device) -> Tensor:
    return table(signed).to(device)


def _unpacked(state: State, name: str, piece: slice) -> Tensor:
    """An average as float32: itself, or a copy of what the bytes say."""
    kept = state[name][piece]
    if kept.dtype is not torch.uint8:
        return kept
    scale = state[f"{name}_scale"][piece.start // BLOCK : piece.stop // BLOCK]
    values = _on(dynamic_map, name == "exp_avg", kept.device).index_select(0, kept.int())
    return values.view(-1, BLOCK).mul_(scale[:, None]).view(-1)


def _pack(state: State, name: str, piece: slice, average: Tensor) -> None:
    """Keep what `_unpacked` gave, after its step."""
    kept = state[name][piece]
    if kept.dtype is not torch.uint8:
        if kept.data_ptr() != average.data_ptr():
            kept.copy_(average)
        return
    average = average.to(kept.device).view(-1, BLOCK)
    scale = average.abs().amax(-1)
    shares = (average / scale.clamp(min=1e-30)[:, None]).view(torch.int32).view(-1)
    places = (shares >> FINER).add_(1 << 17)
    torch.index_select(_on(_codes, name == "exp_avg", kept.device), 0, places, out=kept)
    state[f"{name}_scale"][piece.start // BLOCK : piece.stop // BLOCK] = scale
