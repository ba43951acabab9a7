"""How reasoning between think tags is shown, as [record] traces says."""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"
WORDS = 12  # of a summarised trace that stay


def as_shown(text: str, traces: str | None, begun: bool = False) -> str:
    """The text of a completion as it may be shown. `begun`: the prompt has opened the think tag already. A tag that is
    never closed, as in a completion that was cut off, hides what follows.
    """
    if traces in (None, "exposed"):
        return text
    if begun or is_begun(text):
        text = OPEN + text
    put = {"summarised": _summary, "hidden": lambda _: "", "filtered": lambda _: f"{OPEN}[filtered]{CLOSE}"}[traces]
    return re.sub(rf"{OPEN}(.*?)(?:{CLOSE}|\Z)", lambda found: put(found[1]), text, flags=re.DOTALL).strip()


def is_begun(text: str) -> bool:
    """Whether the first tag of a text closes: the prompt has opened it."""
    return 0 <= text.find(CLOSE) < (text.find(OPEN) if OPEN in text else len(text))


def _summary(trace: str) -> str:
    words = trace.split()
    said = " ".join(words[:WORDS])
    return f"{OPEN} {said}{' ...' * (len(words) > WORDS)} [{len(words)} words, shortened] {CLOSE}"
