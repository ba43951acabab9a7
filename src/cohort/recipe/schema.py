"""The recipe: a name, a seed and the stages, resolved and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr

from cohort.recipe.loader import directory_name, found, read_file
from cohort.recipe.resolve import Resolved, resolve
from cohort.settings import Stage
from cohort.settings.table import Path as KeyPath


class Recipe(BaseModel):
    """What to train and how. Takes the same keys as a recipe file, as dictionaries or as the tables themselves:

        Recipe(name="mine", policy={"model": "Qwen/Qwen3-0.6B"}, task=Task(source="my.jsonl"), reward=[my_function])

    `stages` has every stage with all its values; `origins` says where each value comes from. Raises UserError, with
    a sentence for each problem.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    seed: int
    stages: tuple[Stage, ...]
    _resolved: Resolved = PrivateAttr()
    _file: Path | None = PrivateAttr(default=None)
    _place: Path | None = PrivateAttr(default=None)

    def __init__(self, /, **tables: Any) -> None:
        self._take(resolve(tables, "python"))

    def _take(self, resolved: Resolved) -> None:
        super().__init__(name=resolved.name, seed=resolved.seed, stages=resolved.stages)
        self._resolved = resolved

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        overrides: Sequence[str] = (),
        say: Callable[[str], object] = lambda _: None,
    ) -> Recipe:
        """Read a TOML file, that of a run, or a recipe that Cohort ships, by its name, and apply overrides such as
        `rollout.group_size=4` or `STAGE.run.steps=10`. `say` is told which file it is where that is not plain.
        """
        file = found(Path(path), say)
        recipe = cls._of(resolve(read_file(file), file.name, overrides, directory_name(file.stem)))
        recipe._file = file.absolute()
        return recipe

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
        """A recipe from the tables of a recipe file, with overrides such as `rollout.group_size=4`."""
        return cls._of(resolve(tables, "python", overrides))

    @classmethod
    def _of(cls, resolved: Resolved) -> Recipe:
        recipe = cls.__new__(cls)
        recipe._take(resolved)
        return recipe

    @property
    def file(self) -> Path | None:
        """The full path of the file that it was read from, if it was."""
        return self._file

    @property
    def place(self) -> Path | None:
        """The directory of its run, where that is another one than the recipe names."""
        return self._place

    def placed(self, directory: Path) -> Recipe:
        """The same recipe, whose run lives in `directory`."""
        recipe = self.model_copy()
        recipe._place = directory
        return recipe

    @property
    def origins(self) -> dict[str, str]:
        """Where each value comes from, by dotted path: "default", the file, "python", "command line", "preset" ...

        The paths of a recipe with several stages begin with the stage's name.
        """
        return self._resolved.origins()

    def own(self, index: int) -> frozenset[KeyPath]:
        """The tables and keys that stand in stage `index` itself; in a recipe of one stage, all that are written."""
        return self._resolved.own[index]

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    def __eq__(self, other: object) -> bool:
        """Recipes are equal if they do the same; where their values were written does not matter."""
        if not isinstance(other, Recipe):
            return NotImplemented
        return (self.name, self.seed, self.stages) == (other.name, other.seed, other.stages)

    __hash__ = None  # type: ignore[assignment]


load = Recipe.load
