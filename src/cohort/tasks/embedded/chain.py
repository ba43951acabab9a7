"""Tells a story of one growing and shrinking number, one event at a time, and keeps the working beside it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from cohort.tasks.embedded.english import BOXES, PEOPLE, Draw, capitalise
from cohort.tasks.embedded.story import NOBODY, SHOP, Level, Story, Working, with_distractors
from cohort.tasks.embedded.worlds import WORLDS, Endings, Phrases, World

LEADS = ("Then ", "Next, ", "Later, ", "After that, ", "")


def tell_chain(draw: Draw, level: Level, steps: int) -> Story | None:
    """A story with exactly `steps` equations, or None where the numbers ran into a dead end (draw again)."""
    return _Teller(draw, level, draw.choice(WORLDS)).tell(steps)


class _Teller:
    """One story in the making."""

    def __init__(self, draw: Draw, level: Level, world: World) -> None:
        self.draw, self.level, self.world = draw, level, world
        self.working = Working()
        self.have = 0
        self.last = ""  # the kind of the last event, for the wording of the question
        self.them = 0  # how many things "of them" could mean: what was just had or gained, nothing after a loss
        self.told: set[str] = set()  # no story uses a phrase twice
        self.events: list[tuple[bool, str]] = []  # (told of the hero, words)

        heroes, others = PEOPLE if draw.chance(0.5) else PEOPLE[::-1]
        shop = SHOP if level.shorten else replace(SHOP, she=SHOP.name)  # among distractors "it" could be the park
        self.hero = {"person": draw.choice(heroes), "shop": shop, "none": NOBODY}[world.hero]
        self.thing = draw.choice(world.things)
        box = draw.choice(BOXES)
        self.fields: dict[str, Any] = {
            **asdict(self.hero),
            "things": self.thing.many,
            "friend": draw.choice(others).name,
            "box": box.one,
            "boxes": box.many,
        }

    def tell(self, steps: int) -> Story | None:
        """Begin, add events until the working has `steps` equations, ask."""
        opening, question = self.begin(steps), ""
        while not question and len(self.working) < steps:
            left = steps - len(self.working)
            if left == 1:
                question = self.finish()
            if not question and not self.happen(left):
                return None
        if not question:
            options = self.world.left if self.last == "lose" else self.world.now
            question = self.draw.choice(options).format_map(self.fields)
        sentences = with_distractors(self.draw, self.level, [opening, *self.sentences()], self.hero, self.thing)
        return Story([*sentences, question], self.working, self.have)

    def begin(self, steps: int) -> str:
        """The first sentence: a plain number, or packs (already one equation)."""
        draw, level, world = self.draw, self.level, self.world
        if level.factors and steps > 1 and world.pack_start and draw.chance(0.4):
            groups, each = self.packs()
            self.have = self.working.write(groups, "*", each)
            return self.phrase(world.pack_start, each, m=groups)
        if level.divide and steps > 1 and world.hero == "person" and world.share and draw.chance(0.2):
            friends, each = draw.between(2, 6), draw.between(level.low, max(level.low, level.high // 6))
            self.have = self.working.write(friends * each, "/", friends)
            shares = "A group of {m} children shares {n} equally. {name} is one of the children."
            if friends == 2:
                shares = "{name} and {friend} find {n} and share them equally."
            return self.phrase((shares,), friends * each, m=friends)
        self.have = self.them = draw.between(max(3, level.low), level.high)
        return self.phrase(world.start, self.have)

    def happen(self, left: int) -> bool:
        """One event that costs at most `left` equations. False if none fits."""
        draw, level, world = self.draw, self.level, self.world
        if level.factors and left > 1 and world.packs and draw.chance(0.3) and self.gain_packs():
            return True
        if level.factors and world.grow and draw.chance(0.12) and self.grow():
            return True
        even = self.have > 4 and self.have % 2 == 0
        if level.divide and world.halve and even and draw.chance(0.2) and (halve := self.unused(world.halve)):
            self.change("lose", "/", 2, halve)
            return True
        first, second = (self.gain, self.lose) if draw.chance(0.5) else (self.lose, self.gain)
        return first() or second()

    def gain(self) -> bool:
        """Some more arrive."""
        predicates, clauses = self.unused(self.world.gain), self.unused(self.world.clauses)
        most = min(self.level.high, self.level.cap - self.have)
        if not (predicates or clauses) or most < self.level.low:
            return False
        of_hero = bool(predicates) and not (clauses and self.draw.chance(0.25))
        count = self.draw.between(self.level.low, most)
        self.change("gain", "+", count, predicates if of_hero else clauses, count, of_hero=of_hero)
        self.them = count
        return True

    def lose(self) -> bool:
        """Some go. At least one is left, so that the story can go on."""
        predicates = self.unused(self.world.lose)
        most = min(self.level.high, self.have - 1)
        if not predicates or most < self.level.low:
            return False
        count = self.draw.between(self.level.low, most)
        self.change("lose", "-", count, predicates, count)
        return True

    def gain_packs(self) -> bool:
        """Several equal lots arrive: two equations, the product and the sum."""
        packs = self.unused(self.world.packs)
        groups, each = self.packs()
        if not packs or self.have + groups * each > self.level.cap:
            return False
        self.change("gain", "+", self.working.write(groups, "*", each), packs, each, m=groups)
        return True

    def grow(self) -> bool:
        """The number becomes several times what it was."""
        grow, factor = self.unused(self.world.grow), self.draw.between(2, min(4, self.level.factors))
        if not grow or self.have * factor > self.level.cap:
            return False
        self.change("gain", "*", factor, grow, m=factor)
        return True

    def packs(self) -> tuple[int, int]:
        """How many packs and how many in each."""
        groups = self.draw.between(2, self.level.factors)
        return groups, self.draw.between(max(2, self.level.low), max(4, min(self.level.high // groups, 25)))

    def finish(self) -> str:
        """Maybe end by selling or sharing everything: one equation. Returns the question, or "" for no such end."""
        draw, level, world = self.draw, self.level, self.world
        if level.divide and world.share and draw.chance(0.4):
            shares = [m for m in range(2, 10) if self.have % m == 0 and self.have > m]
            if shares:
                return self.end(world.share, "/", draw.choice(shares))
        if level.factors and world.sell and draw.chance(0.2):
            price = draw.between(2, level.factors)
            if self.have * price <= level.cap:
                return self.end(world.sell, "*", price)
        return ""

    def end(self, endings: Endings, sign: str, m: int) -> str:
        """Tell the last event and return its question."""
        event, question = self.draw.choice(endings)
        self.change("end", sign, m, (event,), m=m)
        return question.format_map(self.fields)

    def unused(self, options: Phrases) -> Phrases:
        """The phrases that this story has not used. Where a scene has only two, they may come again."""
        return options if self.world.hero == "none" else tuple(o for o in options if o not in self.told)

    def phrase(self, options: Phrases, count: int = 0, m: int = 0) -> str:
        """One of the options with its numbers filled in."""
        template = self.draw.choice(options)
        self.told.add(template)
        short = self.level.shorten and self.world.may_shorten and self.draw.chance(0.4)
        told = self.thing.counted(count)
        return template.format(
            **self.fields,
            n=told,
            more=f"{count} more" if short else self.thing.counted(count, more=True),
            some=f"{count} of them" if short and count <= self.them else told,
            m=m,
            times=times(m),
            s="s" if count == 1 else "",
        )

    def change(
        self, kind: str, sign: str, by: int, options: Phrases, count: int = 0, m: int = 0, of_hero: bool = True
    ) -> None:
        """Write an event into the working, and remember one of the phrases for the telling."""
        self.have = self.working.write(self.have, sign, by)
        words = self.phrase(options, count, m)
        self.last, self.them = kind, 0
        self.events.append((of_hero and self.world.hero != "none", words))

    def sentences(self) -> list[str]:
        """The events as sentences. Two deeds in a row may share one."""
        if self.world.moments:
            return [f"{moment}{words}." for moment, (_, words) in zip(self.world.moments, self.events, strict=False)]
        sentences: list[str] = []
        at, lead = 0, ""
        while at < len(self.events):
            of_hero, words = self.events[at]
            lead = self.draw.choice([other for other in LEADS if other != lead or not other]) if at else ""
            if self.joins(at) and self.draw.chance(0.5):
                joint = " and then " if lead != "Then " and self.draw.chance(0.5) else " and "
                words += joint + self.events[at + 1][1]
                at += 1
            subject = f"{self.hero.she} " if of_hero else ""
            sentences.append(capitalise(f"{lead}{subject}{words}."))
            at += 1
        return sentences

    def joins(self, at: int) -> bool:
        """Whether this event and the next may share a sentence: two different deeds of the hero, said simply."""
        if at + 1 == len(self.events):
            return False
        (of_hero, words), (next_of_hero, next_words) = self.events[at : at + 2]
        simple = " until " not in words and words.split()[0] != next_words.split()[0]
        return of_hero and next_of_hero and simple


def times(factor: int) -> str:
    """`twice`, `3 times`."""
    return "twice" if factor == 2 else f"{factor} times"
