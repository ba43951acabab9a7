"""Sentences with numbers that have nothing to do with the question."""

from __future__ import annotations

from cohort.tasks.embedded.english import SUPPLIES, TOYS, Draw, Noun, Person
from cohort.tasks.embedded.story import Level

__all__ = ["NOBODY", "SHOP", "with_distractors"]

SHOP = Person("the shop", "it", "it", "its")
NOBODY = Person("", "", "", "")


def with_distractors(draw: Draw, level: Level, sentences: list[str], hero: Person, thing: Noun) -> list[str]:
    """The sentences with as many different distractors as the level wants, anywhere after the first one."""
    found: list[str] = []
    for _ in range(draw.choice(level.distractors)):
        text = distractor(draw, hero, thing)
        if all(text.split()[:2] != other.split()[:2] for other in found):
            found.append(text)
    for text in found:
        sentences.insert(draw.between(1, len(sentences)), text)
    return sentences


def distractor(draw: Draw, hero: Person, thing: Noun) -> str:
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
