"""What the embedded tasks have in common: problems made as needed, the same for everybody, and demonstrations of them.

A problem is determined by (seed, level, split, index). Which split a problem belongs to is a property of its text
alone (a hash), so no seed and no index can put a held-out problem into training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cohort import settings
from cohort.seeds import derive_seed
from cohort.tasks.demonstrations import SupervisedExample
from cohort.tasks.embedded.english import Draw
from cohort.tasks.embedded.story import Story
from cohort.tasks.sources.base import Found, has_no
from cohort.types import Prompt, UserError

Split = Literal["train", "held_out"]

HELD_OUT_SHARE = 0.1
PAIRS_MADE = 2000
COLUMNS = ("prompt", "answer", "level", "steps", "reasoning", "split")
# What a guess says in place of its working. All begin with the same word, so the choice between working and guessing
# is one choice of one token.
EXCUSES = ("I guess .", "I can see it .", "I just know .", "I think it is easy .", "I need no working .")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with its gold answer and gold working (`12 + 7 = 19 . 19 - 4 = 15`)."""

    question: str
    answer: str
    reasoning: str
    level: int
    steps: int


def split_of(question: str) -> Split:
    """The split a question belongs to: a property of its text, whatever seed or index made it."""
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    return "held_out" if int.from_bytes(digest, "little") < HELD_OUT_SHARE * 2**64 else "train"


@dataclass(frozen=True, slots=True)
class Generator:
    """An embedded task: how it makes a problem of a level, and how it demonstrates one.

    `demonstrate(problem, seed, careful, sloppy_right)` returns a completion that shows its working with chance
    `careful`; otherwise it guesses, and is right with chance `sloppy_right`. `salt` goes into the seeds of these.
    """

    name: str
    levels: tuple[int, ...]
    candidate: Callable[[Draw, int], Story]
    demonstrate: Callable[[Problem, int, float, float], str]
    salt: tuple[str, ...] = ()

    def problem(self, seed: int, level: int, split: str, index: int) -> Problem:
        """The problem number `index`: candidates are made until one belongs to the split."""
        draw = Draw(derive_seed(seed, self.name, level, split, index))
        while True:
            story = self.candidate(draw, level)
            question, working = " ".join(story.sentences), story.working
            if split_of(question) == split:
                return Problem(question, str(story.answer), " . ".join(working), level, len(working))

    def open(self, table: settings.Prompts, held_out: bool, seed: int) -> Found:
        """The problems as a source of prompts. A curriculum goes through all levels, unless the table names some."""
        if table.source != self.name:
            raise UserError(f"the source {self.name} has no parts, so {table.source!r} is none. Write {self.name!r}.")
        has_no(table, "args")
        levels = table.levels or ((1, 2) if table.curriculum is None else self.levels)
        return Found(Problems(self, levels, seed, "held_out" if held_out else "train"), COLUMNS)

    def demonstrations(self, table: settings.Task, seed: int) -> ProblemDemonstrations:
        """The problems with completions to learn from."""
        return ProblemDemonstrations(Problems(self, table.levels or (1, 2), seed), table)

    def pairs(self, table: settings.Prompts, held_out: bool, seed: int) -> list[dict[str, Any]]:
        """As many pairs as `limit` says (else 2,000): the better answer shows its working, the worse one guesses."""
        split, salt = "held_out" if held_out else "train", (*self.salt, "pair")
        problems = Problems(self, table.levels or (1, 2), seed, split)
        found = []
        for index in range(table.limit or PAIRS_MADE):
            made, own = problems.problem(index), derive_seed(seed, *salt, split, index)
            better, worse = (self.demonstrate(made, own, careful, 0.2) for careful in (1.0, 0.0))
            found.append({"prompt": made.question, "chosen": better, "rejected": worse, "level": made.level})
        return found


class Problems:
    """An unlimited sequence of problems as prompts; the levels take turns, so every batch has its share of each."""

    size: int | None = None

    def __init__(self, generator: Generator, levels: Sequence[int], seed: int = 0, split: str = "train") -> None:
        name, top = generator.name, max(generator.levels)
        if not levels or not set(levels) <= set(generator.levels):
            raise UserError(f"levels of {name} are numbers from 1 to {top}, not {list(levels)!r}.")
        if split not in ("train", "held_out"):
            raise UserError(f'the splits of {name} are "train" and "held_out", not {split!r}.')
        self.generator, self.levels, self.seed, self.split = generator, tuple(levels), seed, split

    def problem(self, index: int) -> Problem:
        """The problem behind the prompt number `index`."""
        if index < 0:
            raise IndexError(f"problems are numbered from 0, not {index}")
        return self.generator.problem(self.seed, self.levels[index % len(self.levels)], self.split, index)

    def __getitem__(self, index: int) -> Prompt:
        """The prompt number `index`, any number from 0."""
        return self.prompt(self.problem(index))

    def at(self, level: int, index: int) -> Prompt:
        """The prompt number `index` of a level, whichever level is due."""
        return self.prompt(self.generator.problem(self.seed, level, self.split, index))

    def prompt(self, made: Problem) -> Prompt:
        """A problem as the rest of Cohort takes it."""
        tags = {"level": made.level, "steps": made.steps, "reasoning": made.reasoning, "split": self.split}
        return Prompt.make(text=made.question, answer=made.answer, tags=tags)


class ProblemDemonstrations:
    """Problems with completions to learn from, unlimited. The table says which share of these shows its working, as one
    number or one per number of steps; the first `careful_first` all do: the skill before the habit.
    """

    size: int | None = None

    def __init__(self, problems: Problems, table: settings.Task) -> None:
        self.problems, self.table = problems, table
        careful = table.careful if isinstance(table.careful, dict) else {"1": table.careful}
        self.careful = {int(steps): share for steps, share in careful.items()}

    def careful_share(self, steps: int) -> float:
        """The share of worked solutions for problems of so many steps: that of the nearest lower number given."""
        lower = [number for number in self.careful if number <= steps]
        return self.careful[max(lower) if lower else min(self.careful)]

    def __getitem__(self, index: int) -> SupervisedExample:
        """Example number `index`, any number from 0."""
        problems, made = self.problems, self.problems.problem(index)
        share = 1.0 if index < self.table.careful_first else self.careful_share(made.steps)
        seed = derive_seed(problems.seed, *problems.generator.salt, "demonstration", problems.split, index)
        completion = problems.generator.demonstrate(made, seed, share, self.table.sloppy_right)
        return SupervisedExample(problems.prompt(made), completion)
