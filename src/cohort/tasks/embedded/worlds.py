"""Story worlds for the embedded word problems: which sentences can tell of having, gaining, losing and sharing.

A `World` is data: phrases by what they do to the number of things. `chain.py` strings them into a story. In a phrase,
`{more}` is "7 more apples", `{some}` is "4 apples" or "4 of them", `{n}` is "12 apples", `{things}` is "apples",
`{m}` a factor, `{times}` "twice" or "3 times", `{boxes}` a container in the plural, `{s}` the ending of a verb that
agrees with the number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from cohort.tasks.embedded import english

Phrases = tuple[str, ...]
Endings = tuple[tuple[str, str], ...]  # (what happens to all of them, the question about it)


@dataclass(frozen=True, slots=True)
class World:
    """One kind of story. Phrases without a subject are told of the hero; `clauses` have a subject of their own."""

    things: tuple[english.Noun, ...]
    start: Phrases
    lose: Phrases
    now: Phrases
    left: Phrases
    gain: Phrases = ()
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


SELL = "sells all the {things} for {m} dollars each"
SHARE = (
    ("puts all the {things} into {m} {boxes}, with the same number in each", "How many {things} are in each {box}?"),
    ("shares all the {things} equally among {m} friends", "How many {things} does each friend get?"),
    ("gives all the {things} to {m} children, the same number to each", "How many {things} does each child get?"),
)
HAVE_NOW = ("How many {things} does {name} have now?", "How many {things} does {name} have in the end?")
Belongings = partial(
    World,
    pack_start=("{name} has {m} {boxes} with {n} in each.", "{name} keeps {m} {boxes} with {n} in each."),
    packs=("buys {m} {boxes} with {n} in each", "gets {m} {boxes} from {friend} with {n} in each"),
    halve=("gives half of all the {things} to {friend}", "sells half of all the {things}"),
    sell=((SELL, "How many dollars does {name} get?"), (SELL, "How many dollars does {name} get for the {things}?")),
    share=SHARE,
    now=HAVE_NOW,
    left=(*HAVE_NOW, "How many {things} does {name} have left?", "How many {things} are left?"),
)

fruit = Belongings(
    things=english.FRUIT,
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
    grow=("keeps picking {things} until {she} has {times} as many as before",),
)
snacks = Belongings(
    things=english.SNACKS,
    start=("{name} has {n}.", "{name} starts with {n}.", "{name} has a {box} with {n} in it."),
    gain=("buys {more}", "gets {more} from {friend}", "wins {more} at a party"),
    lose=("eats {some}", "gives {some} to {friend}", "sells {some}", "eats {some} at school"),
    clauses=("{friend} gives {her} {more}", "{friend} brings {her} {more}"),
    grow=("keeps buying {things} until {she} has {times} as many as before",),
)
toys = Belongings(
    things=english.TOYS,
    start=("{name} has {n}.", "{name} owns {n}.", "{name} starts with {n}."),
    gain=("finds {more}", "buys {more}", "wins {more} in a game", "gets {more} from {friend}"),
    lose=("loses {some}", "gives {some} to {friend}", "sells {some}", "gives {some} away"),
    clauses=("{friend} gives {her} {more}", "{hers} uncle sends {her} {more}"),
    grow=("keeps collecting {things} until {she} has {times} as many as before",),
)
supplies = Belongings(
    things=english.SUPPLIES,
    start=("{name} has {n}.", "{name} owns {n}."),
    gain=("buys {more}", "finds {more} at home", "gets {more} from {friend}"),
    lose=("loses {some}", "gives {some} to {friend}", "gives {some} to the school", "sells {some}"),
    clauses=("{friend} gives {her} {more}", "{hers} aunt sends {her} {more}"),
)
money = World(
    things=(english.DOLLAR,),
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
    now=HAVE_NOW,
    left=("How many dollars does {name} have left?", "How many dollars does {name} have now?"),
    may_shorten=False,
)
shop = World(
    things=(*english.GOODS, *english.SUPPLIES),
    start=("A shop has {n}.", "A shop opens with {n}."),
    gain=("receives {more}", "buys {more}", "makes {more}"),
    lose=("sells {some}", "gives {some} away", "sells {some} to a school", "sends {some} back"),
    pack_start=("A shop has {m} {boxes} with {n} in each.",),
    packs=("receives {m} {boxes} with {n} in each", "buys {m} {boxes} with {n} in each"),
    sell=((SELL, "How many dollars does the shop get?"),),
    share=SHARE[:1],
    now=("How many {things} does the shop have now?", "How many {things} are in the shop in the end?"),
    left=("How many {things} does the shop have left?", "How many {things} does the shop have now?"),
    hero="shop",
)


def schoolwork(thing: english.Noun, do: str, places: Phrases, share: Endings = ()) -> World:
    """Things that the hero has to read or to solve: those that are done are lost."""
    still = f"How many {{things}} does {{name}} still have to {do}?"
    return World(
        things=(thing,),
        start=(f"{{name}} has {{n}} to {do}.", f"{{name}} must {do} {{n}} for school."),
        lose=tuple(f"{do}s {{some}} {place}" for place in places),
        clauses=(f"{{hers}} teacher gives {{her}} {{more}} to {do}", "{hers} school adds {more}"),
        share=share,
        now=(still,),
        left=(still, f"How many {{things}} are left to {do}?"),
    )


EVERY_DAY = "reads the other pages in {m} days, the same number each day"
reading = schoolwork(
    english.PAGE,
    "read",
    ("on the train", "in the garden", "at school", "at home", "in the park"),
    share=((EVERY_DAY, "How many pages does {name} read on each of these days?"),),
)
homework = schoolwork(
    english.PROBLEM, "solve", ("on the train", "with {friend}", "at school", "at home", "in the library")
)
bus = World(
    things=english.PASSENGERS,
    start=("A bus starts with {n} on it.", "There are {n} on a bus."),
    gain=("{n} get{s} on", "{more} get{s} on"),
    lose=("{n} get{s} off", "{n} leave{s} the bus"),
    packs=("{m} groups of {n} get on",),
    now=("How many {things} are on the bus now?", "How many {things} are on the bus in the end?"),
    left=("How many {things} are on the bus now?", "How many {things} are left on the bus?"),
    moments=tuple(f"At the {number} stop, " for number in ("first", "second", "third", "fourth", "fifth")),
    hero="none",
)
pond = World(
    things=english.ANIMALS,
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
