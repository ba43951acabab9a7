"""Which characters are the same: the one normalisation of all rewards that read text.

plain("\\uff17\\uff12\\u200b\\uff05")     # "72%": full-width digits and per cent, and a space of no width
plain("72\\u00b2")                     # as it is: a square is not 722
"""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby

# What takes no place and says nothing, by Unicode's property Default_Ignorable_Code_Point: spaces of zero width, soft
# hyphens, marks of direction, joiners, selectors of a variant.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_DASHES, _QUOTES = "\u2010\u2011\u2012\u2013\u2212", "\u2018\u2019"
_SIGNS = str.maketrans(dict.fromkeys(_DASHES, "-") | dict.fromkeys(_QUOTES, "'") | {"\u3002": ".", "\u3001": ","})
_SETS = "\u2102\u210d\u2115\u2119\u211a\u211d\u2124"  # the complex numbers, the natural ones, the reals


def visible(text: str) -> str:
    """The text without characters that nobody sees."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def plain(text: str) -> str:
    """The text in compatible characters (NFKC), without those that nobody sees; digits of every script as 0 to 9, and
    the signs for a minus, a full stop and a comma as - . and ,

    What says more than the character that it is compatible with stays: raised and lowered signs, fractions, numbers in
    circles, the letters of sets of numbers. So 72 with a raised 2 is never 722.
    """
    if text.isascii():
        return text
    text = visible(text)
    keeps = {character: _says_more(character) for character in set(text)}
    parts = ("".join(part) if kept else _folded("".join(part)) for kept, part in groupby(text, keeps.__getitem__))
    return "".join(parts)


def _folded(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).translate(_SIGNS)
    foreign = {ord(c): str(unicodedata.decimal(c)) for c in set(text) if c.isdecimal() and not c.isascii()}
    return text.translate(foreign)


def _says_more(character: str) -> bool:
    if character in _SETS:
        return True
    made_of = unicodedata.decomposition(character)
    is_number = character.isnumeric() and not character.isdecimal() and made_of != ""
    return is_number or made_of.startswith(("<super>", "<sub>"))
