"""Decoding on a GPU: several tokens for every row between two looks at them, each one replay of a captured graph.

A graph is one token: the model's own forward pass, the draw, and what is to be known of the next one, all in buffers
that stay where they are. The host waits for the device once in `TOKENS_AT_ONCE` tokens; a row that ends in between is
masked, and retires then. On a device without graphs the same step is computed eagerly: that is how it is tested.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cohort.engine.running import Running
from cohort.engine.sampling import RowSampling, choose
from cohort.policy.decode import DecodeLayout, PlainDecoder, Sharing, sharing
from cohort.policy.policy import Policy
from cohort.policy.weights import fingerprint
from cohort.wording import one_line

TOKENS_AT_ONCE = 16  # a row that ends in between is computed for nothing, half as many times in the mean
WARM_UP = 3  # steps before a capture, in which libraries choose their kernels and take their memory


class GraphedDecoder:
    """Implements `Decoder` for a policy whose rows are packed, and `advance` beside it. Row i's place is i.

    Keys and values are those of a `PlainDecoder`, slots of prompts and slots of rows, which are kept from one call of
    the engine to the next: a graph is of one place in memory. There is a graph for every bucket of rows, own tokens and
    rows that share a prompt, each a power of two.
    """

    def __init__(self, policy: Policy, rows: int):
        self.policy, self.rows = policy, rows
        self.plain = plain = PlainDecoder(policy, rows)
        # Prompts, and single tokens where the host has to look at each, are the plain one's.
        self.prefill, self.decode, self.release = plain.prefill, plain.decode, plain.release
        self.move, self.copy, self.resume = plain.move, plain.copy, plain.resume
        self.fingerprint = ""  # of the weights that the next token is computed with
        self._version: tuple[int, ...] = ()
        self._halves = _Halves(policy.model) if policy.compute is torch.bfloat16 else None
        self._graphs: dict[tuple[int, ...], tuple[_Step, Callable[[], None]]] = {}
        self._where: tuple[int, ...] = ()  # the addresses that the graphs are of
        self._ends = torch.tensor(policy.eos_ids, device=policy.device)

    def refresh(self) -> None:
        """See `Decoder`: graphs read the model's own weights, or the bfloat16 copy of its matrices."""
        version = tuple(n for p in self.policy.model.parameters() for n in (p._version, p.data_ptr()))
        if version != self._version:
            self._version, self.fingerprint = version, fingerprint(self.policy.model)
            if self._halves is not None:
                self._halves.refresh()

    def advance(self, running: Running) -> list[int]:
        """Up to `TOKENS_AT_ONCE` tokens for every running row, as one by one they would be. The rows that ended."""
        n, cache = running.n, self.plain
        tokens, slot, _, own = running.last()
        rows, width = min(self.rows, _bucket(n)), _bucket(int(own.max()) + TOKENS_AT_ONCE, least=64)
        cache.reserve(width)
        found = sharing(cache, slot, own)
        most = _bucket(found.most)
        place = slot * most + (found.place - slot * found.most)
        step, replay = self._graph(rows, width, most)
        columns = running.length[:n, None] + torch.arange(TOKENS_AT_ONCE, device=slot.device)  # [n, k]
        drawn = running.uniforms[:n].gather(1, columns.clamp(max=running.uniforms.shape[1] - 1))
        step.begin(tokens, slot, own, place, running.limit[:n], drawn, running.sampling.take(slice(n)))
        for _ in range(min(TOKENS_AT_ONCE, int((running.limit[:n] - running.length[:n]).max()))):
            replay()
        made = step.made[:n]
        row, at = (torch.arange(TOKENS_AT_ONCE, device=slot.device) < made[:, None]).nonzero().unbind(1)
        running.tokens[row, columns[row, at]] = step.drawn[row, at]
        running.logprobs[row, columns[row, at]] = step.logprobs[row, at]
        running.length[:n] += made
        return (~step.alive[:n]).nonzero()[:, 0].tolist()

    def _graph(self, rows: int, width: int, most: int) -> tuple[_Step, Callable[[], None]]:
        """The buffers of a bucket, and what computes one token in them."""
        cache = self.plain
        where = (cache.prefix_length.data_ptr(), *(x.data_ptr() for kv in cache.prefix + cache.own for x in kv))
        if where != self._where:  # caches have grown
            self._graphs.clear()
            self._where = where
        key = (rows, width, most)
        if key not in self._graphs:
            step, halves = _Step(self.policy, cache, self._ends, rows, width, most), self._halves

            def one() -> None:
                with halves.used() if halves is not None else contextlib.nullcontext():
                    step.one()

            self._graphs[key] = step, captured(one, self.policy.device)
        return self._graphs[key]


class _Step:
    """One token of `rows` rows, from and into buffers that stay. Rows that are not alive are computed, and not kept."""

    def __init__(self, policy: Policy, cache: PlainDecoder, ends: Tensor, rows: int, width: int, most: int):
        def column(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(rows, *shape, dtype=dtype, device=policy.device)

        self._policy, self._cache, self._ends = policy, cache, ends
        self.token, self.slot, self.own, self.place, self.limit, self.made = (column(torch.long) for _ in range(6))
        self.alive = column(torch.bool)
        self.uniforms, self.drawn = column(torch.float64, TOKENS_AT_ONCE), column(torch.long, TOKENS_AT_ONCE)
        self.logprobs = column(torch.float32, TOKENS_AT_ONCE)
        self.turn = torch.zeros(1, dtype=torch.long, device=policy.device)  # how many tokens were drawn
        self.sampling = RowSampling.empty(column)
        self._nowhere = len(cache.prefix_length) * most
        # Until rows are taken in, as in a warm-up, nothing is written but a column that no row has reached.
        self.own.fill_(width - 1)
        self.place.fill_(self._nowhere)
        self._sharing = Sharing(self.place, most, width, cache.prefix[0][0].shape[2])

    def begin(
        self,
        token: Tensor,
        slot: Tensor,
        own: Tensor,
        place: Tensor,
        limit: Tensor,
        uniforms: Tensor,
        sampling: RowSampling,
    ) -> None:
        """Take n rows in; the others are none."""
        n = len(token)
        for kept, given, none in (
            (self.token, token, 0),
            (self.slot, slot, 0),
            (self.own, own, 0),
            (self.place, place, self._nowhere),
            (self.limit, limit, 0),
            (self.uniforms, uniforms, 0),
            *((kept, given, 1) for kept, given in zip(self.sampling, sampling, strict=True)),
        ):
            kept[:n] = given
            kept[n:] = none
        self.alive[:n], self.alive[n:] = True, False
        self.made.zero_()
        self.turn.zero_()

    def one(self) -> None:
        """One token, as `Engine` draws one."""
        layout = DecodeLayout(self._cache, self.slot, self.own, self._sharing)
        logits = self._policy.logits(self._policy.hidden(self.token[None], layout.positions[None], layout))
        uniform = self.uniforms.index_select(1, self.turn)[:, 0]
        token, logprob = choose(logits, uniform, self.sampling, truncates=False)
        self.drawn.index_copy_(1, self.turn, token[:, None])
        self.logprobs.index_copy_(1, self.turn, logprob[:, None])
        self.made += self.alive
        self.own += self.alive
        self.token.copy_(token)
        self.alive &= ~((token[:, None] == self._ends).any(1) | (self.own + 1 >= self.limit))
        self.turn += 1


class _Halves:
    """The matrices of a model's linear layers in bfloat16: the copies that autocast makes of them for every product,
    made once for every version of the weights, in one place.
    """

    def __init__(self, model: nn.Module):
        head = model.get_output_embeddings()  # type: ignore[operator]
        self._modules = [one for one in model.modules() if type(one) is nn.Linear and one is not head]
        self._kept: list[Any] = [module.weight.detach().bfloat16() for module in self._modules]

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights as they are now."""
        for kept, module in zip(self._kept, self._modules, strict=True):
            kept.copy_(module.weight)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """The layers multiply the copies, for as long as the context lasts."""
        own: list[Any] = [module.weight for module in self._modules]
        for module, kept in zip(self._modules, self._kept, strict=True):
            module._parameters["weight"] = kept
        try:
            yield
        finally:
            for module, weight in zip(self._modules, own, strict=True):
                module._parameters["weight"] = weight


def captured(one: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`one` as a CUDA graph that can be replayed; on another device, itself. Its buffers must be filled before."""
    if device.type != "cuda":
        return one
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            one()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            one()
    except RuntimeError as error:  # a model whose forward pass asks the device for a number, as some routers do
        warnings.warn(f"decoding is not captured as a graph ({one_line(error)}): right, but slower", stacklevel=2)
        return one
    return graph.replay


def _bucket(n: int, least: int = 1) -> int:
    return max(least, 1 << (n - 1).bit_length())
