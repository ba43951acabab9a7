"""Decoding on the generic path: rows that began together are computed together, each wave with a cache of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cohort.policy.decode import parts
from cohort.policy.generic import GenericBody, RowStates
from cohort.policy.policy import Policy


class GenericDecoder:
    """Implements `Decoder` for a policy without packed groups. A row keeps its place for as long as it runs.

    A prompt's state is computed once and copied to its rows when they start. Rows of one prefill that start in the same
    step are a wave: they have equally many tokens behind their prompts until they end, so a wave needs no more padding
    than its prompts do, and shrinks as they end.
    """

    def __init__(self, policy: Policy, body: GenericBody):
        self.policy, self.body = policy, body
        self._prompts: dict[int, tuple[RowStates, int]] = {}  # by slot: the prefill that it was in, and which row of it
        self._waves: list[tuple[list[int], RowStates]] = []  # the places of its rows, in order, and what they know
        self._slots = 0

    def refresh(self) -> None:
        """See `Decoder`: the weights are the model's own."""
        return

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Tensor]:
        """See `Decoder`."""
        states, hidden = self.body.prefill(prompts)
        for members, rows in states:
            for number, prompt in enumerate(members):
                self._prompts[self._slots + prompt] = rows, number
        self._slots += len(prompts)
        return list(range(self._slots - len(prompts), self._slots)), self.policy.logits(hidden)

    def decode(self, tokens: Tensor, slot: Tensor, place: Tensor, own: Tensor) -> Tensor:
        """See `Decoder`."""
        row_at = {at: row for row, at in enumerate(place.tolist())}
        new = [row for row, count in enumerate(own.tolist()) if count == 0]
        gone = {int(at) for at in place[new].tolist()} if new else set()
        self._waves = [wave for wave in (self._left(wave, row_at.keys() - gone) for wave in self._waves) if wave[0]]
        self._waves += self._start(new, slot.tolist(), place.tolist())
        logits: list[Tensor] = []
        order: list[int] = []
        for places, states in self._waves:
            rows = [row_at[at] for at in places]
            logits.append(self.policy.logits(states.step(tokens[rows])))
            order += rows
        return torch.cat(logits)[torch.tensor(order, device=tokens.device).argsort()]

    def _left(self, wave: tuple[list[int], RowStates], running: set[int]) -> tuple[list[int], RowStates]:
        """A wave without the rows that have ended."""
        places, states = wave
        stay = [i for i, at in enumerate(places) if at in running]
        if stay and len(stay) < len(places):
            states.keep(torch.tensor(stay, device=self.policy.device))
        return [places[i] for i in stay], states

    def _start(self, new: list[int], slot: list[int], place: list[int]) -> list[tuple[list[int], RowStates]]:
        """The waves of rows `new`, one for each prefill that they come from."""
        by_prefill: dict[int, list[int]] = {}
        for row in new:
            by_prefill.setdefault(id(self._prompts[slot[row]][0]), []).append(row)
        waves = []
        for rows in by_prefill.values():
            index = torch.tensor([self._prompts[slot[row]][1] for row in rows], device=self.policy.device)
            waves.append(([place[row] for row in rows], self._prompts[slot[rows[0]]][0].take(index)))
        return waves

    def release(self, slot: int) -> None:
        """See `Decoder`."""
        del self._prompts[slot]

    def move(self, source: Tensor, target: Tensor, tokens: int, place: Tensor) -> None:
        """See `Decoder`: a row that is moved keeps its place."""
        place[source], place[target] = place[target].clone(), place[source].clone()

    def copy(self, source: Tensor, target: Tensor, tokens: int, place: Tensor) -> None:
        """See `Decoder`: rows of one prompt that have equally many tokens are in one wave."""
        goes_on = dict(zip(place[target].tolist(), place[source].tolist(), strict=True))
        for places, states in self._waves:
            if not goes_on.keys().isdisjoint(places):
                index = [places.index(goes_on.get(at, at)) for at in places]
                states.keep(torch.tensor(index, device=self.policy.device))

    def resume(self, rows: Sequence[Sequence[int]], prompts: Sequence[int], place: Sequence[int]) -> None:
        """See `Decoder`: the rows are a wave, as prompts of a prefill are."""
        self._waves = []
        for part in parts([len(row) for row in rows]):
            states, _ = self.body.prefill([rows[i] for i in part])
            self._waves += [([place[part[i]] for i in members], found) for members, found in states]
