"""Attention that reads a layout instead of a mask.

Cohort runs every model on one flat row of tokens `[1, N]`: no padding reaches the linear layers. Which token attends
to which is the business of a `Layout`, passed through the model's keyword arguments to the attention function that is
registered here with transformers' attention interface. Model code is not forked.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from cohort.policy.flex import FlatMask

ATTENTION = "cohort"


class Reach(NamedTuple):
    """How far back a query sees."""

    window: int | None = None  # only keys less than so many positions back
    chunk: int | None = None  # only keys of its own chunk of so many positions

    def hides(self, query_at: Tensor, key_at: Tensor) -> Tensor:
        """Whether a key that is not behind the query is out of its sight; of positions that broadcast."""
        hidden = torch.zeros((), dtype=torch.bool, device=key_at.device)
        if self.window is not None:
            hidden = query_at - key_at >= self.window
        if self.chunk is not None:
            hidden = hidden | (query_at // self.chunk != key_at // self.chunk)
        return hidden


EVERYTHING = Reach()


@dataclass(frozen=True, slots=True)
class Scores:
    """What becomes of the product of a query and a key before the softmax."""

    scale: float
    reach: Reach = EVERYTHING
    softcap: float | None = None  # scores are bent to lie between -softcap and softcap
    sinks: Tensor | None = None  # [H] a score of each head that takes part in the softmax and has no value


class Layout(Protocol):
    """Says which tokens of the flat row attend to which."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """query `[N, H, D]`, key `[N, K, D]`, value `[N, K, V]` (K divides H) -> `[N, H, V]`."""


def _attention(
    module: torch.nn.Module,
    query: Tensor,  # [1, H, N, D]
    key: Tensor,  # [1, K, N, D]
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    if layout is None:
        raise RuntimeError("no layout reached its attention, which only cohort.policy.Policy gives it")
    if attention_mask is not None or others.get("position_bias") is not None:
        raise NotImplementedError("its attention has a mask or a bias of its own")
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scores = Scores(scale, _reach(module, layer, sliding_window), softcap, s_aux)
    flat_query, flat_key, flat_value = (x[0].transpose(0, 1) for x in (query, key, value))
    out = layout.attend(layer, flat_query, flat_key, flat_value, scores)
    return out.unsqueeze(0), None  # [1, N, H, V]


def _reach(module: Any, layer: int, window: int | None) -> Reach:
    """How far a layer sees: as its module says, or its configuration, where transformers puts that into the mask."""
    kinds = getattr(getattr(module, "config", None), "layer_types", None)
    kind = kinds[layer] if kinds else ""
    if kind == "chunked_attention":
        return Reach(chunk=module.config.attention_chunk_size)
    return Reach(module.config.sliding_window if kind == "sliding_attention" and window is None else window)


def attend(query: Tensor, key: Tensor, value: Tensor, scores: Scores, mask: Tensor | None) -> Tensor:
    """Softmax attention: query `[b, H, L, D]`, key `[b, K, T, D]`, value `[b, K, T, V]` -> `[b, H, L, V]`. `mask`, true
    where a query sees a key, broadcasts to `[b, H, L, T]`; None: causal, and L = T.
    """
    if scores.softcap is None and scores.sinks is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scores.scale, enable_gqa=True
        )
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    found = bent((query @ key.transpose(-1, -2)).float() * scores.scale, scores.softcap)
    found = found.masked_fill(~mask, torch.finfo(found.dtype).min)
    if scores.sinks is not None:
        sinks = scores.sinks.float().view(1, -1, 1, 1).expand(*found.shape[:3], 1)
        found = torch.cat([found, sinks], -1)
    return found.softmax(-1)[..., : key.shape[2]].to(value.dtype) @ value


def bent(scores: Tensor, softcap: float | None) -> Tensor:
    """Scores between -softcap and softcap, nearly unchanged where they are small."""
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


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
        self._masks: dict[tuple[int, Reach], Tensor] = {}
        self.flexes = self.device.type == "cuda" and not keep_kv
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
        """Rows that can be computed one by one: for each the places `[n]` in the flat row of a prompt and the rollout
        behind it, and from which of these on no row before it has them. Together they have every place once.
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

    def predicting(self, row: int) -> Tensor:
        """The same of all tokens of one rollout, `[n]`."""
        columns = torch.arange(self.rollout_lengths[row], device=self.device)
        return self.predictors(torch.full_like(columns, row), columns)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """See `Layout.attend`. Two rectangles: prompts over themselves, rollouts over their prompt and themselves."""
        prompts = self._prompts
        key = key.to(value.dtype)  # under autocast a normalised key is wider than its value
        query = query.to(value.dtype)
        if self.flexes and (whole := self._flat.attend(query, key, value, scores)) is not None:
            return whole
        keys, values = prompts.gather(key), prompts.gather(value)  # [P, K, Lp, D]
        if self.kv is not None:
            self.kv.append((keys, values))
        out = query.new_zeros(*query.shape[:2], value.shape[2])
        short = prompts.width <= min(scores.reach.window or prompts.width, scores.reach.chunk or prompts.width)
        mask = None if short else self._prompt_mask(scores.reach)
        out = prompts.scatter(out, attend(prompts.gather(query), keys, values, scores, mask))
        for number, (rows, group) in enumerate(self._buckets):
            # index_select, not indexing: its backward adds in a fixed order.
            own_keys = torch.cat([keys.index_select(0, group), rows.gather(key)], 2)  # [b, K, Lp + Lc, D]
            own_values = torch.cat([values.index_select(0, group), rows.gather(value)], 2)
            mask = self._rollout_mask(number, scores.reach)
            out = rows.scatter(out, attend(rows.gather(query), own_keys, own_values, scores, mask))
        return out

    @functools.cached_property
    def _flat(self) -> FlatMask:
        spans, count = [*self._prompt_spans, *self._rollout_spans], len(self._prompt_spans)
        lengths = torch.tensor([n for _, n in spans], device=self.device)
        group = torch.cat([torch.arange(count, device=self.device), self._group]).repeat_interleave(lengths)
        rollout = (torch.arange(len(spans), device=self.device) - count).clamp(min=-1).repeat_interleave(lengths)
        return FlatMask(group, rollout, self.positions[0])

    def _prompt_mask(self, reach: Reach) -> Tensor:
        """`[1, 1, Lp, Lp]`: causal, within reach."""
        if (-1, reach) not in self._masks:
            at = torch.arange(self._prompts.width, device=self.device)
            self._masks[-1, reach] = _seen(at[:, None], at, reach)[None, None]
        return self._masks[-1, reach]

    def _rollout_mask(self, number: int, reach: Reach) -> Tensor:
        """`[b, 1, Lc, Lp + Lc]` of bucket `number`: the whole own prompt, then causal; within reach."""
        if (number, reach) not in self._masks:
            rows, group = self._buckets[number]
            lengths = self._prompts.length[group]  # [b]
            prompt_at = torch.arange(self._prompts.width, device=self.device)  # [Lp]
            query_at = lengths[:, None] + torch.arange(rows.width, device=self.device)  # [b, Lc]
            real = prompt_at < lengths[:, None]  # [b, Lp]
            over_prompt = _seen(query_at[:, :, None], prompt_at, reach) & real[:, None]
            over_own = _seen(query_at[:, :, None], query_at[:, None], reach)
            self._masks[number, reach] = torch.cat([over_prompt, over_own], 2)[:, None]
        return self._masks[number, reach]


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


def _seen(query_at: Tensor, key_at: Tensor, reach: Reach) -> Tensor:
    return (query_at >= key_at) & ~reach.hides(query_at, key_at)
