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

    @staticmethod
    def begin(scores: Tensor) -> Part:
        """All of its rows are alike, so one of them stands for all."""
        scores.fill_(-math.inf)[0] = 0.0
        return Part(scores)

    def is_done(self, hope: float) -> bool:
        """Whether no beam can get better than what was found: the best one has this score so far (-inf: none runs)."""
        return hope <= (self.found[-1].score if len(self.found) == len(self.scores) else -math.inf)


class BeamSearch:
    """Decides what rows go on with. The beams of part p of a group are its members p * w, p * w + 1, ...: they begin
    together, and end together. All groups have equally many of them.
    """

    def __init__(self, policy: Policy, decoder: Decoder):
        self._policy, self._decoder = policy, decoder
        self._ends = torch.tensor(policy.eos_ids, device=policy.device)
        self._parts: dict[tuple[int, int], Part] = {}  # by the id of the group, and the part's number

    def append(self, running: Running, first: int, logits: Tensor) -> list[int]:
        """Give rows `first`.. a token each, by `logits` `[n - first, V]`. Returns the rows of parts that are done: they
        hold what was found, the best first; where that is less than there are rows, the best stands there again.
        """
        logprobs = logits.log_softmax(-1)
        request = running.owner[first][0].request
        assert request.sampling.beams is not None
        beams = request.sampling.beams
        width = request.count // beams.parts
        row_of = {(id(group), member): row for row, (group, member) in enumerate(running.owner[first:], start=first)}
        groups = list(dict.fromkeys(group for group, _ in row_of))
        cost = logprobs.new_zeros(len(groups), logprobs.shape[1])  # of a token for the next part
        ended: list[int] = []
        copies: list[Tensor] = []
        for number in range(beams.parts):
            members = range(number * width, (number + 1) * width)
            own = [i for i, group in enumerate(groups) if (group, members[0]) in row_of]  # where this part still runs
            if not own:
                continue
            rows = torch.tensor([[row_of[groups[i], m] for m in members] for i in own], device=logits.device)
            keys = [(groups[i], number) for i in own]
            for key in keys:
                if key not in self._parts:
                    self._parts[key] = Part.begin(logprobs.new_empty(width))
            parts = [self._parts[key] for key in keys]
            going, taken, moved = self._advance(
                parts, request.sampling, running, rows, logprobs[rows - first], cost[own]
            )
            copies.append(moved)
            cost[[own[i] for i in going]] += beams.penalty * taken
            for i in set(range(len(own))) - set(going):
                del self._parts[keys[i]]
                ended += rows[i].tolist()
        source, target = torch.cat(copies, 1)
        if len(source):
            self._decoder.copy(source, target, int(running.length[source].max()) - 1, running.place)
        return sorted(ended)

    def _advance(
        self, parts: list[Part], sampling: Sampling, running: Running, rows: Tensor, logprobs: Tensor, cost: Tensor
    ) -> tuple[list[int], Tensor, Tensor]:
        """One more token for the beams of g parts, in `rows` `[g, w]`, by `logprobs` `[g, w, V]` and `cost` `[g, V]`.
        Which parts go on; how often those have taken each token, `[., V]`; and the rows that others continue, `[2, m]`.
        """
        assert sampling.beams is not None
        width, vocabulary = logprobs.shape[1:]
        length = running.length[rows[:, 0]]  # [g]
        norm = (length + 1).double() ** sampling.beams.length_penalty
        sums = torch.stack([part.scores for part in parts])[:, :, None] + (logprobs - cost[:, None])  # [g, w, V]
        # As many of each beam may end as there are tokens that end one; w are left to go on with.
        best, at = sums.flatten(1).topk(min((1 + len(self._ends)) * width, width * vocabulary), dim=1)  # [g, k]
        parent, token = at // vocabulary, at % vocabulary
        ends = torch.isin(token, self._ends) | (length + 1 >= running.limit[rows[:, 0]])[:, None]
        if sampling.stop:
            ends |= self._stopped(sampling, running, rows.gather(1, parent), token)
        for i, j in (ends[:, :width] & (best[:, :width] > -math.inf)).nonzero().tolist():
            row, last, n = rows[i, parent[i, j]], token[i, j], int(length[i])
            own = logprobs[i, parent[i, j], last]
            whole = torch.cat([running.tokens[row, :n], last[None]]), torch.cat([running.logprobs[row, :n], own[None]])
            parts[i].found.append(Found(float(best[i, j] / norm[i]), *whole))
            parts[i].found = sorted(parts[i].found, key=lambda one: -one.score)[:width]
        scores, chosen = best.masked_fill(ends, -math.inf).topk(width, dim=1)
        going = []
        for i, hope in enumerate((scores[:, 0] / norm).tolist()):
            broken = bool(best[i, 0].isnan())  # the weights are, as the engine says of what it is given
            if broken:
                parts[i].found = [Found(math.nan, token[i, :1], best[i, :1])]
            if broken or parts[i].is_done(hope):
                _write(parts[i].found, running, rows[i].tolist())
            else:
                going.append(i)
        rows, scores, length, logprobs = rows[going], scores[going], length[going], logprobs[going]
        parent, token = (x[going].gather(1, chosen[going]) for x in (parent, token))  # [., w]
        target, moved = _go_on(running, rows, length[:, None], logprobs, parent, token)
        for i, placed in zip(going, torch.empty_like(scores).scatter_(1, target, scores), strict=True):
            parts[i].scores = placed
        taken = torch.zeros_like(cost[going]).scatter_add_(1, token, (scores > -math.inf).to(cost.dtype))
        return going, taken, moved

    def _stopped(self, sampling: Sampling, running: Running, rows: Tensor, tokens: Tensor) -> Tensor:
        """Which of the tokens `[g, k]` end their row with a stop string."""
        found = [
            stop_string(
                self._policy.tokenizer,
                sampling.stop,
                torch.cat([running.tokens[row, : running.length[row]], token[None]]),
            )
            for row, token in zip(rows.flatten(), tokens.flatten(), strict=True)
        ]
        return torch.tensor([stop is not None for stop in found], device=tokens.device).view_as(tokens)


def _go_on(
    running: Running, rows: Tensor, length: Tensor, logprobs: Tensor, parent: Tensor, token: Tensor
) -> tuple[Tensor, Tensor]:
    """Put into `rows` `[g, w]` what they go on as: the beams in the places `parent` `[g, w]`, of `length` `[g, 1]`
    tokens, and `token` `[g, w]`. The place of each; and rows whose past others take over, with these, `[2, m]`.
    """
    target = torch.tensor([_places(one) for one in parent.tolist()], dtype=torch.long, device=rows.device)
    target = target.view_as(parent)  # [0, w] where no part goes on
    source, into = rows.gather(1, parent), rows.gather(1, target)
    for column in (running.tokens, running.logprobs):
        column[into] = column[source]
    part = torch.arange(len(rows), device=rows.device)[:, None]
    running.tokens[into, length.expand_as(into)] = token
    running.logprobs[into, length.expand_as(into)] = logprobs[part, parent, token]
    running.length[into] = length + 1
    other = (source != into) & (length > 0)  # before the first token all rows know the same: their prompt
    return target, torch.stack([source[other], into[other]])


def _write(found: list[Found], running: Running, rows: list[int]) -> None:
    for i, row in enumerate(rows):
        one = found[i if i < len(found) else 0]
        running.length[row] = length = len(one.tokens)
        running.tokens[row, :length], running.logprobs[row, :length] = one.tokens, one.logprobs


def _places(parents: list[int]) -> list[int]:
    """Where each child goes: the first of a parent takes its place, the others those of beams that have no child."""
    free = [i for i in range(len(parents)) if i not in parents]
    return [parent if parent not in parents[:i] else free.pop() for i, parent in enumerate(parents)]
