"""Looking for a benchmark in training data, which are read once, row by row."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from cohort.preflight.contamination.index import Indexed
from cohort.preflight.contamination.layers import LAYERS
from cohort.preflight.contamination.near import ALL_PAIRS, NearDuplicates
from cohort.preflight.contamination.report import Example, Finding, Report
from cohort.preflight.contamination.texts import Hasher, Question, Texts

NEAR = "near_duplicate"
EVERY = (*LAYERS, NEAR)
ROWS, CHARACTERS = 1_000, 4_000_000  # that are looked at together, at most
SHOWN = 3  # examples of a layer
_Looks = Indexed | NearDuplicates  # a layer with its benchmark


@dataclass(slots=True)
class _Found:
    """What one layer has found so far."""

    looks: _Looks
    questions: np.ndarray  # [B] bool
    prompts: int = 0
    prompt_ids: list[str] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("q"))
    examples: list[Example] = field(default_factory=list)

    def add(self, benchmark: Sequence[Question], some: Sequence[Question], texts: Texts, before: int) -> None:
        rows, owners, shares = self.looks.pairs(texts)
        new = np.flatnonzero(~self.questions[owners])
        for at in new[np.unique(owners[new], return_index=True)[1]][: SHOWN - len(self.examples)].tolist():
            self.examples.append(Example.of(benchmark[int(owners[at])], some[int(rows[at])], shares[at]))
        self.questions[owners] = True
        of_prompts = np.unique(rows)
        self.prompts += len(of_prompts)
        self.prompt_ids += [some[row].id for row in of_prompts]
        if not self.looks.layer.weak:
            self.numbers.extend((of_prompts + before).tolist())

    def finding(self, benchmark: Sequence[Question]) -> Finding:
        ids = tuple(dict.fromkeys(benchmark[at].id for at in np.flatnonzero(self.questions).tolist()))
        layer, looked_at = self.looks.layer, self.looks.looked_at
        return Finding(
            layer.what, layer.weak, looked_at, ids, self.prompts, tuple(self.prompt_ids), tuple(self.examples)
        )


def look(
    name: str,
    benchmark: Sequence[Question],
    training: Iterable[Question],
    rows: int,
    layers: Collection[str] = EVERY,
) -> Report:
    """Which questions of a benchmark, called `name`, are in training prompts, of which there are about `rows`.

    Memory: the benchmark, its index, and a thousand training prompts. Neither the order of the rows nor Python's hash
    changes what is found (examples are the first ones).
    """
    hasher = Hasher()
    own = hasher.texts(benchmark)
    looks: dict[str, _Looks] = {key: Indexed.of(layer, own) for key, layer in LAYERS.items() if key in layers}
    not_looked = {}
    if NEAR in layers:
        try:
            looks[NEAR] = NearDuplicates(own, minhash=rows * len(benchmark) > ALL_PAIRS)
        except ImportError:
            not_looked[NEAR] = (
                f"{rows:,} prompts and {len(benchmark):,} questions are too many to compare each pair: "
                "pip install 'cohort[contamination]' brings datasketch, which chooses them"
            )
    found = {key: _Found(one, np.zeros(len(benchmark), bool)) for key, one in looks.items()}
    before = 0
    for some in _chunks(training):
        texts = hasher.texts(some)
        for one in found.values():
            one.add(benchmark, some, texts, before)
        before += len(some)
    numbers = np.unique(np.concatenate([np.array(one.numbers, np.int64) for one in found.values()]))
    findings = {key: one.finding(benchmark) for key, one in found.items()}
    return Report(name, len(benchmark), before, findings, not_looked, numbers)


def _chunks(training: Iterable[Question]) -> Iterator[list[Question]]:
    """The prompts in lists of a bounded size; one that is huge is a list of its own, nearly."""
    some: list[Question] = []
    size = 0
    for one in training:
        some.append(one)
        size += len(one.text)
        if len(some) == ROWS or size >= CHARACTERS:
            yield some
            some, size = [], 0
    if some:
        yield some
