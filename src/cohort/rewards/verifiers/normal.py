"""Characters that look like others, made one: what rewards that read numbers and formulas see of a text.

NFKC as a whole would make 5½ of `5½` into 51⁄2, x² into x2 and a circled 1 into 1, so only those of its rules are used
that change how a character is drawn (its width, its font, a space that does not break), and nothing else.
"""

from __future__ import annotations

import re
import unicodedata

_DRAWN = ("<wide>", "<narrow>", "<small>", "<noBreak>", "<font>")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\ufeff\u00ad"))
_STOPS = str.maketrans({"。": ".", "、": ",", "\uff1a": ":", "\u2018": "'", "\u2019": "'", "\u02bc": "'"})
_MINUS = re.compile(r"[\u2212\u2012\u2013\ufe63\uff0d](?=\s?[.\d$€£¥\\(A-Za-z√π{])")


def plain(text: str) -> str:
    """`text` with the usual characters: full-width ones, mathematical fonts, other minus signs and spaces; without
    those that nobody sees. Digits of one other script are digits, but not beside our own: 7٢ is no number.
    """
    if text.isascii():
        return text
    digits = {character for character in text if character.isdecimal()}
    zeros = {ord(character) - unicodedata.decimal(character) for character in digits}
    text = "".join(map(_character, text.translate(_INVISIBLE).translate(_STOPS)))
    if len(zeros) == 1:
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    return _MINUS.sub("-", text)


def _character(character: str) -> str:
    if character.isascii() or character.isdecimal():
        return character
    if character.isspace():
        return " "
    drawn = unicodedata.decomposition(character).startswith(_DRAWN) and not "\u2100" <= character <= "\u214f"  # ℝ
    return unicodedata.normalize("NFKC", character) if drawn else character
