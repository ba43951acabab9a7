"""The words of the embedded word problems: people, things, and how a number and a noun agree.

Everything is plain data, a few hundred words in all, so that a very small model can know every one of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Random choices from a seed. Built on `random.random()` alone, the one stream that Python promises to keep."""

    def __init__(self, seed: int) -> None:
        self.uniform = random.Random(seed).random

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[int(self.uniform() * len(options))]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability


@dataclass(frozen=True, slots=True)
class Noun:
    """Something that can be counted."""

    one: str
    many: str

    def counted(self, count: int, more: bool = False) -> str:
        """`12 apples`, `1 apple`, `7 more apples`."""
        return f"{count} {'more ' if more else ''}{self.one if count == 1 else self.many}"


@dataclass(frozen=True, slots=True)
class Person:
    """Someone (or a shop) that a story is about, and the pronouns that stand for them."""

    name: str
    she: str
    her: str
    hers: str


def capitalise(text: str) -> str:
    """The text with a capital first letter and the rest as it is (str.capitalize would lower the names)."""
    return text[:1].upper() + text[1:]


WOMEN = tuple(
    Person(name, "she", "her", "her")
    for name in ("Maya", "Ada", "Nina", "Rosa", "Zoe", "Lily", "Emma", "Sara", "Anna", "Ivy", "Clara", "Hana")
)
MEN = tuple(
    Person(name, "he", "him", "his")
    for name in ("Ben", "Leo", "Tom", "Omar", "Sam", "Ravi", "Jack", "Noah", "Luis", "Finn", "Adam", "Kofi")
)
PEOPLE = (WOMEN, MEN)  # a story takes its hero from one and the friends from the other: "she" is never two people


def nouns(*pairs: str) -> tuple[Noun, ...]:
    """`apple` takes an s; `cherry/cherries` says its own plural."""
    return tuple(Noun(pair.split("/")[0], pair.split("/")[1] if "/" in pair else pair + "s") for pair in pairs)


FRUIT = nouns("apple", "plum", "pear", "cherry/cherries", "peach/peaches", "lemon")
SNACKS = nouns("cookie", "candy/candies", "muffin", "nut")
TOYS = nouns("marble", "sticker", "card", "shell", "stamp", "button", "bead", "feather")
SUPPLIES = nouns("pencil", "pen", "crayon", "book", "notebook")
GOODS = nouns("kite", "lamp", "clock", "brush/brushes", "hat", "cup", "candle", "scarf/scarves")
ANIMALS = nouns("duck", "goose/geese", "frog", "swan")
PASSENGERS = nouns("person/people", "child/children", "passenger")
DOLLAR, PAGE, PROBLEM = nouns("dollar", "page", "problem")
BOXES = nouns("bag", "box/boxes", "basket", "crate")
