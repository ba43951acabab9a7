"""Overrides as they are typed: `rollout.group_size=4`, `task.source=my.jsonl`, `rl.run.steps=10`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from cohort.recipe.loader import too_deep
from cohort.recipe.names import TOP_KEYS, reader, takes_numbers, unknown_key
from cohort.settings import Reward, Stage
from cohort.settings.table import Flat, Path, Problems, Written, value_problem
from cohort.settings.words import shown, wrong_value

ORIGIN = "command line"


@dataclass(frozen=True)
class Override:
    """One `key=value`. `stage` is the name that the key began with, or None: it goes to every stage.

    `text` is the value as typed: a shell takes quotes away, so what reads as a number may have been meant as text.
    """

    stage: str | None
    path: Path
    value: Any
    text: str


def parse_overrides(texts: Sequence[str], stages: Sequence[str], problems: Problems) -> list[Override]:
    """Split each text at its first "=" and find out whether its key begins with a stage's name."""
    found = []
    for text in texts:
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path) or len(path) > 10:
            problems.add(f"an override is written key=value, such as run.steps=10, not {shown(text)} ({ORIGIN})")
            continue
        known = {*Stage.model_fields, *TOP_KEYS}
        stage = path[0] if path[0] in stages and path[0] not in known and len(path) > 1 else None
        path = path[1:] if stage else path
        if path[0] == "stage":
            problems.add(f"stages are written in the recipe and not as an override: {text!r} ({ORIGIN})")
        elif path[0] not in known:
            siblings = (*sorted(known), *(stages if len(stages) > 1 else ()))
            problems.add(f"{unknown_key(path[:1], siblings=siblings)} ({ORIGIN})", path)
        else:
            found.append(Override(stage, path, _toml_value(value), value))
    return found


def _toml_value(text: str) -> Any:
    """The text as a TOML value, or as it is where it is none, so that paths and names need no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 and not too_deep(parsed) else text


def override_layer(overrides: Sequence[Override], rewards: Sequence[str], problems: Problems) -> Flat:
    """What overrides set, flat; `rewards` are the names that `reward.NAME.weight=...` may use."""
    layer: Flat = {}
    for override in overrides:
        if override.path[0] == "reward" and len(override.path) > 1:
            layer.update(_reward(override, rewards, problems))
        else:
            layer.update(_ordinary(override, problems))
    return layer


def _ordinary(override: Override, problems: Problems) -> Flat:
    flat, wrong = _read(override, override.value)
    if wrong.sentences and not takes_numbers(override.path):
        as_text, still_wrong = _read(override, override.text)
        if not still_wrong.sentences:
            return as_text
    for sentence in wrong.sentences:
        problems.add(sentence, *wrong.paths)
    return flat


def _read(override: Override, value: Any) -> tuple[Flat, Problems]:
    for key in reversed(override.path):
        value = {key: value}
    problems = Problems()
    prefix = f"{override.stage}." if override.stage else ""
    return reader(problems, ORIGIN, prefix).table(Stage, value), problems


def _reward(override: Override, rewards: Sequence[str], problems: Problems) -> Flat:
    """`reward.NAME.key=value`: one key of one reward; `reward.NAME.args.key=value`: one in a table of it."""
    path, dotted = override.path[1:], ".".join(override.path)
    ends = [end for end in range(1, len(path) + 1) if ".".join(path[:end]) in rewards]  # a name may have dots
    name = ".".join(path[: ends[-1]] if ends else takewhile(lambda part: part not in Reward.model_fields, path))
    key, *inner = (path[ends[-1] :] if ends else path[-1:]) or ("",)
    if not ends:
        has = f"the rewards are {', '.join(rewards)}" if rewards else "there are none"
        wrong = f"no reward is called {name!r} in {dotted!r}" if name else f"{dotted!r} must be reward.NAME.{key}"
        problems.add(f"{wrong}; {has} ({ORIGIN})", ("reward",))
    elif key not in Reward.model_fields:
        sentence = unknown_key(("reward", key)).replace("'reward.", f"'reward.{name}.")
        if "did you mean" not in sentence:
            sentence += f"; what its function takes is reward.{name}.args.{key}"
        problems.add(f"{sentence} ({ORIGIN})", ("reward", key))
    elif inner and not isinstance(Reward.model_fields[key].default, dict):
        problems.add(f"reward.{name}.{key} is one value and no table: {dotted!r} ({ORIGIN})", ("reward",))
    elif inner:
        return {("reward", name, key, *inner): Written(override.value, ORIGIN)}
    else:
        good = [value for value in (override.value, override.text) if not value_problem(Reward, key, value)]
        if good:
            return {("reward", name, key): Written(good[0], ORIGIN)}
        sentence = wrong_value(dotted, Reward.model_fields[key], override.value)
        problems.add(f"{sentence} ({ORIGIN})", ("reward",))
    return {}
