"""The compiled kernels as differentiable functions of tensors. Each says which plain PyTorch it equals.

Activations are float32 or bfloat16, `[N, width]`, contiguous; the residual stream, the weights of norms and all sums
are float32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cohort.kernels.library import Attention, built

ROWS_PER_BLOCK = 64  # as in layer.c


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    owners: Sequence[Tensor],
    biases: Sequence[Tensor],
    again: Callable[[], Tensor] | None = None,
) -> Tensor:
    """`x @ weight.T + bias`: `[N, in] -> [N, out]`.

    `weight` `[out, in]` is a copy of the parameters `owners`, one under the other, in x's type; likewise `bias`.
    Gradients go to the owners. `again` computes x once more, with the same bits: then it is not kept for the backward
    pass. The product is oneDNN's: torch gives float32 products to MKL, which on AMD processors
    uses half of their vector width.
    """
    if not torch.is_grad_enabled():
        return product(x, weight, bias)
    return _Linear.apply(x, weight, bias, again, len(owners), *owners, *biases)


def add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`y = x + residual` and `RMSNorm(y)` in `dtype` (Zhang & Sennrich 2019, eq. 4). x float32 `[N, width]`."""
    if not torch.is_grad_enabled():
        return _norm(x, residual, weight, eps, dtype)[:2]
    if residual is None:
        return x, _Norm.apply(x, weight, eps, dtype)
    return _AddNorm.apply(x, residual, weight, eps, dtype)


def normed(y: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """The norm of `add_norm` once more, of its sum. No gradient."""
    return _norm(y, None, weight, eps, dtype)[1]


def swiglu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of `[N, 2 I]`, gates first (Shazeer 2020, eq. 6) -> `[N, I]`."""
    return _SwiGLU.apply(gate_up) if torch.is_grad_enabled() else swiglu_forward(gate_up)


@dataclass(frozen=True, slots=True)
class Heads:
    """The shape of an attention layer, and what happens to its query and key heads."""

    heads: int
    kv_heads: int
    size: int
    eps: float
    scale: float
    window: int  # how many tokens a query sees, itself included; 0: all


@dataclass(frozen=True, slots=True)
class Sequences:
    """Where the sequences of a flat row of N tokens lie, group by group, each group's prompt first (all on the CPU)."""

    first: Tensor  # [groups + 1] where a group's sequences begin in `start`
    start: Tensor  # [S] int64, in the flat row
    length: Tensor  # [S]
    cos: Tensor  # [N, size / 2] float32 of every token's position
    sin: Tensor
    end: int  # the first token that is in no sequence: from there on the row is padding


def attend(
    qkv: Tensor, query_norm: Tensor | None, key_norm: Tensor | None, heads: Heads, sequences: Sequences
) -> Tensor:
    """Causal attention of every sequence over its group's prompt and itself, of raw projections `[N, (H + 2 K) D]`:
    RMSNorm of query and key heads where there are weights for it, rotary embedding, softmax. `-> [N, H D]`, 0 for
    tokens in no sequence.
    """
    return _Attend.apply(qkv, query_norm, key_norm, heads, sequences)


def logprobs(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of float32 `[n, V]` and int64 `[n]`: log-probs of targets, entropies, log-sum-exps, `[n]` each. No gradient."""
    out = logits.new_empty(3, len(logits))
    built().logprob_forward(*logits.shape, logits, targets, 1 / temperature, *out)
    return out[0], out[1], out[2]


def logprob_gradient(logits: Tensor, targets: Tensor, temperature: float, logsumexp: Tensor, flow: Tensor) -> None:
    """Overwrite the logits with their gradient, given `flow`, the gradient of the log-probs `[n]`."""
    built().logprob_backward(*logits.shape, logits, targets, 1 / temperature, logsumexp, flow)


def attention_of(
    qkv: Tensor, query_norm: Tensor | None, key_norm: Tensor | None, heads: Heads, sequences: Sequences
) -> Attention:
    """What attention.c is to work on. The tensors must outlive it."""
    query, key, value = _parts(qkv, heads)
    row = qkv.shape[1]
    return Attention(
        **asdict(heads),
        groups=len(sequences.first) - 1,
        first=sequences.first,
        start=sequences.start,
        length=sequences.length,
        cos=sequences.cos,
        sin=sequences.sin,
        query_norm=query_norm,
        key_norm=key_norm,
        query=query,
        key=key,
        value=value,
        query_row=row,
        key_row=row,
        value_row=row,
        half=_half(qkv),
    )


def _parts(qkv: Tensor, heads: Heads) -> tuple[int, int, int]:
    """Where queries, keys and values begin in rows `[N, (H + 2 K) D]`."""
    query, width = qkv.data_ptr(), qkv.element_size() * heads.size
    return query, query + heads.heads * width, query + (heads.heads + heads.kv_heads) * width


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        again: Callable[[], Tensor] | None,
        owners: int,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(None if again else x, weight)
        ctx.owners, ctx.again = owners, again
        ctx.rows = [len(p) for p in parameters]
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, flow: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        flow = flow.contiguous()
        to_x = product(flow, weight.t(), None) if ctx.needs_input_grad[0] else None
        wanted = ctx.needs_input_grad[5:]
        if x is None and any(wanted):
            x = ctx.again()
        ctx.again = None  # and with it what it is computed from
        to_parameters: list[Tensor | None] = [None] * len(wanted)
        weights, biases = slice(0, ctx.owners), slice(ctx.owners, None)
        if any(wanted[weights]):
            to_parameters[weights] = weight_gradient(flow, x).split(ctx.rows[weights])
        if any(wanted[biases]):
            to_parameters[biases] = flow.float().sum(0).split(ctx.rows[biases])
        return to_x, None, None, None, None, *to_parameters


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        _, out, inverse = _norm(x, None, weight, eps, dtype)
        ctx.save_for_backward(x, inverse, weight)
        return out

    @staticmethod
    def backward(ctx: Any, flow: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, weight = ctx.saved_tensors
        to_x, _, to_weight = _norm_back(x, inverse, weight, None, flow, None)
        return to_x, to_weight, None, None


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        y, out, inverse = _norm(x, residual, weight, eps, dtype)
        ctx.save_for_backward(y, inverse, weight)
        ctx.residual = residual.dtype
        return y, out

    @staticmethod
    def backward(ctx: Any, from_y: Tensor | None, flow: Tensor | None) -> tuple[Tensor | None, ...]:
        y, inverse, weight = ctx.saved_tensors
        if flow is None:
            flow = torch.zeros_like(y)
        to_x, to_residual, to_weight = _norm_back(y, inverse, weight, from_y, flow, ctx.residual)
        return to_x, to_residual, to_weight, None, None


def _norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum, its norm, and one over its root mean square `[N]`."""
    y = x if residual is None else torch.empty_like(x)
    out, inverse = torch.empty_like(x, dtype=dtype), x.new_empty(len(x))
    half = residual is not None and _half(residual)
    built().norm_forward(*x.shape, eps, x, residual, half, weight, y, out, _half(out), inverse)
    return y, out, inverse


def _norm_back(
    y: Tensor, inverse: Tensor, weight: Tensor, from_y: Tensor | None, flow: Tensor, residual: torch.dtype | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    flow = flow.contiguous()
    from_y = None if from_y is None else from_y.contiguous()
    to_x = torch.empty_like(y)
    to_residual = torch.empty_like(y, dtype=residual) if residual is torch.bfloat16 else None
    to_weight = y.new_empty(-(-len(y) // ROWS_PER_BLOCK), y.shape[1])
    built().norm_backward(
        *y.shape, y, inverse, weight, from_y, flow, _half(flow), to_x, to_residual, to_residual is not None, to_weight
    )
    # In float32 the residual's gradient is that of x: one tensor serves both.
    return to_x, to_x if residual is torch.float32 else to_residual, to_weight.sum(0)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        return swiglu_forward(gate_up)

    @staticmethod
    def backward(ctx: Any, flow: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        flow = flow.contiguous()
        rows, width = flow.shape
        back = torch.empty_like(gate_up)
        (gate, up), (to_gate, to_up) = (x.split(width, 1) for x in (gate_up, back))
        built().swiglu_backward(rows, width, gate, up, 2 * width, _half(flow), flow, to_gate, to_up)
        return back


def swiglu_forward(gate_up: Tensor) -> Tensor:
    """`swiglu` without a gradient."""
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    gate, up = gate_up.split(width, 1)
    built().swiglu_forward(rows, width, gate, up, 2 * width, _half(out), out)
    return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, query_norm: Tensor | None, key_norm: Tensor | None, heads: Heads, sequences: Sequences
    ) -> Tensor:
        out = qkv.new_empty(len(qkv), heads.heads * heads.size)
        logsumexp = torch.empty(heads.heads, len(qkv), dtype=torch.float32)
        what = attention_of(qkv, query_norm, key_norm, heads, sequences)
        built().attention_forward(ctypes.byref(what), len(qkv), out, logsumexp)
        out[sequences.end :] = 0
        ctx.save_for_backward(qkv, out, logsumexp, query_norm, key_norm)
        ctx.heads, ctx.sequences = heads, sequences
        return out

    @staticmethod
    def backward(ctx: Any, flow: Tensor) -> tuple[Tensor | None, ...]:
        qkv, out, logsumexp, query_norm, key_norm = ctx.saved_tensors
        heads, sequences = ctx.heads, ctx.sequences
        flow = flow.contiguous()
        back = torch.empty_like(qkv)
        to_norms = torch.empty(2, (len(sequences.first) - 1) * heads.kv_heads, heads.size, dtype=torch.float32)
        what = attention_of(qkv, query_norm, key_norm, heads, sequences)
        built().attention_backward(ctypes.byref(what), len(qkv), out, logsumexp, flow, *_parts(back, heads), *to_norms)
        back[sequences.end :] = 0
        to_query_norm, to_key_norm = (None, None) if query_norm is None else to_norms.sum(1)
        return back, to_query_norm, to_key_norm, None, None


def weight_gradient(flow: Tensor, x: Tensor) -> Tensor:
    """`flow.T @ x` of contiguous operands: `[n, out], [n, in] -> [out, in]` float32. No gradient."""
    library = built()
    half = x.dtype is torch.bfloat16
    if x.shape[1] % tile_width() or not len(x) or (half and not library.half_products()):
        return product(flow.t(), x.t()).float()
    out = torch.empty(flow.shape[1], x.shape[1], dtype=torch.float32)
    function = library.weight_gradient_half if half else library.weight_gradient
    function(len(x), *out.shape, flow, x, out)
    return out


def tile_width() -> int:
    """What head sizes are padded to in the caches, and what widths of matrices must be a multiple of."""
    return int(built().tile_width())


def _half(x: Tensor) -> int:
    return int(x.dtype is torch.bfloat16)


def rounded(x: Tensor) -> Tensor:
    """`[n, ...]` with zeros behind it, up to a multiple of 64 rows. oneDNN compiles a product for every number of rows
    that it meets, in some milliseconds, and keeps a thousand of them, of a megabyte each; rounded numbers come again.
    """
    spare = -len(x) % 64
    return torch.cat([x, x.new_zeros(spare, *x.shape[1:])]) if spare else x


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, all of one type, strides as they come. No gradient. See `linear` for why."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
