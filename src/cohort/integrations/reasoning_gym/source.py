"""The problems of a reasoning-gym task as prompts.

    problems = GymProblems("chain_sum", levels=(1, 2), seed=0, split="train")
    problems[7].text, problems[7].answer

As with the embedded word problems, number `index` is made from a seed of its own, and which split a problem belongs to
is a property of its question alone (a hash), so no seed and no index can put a held-out question into training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cohort import settings
from cohort.integrations.reasoning_gym.problems import Admitted, admission, configuration, make, require_library
from cohort.seeds import derive_seed
from cohort.tasks.prompts import question_share
from cohort.tasks.sources.base import Found
from cohort.types import Prompt, UserError

__all__ = ["HELD_OUT_SHARE", "PREFIX", "GymProblems", "open_gym"]

PREFIX = "reasoning_gym"
COLUMNS = ("prompt", "answer", "task", "level", "gym")
HELD_OUT_SHARE = 0.2
SEEDS = 2**32  # some generators of the library take no larger ones
TRIES = 500  # candidates for one problem; with a fifth held out, so many misses in a row mean a handful of problems


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
        self.admitted = admitted or admission(task)
        require_library()
        top = self.admitted.levels
        if any(not 1 <= level <= top for level in levels):
            has = f"levels 1 to {top}" if top else "no levels"
            raise UserError(f"reasoning-gym's {task} has {has}, so levels cannot be {list(levels)!r}.")
        self.task, self.levels, self.seed, self.split = task, tuple(levels), seed, split
        self.configurations = {level: configuration(task, level, args or {}) for level in self.levels or (None,)}

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
                question, gold = make(self.task, config, seed, self.admitted.reuse)
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
        levels = tuple(range(1, admission(task).levels + 1))
    problems = GymProblems(task, levels, seed, "held_out" if held_out else "train", table.args)
    return Found(problems, COLUMNS, distinct=True)
