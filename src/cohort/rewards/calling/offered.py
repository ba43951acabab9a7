"""What a reward in TRL's style is handed beside the columns: where training is, and ways to log metrics and columns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cohort.rewards.items import OTHER_METRICS, Scored, ScoringItem


@dataclass
class TrainerState:
    """The fields of transformers' `TrainerState`, without transformers. `global_step` counts the steps that were done
    when the completions were sampled; what there is no counterpart for has the default that it has there.
    """

    global_step: int = 0
    max_steps: int = 0
    epoch: float | None = None
    num_train_epochs: int = 0
    logging_steps: int = 1
    eval_steps: int = 0
    save_steps: int = 0
    train_batch_size: int | None = None
    num_input_tokens_seen: int = 0
    total_flos: float = 0
    log_history: list[dict[str, float]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None
    stateful_callbacks: dict[str, Any] = field(default_factory=dict)


class Notes:
    """What a function logs while it scores a group."""

    def __init__(self) -> None:
        self._metrics: dict[str, list[float]] = {}
        self._columns: dict[str, list[Any]] = {}
        self._count = 0

    def offered(self, item: ScoringItem, last_step: int) -> dict[str, Any]:
        """The values by name. Token ids are there where somebody knows them."""
        self._count = len(item.completions)
        ids = [[int(token) for token in tokens] for tokens in item.completion_ids]
        return {
            **({"completion_ids": ids} if ids or not item.completions else {}),
            "trainer_state": TrainerState(item.step, last_step),
            "log_metric": self.log_metric,
            "log_extra": self.log_extra,
            "scoring_item": item,
        }

    def log_metric(self, name: str, value: float) -> None:
        """A number of the step: its mean over the step's groups is logged as reward/REWARD/NAME."""
        if name in OTHER_METRICS:
            raise ValueError(f"log_metric: {name!r} is the name of another metric of a reward; choose a different one")
        self._metrics.setdefault(str(name), []).append(float(value))

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """A value for each completion, which is recorded beside its scores."""
        found = list(values)
        if len(found) != self._count:
            raise ValueError(f"log_extra: {column!r} has {len(found)} values for {self._count} completions")
        self._columns[str(column)] = json.loads(json.dumps(found, default=_plain))

    def onto(self, scored: tuple[Scored, ...]) -> tuple[Scored, ...]:
        """The scores with what was logged: columns at each, the metrics of the group at the first."""
        if not (self._metrics or self._columns) or not scored:
            return scored
        rows = [{name: values[index] for name, values in self._columns.items()} for index in range(len(scored))]
        first, *rest = [replace(one, extra=row) for one, row in zip(scored, rows, strict=True)]
        return (replace(first, metrics={name: math.fsum(of) / len(of) for name, of in self._metrics.items()}), *rest)


def _plain(value: Any) -> Any:
    """A number or list of another library as Python's; anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
