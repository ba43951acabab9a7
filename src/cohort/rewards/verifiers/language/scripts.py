"""Which scripts a language is written in, and which languages are too close for a short sentence to tell them apart.

Languages go by their ISO 639-1 codes. Those that are not listed are written in Latin letters.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["NEAR", "SCRIPTS", "SHARED"]

_SCRIPTS: Mapping[str, str] = {
    "am": "Ethiopic", "ar": "Arabic", "as": "Bengali", "be": "Cyrillic", "bg": "Cyrillic", "bn": "Bengali",
    "dz": "Tibetan", "el": "Greek", "fa": "Arabic", "gu": "Gujarati", "he": "Hebrew", "hi": "Devanagari",
    "hy": "Armenian", "ja": "Han Hiragana Katakana", "ka": "Georgian", "kk": "Cyrillic", "km": "Khmer",
    "kn": "Kannada", "ko": "Hangul", "ku": "Arabic Latin", "ky": "Cyrillic", "lo": "Lao", "mk": "Cyrillic",
    "ml": "Malayalam", "mn": "Cyrillic", "mr": "Devanagari", "ne": "Devanagari", "or": "Oriya", "pa": "Gurmukhi",
    "ps": "Arabic", "ru": "Cyrillic", "si": "Sinhala", "sr": "Cyrillic Latin", "ta": "Tamil", "te": "Telugu",
    "th": "Thai", "ug": "Arabic", "uk": "Cyrillic", "ur": "Arabic", "zh": "Han",
}  # fmt: skip
SCRIPTS: Mapping[str, tuple[str, ...]] = {language: tuple(names.split()) for language, names in _SCRIPTS.items()}

# Scripts of several languages: only there a sentence can be in another language although its letters fit.
SHARED = frozenset(("Latin", "Cyrillic", "Arabic", "Devanagari", "Bengali", "Han"))

NEAR: tuple[frozenset[str], ...] = (
    frozenset(("da", "nb", "nn", "no")),
    frozenset(("bs", "hr", "sr")),
    frozenset(("cs", "sk")),
    frozenset(("gl", "pt")),
    frozenset(("id", "jv", "ms")),
    frozenset(("xh", "zu")),
)
