"""The generic path: whole rows through a model's own forward pass and its own cache, whatever its layers are.

Slower than packed groups, as a prompt is read once for every rollout when the policy learns, and rows are padded. It
needs nothing of a model but that it is causal: earlier tokens do not see later ones, so padding on the right is never
seen. Padding on the left, for decoding, is; `policy.proof` finds out whether a model hides it.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from cohort.policy.attention import PackedGroups
from cohort.types import UserError

Together = Literal["padded", "equal", "single"]  # rows of any length, padded; only those of one length; one alone
Shared = Literal["padded", "equal", "none"]  # the same of prompts that are decoded; none: all is computed every token


@dataclass(frozen=True, slots=True)
class Mode:
    """How a model was found to run right without packed groups."""

    because: str  # why they are not used
    rows: Together = "padded"
    cache: Shared = "padded"
    own_head: bool = False  # whether only the model itself makes its logits from hidden states

    def __str__(self) -> str:
        learnt = {"padded": "", "equal": ", only rows of one length together", "single": ", one row at a time"}
        decoded = {
            "padded": "its state copied to the rows of a group",
            "equal": "its state copied to the rows of a group, only prompts of one length together",
            "none": "every token reads the whole row again, as the model's cache cannot be shared",
        }
        return (
            f"generic path ({self.because}; sampling: a prompt read once, {decoded[self.cache]}; "
            f"learning: a prompt read again for every rollout{learnt[self.rows]})"
        ).replace("a prompt read once, every token", "every token")


class RowStates(Protocol):
    """Rows of one prefill, which have equally many tokens behind their prompts."""

    def take(self, index: Tensor) -> RowStates:
        """A copy of rows `index` `[m]`, each as often as it is named."""

    def keep(self, index: Tensor) -> None:
        """Let go of all rows but `index` `[m]`; one that is named several times goes on as often."""

    def step(self, tokens: Tensor) -> Tensor:
        """One more token each, `[b] -> [b, hidden]`: the hidden states from which the next ones are predicted."""


class GenericBody:
    """A causal LM without its head. `precision` makes the context that its arithmetic runs in."""

    def __init__(self, model: Any, mode: Mode, precision: Callable[[], contextlib.AbstractContextManager[Any]]):
        self.model, self.mode = model, mode
        self._precision = precision
        self._takes = inspect.signature(model.forward).parameters.keys()
        self._body, self._output = _find_body(model, self._takes)
        self.cache_name = next((name for name in ("past_key_values", "cache_params") if name in self._takes), "")
        self.beside: list[Tensor] = []  # what others note of each token, `[b * T, X]` each, while rows are run

    def run(self, ids: Tensor, **inputs: Any) -> tuple[Tensor, Any]:
        """The hidden states `[b, T, hidden]` of token rows `[b, T]`, and the model's output."""
        found: list[Tensor] = []
        hook = self._body.register_forward_hook(lambda _module, _given, out: found.append(out.last_hidden_state))
        options = {"use_cache": False, "logits_to_keep": 1, "return_dict": True, **inputs}
        try:
            with self._precision():
                out = self.model(input_ids=ids, **{k: v for k, v in options.items() if k in self._takes})
        finally:
            hook.remove()
        return found[-1], out

    def hidden(self, layout: PackedGroups) -> Tensor:
        """The final hidden states of a packed row, `[N, hidden]`, computed row by row: prompt and rollout together."""
        flat, order = layout.tokens[0], []
        parts: list[list[Tensor]] = []  # of every batch: hidden states, and what was noted beside them
        for rows in self._batches(layout.rows()):
            width = max(len(of) for of, _ in rows)
            ids = flat.new_zeros(len(rows), width)
            mask = torch.zeros_like(ids)
            for i, (of, _) in enumerate(rows):
                ids[i, : len(of)] = flat[of]
                mask[i, : len(of)] = 1
            self.beside.clear()
            hidden = self.run(ids, **({} if bool(mask.all()) else {"attention_mask": mask}))[0]
            places = [i * width + j for i, (of, first) in enumerate(rows) for j in range(first, len(of))]
            wanted = torch.tensor(places, device=flat.device)
            parts.append([x.index_select(0, wanted) for x in (hidden.flatten(0, 1), *self.beside)])
            order += [of[first:] for of, first in rows]
        back = torch.cat(order).argsort()  # every token of the packed row is computed in exactly one of these places
        hidden, *self.beside[:] = (torch.cat(of).index_select(0, back) for of in zip(*parts, strict=True))
        return hidden

    def _batches(self, rows: list[tuple[Tensor, int]]) -> list[list[tuple[Tensor, int]]]:
        if self.mode.rows == "padded":
            return [rows]
        if self.mode.rows == "single":
            return [[row] for row in rows]
        by_length: dict[int, list[tuple[Tensor, int]]] = {}
        for row in rows:
            by_length.setdefault(len(row[0]), []).append(row)
        return list(by_length.values())

    def head(self, hidden: Tensor) -> Tensor:
        """`[M, hidden] -> [M, vocabulary]`, float32: what the model does with the output of its body, which is for this
        one call replaced by `hidden`.
        """
        out = self._output(last_hidden_state=hidden[None])
        self._body.forward = lambda *_given, **_options: out  # hides the method of the class
        try:
            ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
            return self.model(input_ids=ids).logits[0].float()
        finally:
            del self._body.forward

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[list[tuple[list[int], RowStates]], Tensor]:
        """Run each prompt once. The states of prompts that decode together, with which prompts they are, and the
        hidden states `[P, hidden]` behind the prompts.
        """
        device = next(self.model.parameters()).device
        if self.mode.cache == "none":
            rows = RecomputedRows(self, [list(prompt) for prompt in prompts])
            return [(list(range(len(prompts))), rows)], rows.last()
        together: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            together.setdefault(len(prompt) if self.mode.cache == "equal" else 0, []).append(i)
        states: list[tuple[list[int], RowStates]] = []
        last: dict[int, Tensor] = {}
        for members in together.values():
            width = max(len(prompts[i]) for i in members)
            ids = torch.tensor([[0] * (width - len(prompts[i])) + list(prompts[i]) for i in members], device=device)
            lengths = torch.tensor([len(prompts[i]) for i in members], device=device)
            mask = torch.arange(width, device=device) >= width - lengths[:, None]
            new = CachedRows(self, None, mask.new_zeros(len(members), 0), lengths - lengths)
            hidden = new.extend(ids, mask)
            last.update(zip(members, hidden, strict=True))
            states.append((members, new))
        return states, torch.stack([last[i] for i in range(len(prompts))])


class CachedRows:
    """Rows with a cache of the model's own kind. Implements `RowStates`.

    `mask` `[b, L]`: true at the places before the next token that hold no padding; `position` `[b]` of that token.
    """

    def __init__(self, body: GenericBody, cache: Cache | None, mask: Tensor, position: Tensor):
        self._body, self._cache, self._mask, self._position = body, cache, mask, position

    def take(self, index: Tensor) -> CachedRows:
        """See `RowStates`."""
        cache = copy.deepcopy(self._cache)
        cache.reorder_cache(index)  # type: ignore[union-attr, arg-type]
        return CachedRows(self._body, cache, self._mask[index], self._position[index])

    def keep(self, index: Tensor) -> None:
        """See `RowStates`."""
        self._cache.reorder_cache(index)  # type: ignore[union-attr, arg-type]
        self._mask, self._position = self._mask[index], self._position[index]

    def step(self, tokens: Tensor) -> Tensor:
        """See `RowStates`."""
        return self.extend(tokens[:, None], self._mask.new_ones(len(tokens), 1))

    def extend(self, ids: Tensor, real: Tensor) -> Tensor:
        """Compute tokens `[b, t]` behind those that are there, `real` where they are no padding, and return the last
        hidden states.
        """
        self._mask = torch.cat([self._mask, real], 1)
        positions = (self._position[:, None] + real.cumsum(1) - 1).clamp(min=0)
        self._position = self._position + real.sum(1)
        name = self._body.cache_name or "past_key_values"
        if self._cache is None and self._body.model._supports_default_dynamic_cache():
            self._cache = DynamicCache(config=self._body.model.config.get_text_config(decoder=True))
        inputs: dict[str, Any] = {"use_cache": True, name: self._cache, "position_ids": positions}
        # A model that has states alone reads no mask behind the prompt: it would be one of the wrong width.
        if not bool(self._mask.all()) and not (name == "cache_params" and ids.shape[1] == 1):
            inputs["attention_mask"] = self._mask.long()
        hidden, out = self._body.run(ids, **inputs)
        cache = getattr(out, name, None)
        if not isinstance(cache, Cache):
            raise UserError(f"its cache is {type(cache).__name__}, which has no rows that could be copied")
        self._cache = cache
        return hidden[:, -1]


class RecomputedRows:
    """Rows of a model without a cache that could be copied: each token reads them whole. Implements `RowStates`."""

    def __init__(self, body: GenericBody, rows: list[list[int]]):
        self._body, self._rows = body, rows

    def take(self, index: Tensor) -> RecomputedRows:
        """See `RowStates`."""
        return RecomputedRows(self._body, [list(self._rows[i]) for i in index.tolist()])

    def keep(self, index: Tensor) -> None:
        """See `RowStates`."""
        self._rows = [list(self._rows[i]) for i in index.tolist()]

    def step(self, tokens: Tensor) -> Tensor:
        """See `RowStates`."""
        for row, token in zip(self._rows, tokens.tolist(), strict=True):
            row.append(token)
        return self.last()

    def last(self) -> Tensor:
        """The hidden states behind the rows, `[b, hidden]`."""
        layout = PackedGroups(self._rows, device=next(self._body.model.parameters()).device)
        return self._body.hidden(layout)[layout.prompt_ends]


@torch.no_grad()
def _find_body(model: Any, takes: Any) -> tuple[nn.Module, Any]:
    """The outermost part of a model that returns hidden states, and the class that it returns them in."""
    found: list[tuple[str, nn.Module, Any]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _given: Any, out: Any) -> None:
            if isinstance(getattr(out, "last_hidden_state", None), Tensor):
                found.append((name, module, type(out)))

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        ids = torch.tensor([[1, 2]], device=next(model.parameters()).device)
        model(input_ids=ids, **{k: v for k, v in {"use_cache": False, "return_dict": True}.items() if k in takes})
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError("no part of it returns the hidden states that its head reads")
    _, body, kind = min(found, key=lambda one: one[0].count("."))
    return body, kind
