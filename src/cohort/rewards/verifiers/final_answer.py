"""The one final answer of a text.

Where it is looked for, first match wins:

1. `<answer> ... </answer>`. There must be exactly one pair: a text that offers two answers offers none.
2. the last `\\boxed{ ... }`
3. the rest of the line after the last `####`, as in GSM8K

A form that is there but unusable is a wrong answer; the next form is not tried, or a text could bet on several.
"""

from __future__ import annotations

import re
from collections import deque

from cohort.rewards.verifiers.characters import plain

LONGEST_ANSWER = 200  # characters; more is an essay, not an answer

# No quantifier is nested in another and nothing must follow, so matching is linear in the text.
DIGITS = r"(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_IN_TEXT = re.compile(rf"(?:(?<![\w)])-)?{DIGITS}(?:/{DIGITS})?")


def final_answer(text: str, longest: int = LONGEST_ANSWER) -> str | None:
    """The text of the final answer: "" if it is marked but unusable, None if the text marks no answer.

    A box or a line of more than `longest` characters is unusable.
    """
    opening, closing = text.count("<answer>"), text.count("</answer>")
    if opening or closing:
        start, end = text.find("<answer>") + len("<answer>"), text.find("</answer>")
        inside = text[start:end] if opening == closing == 1 and start <= end else ""
        return _boxed(inside, longest) if "\\boxed{" in inside else inside
    if "\\boxed{" in text:
        return _boxed(text, longest)
    if "####" in text:
        line = text[text.rindex("####") + 4 :].lstrip(" \t")
        return line[: longest + 1].partition("\n")[0]
    return None


def last_number_of(text: str) -> str | None:
    """The last number of a text as it is written, None if there is none or if something is attached to it (72²)."""
    matches = deque(_IN_TEXT.finditer(plain(text)), maxlen=1)
    if not matches:
        return None
    last = matches[0]
    neighbours = last.string[max(last.start() - 1, 0) : last.start()] + last.string[last.end() : last.end() + 1]
    return None if any(character.isnumeric() for character in neighbours) else last[0]


def _boxed(text: str, longest: int) -> str:
    """What the last \\boxed{} holds, or "" if it is not closed within the length of an answer."""
    start = text.rindex("\\boxed{") + len("\\boxed{")
    depth = 1
    for index, character in enumerate(text[start : start + longest], start):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[start:index]
    return ""
