"""Other libraries' sources, which are in `cohort.integrations`: found by their names, so that nothing imports them."""

from __future__ import annotations

from typing import Any

from cohort.wording import find_function

__all__ = ["gym_task", "open_gym", "open_taskset", "taskset_of"]


def gym_task(source: Any) -> str | None:
    """The task in "reasoning_gym:TASK"; None for a source that is something else."""
    found: str | None = _found("reasoning_gym", "gym_task")(source) if isinstance(source, str) else None
    return found


def taskset_of(source: Any) -> str | None:
    """The package in "verifiers:PACKAGE"; None for a source that is something else."""
    found: str | None = _found("verifiers", "taskset_of")(source) if isinstance(source, str) else None
    return found


def open_gym(*of_source: Any) -> Any:
    """See `cohort.integrations.reasoning_gym.source.open_task`."""
    return _found("reasoning_gym", "open_task")(*of_source)


def open_taskset(*of_source: Any) -> Any:
    """See `cohort.integrations.verifiers.source.open_prompts`."""
    return _found("verifiers", "open_prompts")(*of_source)


def _found(library: str, function: str) -> Any:
    return find_function(f"cohort.integrations.{library}.source:{function}", "source")
