"""How traces are shown, as [record] traces says: on the console, by commands, in cards, by trackers. The log keeps them
whole, or nobody could check it; `cohort record redact` erases what must not be kept.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import orjson

from cohort.rewards.verifiers.trace import CLOSE, OPEN, trace_of
from cohort.settings.record import Traces
from cohort.types import UnreadableError

SHOWN: tuple[str, ...] = get_args(Traces)
WORDS = 12  # of a summarised trace that stay


def traces_of(run: Path) -> str | None:
    """What [record] traces of a run says, of several stages that of the last one. The recipe is read as it lies, so
    that parts which are not here are not missed. Raises `UnreadableError` for one that is damaged.
    """
    file = run / "recipe.toml"
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
        last = (tables.get("stage") or [{}])[-1]
        said: str | None = {**tables.get("record", {}), **last.get("record", {})}.get("traces")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UnreadableError(f"{file} cannot be read, so how traces are shown is not known: {error}") from None
    if said is not None and said not in SHOWN:
        raise UnreadableError(f"{file} has record.traces = {said!r}: it is {', '.join(SHOWN)}")
    return said


def as_shown(text: str, traces: str | None, begun: bool = False) -> str:
    """The text of a completion as it may be shown. `begun`: the prompt has opened the think tag already. A tag that is
    never closed, as in a completion that was cut off, hides what follows. In a text without tags, the trace is what
    stands before the mark of the answer.
    """
    if traces in (None, "exposed"):
        return text
    put = {"summarised": _summary, "hidden": lambda _: "", "filtered": lambda _: f"{OPEN}[filtered]{CLOSE}"}[traces]
    if begun or is_begun(text):
        text = OPEN + text
    if OPEN in text:
        text = re.sub(rf"{OPEN}(.*?)(?:{CLOSE}|\Z)", lambda found: put(found[1]), text, flags=re.DOTALL)
    elif found := trace_of(text):
        text = put(text[: found.end]) + text[found.end :]
    return text.strip()


def rows_as_shown(rows: Sequence[dict[str, Any]], traces: str | None) -> list[dict[str, Any]]:
    """Rollouts as `record.rollouts.read_rows` gives them, as they may be shown: without the tokens that would tell."""
    if traces in (None, "exposed"):
        return [*rows]
    begun = any(is_begun(row["text"] or "") for row in rows)
    return [
        row
        | {
            "text": row["text"] and as_shown(row["text"], traces, begun),
            "turns": row["turns"] and _turns_as_shown(row["turns"], traces, begun),
            "tokens": None,
        }
        for row in rows
    ]


def _turns_as_shown(turns: str, traces: str | None, begun: bool) -> str:
    found = [turn | {"text": as_shown(turn["text"], traces, begun)} for turn in orjson.loads(turns)]
    return orjson.dumps(found).decode()


def is_begun(text: str) -> bool:
    """Whether the first tag of a text closes: the prompt has opened it."""
    return 0 <= text.find(CLOSE) < (text.find(OPEN) if OPEN in text else len(text))


def _summary(trace: str) -> str:
    words = trace.split()
    said = " ".join(words[:WORDS])
    return f"{OPEN} {said}{' ...' * (len(words) > WORDS)} [{len(words)} words, shortened] {CLOSE}"
