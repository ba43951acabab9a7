"""Beam search: the likeliest completions of a prompt, found by rows that run side by side, in place of draws.

With one part it finds what `generate(num_beams=count)` of transformers finds (early_stopping=False). With several it is
diverse beam search (Vijayakumar et al., 1610.02424) with Hamming diversity: the parts of a prompt choose one after the
other, and a token costs `penalty` nats for every beam of the parts before that has just taken it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from cohort.engine.decoder import Decoder
from cohort.engine.running import Running
from cohort.engine.sampling import stop_string
from cohort.policy.policy import Policy
from cohort.types import Sampling


class Found(NamedTuple):
    """A completion that has ended: its score, its tokens, and the policy's log-probs of them."""

    score: float
    tokens: Tensor  # [n] long
    logprobs: Tensor  # [n] float32


@dataclass(slots=True)
class Part:
    """Beams that compete with each other, w of them. `scores` `[w]` are their log-probs, less what their tokens cost
    (minus infinity: there is no such beam); `found` are the best w that have ended, the best first.
    """

    scores: Tensor
    found: list[Found] = field(default_factory=list)


class BeamSearch:
    """Decides what rows go on with. The beams of part p of a group are its members p * w, p * w + 1, ...: they begin
    together, and end together, once none that runs can be better than what they have found.
    """

    def __init__(self, policy: Policy, decoder: Decoder):
        self._policy, self._decoder = policy, decoder
        self._ends = torch.tensor(policy.eos_ids, device=policy.device)
        self._parts: dict[tuple[int, int], Part] = {}  # by the id of the group, and the first member

    def append(self, running: Running, first: int, logits: Tensor) -> list[int]:
        """Give rows `first`.. a token each, by `logits` `[n - first, V]`. Returns the rows of parts that are done: they
        hold what was found, the best first; where that is less than there are rows, the best stands there again.
        """
        logprobs = logits.log_softmax(-1)
        groups = {id(group): group for group, _ in running.owner[first:]}
        rows: dict[tuple[int, int], int] = {
            (id(group), member): row for row, (group, member) in enumerate(running.owner[first:], start=first)
        }
        ended: list[int] = []
        copies: list[tuple[int, int]] = []
        for key, group in groups.items():
            beams, count = group.request.sampling.beams, group.request.count
            assert beams is not None
            width = count // beams.parts
            cost = logprobs.new_zeros(logprobs.shape[1])  # [V] of a token, for the next part
            for member in range(0, count, width):
                if (key, member) not in rows:
                    continue  # this part is done
                own = torch.tensor([rows[key, m] for m in range(member, member + width)], device=logits.device)
                if (key, member) not in self._parts:
                    scores = logprobs.new_full((width,), -math.inf)
                    scores[0] = 0.0  # all rows are alike: one of them stands for all
                    self._parts[key, member] = Part(scores)
                part = self._parts[key, member]
                taken, moved = self._advance(part, group.request.sampling, running, own, logprobs[own - first], cost)
                if taken is None:
                    del self._parts[key, member]
                    ended += own.tolist()
                    continue
                copies += moved
                cost += beams.penalty * torch.bincount(taken, minlength=len(cost))
        if copies:
            source, target = torch.tensor(copies, device=logits.device).T
            self._decoder.copy(source, target, int(running.length[source].max()) - 1, running.place)
        return sorted(ended)

    def _advance(
        self, part: Part, sampling: Sampling, running: Running, rows: Tensor, logprobs: Tensor, cost: Tensor
    ) -> tuple[Tensor | None, list[tuple[int, int]]]:
        """One more token for the beams in `rows` `[w]`, by `logprobs` `[w, V]`: the tokens that they take, None where
        the part is done, and which rows have become those of another beam, as (from, to).
        """
        assert sampling.beams is not None
        width, vocabulary, length = len(rows), len(cost), int(running.length[rows[0]])
        norm = (length + 1) ** sampling.beams.length_penalty
        sums = (part.scores[:, None] + (logprobs - cost)).flatten()  # [w * V]
        # As many of each beam may end as there are tokens that end one; w are left to go on with.
        best, at = sums.topk(min((1 + len(self._ends)) * width, len(sums)))
        parent, token = at // vocabulary, at % vocabulary
        if bool(best[0].isnan()):  # the weights are broken, as the engine says of what it is given
            part.found = [Found(math.nan, token[:1], best[:1])]
            self._write(part, running, rows)
            return None, []
        ends = torch.isin(token, self._ends) | (length + 1 >= sampling.max_tokens)
        histories = running.tokens[rows, :length]  # [w, length]
        if sampling.stop:
            texts = torch.cat([histories[parent], token[:, None]], 1)
            stopped = [stop_string(self._policy.tokenizer, sampling.stop, text) is not None for text in texts]
            ends |= torch.tensor(stopped, device=ends.device)
        for i in (ends[:width] & (best[:width] > -math.inf)).nonzero()[:, 0].tolist():
            p, own = parent[i], logprobs[parent[i], token[i]]
            score = float(best[i] / norm)
            past = running.logprobs[rows[p], :length]
            part.found.append(Found(score, torch.cat([histories[p], token[i : i + 1]]), torch.cat([past, own[None]])))
        part.found = sorted(part.found, key=lambda one: -one.score)[:width]
        scores, chosen = best.masked_fill(ends, -math.inf).topk(width)
        hope = float(scores[0] / norm)
        if hope <= (part.found[-1].score if len(part.found) == width else -math.inf):
            self._write(part, running, rows)
            return None, []
        parent, token = parent[chosen], token[chosen]
        target = _places(parent.tolist())
        into = rows[target]
        running.tokens[into, :length] = histories[parent]
        running.tokens[into, length] = token
        running.logprobs[into, :length] = running.logprobs[rows[parent], :length]
        running.logprobs[into, length] = logprobs[parent, token]
        running.length[rows] += 1
        part.scores[target] = scores
        # Before the first token all rows know the same: their prompt.
        moved = [(a, b) for a, b in zip(rows[parent].tolist(), into.tolist(), strict=True) if a != b and length]
        return token[scores > -math.inf], moved

    def _write(self, part: Part, running: Running, rows: Tensor) -> None:
        """Put into the rows what their part has found."""
        for i, row in enumerate(rows.tolist()):
            one = part.found[i if i < len(part.found) else 0]
            running.length[row] = length = len(one.tokens)
            running.tokens[row, :length], running.logprobs[row, :length] = one.tokens, one.logprobs


def _places(parents: list[int]) -> list[int]:
    """Where each child goes: the first of a parent takes its place, the others those of beams that have no child."""
    free = [i for i in range(len(parents)) if i not in parents]
    return [parent if parent not in parents[:i] else free.pop() for i, parent in enumerate(parents)]
