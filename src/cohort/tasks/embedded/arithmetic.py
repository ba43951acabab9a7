"""Arithmetic for tools: products and sums of numbers too long to be worked out in the head.

problems = Problems(ARITHMETIC, levels=(1, 2), seed=0, split="train")
problems[7].text, problems[7].answer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cohort.tasks.embedded.english import Draw
from cohort.tasks.embedded.problems import EXCUSES, Generator, Problem
from cohort.tasks.embedded.story import Story, Working


@dataclass(frozen=True, slots=True)
class Level:
    """How many digits the first number has, and the operations that follow: (sign, digits of the other number)."""

    digits: int
    operations: tuple[tuple[str, int], ...]


LEVELS: Mapping[int, Level] = {
    1: Level(2, (("*", 2),)),
    2: Level(3, (("*", 3),)),
    3: Level(3, (("*", 2), ("+", 3))),
    4: Level(3, (("*", 3), ("-", 3), ("*", 2))),
}
_FIRST: Mapping[str, tuple[str, ...]] = {"*": ("What is {a} times {b}?", "Multiply {a} by {b}.", "Take {a} * {b}.")}
_NEXT: Mapping[str, tuple[str, ...]] = {
    "+": ("Then add {b}.", "Then {b} more."),
    "-": ("Then subtract {b}.", "Then {b} less."),
    "*": ("Then multiply by {b}.", "Then {b} times that."),
}


def candidate(draw: Draw, level: int) -> Story:
    """Any problem of a level."""
    rules = LEVELS[level]
    value = _number(draw, rules.digits)
    sentences: list[str] = []
    working = Working()
    for sign, digits in rules.operations:
        other = _number(draw, digits)
        wordings = _NEXT[sign] if sentences else _FIRST[sign]
        sentences.append(draw.choice(wordings).format(a=value, b=other))
        value = working.write(value, sign, other)
    return Story(sentences, working, value)


def demonstrate(problem: Problem, seed: int, careful: float, sloppy_right: float) -> str:
    """A completion that calls the calculator for every operation, or one that guesses."""
    draw = Draw(seed)
    works = draw.chance(careful)
    thought = _calls(problem) if works else draw.choice(EXCUSES)
    answer = problem.answer if works or draw.chance(sloppy_right) else _guess(problem.answer, draw)
    return f"<think> {thought} </think><answer> {answer} </answer>"


def _number(draw: Draw, digits: int) -> int:
    return draw.between(10 ** (digits - 1) + 1, 10**digits - 1)


def _calls(problem: Problem) -> str:
    """Every operation as a call with its result, in the format `tags` of cohort.environments."""
    steps = (equation.split(" = ") for equation in problem.reasoning.split(" . "))
    return "".join(f"<tool>calculator: {one}</tool><result>{result}</result>" for one, result in steps)


def _guess(answer: str, draw: Draw) -> int:
    """A number of the same size."""
    digits = len(answer.removeprefix("-"))
    return draw.between(10 ** (digits - 1), 10**digits - 1)


ARITHMETIC = Generator("arithmetic", tuple(LEVELS), candidate, demonstrate, salt=("arithmetic",))
