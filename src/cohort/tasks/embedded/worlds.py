"""Story worlds for the embedded word problems: which sentences can tell of having, gaining, losing and sharing.

A `World` is data: phrases by what they do to the number of things. `chain.py` strings them into a story. In a phrase,
`{more}` is "7 more apples", `{some}` is "4 apples" or "4 of them", `{n}` is "12 apples", `{things}` is "apples",
`{m}` a factor, `{times}` "twice" or "3 times", `{boxes}` a container in the plural, `{s}` the ending of a verb that
agrees with the number.
"""

from __future__ import annotations

from dataclasses import dataclass

from cohort.tasks.embedded.english import (
    ANIMALS,
    DOLLAR,
    FRUIT,
    GOODS,
    PAGE,
    PASSENGERS,
    PROBLEM,
    SNACKS,
    SUPPLIES,
    TOYS,
    Noun,
)

__all__ = ["WORLDS", "World"]

Phrases = tuple[str, ...]
Endings = tuple[tuple[str, str], ...]  # (what happens to all of them, the question about it)


@dataclass(frozen=True, slots=True)
class World:
    """One kind of story. Phrases without a subject are told of the hero; `clauses` have a subject of their own."""

    things: tuple[Noun, ...]
    start: Phrases
    gain: Phrases
    lose: Phrases
    now: Phrases
    left: Phrases
    clauses: Phrases = ()  # gains that somebody else brings about
    pack_start: Phrases = ()
    packs: Phrases = ()
    grow: Phrases = ()
    halve: Phrases = ()
    sell: Endings = ()
    share: Endings = ()
    moments: Phrases = ()  # a scene without a hero: every event opens with the next of these
    hero: str = "person"  # or "shop", or "none"
    may_shorten: bool = True  # "4 of them" reads badly for dollars


PACKS = ("buys {m} {boxes} with {n} in each", "gets {m} {boxes} from {friend} with {n} in each")
PACK_START = ("{name} has {m} {boxes} with {n} in each.", "{name} keeps {m} {boxes} with {n} in each.")
HALVE = ("gives half of all the {things} to {friend}", "sells half of all the {things}")
SELL = (
    ("sells all the {things} for {m} dollars each", "How many dollars does {name} get?"),
    ("sells all the {things} for {m} dollars each", "How many dollars does {name} get for the {things}?"),
)
SHARE = (
    ("puts all the {things} into {m} {boxes}, with the same number in each", "How many {things} are in each {box}?"),
    ("shares all the {things} equally among {m} friends", "How many {things} does each friend get?"),
    ("gives all the {things} to {m} children, the same number to each", "How many {things} does each child get?"),
)
HAVE_NOW = ("How many {things} does {name} have now?", "How many {things} does {name} have in the end?")
HAVE_LEFT = (*HAVE_NOW, "How many {things} does {name} have left?", "How many {things} are left?")

fruit = World(
    things=FRUIT,
    start=("{name} has {n}.", "{name} starts with {n}.", "{name} has a {box} with {n} in it."),
    gain=("buys {more}", "picks {more}", "gets {more} from {friend}", "takes {more} from the garden"),
    lose=(
        "eats {some}",
        "gives {some} to {friend}",
        "sells {some}",
        "uses {some} for a pie",
        "drops {some} in a river",
    ),
    clauses=("{friend} gives {her} {more}", "{friend} brings {her} {more}"),
    pack_start=PACK_START,
    packs=PACKS,
    grow=("keeps picking {things} until {she} has {times} as many as before",),
    halve=HALVE,
    sell=SELL,
    share=SHARE,
    now=HAVE_NOW,
    left=HAVE_LEFT,
)
snacks = World(
    things=SNACKS,
    start=("{name} has {n}.", "{name} starts with {n}.", "{name} has a {box} with {n} in it."),
    gain=("buys {more}", "gets {more} from {friend}", "wins {more} at a party"),
    lose=("eats {some}", "gives {some} to {friend}", "sells {some}", "eats {some} at school"),
    clauses=("{friend} gives {her} {more}", "{friend} brings {her} {more}"),
    pack_start=PACK_START,
    packs=PACKS,
    grow=("keeps buying {things} until {she} has {times} as many as before",),
    halve=HALVE,
    sell=SELL,
    share=SHARE,
    now=HAVE_NOW,
    left=HAVE_LEFT,
)
toys = World(
    things=TOYS,
    start=("{name} has {n}.", "{name} owns {n}.", "{name} starts with {n}."),
    gain=("finds {more}", "buys {more}", "wins {more} in a game", "gets {more} from {friend}"),
    lose=("loses {some}", "gives {some} to {friend}", "sells {some}", "gives {some} away"),
    clauses=("{friend} gives {her} {more}", "{hers} uncle sends {her} {more}"),
    pack_start=PACK_START,
    packs=PACKS,
    grow=("keeps collecting {things} until {she} has {times} as many as before",),
    halve=HALVE,
    sell=SELL,
    share=SHARE,
    now=HAVE_NOW,
    left=HAVE_LEFT,
)
supplies = World(
    things=SUPPLIES,
    start=("{name} has {n}.", "{name} owns {n}."),
    gain=("buys {more}", "finds {more} at home", "gets {more} from {friend}"),
    lose=("loses {some}", "gives {some} to {friend}", "gives {some} to the school", "sells {some}"),
    clauses=("{friend} gives {her} {more}", "{hers} aunt sends {her} {more}"),
    pack_start=PACK_START,
    packs=PACKS,
    halve=HALVE,
    sell=SELL,
    share=SHARE,
    now=HAVE_NOW,
    left=HAVE_LEFT,
)
money = World(
    things=(DOLLAR,),
    start=("{name} has {n}.", "{name} has saved {n}.", "{name} starts with {n}."),
    gain=(
        "earns {n} by washing cars",
        "earns {n} by walking dogs",
        "gets {n} from {friend}",
        "finds {n} in a coat",
        "wins {n} in a game",
    ),
    lose=(
        "spends {n} on food",
        "spends {n} on clothes",
        "gives {n} to {friend}",
        "pays {n} for a ticket",
        "loses {n} in the park",
    ),
    clauses=("{friend} gives {her} {n}", "{hers} uncle sends {her} {n}"),
    packs=("works {m} hours at {n} an hour", "sells {m} cups for {n} each"),
    halve=("gives half of all the money to {friend}", "spends half of all the money"),
    share=(
        ("spends all the money on toys that cost {m} dollars each", "How many toys does {name} buy?"),
        ("shares all the money equally among {m} friends", "How many dollars does each friend get?"),
    ),
    now=("How many dollars does {name} have now?", "How many dollars does {name} have in the end?"),
    left=("How many dollars does {name} have left?", "How many dollars does {name} have now?"),
    may_shorten=False,
)
shop = World(
    things=(*GOODS, *SUPPLIES),
    start=("A shop has {n}.", "A shop opens with {n}."),
    gain=("receives {more}", "buys {more}", "makes {more}"),
    lose=("sells {some}", "gives {some} away", "sells {some} to a school", "sends {some} back"),
    pack_start=("A shop has {m} {boxes} with {n} in each.",),
    packs=("receives {m} {boxes} with {n} in each", "buys {m} {boxes} with {n} in each"),
    sell=(("sells all the {things} for {m} dollars each", "How many dollars does the shop get?"),),
    share=SHARE[:1],
    now=("How many {things} does the shop have now?", "How many {things} are in the shop in the end?"),
    left=("How many {things} does the shop have left?", "How many {things} does the shop have now?"),
    hero="shop",
)
reading = World(
    things=(PAGE,),
    start=("{name} has {n} to read.", "{name} must read {n} for school."),
    gain=(),
    lose=(
        "reads {some} on the train",
        "reads {some} in the garden",
        "reads {some} at school",
        "reads {some} at home",
        "reads {some} in the park",
    ),
    clauses=("{hers} teacher gives {her} {more} to read", "{hers} school adds {more}"),
    share=(
        (
            "reads the other pages in {m} days, the same number each day",
            "How many pages does {name} read on each of these days?",
        ),
    ),
    now=("How many pages does {name} still have to read?",),
    left=("How many pages does {name} still have to read?", "How many pages are left to read?"),
)
homework = World(
    things=(PROBLEM,),
    start=("{name} has {n} to solve.", "{name} must solve {n} for school."),
    gain=(),
    lose=(
        "solves {some} on the train",
        "solves {some} with {friend}",
        "solves {some} at school",
        "solves {some} at home",
        "solves {some} in the library",
    ),
    clauses=("{hers} teacher gives {her} {more} to solve", "{hers} school adds {more}"),
    now=("How many problems does {name} still have to solve?",),
    left=("How many problems does {name} still have to solve?", "How many problems are left to solve?"),
)
bus = World(
    things=PASSENGERS,
    start=("A bus starts with {n} on it.", "There are {n} on a bus."),
    gain=("{n} get{s} on", "{more} get{s} on"),
    lose=("{n} get{s} off", "{n} leave{s} the bus"),
    packs=("{m} groups of {n} get on",),
    now=("How many {things} are on the bus now?", "How many {things} are on the bus in the end?"),
    left=("How many {things} are on the bus now?", "How many {things} are left on the bus?"),
    moments=(
        "At the first stop, ",
        "At the second stop, ",
        "At the third stop, ",
        "At the fourth stop, ",
        "At the fifth stop, ",
    ),
    hero="none",
)
pond = World(
    things=ANIMALS,
    start=("There are {n} on a pond.", "A pond is home to {n}."),
    gain=("{more} arrive{s}", "{more} come{s}"),
    lose=("{n} leave{s}", "{n} swim{s} away"),
    packs=("{m} groups of {n} arrive",),
    now=("How many {things} are on the pond now?", "How many {things} are on the pond in the end?"),
    left=("How many {things} are on the pond now?", "How many {things} are left on the pond?"),
    moments=("In the morning, ", "At noon, ", "In the afternoon, ", "In the evening, ", "At night, "),
    hero="none",
)

WORLDS = (fruit, fruit, snacks, toys, toys, supplies, money, money, shop, reading, homework, bus, pond)
