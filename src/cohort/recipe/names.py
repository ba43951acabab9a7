"""The keys of a recipe, and what somebody who wrote another one meant."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, get_args

from cohort.settings import Stage, Table
from cohort.settings.table import Path, Reader, table_of
from cohort.settings.words import either
from cohort.wording import nearest

TOP_KEYS = ("name", "seed", "stage")  # beside the tables of a stage

# What TRL, verl and the papers call some of our keys. Nearness in spelling would never find these.
_ELSEWHERE = {
    "lr": "optimizer.learning_rate",
    "num_generations": "rollout.group_size",
    "n": "rollout.group_size",
    "max_completion_length": "rollout.max_tokens",
    "max_new_tokens": "rollout.max_tokens",
    "max_response_length": "rollout.max_tokens",
    "max_prompt_length": "task.max_prompt_tokens",
    "beta": "objective.kl_coef",
    "epsilon": "objective.clip_low",
    "epsilon_low": "objective.clip_low",
    "epsilon_high": "objective.clip_high",
    "loss_type": "objective.aggregation",
    "scale_rewards": "objective.scale",
    "max_grad_norm": "optimizer.gradient_clip",
    "grad_clip": "optimizer.gradient_clip",
    "num_iterations": "optimizer.epochs",
    "batch_size": "rollout.prompts_per_step",
    "train_batch_size": "rollout.prompts_per_step",
    "max_steps": "run.steps",
    "output_dir": "run.directory",
    "reward_funcs": "reward",
    "reward_weights": "reward.weight",
    "dataset": "task.source",
    "chat_template_kwargs": "task.template_args",
    "model_name": "policy.model",
    "lora_r": "policy.lora.rank",
    "lora_alpha": "policy.lora.alpha",
    "lora_target_modules": "policy.lora.targets",
    "layers_to_transform": "policy.lora.layers",
    "use_rslora": "policy.lora.rslora",
    "use_dora": "policy.lora.dora",
}


@cache
def all_keys(table: type[Table] = Stage, at: Path = ()) -> tuple[Path, ...]:
    """Every key of a stage as a path, tables and what is in them."""
    found: list[Path] = []
    for name, field in table.model_fields.items():
        found.append((*at, name))
        inner, _ = table_of(field)
        if inner:
            found.extend(all_keys(inner, (*at, name)))
    return tuple(found)


def takes_numbers(path: Path) -> bool:
    """Whether a key takes a number or true and false, perhaps beside text: then `1.5` was not meant as text."""
    table: type[Table] | None = Stage
    for key in path[:-1]:
        table = table_of(table.model_fields[key])[0] if table and key in table.model_fields else None
    return bool(table and path[-1] in table.model_fields and _numeric(table.model_fields[path[-1]].annotation))


def _numeric(annotation: Any) -> bool:
    return annotation in (int, float, bool) or any(_numeric(part) for part in get_args(annotation))


def unknown_key(path: Path, prefix: str = "", siblings: tuple[str, ...] = ()) -> str:
    """The sentence for a key that does not exist; `path` is relative to a stage, `prefix` names the stage."""
    *table, word = path
    shown = repr(prefix + ".".join(path))
    known = all_keys()
    if table[:1] != ["rollout"]:  # what servers are set by has names that mean another thing in each place
        known = tuple(key for key in known if key[:2] != ("rollout", "vllm"))
    here = siblings or tuple(key[-1] for key in known if key[:-1] == tuple(table))
    if word in ("seed", "stage"):
        return f"{word!r} belongs at the top of the recipe, before any table"
    homes = [f"[{'.'.join(key[:-1])}]" for key in known if key[-1] == word and len(key) > 1]
    if word in ("dropout", "lora_dropout"):
        return (
            f"unknown key {shown}; adapters have no dropout: with it the policy that samples is not the one that learns"
        )
    close = nearest(word, here, cutoff=0.9 if homes else 0.6)
    if close:
        return f"unknown key {shown}; did you mean {prefix + '.'.join((*table, close))!r}?"
    # Another name of a key of this very table is meant so, though another table has a key of that name.
    elsewhere = _ELSEWHERE.get(word, "")
    if homes and not (table and elsewhere.startswith(f"{'.'.join(table)}.")):
        return f"unknown key {shown}; {word!r} belongs in {either(homes)}"
    meant = elsewhere or _close_anywhere(word, known)
    if meant:
        return f"unknown key {shown}; did you mean {prefix + meant!r}?"
    where = f"[{'.'.join(table)}]" if table else "a recipe"
    return f"unknown key {shown}; {where} has {', '.join(here)}"


def _close_anywhere(word: str, known: tuple[Path, ...]) -> str | None:
    close = nearest(word, {key[-1] for key in known}, cutoff=0.75)
    return next((".".join(key) for key in known if key[-1] == close), None)


reader = partial(Reader, unknown=unknown_key, beside=TOP_KEYS)  # of a stage's tables; it knows all keys of a recipe
