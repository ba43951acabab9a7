"""The generation engine: prefill once a group, decode all rows together, retire a row the moment it ends.

It runs the learner's own module, so there is no copy of the weights and no difference in numerics. What a rollout
samples depends on the weights, its prompt and its own seed alone.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cohort.engine.beams import BeamSearch
from cohort.engine.decoder import Decoder
from cohort.engine.fused import FusedDecoder, disagreement
from cohort.engine.generic import GenericDecoder
from cohort.engine.graphs import GraphedDecoder
from cohort.engine.running import Running, StartedGroup
from cohort.engine.sampling import choose, stop_string
from cohort.frozen_array import FrozenArray
from cohort.kernels.library import built
from cohort.machine import is_out_of_memory
from cohort.policy.attention import PackedGroups
from cohort.policy.decode import PREFILL_TOKENS, PlainDecoder
from cohort.policy.policy import Policy
from cohort.policy.weights import fingerprint
from cohort.types import Completion, Finish, SampleRequest, UserError
from cohort.wording import one_line


class Live(Protocol):
    """What comes in while others are decoded, and who watches."""

    def more(self) -> Sequence[SampleRequest]:
        """The requests that have come in since the last call."""
        ...

    def ends(self, request: SampleRequest, member: int, tokens: Tensor) -> bool:
        """A completion has so many tokens now, `[t]`: whether it is to end here, as if it had reached its length."""
        ...


class InFlight(NamedTuple):
    """What `take` does between two decoding steps may change the weights, and `publish` them. With `recompute` the keys
    and values of all rows are then computed anew; else they stay those of the weights that drew their tokens.
    """

    take: Callable[[], None]
    recompute: bool


class Engine:
    """Continuous batching over at most `max_rows` rows at once. Implements `types.Sampler`."""

    def __init__(self, policy: Policy, max_rows: int = 256, precision: str = "auto"):
        """Raises `UserError` for `precision` = "int8" where the policy does not take the compiled path."""
        policy.refuse_classifier()
        if precision == "int8" and policy.fused is None:
            raise UserError(
                'rollout.precision = "int8" needs the compiled path, and this policy takes the '
                f"{policy.path}: leave it out"
            )
        if precision == "int8" and not built().byte_products():
            warnings.warn(
                "this processor has no products of bytes (AVX512-VNNI), so rollout.precision = 'int8' is slower than "
                "'auto'",
                stacklevel=2,
            )
        self.policy = policy
        self.max_rows = max_rows
        self._precision = precision
        self.version = 0  # of the weights that the next token will be drawn from
        self.cut = self.cut_tokens = 0  # completions that were begun and not given back, and their tokens
        self._verified = False
        # Whether tokens are drawn by captured graphs; and what has them, from one call to the next.
        self.graphed = policy.device.type == "cuda" and policy.generic is None
        self._kept: GraphedDecoder | None = None
        self._ends = torch.tensor(policy.eos_ids, device=policy.device)

    def publish(self, version: int) -> None:
        """The shared weights have changed and now bear this number. Caches live inside one `sample` call, so none
        outlives its version.
        """
        self.version = version

    def fingerprint(self) -> str:
        """See `types.ProvingSampler`: of the packed copy where there is one, as it was when that was made."""
        if self._kept is not None:
            self._kept.refresh()
            return self._kept.fingerprint
        if self.policy.fused is None:
            return fingerprint(self.policy.model)
        packed = self.policy.fused.packed(self._precision)
        packed.refresh()
        return packed.fingerprint

    @torch.no_grad()
    def canary(self, prompt: Sequence[int], tokens: Sequence[int]) -> Sequence[float]:
        """See `types.ProvingSampler`: token by token, as rollouts are decoded."""
        decoder = self._decoder(1)
        decoder.refresh()
        (slot,), logits = decoder.prefill([prompt])
        at, found = torch.tensor([slot], device=self.policy.device), [logits]
        for own, token in enumerate(tokens[:-1]):
            last, count = torch.full_like(at, token), torch.full_like(at, own)
            found.append(decoder.decode(last, at, torch.zeros_like(at), count))
        chosen = torch.tensor(tokens, device=self.policy.device)[:, None]
        return torch.cat(found).float().log_softmax(-1).gather(-1, chosen)[:, 0].tolist()

    @torch.no_grad()
    def rehearse(self, prompt: int, prompts: int, rows: int, tokens: int) -> None:
        """Hold what sampling holds at its worst: `rows` rows of `tokens` tokens behind `prompts` prompts of `prompt`
        tokens, and draw one token for each. Not on the generic path, which has no caches of a size known before.
        """
        if self.policy.generic is not None:
            return
        rows = min(self.max_rows, rows)
        decoder, prompts = self._decoder(rows), min(prompts, rows)
        assert isinstance(decoder, FusedDecoder | PlainDecoder)
        decoder.refresh()
        slots: list[int] = []
        while len(slots) < prompts:
            some = min(prompts - len(slots), max(1, PREFILL_TOKENS // prompt))
            slots += decoder.prefill([self.policy.eos_ids[:1] * prompt] * some)[0]
        device = self.policy.device
        slot, last = torch.tensor(slots, device=device).repeat(rows)[:rows], torch.full((rows,), tokens - 1)
        tokens_now = torch.full((rows,), self.policy.eos_ids[0], device=device)
        decoder.decode(tokens_now, slot, torch.arange(rows, device=device), last.to(device))
        for keys, values in decoder.own:  # zeros that nobody has written to are not yet in memory
            keys.fill_(0)
            values.fill_(0)

    @torch.no_grad()
    def alternatives(
        self, prompt: Sequence[int], tokens: Sequence[int], top: int, temperature: float
    ) -> list[list[tuple[int, float]]]:
        """The `top` likeliest tokens at the place of each token behind the prompt, with their log-probs at a
        temperature, by one pass over them. 0, greedy, counts as 1.
        """
        layout = PackedGroups([prompt], [tokens], [0], self.policy.device)
        hidden = self.policy.hidden(layout.tokens, layout.positions, layout)
        states, found = hidden.index_select(0, layout.predicting(0)), []
        for part in states.split(256):  # of a large vocabulary all logits at once would be gigabytes
            logprobs = (self.policy.logits(part) / (temperature or 1.0)).log_softmax(-1).topk(top)
            found += [
                list(zip(*of, strict=True))
                for of in zip(logprobs.indices.tolist(), logprobs.values.tolist(), strict=True)
            ]
        return found

    def sample(
        self, requests: Iterable[SampleRequest], live: Live | None = None, flight: InFlight | None = None
    ) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        """Yield each request with its completions as soon as the last member of the group has ended. What comes in by
        `live` joins the others; weights that come by `flight` draw the tokens that are still to be drawn.

        Raises `UserError` for an empty prompt, or one that leaves no room for its completion.
        """
        left = list(requests)
        self._refuse_unfit(left)
        while left:
            try:
                for request, completions in self._sample(left, live, flight):
                    del left[next(i for i, one in enumerate(left) if one is request)]
                    yield request, completions
            except Exception as error:
                if not is_out_of_memory(error) or self.max_rows == 1:
                    raise
                why = one_line(error) or type(error).__name__
            else:
                continue  # nothing is left, or another path draws the rest
            # What a row draws depends on its own seed alone, so those that have not ended begin again, fewer at once.
            self.max_rows = max(1, min(self.max_rows, sum(request.count for request in left)) // 2)
            warnings.warn(
                f"memory ran out while sampling ({why}), so from here on {self.max_rows} completions are decoded at "
                "once: see rollout.max_rows",
                stacklevel=2,
            )

    def _sample(
        self, wanted: list[SampleRequest], live: Live | None, flight: InFlight | None
    ) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        """The same in one go, or until the policy has fallen back. What comes in is added to `wanted`."""
        # Gradients are switched off inside each part, never across a yield: the caller may train in between.
        waiting = deque(wanted)
        together = max((request.count for request in wanted if request.sampling.beams), default=0)
        asked = self.max_rows if live is not None else sum(request.count for request in waiting)
        most = max(together, min(self.max_rows, asked))
        running = Running(most, self.policy.device)
        decoder = self._graphs(most) if self.graphed else self._decoder(most)
        decoder.refresh()
        append = BeamSearch(self.policy, decoder).append if together else self._append
        cuts, version = any(request.keep is not None for request in wanted), self.version
        while waiting or running.prefilled or running.n:
            ended: list[int] = []
            if live is not None and (new := live.more()):
                waiting.extend(new)
                wanted.extend(new)
                cuts = cuts or any(request.keep is not None for request in new)
            if flight is not None:
                flight.take()
            with torch.no_grad():
                if self.version != version:  # also where they were published while a group was looked at
                    decoder.refresh()
                    running.note(version, self.version)
                    version = self.version
                    if flight is not None and flight.recompute:
                        running.recompute(decoder, version)
                first = running.n
                if (logits := running.start(waiting, decoder, version)) is not None:
                    ended = append(running, first, logits)
                if not ended and running.n:
                    # Where somebody looks at every token, the device is waited for at every one.
                    watched = together or live is not None or running.stops or running.truncates
                    if isinstance(decoder, GraphedDecoder) and not watched:
                        ended = decoder.advance(running)
                    else:
                        ended = append(running, 0, decoder.decode(*running.last()))
            if live is not None:
                ended = sorted({*ended, *self._given_up(running, live)})
            touched: dict[int, StartedGroup] = {}
            for row in ended:
                group, member = running.owner[row]
                length = int(running.length[row])
                tokens, logprobs = running.tokens[row, :length], running.logprobs[row, :length]
                if not bool(logprobs.isfinite().all()):
                    raise UserError(
                        "the model's log-probs are not finite, so its weights are broken. Resume from an older "
                        "checkpoint with a lower optimizer.learning_rate."
                    )
                stopped = int(tokens[-1]) in self.policy.eos_ids or self._stop_string(running, row) is not None
                drawn, given = (FrozenArray(column.numpy(force=True)) for column in (tokens, logprobs))
                finish: Finish = "stop" if stopped else "length"
                spans = tuple(span for span in group.spans.pop(member, ()) if span[0] < length)
                oldest, *newer = spans or ((0, version),)
                group.done[member] = Completion(drawn, given, finish, oldest[1], spans if newer else ())
                touched[id(group)] = group
            if cuts:
                overdue = [row for row in running.overdue() if row not in ended]
                for row in overdue:
                    group = running.owner[row][0]
                    group.cut, touched[id(group)] = group.cut + 1, group
                    self.cut_tokens += int(running.length[row])
                ended = sorted([*ended, *overdue])
            running.remove(ended, decoder)
            for group in touched.values():
                if (completions := group.completions) is None:
                    continue
                decoder.release(group.slot)
                self.cut += group.request.count - len(completions)
                self.cut_tokens += sum(len(one.tokens) for one in group.done.values())
                self.cut_tokens -= sum(len(one.tokens) for one in completions)
                same = all(one.version == self.version and not one.versions for one in completions)
                if self.policy.fused and not self._verified and same:
                    self._verified = True
                    in_bytes = self._precision == "int8"
                    if apart := disagreement(self.policy, group.request, completions, in_bytes):
                        self.policy.fall_back(apart)
                        return
                yield group.request, completions
                decoder.refresh()
            settled = not waiting and not running.prefilled
            if settled and isinstance(decoder, PlainDecoder) and (slots := decoder.compact()) is not None:
                running.renumber(slots)
        self._kept = decoder if isinstance(decoder, GraphedDecoder) else None

    def _graphs(self, rows: int) -> GraphedDecoder:
        """The decoder that the last call left, whose graphs are captured; another one where that is at work, or has no
        room for so many rows.
        """
        kept, self._kept = self._kept, None
        return kept if kept is not None and kept.rows >= rows else GraphedDecoder(self.policy, rows)

    def _decoder(self, rows: int) -> Decoder:
        """The decoder of the path that the policy is on, with room for `rows` rows."""
        if self.policy.generic is not None:
            return GenericDecoder(self.policy, self.policy.generic)
        return (
            FusedDecoder(self.policy, rows, self._precision) if self.policy.fused else PlainDecoder(self.policy, rows)
        )

    def _refuse_unfit(self, requests: Sequence[SampleRequest]) -> None:
        if len({(one.sampling.beams, one.sampling.beams and (one.count, one.sampling.stop)) for one in requests}) > 1:
            raise ValueError("requests of one call are all drawn, or all searched for with the same beams")
        for request in requests:
            if not request.tokens:
                raise UserError("an empty prompt cannot be sampled from: it has no token to predict from")
            limit, need = self.policy.max_context, len(request.tokens) + request.sampling.max_tokens
            if limit is not None and need > limit:
                raise UserError(
                    f"a prompt of {len(request.tokens)} tokens and rollout.max_tokens = {request.sampling.max_tokens} "
                    f"need {need} positions, but the model has {limit}; lower max_tokens or set task.too_long"
                )

    def _append(self, running: Running, first: int, logits: Tensor) -> list[int]:
        """Draw a token for rows `first`.. from softmax(`logits` / temperature), `[n - first, V]`, by inverting the
        cumulative distribution at the row's uniform, store it with its log-prob, and return the rows that ended. A row
        with temperature 0 takes the largest logit and reports its log-prob at temperature 1.
        """
        which = slice(first, running.n)
        if self.policy.fused and not running.truncates:
            r, ended = running, torch.empty(len(logits), dtype=torch.uint8)
            logits = logits if logits.stride(1) == 1 else logits.contiguous()
            columns = [column[which] for column in (r.tokens, r.logprobs, r.uniforms, r.length, r.limit)]
            given = logits, r.sampling.temperature[which], r.tokens.stride(0), *columns
            built().append_tokens(*logits.shape, logits.stride(0), *given, self._ends, len(self._ends), ended)
        else:
            ended = self._append_plainly(running, which, logits)
        found = {first + row for row in ended.nonzero()[:, 0].tolist()} if bool(ended.any()) else set()
        if running.stops:
            found.update(row for row in range(first, running.n) if self._stop_string(running, row) is not None)
        return sorted(found)

    def _append_plainly(self, running: Running, which: slice, logits: Tensor) -> Tensor:
        at = running.length[which][:, None]  # [m, 1]
        uniforms = running.uniforms[which].gather(1, at)[:, 0]
        tokens, logprobs = choose(logits, uniforms, running.sampling.take(which), running.truncates)
        running.tokens[which].scatter_(1, at, tokens[:, None])
        running.logprobs[which].scatter_(1, at, logprobs[:, None])
        running.length[which] += 1
        return (running.length[which] >= running.limit[which]) | torch.isin(tokens, self._ends)

    def _given_up(self, running: Running, live: Live) -> list[int]:
        """The rows that whoever watches them ends."""
        rows = ((row, *running.owner[row], running.tokens[row, : int(running.length[row])]) for row in range(running.n))
        return [row for row, group, member, tokens in rows if live.ends(group.request, member, tokens)]

    def _stop_string(self, running: Running, row: int) -> str | None:
        """The stop string that the row's text ends in or contains since its last token, if any."""
        stops = running.owner[row][0].request.sampling.stop
        return stop_string(self.policy.tokenizer, stops, running.tokens[row, : int(running.length[row])])
