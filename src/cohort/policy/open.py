"""The policy of a stage, opened from its table: loaded, taken from the caller, or made from nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.policy.load import add_lora, load_policy
from cohort.policy.policy import Policy
from cohort.policy.scratch import make_model, make_tokenizer
from cohort.seeds import derive_seed
from cohort.settings import Policy as PolicyTable
from cohort.types import UserError

__all__ = ["Start", "open_policy", "resumed_policy"]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stage's weights come from, if its table names no model: the directory that the stage before it left, or
    for `model = "live"` the model and tokenizer that were given in Python.
    """

    directory: str | None = None
    live: tuple[Any, Any] | None = None


def open_policy(table: PolicyTable, seed: int, start: Start, texts: Callable[[], Iterable[str]]) -> Policy:
    """The policy that a stage starts from. `texts` are the stage's own, from which the tokenizer of a policy that is
    made from nothing is learnt; they are read only then. Raises `UserError`.
    """
    if table.scratch is not None:
        if table.lora is not None:
            raise UserError("a policy made from scratch has nothing to adapt: remove policy.lora, or policy.scratch")
        tokenizer = make_tokenizer(texts(), table.scratch.vocabulary)
        sizes = table.scratch.model_dump(exclude={"architecture", "vocabulary"})
        return Policy(make_model(tokenizer, derive_seed(seed, "scratch"), **sizes), tokenizer, table.compute)
    if table.model == "live":
        if start.live is None:
            raise UserError('policy.model = "live" is for Python: cohort.train(recipe, model=..., tokenizer=...)')
        policy = Policy(*start.live, table.compute)
        policy.check()
    else:
        policy = _load(table, table.model or start.directory, table.revision)
    if table.lora is not None:
        targets = table.lora.targets if isinstance(table.lora.targets, str) else list(table.lora.targets)
        seed = derive_seed(seed, "lora")
        policy = add_lora(policy, table.lora.rank, table.lora.alpha, targets, seed, table.revision)
    return policy


def resumed_policy(table: PolicyTable, directory: Path) -> Policy:
    """The policy in a checkpoint of a stage."""
    return _load(table, str(directory), None)


def _load(table: PolicyTable, model: str | None, revision: str | None) -> Policy:
    if model is None:
        raise UserError("the recipe names no model: set policy.model to a checkpoint directory or a hub id")
    return load_policy(
        model,
        dtype=table.dtype,
        compute=table.compute,
        device=table.device,
        revision=revision,
        trust_remote_code=table.trust_remote_code,
    )
