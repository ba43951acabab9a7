"""Does a model finish the benchmark's questions? Who has seen a text often enough goes on with it word by word.

The model gets the first half of a question and goes on greedily, as long as the second half is. Some of that half is
easy to guess, so the same is asked with the words of the first half in a random order: the share of the second half
that comes back all the same is the control.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cohort.evaluate.compare import sign_test
from cohort.preflight.contamination.texts import Question
from cohort.rewards.verifiers.text import normal_text
from cohort.seeds import derive_seed

SHORTEST = 12  # words of a question that is cut in halves
GRAM = 3  # words
VERBATIM = 0.8  # share of a second half from which it counts as known by heart

# Of (text, how long: as long as this text), what follows it.
Complete = Callable[[Sequence[tuple[str, str]]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Completed:
    """Means over questions of the share of the second half's 3-grams that the completion has: `overlap`, and `control`
    with the first half in a random order. `p`: how likely so many questions with more overlap than control are by
    chance (sign test, one-sided, ties left out); 1 where no two differ. `verbatim`: ids of those known by heart.
    """

    questions: int
    overlap: float
    control: float
    p: float
    verbatim: tuple[str, ...]


def completed(benchmark: Sequence[Question], count: int, complete: Complete, seed: int) -> Completed | None:
    """Ask about `count` questions of a benchmark, at even distances. None: all are too short to be cut in halves."""
    long = [one for one in benchmark if len(normal_text(one.text).split()) >= SHORTEST]
    if not long or count < 1:
        return None
    chosen = [long[index * len(long) // min(count, len(long))] for index in range(min(count, len(long)))]
    halves = [_halves(one.text) for one in chosen]
    mixed = [(_shuffled(first, derive_seed(seed, "halves", at)), rest) for at, (first, rest) in enumerate(halves)]
    said = complete([*halves, *mixed])
    shares = [overlap(text, rest) for text, (_, rest) in zip(said, [*halves, *mixed], strict=True)]
    own, control = np.array(shares[: len(chosen)]), np.array(shares[len(chosen) :])
    verbatim = tuple(one.id for one, share in zip(chosen, own, strict=True) if share >= VERBATIM)
    more, less = int((own > control).sum()), int((own < control).sum())
    return Completed(len(chosen), float(own.mean()), float(control.mean()), sign_test(more, less), verbatim)


def overlap(said: str, rest: str) -> float:
    """The share of the different 3-grams of `rest` that are in `said`."""
    ours, theirs = (set(zip(*(words[at:] for at in range(GRAM)))) for words in (_words(rest), _words(said)))
    return len(ours & theirs) / len(ours) if ours else 0.0


def _words(text: str) -> list[str]:
    return normal_text(text).split()


def _halves(text: str) -> tuple[str, str]:
    words = re.findall(r"\s*\S+", text)
    half = len(words) // 2
    return "".join(words[:half]), "".join(words[half:])


def _shuffled(text: str, seed: int) -> str:
    words = text.split()
    return " ".join(words[index] for index in np.random.default_rng(seed).permutation(len(words)))
