"""Words that stand beside numbers: those that are units, and those that make another number of it."""

from __future__ import annotations

import re
from itertools import pairwise


def names(text: str) -> tuple[str, ...]:
    """The words of a text: how long lists of them are written here."""
    return tuple(text.split())


NUMBERS = {word: number for number, word in enumerate(names(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty"
))}  # fmt: skip
NUMBERS |= dict(zip(names("thirty forty fifty sixty seventy eighty ninety"), range(30, 100, 10)))

SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_CHANGES = names(
    "hundred thousand million billion trillion quadrillion lakh lac crore myriad k bn mn mln mio tn dozen score gross"
    " couple googol kilo mega giga half halves third quarter fourth fifth sixth seventh eighth ninth tenth eleventh"
    " twelfth sixteenth hundredth thousandth millionth billionth permille plus minus times over point dot divided"
    " multiplied squared cubed root power factorial to or and not no never nor than least most pi π x y z n i e double"
    " twice triple except modulo mod choose negative"
)
_CHANGES_THE_VALUE = frozenset(form for word in (*_CHANGES, *NUMBERS) for form in (word, f"{word}s"))

_UNITS = names(
    "mm cm dm km nm pm kg mg µg ft lb oz yr hr min sec ms mph kph inch in feet foot yard mile meter metre kilometer"
    " kilometre centimeter centimetre millimeter millimetre liter litre ml mL gram kilogram milligram ton tonne pound"
    " ounce second minute hour day week month year degree radian rad unit cent dollar euro gallon quart pint joule"
    " newton watt volt ampere ohm pascal hertz kelvin kW kJ kV kN kPa MPa Hz kHz MHz GHz Pa mol mmol eV keV MeV GeV rpm"
    " bpm ppm deg USD EUR GBP CNY INR pc"
)
UNITS = frozenset(form for word in _UNITS for form in (word, f"{word}s", f"{word}es"))
UNIT_LETTERS = frozenset("mgshLlNJWVAKCFTHΩ")
_SAME = {
    "metre": "m", "meter": "m", "kilometre": "km", "kilometer": "km", "centimetre": "cm", "centimeter": "cm",
    "millimetre": "mm", "millimeter": "mm", "litre": "l", "liter": "l", "gram": "g", "kilogram": "kg",
    "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "inche": "in", "inch": "in", "foot": "ft",
    "feet": "ft", "pound": "lb", "yr": "year", "ounce": "oz", "newton": "n", "joule": "j", "watt": "w", "volt": "v",
    "people": "person", "dollar": "usd", "euro": "eur", "squared": "2", "square": "2", "sq": "2", "cubic": "3",
    "cubed": "3", "per": "/", "kph": "km/h", "mph": "mile/h",
}  # fmt: skip
_FILLING = frozenset(("of", "the", "a", "an", "in", "total", "each", "about"))


def changes_the_value(words: str) -> bool:
    """Whether one of `words` makes another number of the one before it: million, halves, plus, or."""
    found = re.findall(r"[^\W\d_]+", words)
    if {"square", "sq", "cubic"} & set(found) or {"squared", "cubed"} & set(found[1:]):
        found = [word for word in found if word not in ("squared", "cubed")]  # metres squared
    found = [word if len(word) == 1 else word.casefold() for word in found]  # N is a unit, n is not
    return any(word in _CHANGES_THE_VALUE or word in names("M B K G T") for word in found)


def is_unit_word(run: str, spaced: bool) -> bool:
    """Whether letters behind a number are a unit or things that are counted: `cm`, ` apples`, not `xy` and `abc`."""
    if run in UNITS or not run.isascii():
        return True
    if not spaced or len(run) < 3 or in_alphabetical_order(run):
        return False
    return len(run) > 3 or re.search(r"[aeiou]", run) is not None


def in_alphabetical_order(run: str) -> bool:
    """Whether letters are a product rather than a word: abc, xyz."""
    return all(ord(after) - ord(before) == 1 for before, after in pairwise(run))


def are_units(words: str) -> bool:
    """Whether `words` are nothing but units of measurement."""
    known = UNITS | UNIT_LETTERS | {"per", "square", "cubic", "sq", "squared", "cubed"}
    return all(word in known for word in re.findall(r"[^\W\d_]+", words))


def unit_words(words: str) -> frozenset[str]:
    """What a unit says, whatever its spelling: `metres per second` and `m/s` are one, `a.m.` and `am` too."""
    words = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", words.casefold())
    found = re.findall(r"[^\W\d_]+|[23/-]", words)
    plural = re.compile(r"(?<=..)(?<!s)s$")
    named = " ".join(_SAME.get(word, word) for word in (plural.sub("", word) for word in found))
    named = re.sub(r"(?<=/)\s+|\s+(?=/)", "", named)
    return frozenset(word for word in named.split() if word not in _FILLING)
