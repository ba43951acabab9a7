"""The generation engine: prefill once a group, decode all rows together, retire a row the moment it ends.

It runs the learner's own module, so there is no copy of the weights and no difference in numerics. What a rollout
samples depends on the weights, its prompt and its own seed alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cohort.engine.decoder import Decoder, PlainDecoder
from cohort.engine.fused import FusedDecoder
from cohort.engine.sampling import RowSampling, choose
from cohort.engine.verify import disagreement
from cohort.frozen_array import FrozenArray
from cohort.kernels.functions import append_tokens
from cohort.policy.policy import Policy
from cohort.seeds import derive_seed, unit_uniforms
from cohort.types import Completion, Finish, SampleRequest, UserError

__all__ = ["Engine"]


@dataclass(slots=True)
class _Group:
    """A request on its way: its prefix slot, the logits after its prompt, what has come back."""

    request: SampleRequest
    slot: int
    first_logits: Tensor  # [V]
    started: int = 0
    done: dict[int, Completion] = field(default_factory=dict)


class _Rows:
    """The active rows: slots 0..n-1 of these tensors (R rows; T grows with the longest completion)."""

    def __init__(self, rows: int, device: torch.device):
        self.n = 0
        self.owner: list[tuple[_Group, int]] = []  # (group, member) of each active row
        self.place = torch.arange(rows, device=device)  # where the decoder keeps what each row knows: a permutation
        self.slot = torch.zeros(rows, dtype=torch.long, device=device)
        self.length = torch.zeros(rows, dtype=torch.long, device=device)  # tokens sampled so far
        self.limit = torch.zeros(rows, dtype=torch.long, device=device)
        self.tokens = torch.zeros(rows, 64, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(rows, 64, dtype=torch.float32, device=device)
        self.uniforms = torch.zeros(rows, 64, dtype=torch.float64, device=device)
        zeros = torch.zeros(rows, dtype=torch.float32, device=device)
        self.sampling = RowSampling(zeros.clone(), zeros.clone(), zeros.long(), zeros.clone())
        self.truncates = self.stops = False  # whether any row ever had a truncated distribution, or stop strings

    def reserve(self, tokens: int) -> None:
        if (missing := tokens - self.tokens.shape[1]) > 0:
            missing = max(missing, self.tokens.shape[1])
            self.tokens, self.logprobs, self.uniforms = (
                torch.nn.functional.pad(x, (0, missing)) for x in (self.tokens, self.logprobs, self.uniforms)
            )

    def fields(self) -> tuple[Tensor, ...]:
        s = self.sampling
        return (
            *(self.slot, self.length, self.limit, self.tokens, self.logprobs, self.uniforms),
            *(s.temperature, s.top_p, s.top_k, s.min_p),
        )


class Engine:
    """Continuous batching over at most `max_rows` rows at once. Implements `types.Sampler`."""

    def __init__(self, policy: Policy, max_rows: int = 256, prefill_tokens: int = 16384):
        self.policy = policy
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens
        self._version = 0
        self._verified = False
        self._ends = torch.tensor(policy.eos_ids, device=policy.device)

    @property
    def version(self) -> int:
        """The number of the weights that the next token will be drawn from."""
        return self._version

    def publish(self, version: int) -> None:
        """The shared weights have changed and now bear this number. Caches live inside one `sample` call, so none
        outlives its version.
        """
        self._version = version

    def sample(self, requests: Iterable[SampleRequest]) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        """Yield each request with its completions as soon as the last member of the group has ended.

        Raises `UserError` for an empty prompt, or one that leaves no room for its completion.
        """
        wanted = tuple(requests)
        for request in wanted:
            self._refuse_unfit(request)
        groups = self._sample(wanted)
        if self.policy.fused and not self._verified and (first := next(groups, None)) is not None:
            self._verified = True
            if apart := disagreement(self.policy, *first):
                self.policy.fall_back(apart)
                groups = self._sample(wanted)
            else:
                yield first
        yield from groups

    def _sample(self, requests: tuple[SampleRequest, ...]) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        # Gradients are switched off inside each helper, never across a yield: the caller may train in between.
        waiting = deque(requests)
        most = min(self.max_rows, sum(request.count for request in waiting))
        decoder: Decoder = FusedDecoder(self.policy, most) if self.policy.fused else PlainDecoder(self.policy, most)
        rows = _Rows(most, self.policy.device)
        starting: deque[_Group] = deque()
        decoder.refresh()
        while waiting or starting or rows.n:
            # A prefill for every row that retires would run the whole model for one prompt: wait for an eighth.
            if waiting and not starting and most - rows.n >= max(1, most // 8):
                starting.extend(self._prefill(waiting, most - rows.n, decoder))
            ended = self._start(starting, rows) if starting and rows.n < most else []
            if not ended and rows.n:
                ended = self._decode(decoder, rows)
            for group in self._retire(decoder, rows, ended):
                decoder.release(group.slot)
                yield group.request, tuple(group.done[i] for i in range(group.request.count))
                decoder.refresh()
            if not waiting and not starting and (renumbered := decoder.compact()) is not None:
                rows.slot[: rows.n] = renumbered[rows.slot[: rows.n]]
                for group in {id(group): group for group, _ in rows.owner}.values():
                    group.slot = int(renumbered[group.slot])

    def _refuse_unfit(self, request: SampleRequest) -> None:
        if not request.tokens:
            raise UserError("an empty prompt cannot be sampled from: it has no token to predict from")
        limit, need = self.policy.max_context, len(request.tokens) + request.sampling.max_tokens
        if limit is not None and need > limit:
            raise UserError(
                f"a prompt of {len(request.tokens)} tokens and rollout.max_tokens = {request.sampling.max_tokens} "
                f"need {need} positions, but the model has {limit}; lower max_tokens or set task.too_long"
            )

    @torch.no_grad()
    def _prefill(self, waiting: deque[SampleRequest], room: int, decoder: Decoder) -> list[_Group]:
        """Run as many waiting prompts as `room` rows can use through the model, each once."""
        batch: list[SampleRequest] = []
        rows = tokens = 0
        while waiting and (not batch or (rows < room and tokens + len(waiting[0].tokens) <= self.prefill_tokens)):
            batch.append(waiting.popleft())
            rows += batch[-1].count
            tokens += len(batch[-1].tokens)
        slots, logits = decoder.prefill([r.tokens for r in batch])
        return [_Group(r, s, row) for r, s, row in zip(batch, slots, logits, strict=True)]

    @torch.no_grad()
    def _start(self, starting: deque[_Group], rows: _Rows) -> list[int]:
        """Give free rows to members of prefilled groups and sample their first token. Returns the rows that ended."""
        first = rows.n
        while starting and rows.n < len(rows.slot):
            group = starting[0]
            self._place(rows, group, group.started)
            group.started += 1
            if group.started == group.request.count:
                starting.popleft()
        logits = torch.stack([group.first_logits for group, _ in rows.owner[first:]])
        return self._append(rows, first, logits)

    def _place(self, rows: _Rows, group: _Group, member: int) -> None:
        i, wanted = rows.n, group.request.sampling
        rows.n += 1
        rows.owner.append((group, member))
        rows.reserve(wanted.max_tokens)
        rows.slot[i], rows.length[i], rows.limit[i] = group.slot, 0, wanted.max_tokens
        drawn = unit_uniforms(derive_seed(group.request.seed, member), wanted.max_tokens)
        rows.uniforms[i, : wanted.max_tokens] = torch.from_numpy(drawn)
        s = rows.sampling
        s.temperature[i], s.top_p[i], s.top_k[i], s.min_p[i] = (
            *(wanted.temperature, wanted.top_p),
            *(wanted.top_k, wanted.min_p),
        )
        rows.stops |= bool(wanted.stop)
        rows.truncates |= wanted.top_p < 1 or wanted.top_k > 0 or wanted.min_p > 0

    @torch.no_grad()
    def _decode(self, decoder: Decoder, rows: _Rows) -> list[int]:
        """One token for every active row. Returns the rows that ended."""
        n = rows.n
        own = rows.length[:n] - 1  # the last sampled token has no keys and values yet
        tokens = rows.tokens[:n].gather(1, own[:, None])[:, 0]
        return self._append(rows, 0, decoder.decode(tokens, rows.slot[:n], rows.place[:n], own))

    def _append(self, rows: _Rows, first: int, logits: Tensor) -> list[int]:
        """Sample a token for rows `first`.. from `logits` `[n - first, V]`, store it, return the rows that ended."""
        which = slice(first, rows.n)
        if self.policy.fused and not rows.truncates:
            ended = append_tokens(
                logits,
                rows.sampling.temperature[which],
                rows.tokens[which],
                rows.logprobs[which],
                rows.uniforms[which],
                rows.length[which],
                rows.limit[which],
                self._ends,
            )
        else:
            ended = self._append_plainly(rows, which, logits)
        found = {first + row for row in ended.nonzero()[:, 0].tolist()} if bool(ended.any()) else set()
        if rows.stops:
            found.update(row for row in range(first, rows.n) if self._stop_string(rows, row) is not None)
        return sorted(found)

    def _append_plainly(self, rows: _Rows, which: slice, logits: Tensor) -> Tensor:
        at = rows.length[which][:, None]  # [m, 1]
        uniforms = rows.uniforms[which].gather(1, at)[:, 0]
        tokens, logprobs = choose(logits, uniforms, rows.sampling.take(which), rows.truncates)
        rows.tokens[which].scatter_(1, at, tokens[:, None])
        rows.logprobs[which].scatter_(1, at, logprobs[:, None])
        rows.length[which] += 1
        return (rows.length[which] >= rows.limit[which]) | torch.isin(tokens, self._ends)

    def _stop_string(self, rows: _Rows, row: int) -> str | None:
        """The stop string that the row's text ends in or contains since its last token, if any."""
        group, _ = rows.owner[row]
        stops = group.request.sampling.stop
        if not stops:
            return None
        # Decode only the tail that can hold a stop string: every token is at least one byte of text.
        tail = max(len(stop.encode()) for stop in stops) + 4
        length = int(rows.length[row])
        text = self.policy.tokenizer.decode(rows.tokens[row, max(0, length - tail) : length].tolist())
        return next((stop for stop in stops if stop in text), None)

    def _retire(self, decoder: Decoder, rows: _Rows, ended: list[int]) -> list[_Group]:
        """Turn ended rows into completions, close the holes they leave, and return the groups that are whole."""
        whole = []
        for row in ended:
            group, member = rows.owner[row]
            length = int(rows.length[row])
            tokens = FrozenArray(rows.tokens[row, :length].numpy(force=True))
            stopped = tokens[-1] in self.policy.eos_ids or self._stop_string(rows, row) is not None
            finish: Finish = "stop" if stopped else "length"
            logprobs = rows.logprobs[row, :length]
            if not bool(logprobs.isfinite().all()):
                raise UserError(
                    "the model's log-probs are not finite, so its weights are broken. Resume from an older checkpoint "
                    "with a lower optimizer.learning_rate."
                )
            group.done[member] = Completion(tokens, FrozenArray(logprobs.numpy(force=True)), finish, self._version)
            if len(group.done) == group.request.count:
                whole.append(group)
        self._close_holes(decoder, rows, ended)
        return whole

    def _close_holes(self, decoder: Decoder, rows: _Rows, ended: list[int]) -> None:
        """Move the last active rows into the holes, so that the active rows are 0..n-1 again."""
        left = rows.n - len(ended)
        gone = set(ended)
        holes = [row for row in ended if row < left]
        movers = [row for row in range(left, rows.n) if row not in gone]
        if holes:
            source, target = (torch.tensor(x, device=rows.slot.device) for x in (movers, holes))
            for column in rows.fields():
                column[target] = column[source]
            decoder.move(source, target, int(rows.length[source].max()), rows.place)
            for mover, hole in zip(movers, holes, strict=True):
                rows.owner[hole] = rows.owner[mover]
        del rows.owner[left:]
        rows.n = left
