"""Short texts made from templates, for the exercise of bench/length.py: four or five sentences each, the same on every
machine.

    python bench/length_texts.py FILE [COUNT]
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

__all__ = ["texts", "write_texts"]

ASK = "Summarize this text in one sentence.\n\n{text}"
NAMES = ("Nina", "Omar", "Lucia", "Tom", "Aiko", "Ravi", "Greta", "Samuel", "Elif", "Peter", "Marta", "Kofi")
WORK = ("a baker", "a nurse", "a gardener", "a teacher", "a bus driver", "a carpenter", "a librarian", "a plumber")
PLACES = ("a village by the sea", "a small town in the hills", "the old part of the city", "a valley in the north")
SEASONS = ("Last spring", "One summer", "In autumn", "On a cold winter morning", "Two years ago", "After the flood")
# What was begun, what it is called afterwards, what was in the way, and what came of it.
PLANS = (
    ("build a greenhouse behind the school", "greenhouse", "There was no money for the glass", "vegetables all year"),
    ("open a library in an empty shop", "library", "Nobody knew where the books should come from", "300 readers"),
    ("repair the bridge over the river", "bridge", "The wood was too expensive", "a shorter way to the market"),
    ("start a choir for people who cannot sing", "choir", "The neighbours complained about the noise", "two concerts"),
    ("plant a hundred apple trees along the road", "orchard", "Half of the trees froze", "cider for every festival"),
    ("turn the fire station into a theatre", "theatre", "The roof leaked in every storm", "a full house on Saturdays"),
    ("teach the old people to use computers", "course", "Most of them were afraid of the keyboard", "letters by mail"),
    ("clean the lake before the holidays", "lake", "The boats broke down twice", "clear water and more visitors"),
)
HELP = (
    "Then {friend}, {work}, offered to help without being paid.",
    "So {name} asked {friend}, {work}, who knew what to do.",
    "But {friend}, {work}, collected what was missing in a week.",
)
ENDINGS = (
    "Today the {thing} has brought {result}, and the mayor calls it a model for other places.",
    "The {thing} was finished after {months} months, and what came of it is {result}.",
    "It took {months} months, but now the {thing} means {result} for everybody.",
)
ASIDES = ("", "", " At first only {few} people came to look.", " The newspaper wrote about it {few} times.")


def texts(count: int) -> list[str]:
    """`count` different texts."""
    draw, found = random.Random("short texts"), dict[str, None]()
    while len(found) < count:
        name, friend = draw.sample(NAMES, 2)
        own, work = draw.sample(WORK, 2)
        plan, thing, trouble, result = draw.choice(PLANS)
        text = (
            f"{name} is {own} in {draw.choice(PLACES)}. {draw.choice(SEASONS)} {name} decided to {plan}. {trouble}. "
            f"{draw.choice(HELP)}{draw.choice(ASIDES)} {draw.choice(ENDINGS)}"
        )
        months, few = draw.randint(2, 20), draw.randint(2, 9)
        found[text.format(name=name, friend=friend, work=work, thing=thing, result=result, months=months, few=few)] = (
            None
        )
    return list(found)


def write_texts(file: Path, count: int) -> None:
    """The texts as prompts, one JSON object a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": ASK.format(text=text)}) + "\n" for text in texts(count)]
    file.write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    write_texts(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 400)
