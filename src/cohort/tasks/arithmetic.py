"""The embedded task for tools: arithmetic with numbers too long to be worked out in the head.

    problems = Arithmetic(levels=(1, 2), seed=0, split="train")
    problems[7].text, problems[7].answer

As of the word problems, a problem is determined by (seed, level, split, index), and its split by its text alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cohort.seeds import derive_seed
from cohort.tasks.english import Draw
from cohort.tasks.supervised import SupervisedExample
from cohort.tasks.word_problems import EXCUSES, Split, check_split, split_of
from cohort.types import Prompt, UserError

__all__ = ["ARITHMETIC", "LEVELS", "Arithmetic", "ArithmeticDemonstrations", "Calculation"]

ARITHMETIC = "arithmetic"  # the source's name


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
_OPERATION: Mapping[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_FIRST: Mapping[str, tuple[str, ...]] = {"*": ("What is {a} times {b}?", "Multiply {a} by {b}.", "Take {a} * {b}.")}
_NEXT: Mapping[str, tuple[str, ...]] = {
    "+": ("Then add {b}.", "Then {b} more."),
    "-": ("Then subtract {b}.", "Then {b} less."),
    "*": ("Then multiply by {b}.", "Then {b} times that."),
}


@dataclass(frozen=True, slots=True)
class Calculation:
    """A question with its answer, and each operation as it is worked out: `348 * 27` and `9396`."""

    question: str
    answer: int
    working: tuple[tuple[str, int], ...]
    level: int


def calculation(seed: int, level: int, split: Split, index: int) -> Calculation:
    """The problem number `index`: candidates are made until one belongs to the split."""
    draw = Draw(derive_seed(seed, ARITHMETIC, level, split, index))
    while True:
        made = _candidate(draw, level)
        if split_of(made.question) == split:
            return made


def _candidate(draw: Draw, level: int) -> Calculation:
    rules = LEVELS[level]
    value = _number(draw, rules.digits)
    sentences: list[str] = []
    working: list[tuple[str, int]] = []
    for sign, digits in rules.operations:
        other = _number(draw, digits)
        wordings = _NEXT[sign] if working else _FIRST[sign]
        sentences.append(draw.choice(wordings).format(a=value, b=other))
        result = _OPERATION[sign](value, other)
        working.append((f"{value} {sign} {other}", result))
        value = result
    return Calculation(" ".join(sentences), value, tuple(working), level)


def _number(draw: Draw, digits: int) -> int:
    return draw.between(10 ** (digits - 1) + 1, 10**digits - 1)


class Arithmetic:
    """An unlimited sequence of problems as prompts; the levels take turns."""

    size: int | None = None

    def __init__(self, levels: Sequence[int] = (1, 2), seed: int = 0, split: Split = "train") -> None:
        self.levels = tuple(levels)
        wrong = [level for level in self.levels if level not in LEVELS]
        if wrong or not self.levels:
            raise UserError(f"levels of {ARITHMETIC} are numbers from 1 to {max(LEVELS)}, not {list(levels)!r}.")
        self.seed, self.split = seed, check_split(split)

    def problem(self, index: int) -> Calculation:
        """The problem behind the prompt number `index`, any number from 0."""
        if index < 0:
            raise IndexError(f"problems are numbered from 0, not {index}")
        return calculation(self.seed, self.levels[index % len(self.levels)], self.split, index)

    def __getitem__(self, index: int) -> Prompt:
        """The prompt number `index`, any number from 0."""
        return self.prompt(self.problem(index))

    def at(self, level: int, index: int) -> Prompt:
        """The prompt number `index` of a level, whichever level is due."""
        return self.prompt(calculation(self.seed, level, self.split, index))

    def prompt(self, made: Calculation) -> Prompt:
        """A problem as the rest of Cohort takes it."""
        reasoning = " . ".join(f"{expression} = {result}" for expression, result in made.working)
        tags = {"level": made.level, "steps": len(made.working), "reasoning": reasoning, "split": self.split}
        return Prompt.make(text=made.question, answer=str(made.answer), tags=tags)


class ArithmeticDemonstrations:
    """Problems with demonstrations, unlimited. Careful ones call the calculator; the others guess, and are right with
    chance `sloppy_right`. The first `careful_first` are all careful.
    """

    size: int | None = None

    def __init__(
        self,
        problems: Arithmetic,
        careful: float | Mapping[int, float] = 0.5,
        sloppy_right: float = 0.2,
        careful_first: int = 0,
    ) -> None:
        if isinstance(careful, Mapping) or not all(0 <= share <= 1 for share in (careful, sloppy_right)):
            raise UserError(f"careful and sloppy_right are shares from 0 to 1, not {careful!r} and {sloppy_right!r}.")
        self.problems, self.careful = problems, careful
        self.sloppy_right, self.careful_first = sloppy_right, careful_first

    def __getitem__(self, index: int) -> SupervisedExample:
        """Example number `index`, any number from 0."""
        made = self.problems.problem(index)
        draw = Draw(derive_seed(self.problems.seed, ARITHMETIC, "demonstration", self.problems.split, index))
        careful = draw.chance(self.careful) or index < self.careful_first
        thought = _calls(made) if careful else draw.choice(EXCUSES)
        answer = made.answer if careful or draw.chance(self.sloppy_right) else _guess(made.answer, draw)
        return SupervisedExample(self.problems.prompt(made), f"<think> {thought} </think><answer> {answer} </answer>")


def _calls(made: Calculation) -> str:
    """Every operation as a call with its result, in the format `tags` of cohort.environments."""
    return "".join(f"<tool>calculator: {one}</tool><result>{result}</result>" for one, result in made.working)


def _guess(answer: int, draw: Draw) -> int:
    """A number of the same size."""
    digits = len(str(abs(answer)))
    return draw.between(10 ** (digits - 1), 10**digits - 1)
