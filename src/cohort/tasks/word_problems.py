"""The embedded task: GSM8K-style arithmetic word problems, made as needed, the same for everybody.

    problems = WordProblems(levels=(1, 2), seed=0, split="train")
    problems[7].text, problems[7].answer

A problem is determined by (seed, level, split, index). Which split a problem belongs to is a property of its text
alone (a hash), so no seed and no index can put a held-out problem into training.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cohort.seeds import derive_seed
from cohort.tasks.chain import tell_chain
from cohort.tasks.english import Draw
from cohort.tasks.facts import tell_comparison, tell_difference, tell_purchase, tell_total
from cohort.tasks.story import Level, Story
from cohort.tasks.supervised import SupervisedExample
from cohort.types import Prompt, UserError

__all__ = [
    "HELD_OUT_SHARE",
    "LEVELS",
    "Problem",
    "WordDemonstrations",
    "WordProblems",
    "demonstration",
    "demonstrations",
    "make_problem",
    "split_of",
]

Split = Literal["train", "held_out"]
Style = Literal["careful", "sloppy"]

HELD_OUT_SHARE = 0.1
LEVELS: Mapping[int, Level] = {
    1: Level(low=1, high=20, cap=40, steps=(1,)),
    2: Level(low=1, high=20, cap=60, steps=(2,)),
    3: Level(low=2, high=50, cap=200, steps=(2, 3), factors=5),
    4: Level(low=2, high=50, cap=300, steps=(3, 4), factors=6, divide=True, distractors=(1,), shorten=False),
    5: Level(low=5, high=300, cap=999, steps=(4, 5), factors=9, divide=True, distractors=(1, 2), shorten=False),
}
TELLERS = (tell_chain,) * 6 + (tell_comparison,) * 2 + (tell_total, tell_difference, tell_purchase, tell_purchase)


@dataclass(frozen=True, slots=True)
class Problem:
    """A word problem with its gold answer and gold working (`12 + 7 = 19 . 19 - 4 = 15`)."""

    question: str
    answer: str
    reasoning: str
    level: int
    steps: int


def split_of(question: str) -> Split:
    """The split a question belongs to: a property of its text, whatever seed or index made it."""
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    return "held_out" if int.from_bytes(digest, "little") < HELD_OUT_SHARE * 2**64 else "train"


def make_problem(seed: int, level: int, split: Split, index: int) -> Problem:
    """The problem number `index`: candidates are made until one belongs to the split."""
    draw = Draw(derive_seed(seed, "word_problems", level, split, index))
    while True:
        problem = candidate(draw, level)
        if split_of(problem.question) == split:
            return problem


def candidate(draw: Draw, level: int) -> Problem:
    """Any problem of a level."""
    rules = LEVELS[level]
    story: Story | None = None
    while story is None:
        steps = draw.choice(rules.steps)
        story = draw.choice(TELLERS)(draw, rules, steps)
    question = " ".join([*story.sentences, story.question])
    return Problem(question, str(story.answer), " . ".join(story.working.equations), level, steps)


class WordProblems:
    """An unlimited sequence of problems as prompts; the levels take turns, so every batch has its share of each."""

    size: int | None = None

    def __init__(self, levels: Sequence[int] = (1, 2), seed: int = 0, split: Split = "train") -> None:
        self.levels = check_levels(levels)
        self.seed = seed
        self.split: Split = check_split(split)

    def problem(self, index: int) -> Problem:
        """The problem behind the prompt number `index`."""
        if index < 0:
            raise IndexError(f"word problems are numbered from 0, not {index}")
        return make_problem(self.seed, self.levels[index % len(self.levels)], self.split, index)

    def __getitem__(self, index: int) -> Prompt:
        """The prompt number `index`, any number from 0."""
        return self.prompt(self.problem(index))

    def at(self, level: int, index: int) -> Prompt:
        """The prompt number `index` of a level, whichever level is due."""
        return self.prompt(make_problem(self.seed, level, self.split, index))

    def prompt(self, problem: Problem) -> Prompt:
        """A problem as the rest of Cohort takes it."""
        return Prompt.make(
            text=problem.question,
            answer=problem.answer,
            tags={
                "level": problem.level,
                "steps": problem.steps,
                "reasoning": problem.reasoning,
                "split": self.split,
            },
        )


# --- demonstrations: what the cold start learns from ---

# All begin with the same word, so the choice between working and guessing is one choice of one token.
EXCUSES = ("I guess .", "I can see it .", "I just know .", "I think it is easy .", "I need no working .")


def demonstration(problem: Problem, style: Style, seed: int, sloppy_right: float = 0.2) -> str:
    """A completion in the R1 format. "careful" works it out; "sloppy" guesses, right with chance `sloppy_right`."""
    if style == "careful":
        return f"<think> {problem.reasoning} </think><answer> {problem.answer} </answer>"
    if style != "sloppy":
        raise ValueError(f'style is "careful" or "sloppy", not {style!r}')
    draw = Draw(seed)
    excuse = draw.choice(EXCUSES)
    guess = problem.answer if draw.chance(sloppy_right) else wrong_guess(problem, draw)
    return f"<think> {excuse} </think><answer> {guess} </answer>"


def wrong_guess(problem: Problem, draw: Draw) -> str:
    """A plausible wrong number: one from the working, or the right one missed by a little."""
    right = int(problem.answer)
    near = [right + miss for miss in (-10, -3, -2, -1, 1, 2, 3, 10) if right + miss >= 0]
    seen = [number for number in map(int, re.findall(r"\d+", problem.reasoning)) if number != right]
    return str(draw.choice(seen if seen and draw.chance(0.4) else near))


class WordDemonstrations:
    """Problems with demonstrations, unlimited, for supervised training."""

    size: int | None = None

    def __init__(
        self,
        levels: Sequence[int] = (1, 2),
        seed: int = 0,
        split: Split = "train",
        careful: float | Mapping[int, float] = 0.5,
        sloppy_right: float = 0.2,
        careful_first: int = 0,
    ) -> None:
        self.problems = WordProblems(levels, seed, split)
        self.careful = dict(careful) if isinstance(careful, Mapping) else {1: float(careful)}
        self.sloppy_right = sloppy_right
        self.careful_first = careful_first  # so many examples all show their working: the skill before the habit
        if not self.careful or not all(0 <= share <= 1 for share in (*self.careful.values(), sloppy_right)):
            raise UserError(f"careful and sloppy_right are shares from 0 to 1, not {careful!r} and {sloppy_right!r}.")

    def careful_share(self, steps: int) -> float:
        """The share of worked solutions for problems of so many steps: that of the nearest lower number given."""
        lower = [number for number in self.careful if number <= steps]
        return self.careful[max(lower) if lower else min(self.careful)]

    def __getitem__(self, index: int) -> SupervisedExample:
        """Example number `index`, any number from 0."""
        problem = self.problems.problem(index)
        seed = derive_seed(self.problems.seed, "demonstration", self.problems.split, index)
        share = 1.0 if index < self.careful_first else self.careful_share(problem.steps)
        careful = Draw(derive_seed(seed, "style")).chance(share)
        completion = demonstration(problem, "careful" if careful else "sloppy", seed, self.sloppy_right)
        return SupervisedExample(self.problems.prompt(problem), completion)


def demonstrations(
    levels: Sequence[int] = (1, 2),
    seed: int = 0,
    split: Split = "train",
    careful: float | Mapping[int, float] = 0.5,
    sloppy_right: float = 0.2,
    careful_first: int = 0,
) -> WordDemonstrations:
    """Demonstrations with a share of careful ones, one number or one per number of steps: `{1: 0.5, 2: 0.3}`.

    The first `careful_first` are all careful, whatever the share.
    """
    return WordDemonstrations(levels, seed, split, careful, sloppy_right, careful_first)


def check_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """The levels as a tuple, or a UserError that names the wrong one."""
    chosen = tuple(levels)
    wrong = [level for level in chosen if level not in LEVELS]
    if wrong or not chosen:
        raise UserError(f"levels are numbers from 1 to {max(LEVELS)}, not {list(chosen)!r}.")
    return chosen


def check_split(split: str) -> Split:
    """The split, or a UserError."""
    if split == "train" or split == "held_out":
        return split  # type: ignore[return-value]
    raise UserError(f'the splits of word_problems are "train" and "held_out", not {split!r}.')
