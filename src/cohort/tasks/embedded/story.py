"""What every kind of word problem is made of: the rules of a level, the working, the finished story."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["OPERATIONS", "Level", "Story", "Working"]

OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


@dataclass(frozen=True, slots=True)
class Level:
    """What a difficulty level allows. `high` bounds the numbers in the text, `cap` every intermediate result."""

    low: int
    high: int
    cap: int
    steps: tuple[int, ...]
    factors: int = 0  # the largest factor; 0: no multiplication
    divide: bool = False
    distractors: tuple[int, ...] = (0,)
    shorten: bool = True  # may say "4 of them" for "4 apples"; off where a distractor could be meant


@dataclass(frozen=True, slots=True)
class Working:
    """The equations of a solution, in the order in which the facts appear."""

    equations: list[str] = field(default_factory=list)

    def write(self, a: int, sign: str, b: int) -> int:
        """Write one equation down and return its result. A division must be exact."""
        result = OPERATIONS[sign](a, b)
        self.equations.append(f"{a} {sign} {b} = {result}")
        return result


@dataclass(frozen=True, slots=True)
class Story:
    """A finished story: its sentences, its question, its working and the answer."""

    sentences: list[str]
    question: str
    working: Working
    answer: int
