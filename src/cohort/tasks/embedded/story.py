"""What every kind of word problem is made of: the rules of a level, the working, the story and its distractors."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from cohort.tasks.embedded.english import SUPPLIES, TOYS, Draw, Noun, Person

SHOP = Person("the shop", "it", "it", "its")
NOBODY = Person("", "", "", "")
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


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


class Working(list[str]):
    """The equations of a solution, in the order in which the facts appear."""

    def write(self, a: int, sign: str, b: int) -> int:
        """Write one equation down and return its result. A division must be exact."""
        result = OPERATIONS[sign](a, b)
        self.append(f"{a} {sign} {b} = {result}")
        return result


@dataclass(frozen=True, slots=True)
class Story:
    """A finished story: its sentences, the last of which asks, its working and the answer."""

    sentences: list[str]
    working: Working
    answer: int


def with_distractors(draw: Draw, level: Level, sentences: list[str], hero: Person, thing: Noun) -> list[str]:
    """The sentences with as many different distractors as the level wants, anywhere after the first one."""
    found: list[str] = []
    for _ in range(draw.choice(level.distractors)):
        text = _distractor(draw, hero, thing)
        if all(text.split()[:2] != other.split()[:2] for other in found):
            found.append(text)
    for text in found:
        sentences.insert(draw.between(1, len(sentences)), text)
    return sentences


def _distractor(draw: Draw, hero: Person, thing: Noun) -> str:
    """A sentence with a number that has nothing to do with the question."""
    age, other = draw.between(6, 15), draw.choice([n for n in (*TOYS, *SUPPLIES) if n is not thing])
    anywhere = (
        f"The park has {draw.between(5, 30)} trees.",
        f"The school is {draw.between(10, 40)} years old.",
        f"The library has {draw.between(3, 20)} windows.",
    )
    if hero is NOBODY:
        return draw.choice((*anywhere, f"It has rained for {draw.between(2, 9)} days."))
    if hero.name == SHOP.name:
        return draw.choice((*anywhere, f"The shop has {other.counted(draw.between(2, 30))} in a drawer."))
    return draw.choice(
        (
            *anywhere,
            f"{hero.name} is {age} years old.",
            f"{hero.name} has {other.counted(draw.between(2, 30))} in a drawer.",
            f"It takes {hero.name} {draw.between(5, 30)} minutes to walk to school.",
            f"{hero.name} lives in a house with {draw.between(3, 9)} rooms.",
        )
    )
