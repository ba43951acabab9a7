"""The tasks of reasoning-gym that may be trained on, and their problems as prompts.

    problems = GymProblems("chain_sum", levels=(1, 2), seed=0, split="train")
    problems[7].text, problems[7].answer

As with the embedded word problems, number `index` is made from a seed of its own, and which split a problem belongs to
is a property of its question alone (a hash), so no seed and no index can put a held-out question into training.

`admitted.json` says how the answers are judged. It is written by `tools/reasoning_gym_gate.py`, which shows every
task's scorer gold answers and hostile ones, and holds for one version of the library.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from cohort import settings
from cohort.integrations import require
from cohort.seeds import derive_seed
from cohort.tasks.prompts import question_share
from cohort.tasks.sources.base import Found
from cohort.types import Prompt, UserError
from cohort.wording import nearest

PREFIX = "reasoning_gym"
COLUMNS = ("prompt", "answer", "task", "level", "gym")
HELD_OUT_SHARE = 0.2
SEEDS = 2**32  # some generators of the library take no larger ones
TRIES = 500  # candidates for one problem; with a fifth held out, so many misses in a row mean a handful of problems
FILE = Path(__file__).with_name("admitted.json")
# These tasks have many right answers and give none as the answer; the gold one is among the metadata.
GOLD_IN_METADATA = {
    "graph_color": lambda metadata: json.dumps({str(k): v for k, v in metadata["possible_answer"].items()}),
    "rubiks_cube": lambda metadata: metadata["example_correct_answer"],
}
OURS = {"seed": "every problem has its own seed", "size": "write limit = N for the first N different problems"}


@dataclass(frozen=True, slots=True)
class Admitted:
    """A task that survived the gate. `scoring` and `form` are explained in `cohort.integrations.reasoning_gym.reward`.

    `levels` is how many levels of its curriculum can be used, `constant` the best mean score of one answer given to
    every problem, `reuse` whether one dataset can be set to another seed.
    """

    scoring: str
    levels: int
    constant: float
    reuse: bool = True
    form: str | None = None


@cache
def _file() -> Mapping[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


@cache
def admitted_tasks() -> Mapping[str, Admitted]:
    """The tasks that may be used, by name."""
    return {name: Admitted(**facts) for name, facts in _file()["admitted"].items()}


def refused_tasks() -> Mapping[str, str]:
    """The tasks that may not, each with the reason."""
    return _file()["refused"]


def _admission(task: str) -> Admitted:
    """What the gate found of a task. Raises UserError for one that does not exist or was refused."""
    known, refused = admitted_tasks(), refused_tasks()
    if task in known:
        return known[task]
    if task in refused:
        raise UserError(f"the reasoning-gym task {task!r} cannot be trained on: {refused[task]}.")
    close = nearest(task, known)
    hint = f"Did you mean {close!r}?" if close else "docs/tasks/reasoning_gym.md lists them."
    raise UserError(f"reasoning-gym has no task {task!r}, or it is newer than {_file()['reasoning_gym']}. {hint}")


@cache
def require_library() -> None:
    """Raise UserError unless reasoning-gym is here in the version that the gate looked at."""
    require("reasoning_gym", "reasoning-gym", _file()["reasoning_gym"], "its scorers were tried at")


def _configuration(task: str, level: int | None, args: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a task's configuration that are not its defaults, as plain values: those of a level, then `args`.

    Level n sets every attribute of the task's curriculum to its n-th value, or to its last one. Raises UserError for a
    field that the task does not have, and for a value that it does not take.
    """
    from reasoning_gym.coaching.base_curriculum import DefaultCurriculumContext, RangeAttributeMode
    from reasoning_gym.factory import DATASETS, create_curriculum, create_dataset

    made = DATASETS[task][1]
    defaults = {field.name: field for field in fields(made) if field.init}
    for name in args:
        if name not in defaults or name in OURS:
            ours = [field for field in defaults if field not in OURS]
            close = nearest(name, ours)
            hint = f"Did you mean {close!r}?" if close else f"It takes {', '.join(ours) or 'none'}."
            hint = f"Leave it out: {OURS[name]}." if name in OURS else hint
            raise UserError(f"reasoning-gym's {task} takes no argument {name!r}. {hint}")
    chosen: dict[str, Any] = {}
    try:
        if level is not None:
            curriculum = create_curriculum(task)
            for name, attribute in curriculum.attributes.items():
                curriculum.set_attr_level(name, min(level, len(attribute.levels)) - 1)
            # The library's default mode would mix in all easier levels.
            top = curriculum.generate_configuration(context=DefaultCurriculumContext(RangeAttributeMode.UPPER_BOUND))
            plain, own = made(), [name for name in defaults if name not in OURS]
            chosen = {name: getattr(top, name) for name in own if getattr(top, name) != getattr(plain, name)}
        chosen |= args
        create_dataset(task, **chosen, size=1, seed=0)  # which checks the values
    except (AssertionError, TypeError, ValueError) as error:
        why = error or type(error).__name__
        raise UserError(f"reasoning-gym's {task} does not take {dict(args)!r}: {why}.") from None
    return json.loads(json.dumps(chosen))


def _make(task: str, config: Mapping[str, Any], seed: int, reuse: bool) -> tuple[str, str]:
    """The question and the gold answer of one problem.

    Always number 0 of a dataset, because reasoning-gym adds the number to the seed: number 1 of seed 0 is number 0 of
    seed 1. With `reuse` the dataset is set to another seed and not made anew, which for some tasks means reading files.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # some generators print
        if reuse:
            dataset = copy.copy(_dataset(task, json.dumps(config)))
            dataset.seed, dataset.config = seed, replace(dataset.config, seed=seed)
        else:
            dataset = _dataset.__wrapped__(task, json.dumps(config), seed)
        entry = dataset[0]
    gold = GOLD_IN_METADATA[task](entry["metadata"]) if task in GOLD_IN_METADATA else entry["answer"]
    return str(entry["question"]), str(gold)


@lru_cache(maxsize=64)
def _dataset(task: str, config: str, seed: int = 0) -> Any:
    from reasoning_gym.factory import create_dataset

    return create_dataset(task, **json.loads(config), seed=seed, size=1)


class GymProblems:
    """An unlimited sequence of problems; the levels take turns. Without levels: the task's own configuration.

    `args` are fields of the task's configuration, over those of the level. `admitted` is what the gate found (the gate
    itself brings its own).
    """

    size: int | None = None

    def __init__(
        self,
        task: str,
        levels: Sequence[int] = (),
        seed: int = 0,
        split: Literal["train", "held_out"] = "train",
        args: Mapping[str, Any] | None = None,
        admitted: Admitted | None = None,
    ) -> None:
        self.admitted = admitted or _admission(task)
        require_library()
        top = self.admitted.levels
        if any(not 1 <= level <= top for level in levels):
            has = f"levels 1 to {top}" if top else "no levels"
            raise UserError(f"reasoning-gym's {task} has {has}, so levels cannot be {list(levels)!r}.")
        self.task, self.levels, self.seed, self.split = task, tuple(levels), seed, split
        self.configurations = {level: _configuration(task, level, args or {}) for level in self.levels or (None,)}

    def __getitem__(self, index: int) -> Prompt:
        """The prompt number `index`, any number from 0."""
        return self.at(self.levels[index % len(self.levels)] if self.levels else None, index)

    def at(self, level: int | None, index: int) -> Prompt:
        """The prompt number `index` of a level."""
        if index < 0:
            raise IndexError(f"problems are numbered from 0, not {index}")
        config, why = self.configurations[level], "too few of its problems are different to hold some out"
        for attempt in range(TRIES):
            seed = derive_seed(self.seed, PREFIX, self.task, level or 0, self.split, index, attempt) % SEEDS
            try:
                question, gold = _make(self.task, config, seed, self.admitted.reuse)
            except Exception as error:  # some generators give up on some seeds
                why = f"{type(error).__name__}: {error}"
                continue
            prompt = self.prompt(question, gold, level, seed)
            if (question_share(prompt) < HELD_OUT_SHARE) == (self.split == "held_out"):
                return prompt
        raise UserError(
            f"reasoning-gym's {self.task} makes no {self.split.replace('_', '-')} problem at these settings ({why}). "
            "Use other levels or args."
        )

    def prompt(self, question: str, gold: str, level: int | None, seed: int) -> Prompt:
        """A problem as the rest of Cohort takes it. The column `gym` says how to make it again and how to judge it."""
        gym: dict[str, Any] = {"task": self.task, "scoring": self.admitted.scoring}
        if self.admitted.form is not None:
            gym["form"] = self.admitted.form
        gym |= {"config": self.configurations[level], "seed": seed}
        tags: dict[str, Any] = {"task": self.task, "gym": gym} | ({} if level is None else {"level": level})
        return Prompt.make(text=question, answer=gold, tags=tags)


def open_gym(table: settings.Prompts, held_out: bool, seed: int) -> Found:
    """The problems of "reasoning_gym:TASK". A curriculum goes through all levels, unless the table names some."""
    task = table.source.partition(":")[2]
    if not task:
        raise UserError(f'{table.source!r} is not of the form "{PREFIX}:TASK", such as "{PREFIX}:chain_sum".')
    levels = table.levels or ()
    if table.curriculum is not None and not levels:
        levels = tuple(range(1, _admission(task).levels + 1))
    problems = GymProblems(task, levels, seed, "held_out" if held_out else "train", table.args)
    return Found(problems, COLUMNS, distinct=True)
