"""Attention that reads a layout instead of a mask.

Cohort runs every model on one flat row of tokens `[1, N]`: no padding reaches the linear layers. Which token attends
to which is the business of a `Layout`, passed through the model's keyword arguments to the attention function that is
registered here with transformers' attention interface. Model code is not forked.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

ATTENTION = "cohort"


class Layout(Protocol):
    """Says which tokens of the flat row attend to which."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """query `[N, H, D]`, key and value `[N, K, D]` (K divides H) -> `[N, H, D]`.

        `window`: a query sees only keys less than `window` positions back (None: all of them).
        """


def _attention(
    module: torch.nn.Module,
    query: Tensor,  # [1, H, N, D]
    key: Tensor,  # [1, K, N, D]
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    if layout is None:
        raise RuntimeError("this model is set up for Cohort's layouts; call it through cohort.policy.Policy")
    for unsupported in ("softcap", "s_aux", "position_bias"):
        if others.get(unsupported) is not None:
            raise NotImplementedError(f"attention with {unsupported} is not supported by the '{ATTENTION}' attention")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    out = layout.attend(
        module.layer_idx,  # type: ignore[arg-type]
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        scale,
        sliding_window,
    )
    return out.unsqueeze(0), None  # [1, N, H, D]


# No mask function is registered under this name, so transformers builds no mask: the layout is the mask.
AttentionInterface.register(ATTENTION, _attention)


def places(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of these `lengths` `[B]`, end to end: the row that each of their N tokens is in, and where in it it is."""
    row = torch.repeat_interleave(lengths)
    return row, torch.arange(len(row), device=row.device) - (lengths.cumsum(0) - lengths)[row]


class PackedGroups:
    """P prompts, each computed once, and B rollouts that continue them, in one flat row of N tokens.

    The flat row is `prompt 0 | prompt 1 | ... | rollout 0 | rollout 1 | ...`. A rollout attends to its prompt and
    causally to itself. Its last token is left out: nothing is predicted from it.

    Attributes: `tokens`, `positions` `[1, N]`; `prompt_ends` `[P]`, the flat index of each prompt's last token;
    `rollout_lengths`, last tokens included; with `keep_kv`, once the model has run, `kv`: the prompts' keys and values
    of every layer, `[P, K, Lp, D]` each, for decoding.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int] | Tensor],
        rollouts: Sequence[Sequence[int] | Tensor] = (),
        group: Sequence[int] = (),
        device: torch.device | str = "cpu",
        keep_kv: bool = False,
    ):
        inputs = [*prompts, *(row[:-1] for row in rollouts)]
        lengths = np.array([len(row) for row in inputs])
        ends = lengths.cumsum()
        first = np.concatenate([np.zeros(len(prompts), np.int64), lengths[list(group)]])  # position of each first token
        flat = np.concatenate(inputs, dtype=np.int64, casting="unsafe")
        positions = np.arange(len(flat)) + np.repeat(first - (ends - lengths), lengths)

        self.device = torch.device(device)
        self.tokens = torch.from_numpy(flat)[None].to(device)  # [1, N]
        self.positions = torch.from_numpy(positions)[None].to(device)  # [1, N]
        self.prompt_ends = torch.from_numpy(ends[: len(prompts)] - 1).to(device)
        spans = list(zip((ends - lengths).tolist(), lengths.tolist(), strict=True))  # where rows start; their tokens
        self._prompt_spans, self._rollout_spans = spans[: len(prompts)], spans[len(prompts) :]
        self._group = torch.tensor(list(group), dtype=torch.long, device=device)  # [B]
        self._prompts = _Rectangle(self._prompt_spans, device)
        # Rollouts of one token have no input of their own: they are predicted from the prompt alone.
        self._buckets = [
            (
                _Rectangle([self._rollout_spans[i] for i in rows], device),
                self._group[torch.tensor(rows, device=device)],  # [b] the prompt of each row
            )
            for rows in _by_length([n for _, n in self._rollout_spans])
        ]
        self.rollout_lengths = [len(row) for row in rollouts]
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        self.kv: list[tuple[Tensor, Tensor]] | None = [] if keep_kv else None

    @functools.cached_property
    def sequences(self) -> tuple[Tensor, Tensor, Tensor]:
        """`first` `[P + 1]`, `start` `[S]`, `length` `[S]` on the CPU: sequences by group, each group's prompt and then
        its rollouts, as places in the flat row. Rollouts without tokens of their own are left out.
        """
        spans = [[span] for span in self._prompt_spans]
        for span, g in zip(self._rollout_spans, self._group.tolist(), strict=True):
            if span[1]:
                spans[g].append(span)
        first = torch.tensor([0, *(len(of) for of in spans)]).cumsum(0)
        both = torch.tensor([span for of in spans for span in of]).t().contiguous()
        return first, both[0], both[1]

    def rows(self) -> list[tuple[Tensor, int]]:
        """Rows that can be computed one by one: the places `[n]` in the flat row of a prompt and the rollout behind it,
        and the first of these that no row before it has. Together they have every place once.
        """
        found, seen = [], set()
        group = self._group.tolist()
        alone = set(range(len(self._prompt_spans))) - {g for g, (_, n) in zip(group, self._rollout_spans) if n}
        for g, own in [*((g, (0, 0)) for g in sorted(alone)), *zip(group, self._rollout_spans, strict=True)]:
            if g in alone and g in seen:
                continue
            start, length = self._prompt_spans[g]
            places = [*range(start, start + length), *range(own[0], own[0] + own[1])]
            if own[1] or g in alone:
                found.append((torch.tensor(places, device=self.device), length if g in seen else 0))
                seen.add(g)
        return found

    def predictors(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The flat index of the token that predicts token `columns[i]` of rollout `rows[i]`: `[M] -> [M]`."""
        starts = torch.tensor([start for start, _ in self._rollout_spans], dtype=torch.long, device=self.device)
        inside = starts[rows] + columns - 1
        return torch.where(columns == 0, self.prompt_ends[self._group[rows]], inside)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """See `Layout.attend`. Two rectangles: prompts over themselves, rollouts over their prompt and themselves."""
        prompts = self._prompts
        key = key.to(value.dtype)  # under autocast a normalised key is wider than its value
        query = query.to(value.dtype)
        keys, values = prompts.gather(key), prompts.gather(value)  # [P, K, Lp, D]
        if self.kv is not None:
            self.kv.append((keys, values))
        out = torch.zeros_like(query)
        mask = self._prompt_mask(window) if window is not None and prompts.width > window else None
        attended = F.scaled_dot_product_attention(
            prompts.gather(query), keys, values, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
        )
        out = prompts.scatter(out, attended)
        for number, (rows, group) in enumerate(self._buckets):
            # index_select, not indexing: its backward adds in a fixed order.
            own_keys = torch.cat([keys.index_select(0, group), rows.gather(key)], 2)  # [b, K, Lp + Lc, D]
            own_values = torch.cat([values.index_select(0, group), rows.gather(value)], 2)
            mask = self._rollout_mask(number, window)
            attended = F.scaled_dot_product_attention(
                rows.gather(query), own_keys, own_values, attn_mask=mask, scale=scale, enable_gqa=True
            )
            out = rows.scatter(out, attended)
        return out

    def _prompt_mask(self, window: int | None) -> Tensor:
        """`[1, 1, Lp, Lp]`: causal, within the window."""
        if (-1, window) not in self._masks:
            at = torch.arange(self._prompts.width, device=self.device)
            self._masks[-1, window] = _within(at[:, None] - at[None, :], window)[None, None]
        return self._masks[-1, window]

    def _rollout_mask(self, number: int, window: int | None) -> Tensor:
        """`[b, 1, Lc, Lp + Lc]` of bucket `number`: the whole own prompt, then causal; within the window."""
        if (number, window) not in self._masks:
            rows, group = self._buckets[number]
            lengths = self._prompts.length[group]  # [b]
            prompt_at = torch.arange(self._prompts.width, device=self.device)  # [Lp]
            own_at = torch.arange(rows.width, device=self.device)  # [Lc]
            query_at = lengths[:, None] + own_at  # [b, Lc]
            real = prompt_at < lengths[:, None]  # [b, Lp]
            over_prompt = _within(query_at[:, :, None] - prompt_at, window) & real[:, None]
            over_own = _within(own_at[:, None] - own_at[None, :], window).expand(len(lengths), -1, -1)
            self._masks[number, window] = torch.cat([over_prompt, over_own], 2)[:, None]
        return self._masks[number, window]


def _by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers by length: up to 64, 128, 256, ... One long rollout must not widen the rectangle of a hundred short
    ones, and within a bucket at most half of a rectangle is padding. Rows of length 0 are in none.
    """
    buckets: dict[int, list[int]] = {}
    for row, n in enumerate(lengths):
        if n:
            buckets.setdefault(max(6, (n - 1).bit_length()), []).append(row)
    return [buckets[size] for size in sorted(buckets)]


class _Rectangle:
    """Flat tokens seen as `[rows, width]`, right-padded: where each row's tokens are, and the way there and back."""

    def __init__(self, spans: Sequence[tuple[int, int]], device: torch.device | str):
        start, length = torch.tensor(spans, dtype=torch.long, device=device).unbind(1)
        self.rows, self.width, self.length = len(spans), int(length.max()), length
        column = torch.arange(self.width, device=device)
        real = column < length[:, None]  # [rows, width]
        # Padding reads the row's first token; causality hides it from every real query.
        first = start.clamp(max=int((start + length).max()) - 1)
        self._take = torch.where(real, start[:, None] + column, first[:, None]).flatten()  # [rows * width]
        self._real = real.flatten().nonzero()[:, 0]  # [N'] places in the rectangle
        self._flat = self._take[self._real]  # [N'] places in the flat row

    def gather(self, flat: Tensor) -> Tensor:
        """`[N, H, D] -> [rows, H, width, D]`."""
        return flat.index_select(0, self._take).view(self.rows, self.width, *flat.shape[1:]).transpose(1, 2)

    def scatter(self, flat: Tensor, rectangle: Tensor) -> Tensor:
        """Write `[rows, H, width, D]` back to its places in `[N, H, D]`."""
        rows = rectangle.transpose(1, 2).reshape(self.rows * self.width, *flat.shape[1:])
        return flat.index_copy(0, self._flat, rows.index_select(0, self._real))


def _within(distance: Tensor, window: int | None) -> Tensor:
    causal = distance >= 0
    return causal if window is None else causal & (distance < window)
