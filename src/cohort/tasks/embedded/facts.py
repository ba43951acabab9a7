"""Word problems about several people or several purchases: comparing, adding up, paying."""

from __future__ import annotations

from itertools import pairwise

from cohort.tasks.embedded.chain import times
from cohort.tasks.embedded.english import FRUIT, PEOPLE, SNACKS, SUPPLIES, TOYS, Draw, Person, capitalise
from cohort.tasks.embedded.story import Level, Story, Working, with_distractors

OWNED = (*FRUIT, *SNACKS, *TOYS, *SUPPLIES)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
DEEDS = ("buys", "finds", "collects", "sells", "counts")


def cast(draw: Draw, count: int) -> list[Person]:
    """`count` different people."""
    pool = [*PEOPLE[0], *PEOPLE[1]]
    return [pool.pop(draw.between(0, len(pool) - 1)) for _ in range(count)]


def listed(parts: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def tell_comparison(draw: Draw, level: Level, steps: int) -> Story | None:
    """Each person has more, fewer or several times as many as the one before; the last is asked for, or a sum."""
    thing, working = draw.choice(OWNED), Working()
    together = steps > 1 and draw.chance(0.4)
    people = cast(draw, steps if together else steps + 1)
    have, before = draw.between(max(3, level.low), level.high), 0
    sentences = [f"{people[0].name} has {thing.counted(have)}."]
    kinds = ("more", "fewer", "times") if level.factors else ("more", "fewer")
    for one, two in pairwise(people):
        before, kind = have, draw.choice(kinds)
        if kind == "times":
            factor = draw.between(2, level.factors)
            have = working.write(have, "*", factor)
            sentences.append(f"{two.name} has {times(factor)} as many {thing.many} as {one.name}.")
        elif kind == "more":
            count = draw.between(level.low, level.high)
            have = working.write(have, "+", count)
            sentences.append(f"{two.name} has {thing.counted(count, more=True)} than {one.name}.")
        elif have - 1 < level.low:
            return None
        else:
            count = draw.between(level.low, min(level.high, have - 1))
            have = working.write(have, "-", count)
            noun = thing.one if count == 1 else thing.many
            sentences.append(f"{two.name} has {count} fewer {noun} than {one.name}.")
        if have > level.cap:
            return None
    question = f"How many {thing.many} does {people[-1].name} have?"
    if together:
        have = working.write(before, "+", have)
        question = f"How many {thing.many} do {people[-2].name} and {people[-1].name} have together?"
    if have > level.cap:
        return None
    return Story([*with_distractors(draw, level, sentences, people[0], thing), question], working, have)


def tell_total(draw: Draw, level: Level, steps: int) -> Story | None:
    """Several amounts, of several people or of several days, added up."""
    thing, working = draw.choice(OWNED), Working()
    amounts = [draw.between(level.low, level.high) for _ in range(steps + 1)]
    total = amounts[0]
    for amount in amounts[1:]:
        total = working.write(total, "+", amount)
    if total > level.cap:
        return None
    counted = [thing.counted(amount) for amount in amounts]
    if draw.chance(0.5):
        people = cast(draw, steps + 1)
        hero = people[0]
        facts = f"{listed([f'{p.name} has {c}' for p, c in zip(people, counted, strict=True)])}."
        question = f"How many {thing.many} do they have {draw.choice(('together', 'altogether', 'in all'))}?"
        if steps > 1:
            question = question.replace("they", f"the {steps + 1} of them")
    else:
        (hero,), deed = cast(draw, 1), draw.choice(DEEDS)
        first = draw.between(0, len(DAYS) - steps - 1)
        facts = f"{hero.name} {deed} {listed([f'{c} on {DAYS[first + i]}' for i, c in enumerate(counted)])}."
        in_all = draw.choice(("altogether", "in all"))
        question = f"How many {thing.many} does {hero.name} {deed.removesuffix('s')} {in_all}?"
    return Story([*with_distractors(draw, level, [facts], hero, thing), question], working, total)


def tell_difference(draw: Draw, level: Level, steps: int) -> Story | None:
    """Two people, maybe after one of them got some more: how many more has one than the other?"""
    if steps > 2:
        return None
    thing, working = draw.choice(OWNED), Working()
    one, two = cast(draw, 2)
    have = draw.between(max(4, level.low), level.high)
    sentences = [f"{one.name} has {thing.counted(have)}."]
    if steps == 2:
        count = draw.between(level.low, level.high)
        have = working.write(have, "+", count)
        deed = draw.choice(("buys", "finds", "gets"))
        sentences.append(f"{capitalise(one.she)} {deed} {thing.counted(count, more=True)}.")
    if have > level.cap:
        return None
    other = draw.between(2, min(level.high, have - 1))
    sentences.append(f"{two.name} has {thing.counted(other)}.")
    answer = working.write(have, "-", other)
    now = " now" if steps == 2 else ""
    many, first, second = draw.choice((("more", one, two), ("fewer", two, one)))
    question = f"How many {many} {thing.many} does {first.name} have{now} than {second.name}?"
    return Story([*with_distractors(draw, level, sentences, one, thing), question], working, answer)


def tell_purchase(draw: Draw, level: Level, steps: int) -> Story | None:
    """Prices, numbers bought, the sum, and maybe the change. Two to four equations."""
    if steps not in (2, 3, 4) or not level.factors:
        return None
    working = Working()
    (buyer,) = cast(draw, 1)
    first, second = draw.choice(TOYS), draw.choice(SUPPLIES)
    price, count = draw.between(2, level.factors), draw.between(2, max(2, level.high // 4))
    facts = [f"A {first.one} costs {price} dollars."]
    bought = first.counted(count)
    total = working.write(price, "*", count)
    if steps > 2:
        price, count = draw.between(2, level.factors), draw.between(2, max(2, level.high // 4))
        facts = [f"A {first.one} costs {facts[0].split()[-2]} dollars and a {second.one} costs {price} dollars."]
        bought += f" and {second.counted(count)}"
        total = working.write(total, "+", working.write(price, "*", count))
    if total > level.cap:
        return None
    if steps == 3:
        question = f"How many dollars does {buyer.name} {draw.choice(('spend', 'pay in all'))}?"
        deed, answer = f"{buyer.name} buys {bought}.", total
    elif total >= level.cap:
        return None
    else:
        paid = total + draw.between(1, min(level.high, level.cap - total))
        question = f"How many dollars does {buyer.name} get back?"
        deed, answer = f"{buyer.name} buys {bought} and pays with {paid} dollars.", working.write(paid, "-", total)
    return Story([*with_distractors(draw, level, [*facts, deed], buyer, first), question], working, answer)
