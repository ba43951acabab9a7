"""Where the trace of a text is: what the policy wrote before its final answer.

1. In a text with think tags, what is between `<think>` and the last `</think>`. The first tag may be the prompt's.
2. In a text without them, what stands before the mark of the final answer, as `final_answer` looks for it: `<answer>`,
   the last `\\boxed{`, the last `####`.

A text without tags that marks no answer has no trace: nothing says where it would end.
"""

from __future__ import annotations

from typing import NamedTuple

OPEN, CLOSE = "<think>", "</think>"
MARKS = ("<answer>", "\\boxed{", "####")


class Trace(NamedTuple):
    """`text[start:end]` is the trace; behind `text[end:after]`, the closing tag or the mark, the answer is written. In
    a trace that was cut off, `end` and `after` are the end of the text.
    """

    start: int
    end: int
    after: int


def trace_of(text: str) -> Trace | None:
    """Where the trace of a completion is; None where there is none, or nothing but blanks."""
    opening, closing = text.find(OPEN), text.rfind(CLOSE)
    if closing >= 0:
        start = opening + len(OPEN) if 0 <= opening < closing else 0
        found = Trace(start, closing, closing + len(CLOSE))
    elif opening >= 0:
        found = Trace(opening + len(OPEN), len(text), len(text))
    elif mark := next((mark for mark in MARKS if mark in text), ""):
        found = Trace(0, text.rindex(mark), text.rindex(mark) + len(mark))
    else:
        return None
    return found if text[found.start : found.end].strip() else None
