"""The sources that have names: those of Cohort and of the libraries that it works with, imported when asked for."""

from __future__ import annotations

from typing import Any

__all__ = ["DEMONSTRATIONS", "SOURCES", "built_in_name"]

# A name, or what stands before the colon as in "reasoning_gym:chain_sum" -> "module:function" of a `SourceOfPrompts`.
SOURCES = {
    "word_problems": "cohort.tasks.embedded.word_problems:WORD_PROBLEMS.open",
    "arithmetic": "cohort.tasks.embedded.arithmetic:ARITHMETIC.open",
    "reasoning_gym": "cohort.integrations.reasoning_gym.source:open_gym",
    "verifiers": "cohort.integrations.verifiers.source:open_tasks",
}
# Those that also make completions to learn from -> a function of (table, seed) that returns them.
DEMONSTRATIONS = {
    "word_problems": "cohort.tasks.embedded.word_problems:WORD_PROBLEMS.demonstrations",
    "arithmetic": "cohort.tasks.embedded.arithmetic:ARITHMETIC.demonstrations",
}


def built_in_name(source: Any) -> str | None:
    """The name in `SOURCES` that a source has; None for rows and for a source of one's own."""
    name = source.partition(":")[0] if isinstance(source, str) else ""
    return name if name in SOURCES else None
