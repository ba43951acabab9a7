"""The prose of a text: what is left without formulas, code, URLs and tags."""

from __future__ import annotations

import regex

__all__ = ["prose"]

_OPENING = regex.compile(r"```|`|\$\$|\$|\\\(|\\\[")
_CLOSING = {"```": "```", "`": "`", "$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
_IN_ONE_LINE = ("`", "$")
_WORDLESS = regex.compile(r"\\[A-Za-z]+|https?://\S+|</?[A-Za-z_]{1,20}>")
_FOREIGN = regex.compile(r"[[\p{L}]--[\p{Latin}\p{Greek}]]+", regex.V1)


def prose(text: str) -> str:
    """`text` without what stands between ``` ` $ $$ \\( or \\[ and its end, without commands, URLs and tags.

    Letters of other scripts than Latin and Greek stay even there, so that nothing can be hidden in a formula. A mark
    that is never closed is text. The cost is linear in the text.
    """
    parts: list[str] = []
    never_closed: set[str] = set()
    at = 0
    for match in _OPENING.finditer(text):
        mark = match[0]
        if match.start() < at or mark in never_closed:
            continue
        end = _end(text, mark, match.end())
        if end < 0:
            if mark not in _IN_ONE_LINE:
                never_closed.add(mark)
            continue
        parts += [text[at : match.start()], *_FOREIGN.findall(text, match.end(), end)]
        at = end + len(_CLOSING[mark])
    return _WORDLESS.sub(" ", " ".join([*parts, text[at:]]))


def _end(text: str, mark: str, start: int) -> int:
    """Where the closing mark is, -1 if there is none."""
    end = text.find(_CLOSING[mark], start)
    if end >= 0 and mark in _IN_ONE_LINE and text.find("\n", start, end) >= 0:
        return -1
    first, last, after = text[start : start + 1], text[end - 1 : end], text[end + 1 : end + 2]
    if mark == "$" and (first.isspace() or last.isspace() or after.isdigit()):
        return -1  # two prices, not a formula
    return end
