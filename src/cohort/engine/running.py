"""The rows that are being decoded: everything that is known of each, in columns."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cohort.engine.decoder import Decoder
from cohort.engine.sampling import RowSampling
from cohort.policy.decode import PREFILL_TOKENS, parts
from cohort.seeds import derive_seed, unit_uniforms
from cohort.types import Completion, SampleRequest


@dataclass(slots=True)
class StartedGroup:
    """A request whose prompt has been computed: its prefix slot, the logits after the prompt, what has come back."""

    request: SampleRequest
    slot: int
    first_logits: Tensor  # [V]
    version: int  # of the weights that these are of
    started: int = 0
    done: dict[int, Completion] = field(default_factory=dict)
    spans: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # of members that several weights draw
    cut: int = 0  # members that are not waited for

    @property
    def enough(self) -> int | None:
        """The tokens of the longest completion that may come back, once as many have ended as are wanted."""
        keep = self.request.keep
        if keep is None or len(self.done) < keep:
            return None
        return sorted(len(one.tokens) for one in self.done.values())[keep - 1]

    @property
    def completions(self) -> tuple[Completion, ...] | None:
        """What comes back, in the order of members; None: somebody is waited for."""
        if len(self.done) + self.cut < self.request.count:
            return None
        shortest = sorted(self.done, key=lambda member: (len(self.done[member].tokens), member))[: self.request.keep]
        return tuple(self.done[member] for member in sorted(shortest))


class Running:
    """The running rows: places 0..n-1 of these tensors (room for R rows; T grows with the longest completion)."""

    def __init__(self, rows: int, device: torch.device):
        def column(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(rows, *shape, dtype=dtype, device=device)

        self.n = 0
        self.prefilled: deque[StartedGroup] = deque()  # prompts are computed, and not all members run yet
        self.owner: list[tuple[StartedGroup, int]] = []  # (group, member) of each running row
        self.place = torch.arange(rows, device=device)  # where the decoder keeps what each row knows: a permutation
        self.slot = column(torch.long)
        self.length = column(torch.long)  # tokens sampled so far
        self.limit = column(torch.long)
        self.tokens = column(torch.long, 64)
        self.logprobs = column(torch.float32, 64)
        self.uniforms = column(torch.float64, 64)
        self.sampling = RowSampling.empty(column)
        self.truncates = self.stops = False  # whether any row ever had a truncated distribution, or stop strings

    def start(self, waiting: deque[SampleRequest], decoder: Decoder, version: int) -> Tensor | None:
        """Give the free rows to members of prefilled groups, in order. Where there are none, as many waiting prompts as
        the free rows can use first run through the model, each once.

        `version` is that of the weights. Returns the logits `[m, V]` from which the first tokens of the m new rows are
        drawn; None: there are none.
        """
        groups, first, room = self.prefilled, self.n, len(self.slot) - self.n
        # A prefill for every row that retires would run the whole model for one prompt: wait for an eighth.
        if waiting and not groups and room >= max(1, len(self.slot) // 8):
            batch: list[SampleRequest] = []
            rows = tokens = 0
            while waiting and (not batch or (rows < room and tokens + len(waiting[0].tokens) <= PREFILL_TOKENS)):
                batch.append(waiting.popleft())
                rows += batch[-1].count
                tokens += len(batch[-1].tokens)
            slots, logits = decoder.prefill([request.tokens for request in batch])
            groups.extend(StartedGroup(*of, version) for of in zip(batch, slots, logits, strict=True))
        if not groups or not room:
            return None
        while groups and self.n < len(self.slot):
            i, group, member = self.n, groups[0], groups[0].started
            wanted = group.request.sampling
            if wanted.beams and not member and len(self.slot) - i < group.request.count:
                break  # the beams of a prompt begin together
            self.n += 1
            self.owner.append((group, member))
            if (missing := wanted.max_tokens - self.tokens.shape[1]) > 0:
                missing = max(missing, self.tokens.shape[1])
                self.tokens, self.logprobs, self.uniforms = (
                    torch.nn.functional.pad(x, (0, missing)) for x in (self.tokens, self.logprobs, self.uniforms)
                )
            self.slot[i], self.length[i], self.limit[i] = group.slot, 0, wanted.max_tokens
            drawn = unit_uniforms(derive_seed(group.request.seed, member), wanted.max_tokens)
            self.uniforms[i, : wanted.max_tokens] = torch.from_numpy(drawn)
            greedy = wanted.greedy_first and not member
            settings = (0.0 if greedy else wanted.temperature, wanted.top_p, wanted.top_k, wanted.min_p)
            for column, value in zip(self.sampling, settings, strict=True):
                column[i] = value
            self.stops |= bool(wanted.stop)
            self.truncates |= wanted.top_p < 1 or wanted.top_k > 0 or wanted.min_p > 0
            if group.version != version:  # the first token is of the weights that computed the prompt
                group.spans[member] = [(0, group.version), (1, version)]
            group.started += 1
            if group.started == group.request.count:
                groups.popleft()
        return torch.stack([group.first_logits for group, _ in self.owner[first:]]) if self.n > first else None

    def note(self, before: int, version: int) -> None:
        """From the next token on, rows are drawn by the weights of `version`, and not by those of `before`."""
        for row, (group, member) in enumerate(self.owner):
            spans, at = group.spans.setdefault(member, [(0, before)]), int(self.length[row])
            if spans[-1][0] == at:  # those before drew no token
                spans.pop()
            spans.append((at, version))

    def recompute(self, decoder: Decoder, version: int) -> None:
        """Compute all that is known of prompts and rows anew, by the weights as they are now."""
        groups = [*{id(group): group for group in (*self.prefilled, *(group for group, _ in self.owner))}.values()]
        for group in groups:
            decoder.release(group.slot)
        for part in parts([len(group.request.tokens) for group in groups]):
            slots, logits = decoder.prefill([groups[i].request.tokens for i in part])
            for i, slot, after in zip(part, slots, logits, strict=True):
                groups[i].slot, groups[i].first_logits, groups[i].version = slot, after, version
        self.slot[: self.n] = torch.tensor([group.slot for group, _ in self.owner], device=self.slot.device)
        own = (self.length[: self.n] > 1).nonzero()[:, 0].tolist()  # the last token has no keys and values yet
        prompts = [self.owner[row][0].request.tokens for row in own]
        tokens = (self.tokens[row, : int(self.length[row]) - 1].tolist() for row in own)
        rows = [[*prompt, *behind] for prompt, behind in zip(prompts, tokens, strict=True)]
        decoder.resume(rows, [len(prompt) for prompt in prompts], self.place[own].tolist())

    def overdue(self) -> list[int]:
        """The rows that cannot be among the shortest of their groups any more. They have not ended."""
        bounds = {id(group): group.enough for group, _ in self.owner if group.request.keep is not None}
        found = []
        for row, (group, _) in enumerate(self.owner):
            most = bounds.get(id(group))
            if most is not None and int(self.length[row]) >= most:
                found.append(row)
        return found

    def last(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `Decoder.decode`, `[n]` each: the last token of every running row, which has no keys and
        values yet, and where the row is.
        """
        n = self.n
        own = self.length[:n] - 1
        return self.tokens[:n].gather(1, own[:, None])[:, 0], self.slot[:n], self.place[:n], own

    def remove(self, ended: list[int], decoder: Decoder) -> None:
        """Move the last rows into the holes that the ended ones leave, so that the running rows are 0..n-1 again."""
        left = self.n - len(ended)
        gone = set(ended)
        holes = [row for row in ended if row < left]
        movers = [row for row in range(left, self.n) if row not in gone]
        if holes:
            source, target = (torch.tensor(x, device=self.slot.device) for x in (movers, holes))
            numbers = (self.slot, self.length, self.limit, self.tokens, self.logprobs, self.uniforms)
            for column in numbers + self.sampling:
                column[target] = column[source]
            decoder.move(source, target, int(self.length[source].max()), self.place)
            for mover, hole in zip(movers, holes, strict=True):
                self.owner[hole] = self.owner[mover]
        del self.owner[left:]
        self.n = left

    def renumber(self, slots: Tensor) -> None:
        """The decoder has moved its prefixes: `slots` `[S]` says from where to where."""
        self.slot[: self.n] = slots[self.slot[: self.n]]
        for group in {id(group): group for group, _ in self.owner}.values():
            group.slot = int(slots[group.slot])
