"""Keys that a kind of stage does not read: a stage that says something with one of them is refused, in a sentence."""

from __future__ import annotations

from typing import Any

from cohort.recipe import Recipe
from cohort.settings import Evaluate, Stage
from cohort.settings.words import shown
from cohort.train.stage import kind_of, tables_of
from cohort.types import UserError

# What a kind may put into its `unread`: keys of its tables that have no part in what it does. Those that change no
# result anyhow (`NoEffect`), such as run.workers, may stand in any stage.
NO_DEMONSTRATIONS = ("task.completion", "task.careful", "task.careful_first", "task.sloppy_right")
NO_PAIRS = ("task.chosen", "task.rejected", "task.margin")
ONE_UPDATE = ("optimizer.updates_per_batch", "optimizer.epochs")  # a step is one, on examples of its own
NO_GROUPS = (  # of kinds that sample for evaluations alone
    *(f"rollout.{key}" for key in ("prompts_per_step", "group_size", "temperature", "top_p", "top_k", "min_p")),
    *(f"rollout.{key}" for key in ("in_flight", "groups", "length_penalty", "beam_groups", "diversity_penalty")),
    *(f"rollout.{key}" for key in ("max_staleness", "resample_cap", "over_sample", "replay", "replay_age")),
)

OF_DRAWS = tuple(f"rollout.{key}" for key in ("sampler", "vllm", "precision", "max_tokens", "stop"))  # and nothing else


def refuse_unread(recipe: Recipe) -> None:
    """Raise `UserError` for a table or a key that stands in a stage whose kind does not read it; unless it says nothing
    but defaults, as those of a printed recipe do. What stands outside the stages is for those that read it.
    """
    for index, stage in enumerate(recipe.stages):
        read, own = tables_of(stage), recipe.own(index)
        for name in sorted({path[0] for path in own} - {*read, "kind", "name"}):
            if getattr(stage, name) != Stage.model_fields[name].get_default(call_default_factory=True):
                raise UserError(
                    f"stage '{stage.name}' has [{name}], which a stage of kind '{stage.kind}' does not read: remove "
                    f"it; it reads {', '.join(read)}"
                )
        for table, keys in _set_in_vain(stage).items():
            for key in (key for key in keys if (table, key) in own):
                raise UserError(
                    f"stage '{stage.name}' has {table}.{key} = {shown(getattr(getattr(stage, table), key))}, which a "
                    f"stage of kind '{stage.kind}' does not read: remove it{_instead(table, key)}"
                )


def as_read(recipe: Recipe) -> Recipe:
    """The recipe with the defaults of keys that a stage's kind does not read, whatever stands outside the stages."""
    return recipe.model_copy(update={"stages": tuple(one.with_(**_set_in_vain(one)) for one in recipe.stages)})


def unread_keys(stage: Stage) -> tuple[str, ...]:
    """The keys of a stage's tables that its kind does not read."""
    found: tuple[str, ...] = getattr(kind_of(stage), "unread", ())
    extras = stage.objective.value("extras")
    experts = any("expert" in term for term in extras if not isinstance(term, str))
    if {*NO_GROUPS} <= {*found} and not (stage.evaluate.problems or stage.suite):
        found += OF_DRAWS
    return tuple(key for key in found if not (experts and key == "task.completion"))


def _set_in_vain(stage: Stage) -> dict[str, dict[str, Any]]:
    """By table, the keys that have another value than their default and are not read, each with its default."""
    found: dict[str, dict[str, Any]] = {}
    for name, _, key in (path.partition(".") for path in unread_keys(stage)):
        table = getattr(stage, name)
        default = type(table).model_fields[key].get_default(call_default_factory=True)
        if getattr(table, key) != default:
            found.setdefault(name, {})[key] = default
    return found


def _instead(table: str, key: str) -> str:
    if f"{table}.{key}" in ONE_UPDATE:
        return "; each of its run.steps is one update on the next examples"
    if f"{table}.{key}" in OF_DRAWS:
        return ", as it draws no completions (evaluate.problems = 0)"
    return f"; evaluations have evaluate.{key}" if table == "rollout" and key in Evaluate.model_fields else ""
