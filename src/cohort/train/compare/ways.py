"""The ways in which a stage is trained to be compared: by methods, by the values of keys, or by both.

A way is a list of overrides of the recipe, as they are typed, so that what is checked of a recipe is checked of it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from cohort.algorithms.presets import PRESETS
from cohort.recipe import Recipe
from cohort.settings import Preferences, Reject, Stage, Task
from cohort.train.models import AS_SHOWN
from cohort.types import UnreadableError, UserError
from cohort.wording import did_you_mean

BUDGETS = ("steps", "tokens", "seconds")
PAIRS = 4  # of the samples of one prompt, for DPO
WARM_UP = 0.1  # of the steps, in which PPO's critic learns alone where the recipe does not say how many
# What decides where arms begin, what measures them or where they lie is the same for all.
SHARED = ("name", "seed", "kind", "policy.model", "policy.scratch", "policy.revision", "evaluate", "suite", "record")
SHARED_OF_RUN = tuple(f"run.{key}" for key in ("directory", "threads", "stop", "keep_best", "evaluate_every"))
_VALUE = re.compile(r"""(?:[^,\[{"']|\[[^]]*]|\{[^}]*}|"[^"]*"|'[^']*')+""")


def _itself(stage: Stage) -> tuple[Stage, ...]:
    return (stage,)


class Method(NamedTuple):
    """What a method is in words, and the overrides that make it of a stage. `budgets` are those by which it can be
    stopped; `stages` makes more stages than one of it.
    """

    says: str
    overrides: Callable[[Stage], Sequence[str]]
    budgets: Sequence[str] = BUDGETS
    stages: Callable[[Stage], tuple[Stage, ...]] = _itself


class Way(NamedTuple):
    """One way to train the stage."""

    label: str
    says: str
    overrides: tuple[str, ...]
    stages: Callable[[Stage], tuple[Stage, ...]]
    varied: tuple[str, ...]  # the keys that it sets, of the stage that is compared


def _ppo(stage: Stage) -> list[str]:
    steps = stage.critic.warmup_steps or max(1, math.floor(WARM_UP * stage.run.steps))
    return ["objective.preset=ppo", f"critic.warmup_steps={steps}"]


def _rft(stage: Stage) -> list[str]:
    return ["kind=rft", "rft.mode=offline", f"rft.sampling_steps={max(1, stage.run.steps // 2)}"]


def _sampled_pairs(stage: Stage) -> tuple[Stage, ...]:
    """A stage that samples as much as the other methods do, and one that learns from pairs of its samples."""
    name = f"{stage.name}_samples"
    sampling = stage.with_(
        kind="reject",
        name=name,
        policy={"lora": None},
        reject=Reject(pairs=PAIRS),
        evaluate={"problems": 0},
        run={"evaluate_every": 0, "keep_best": None, "stop": None},
    )
    learning = stage.with_(
        kind="dpo",
        policy={"model": None, "scratch": None, "revision": None},
        task=Task(source=f"stage:{name}", **{key: getattr(stage.task, key) for key in AS_SHOWN}),
        preferences=Preferences(pairs_per_step=stage.rollout.prompts_per_step),
    )
    return sampling, learning


def _of_preset(name: str) -> Method:
    return Method(PRESETS[name].title, lambda _: [f"objective.preset={name}"])


METHODS: Mapping[str, Method] = {
    **{name: _of_preset(name) for name in PRESETS},
    "ppo": Method("PPO with a critic that first learns alone", _ppo),
    "rft": Method("half of the steps sample from the start, the rest learn what was right", _rft, ("steps", "seconds")),
    "online_rft": Method("supervised training on the policy's own right samples", lambda _: ["kind=rft"]),
    "dpo": Method("as many samples of the start, then DPO on pairs of them", lambda _: [], ("steps",), _sampled_pairs),
}


def ways(
    recipe: Recipe,
    index: int,
    typed: Sequence[str],
    methods: Sequence[str],
    vary: Mapping[str, Sequence[str]],
    budget: str = "steps",
) -> list[Way]:
    """Every method with every value of every key; `typed` are the overrides of the recipe itself. Raises `UserError`
    for a method or a key that there is none of, and `UnreadableError` for what cannot be read.
    """
    stage = recipe.stages[index]
    at = f"{stage.name}." if len(recipe.stages) > 1 else ""
    for name in methods:
        refuse_unknown("method", name, METHODS)
        if budget not in METHODS[name].budgets:
            raise UserError(
                f"the method '{name}' samples first and learns then, so a budget of {budget} does not say when it is "
                f"over: use --budget {' or '.join(METHODS[name].budgets)}"
            )
    # A method starts over from its preset; what was typed beside the recipe holds for all of them.
    again = [f"{at}{one}" for one in typed if one.startswith("objective.") and not one.startswith("objective.preset")]
    of_method: list[tuple[str, str, list[str]]] = [("", "", [])]
    if methods:
        of_method = [
            (name, METHODS[name].says, [*(f"{at}{one}" for one in METHODS[name].overrides(stage)), *again])
            for name in methods
        ]
    axes = [[(key, value) for value in values] for key, values in vary.items()]
    found = []
    for (name, says, overrides), point in product(of_method, list(product(*axes))):
        pairs = [pair for key, value in point for pair in zip(key.split("&"), value.split("&"), strict=True)]
        settings = [f"{key.strip()}={value.strip()}" for key, value in pairs]
        words = ", ".join([*([name] if name else []), *settings])
        prefixed = [one if _names_stage(one, recipe) else f"{at}{one}" for one in settings]
        stages = METHODS[name].stages if name else _itself
        varied = tuple(one.removeprefix(at).partition("=")[0] for one in settings)
        found.append(Way(words, says or ", ".join(settings), (*overrides, *prefixed), stages, varied))
    return found


def refuse_unknown(what: str, name: str, known: Collection[str]) -> None:
    """Raise `UnreadableError` for a name that is none of those that are known."""
    if name not in known:
        raise UnreadableError(f"there is no {what} '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}")


def read_vary(texts: Iterable[str], recipe: Recipe, index: int) -> dict[str, list[str]]:
    """`KEY=a,b,c` as values by key; `KEY&KEY=a&b,c&d` changes several together. Raises `UserError` for a key of another
    stage or one that all arms share, and `UnreadableError` for fewer than two values.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, written = text.partition("=")
        key, values = key.strip(), [value.strip() for value in _VALUE.findall(written)]
        values = [value for value in values if value]
        if not equals or not key or len(values) < 2:
            raise UnreadableError(f"--vary takes a key and two values or more (rollout.group_size=4,8), not '{text}'")
        if len(set(values)) < len(values) or key in found:
            raise UnreadableError(f"--vary names the same thing twice: '{text}'")
        for one in key.split("&"):
            _refuse_shared(one.strip(), recipe, index)
        if any(value.count("&") != key.count("&") for value in values):
            raise UnreadableError(f"--vary KEY&KEY takes as many values together, such as 2&64,8&16, not '{text}'")
        found[key] = values
    return found


def _refuse_shared(key: str, recipe: Recipe, index: int) -> None:
    own, named = recipe.stages[index].name, _names_stage(key, recipe)
    if named and key.split(".")[0] != own:
        raise UserError(f"--vary {key}: the arms differ in the stage '{own}'; this is another, whose model they share")
    bare = key.partition(".")[2] if named else key
    for shared in (*SHARED, *SHARED_OF_RUN):
        if bare == shared or bare.startswith(f"{shared}."):
            instead = {"seed": ": use --seeds", "kind": ": use --methods"}.get(shared, "")
            raise UserError(f"--vary {key}: {shared} is the same for all arms of a comparison{instead}")


def _names_stage(key: str, recipe: Recipe) -> bool:
    first = key.split(".")[0]
    return len(recipe.stages) > 1 and first in {one.name for one in recipe.stages} - set(Stage.model_fields)
