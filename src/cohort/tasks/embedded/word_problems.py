"""Word problems: GSM8K-style arithmetic in stories, made as needed, the same for everybody.

problems = Problems(WORD_PROBLEMS, levels=(1, 2), seed=0, split="train")
problems[7].text, problems[7].answer
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cohort.seeds import derive_seed
from cohort.tasks.embedded.chain import tell_chain
from cohort.tasks.embedded.english import Draw
from cohort.tasks.embedded.facts import tell_comparison, tell_difference, tell_purchase, tell_total
from cohort.tasks.embedded.problems import EXCUSES, Generator, Problem
from cohort.tasks.embedded.story import Level, Story

LEVELS: Mapping[int, Level] = {
    1: Level(low=1, high=20, cap=40, steps=(1,)),
    2: Level(low=1, high=20, cap=60, steps=(2,)),
    3: Level(low=2, high=50, cap=200, steps=(2, 3), factors=5),
    4: Level(low=2, high=50, cap=300, steps=(3, 4), factors=6, divide=True, distractors=(1,), shorten=False),
    5: Level(low=5, high=300, cap=999, steps=(4, 5), factors=9, divide=True, distractors=(1, 2), shorten=False),
}
TELLERS = (tell_chain,) * 6 + (tell_comparison,) * 2 + (tell_total, tell_difference, tell_purchase, tell_purchase)


def candidate(draw: Draw, level: int) -> Story:
    """Any problem of a level."""
    rules = LEVELS[level]
    while True:
        steps = draw.choice(rules.steps)
        if story := draw.choice(TELLERS)(draw, rules, steps):
            return story


def demonstrate(problem: Problem, seed: int, careful: float, sloppy_right: float) -> str:
    """A completion in one of the two styles."""
    works = Draw(derive_seed(seed, "style")).chance(careful)
    return demonstration(problem, "careful" if works else "sloppy", seed, sloppy_right)


def demonstration(problem: Problem, style: str, seed: int, sloppy_right: float = 0.2) -> str:
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


WORD_PROBLEMS = Generator("word_problems", tuple(LEVELS), candidate, demonstrate)
