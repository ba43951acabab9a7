"""What a foreign configuration comes to: a recipe whose lines say where they come from, and what has no counterpart."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort.recipe.show import toml_value
from cohort.settings import SINKS
from cohort.settings.table import as_list
from cohort.tasks.guess import guess
from cohort.tasks.sources.columns import with_inner
from cohort.tasks.sources.opening import NAMES_OF_COLUMNS
from cohort.tasks.sources.rows import open_rows
from cohort.types import UserError

TRUNCATES = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}  # and the value at which each is off


@dataclass(frozen=True, slots=True)
class Imported:
    """A recipe as TOML; what differs or has no counterpart; and what a person still has to write."""

    recipe: str
    notes: tuple[str, ...]
    open: tuple[str, ...]


class Given:
    """The keys of a configuration, by dotted name. Whoever asks for one takes it: what nobody took is said at the end.

    A key that is null counts as not given; `is_null` is for those where null says something of its own.
    """

    def __init__(self, values: Mapping[str, Any]):
        self._values = {key: value for key, value in values.items() if value is not None}
        self._taken: set[str] = set()
        self._null = values.keys() - self._values.keys()

    def is_null(self, key: str) -> bool:
        """Whether the key is there, and null."""
        return key in self._null

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it is written."""
        self._taken.add(key)
        return self._values.get(key, default)

    def number(self, key: str, default: float | None = None) -> Any:
        """A number, also where it is written as text: YAML reads 1e-6 as such. Raises `UserError` for anything else."""
        value = self.get(key, default)
        return None if value is None else _number(key, value)

    def numbers(self, key: str, default: Sequence[float] = ()) -> list[float]:
        """A list of numbers, or one that stands for a list of it. Raises `UserError` for anything else."""
        return [float(_number(key, one)) for one in as_list(self.get(key, default))]

    def whole(self, key: str, default: int | None = None) -> Any:
        """A whole number."""
        value = self.number(key, default)
        if value is not None and value != int(value):
            raise UserError(f"{key} must be a whole number, not {value!r}: mend the configuration")
        return None if value is None else int(value)

    def count(self, key: str, default: int) -> int:
        """A whole number of at least 1."""
        value = int(self.whole(key, default))
        if value < 1:
            raise UserError(f"{key} must be at least 1, not {value}: mend the configuration")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false, also in capitals or as text."""
        value = self.get(key, default)
        return value if isinstance(value, bool) else str(value).strip().lower() in ("true", "1", "yes", "on")

    def rest(self) -> dict[str, Any]:
        """What nobody took."""
        return {key: value for key, value in self._values.items() if key not in self._taken}


def _number(key: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{key} must be a number, not {value!r}: mend the configuration")
    whole = type(value) is int or (isinstance(value, str) and re.fullmatch(r"\s*[-+]?[0-9_]+\s*", value))
    return int(value) if whole else number


@dataclass
class Draft:
    """A recipe that is being written."""

    given: Given
    head: dict[str, tuple[Any, str]] = field(default_factory=dict)
    tables: dict[str, dict[str, tuple[Any, str]]] = field(default_factory=dict)
    rewards: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)  # lines that are written as comments, by table
    notes: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def put(self, table: str, key: str, value: Any, source: str) -> None:
        """A key of a table; `source` says where its value comes from."""
        self.tables.setdefault(table, {})[key] = (value, source)

    def whole_distribution(self, given: Mapping[str, float]) -> None:
        """A truncated distribution is not the policy that is trained, so a recipe has none: what differs is said."""
        for key, value in given.items():
            if value != TRUNCATES[key] and not (key == "top_k" and value <= 0):
                self.notes.append(
                    f"{key} = {value:g} is left out: training samples from the whole distribution, whose log-probs are "
                    f"the policy's; evaluate.{key} is for evaluations"
                )

    def wanted(self, table: str, line: str, why: str) -> None:
        """A line that a person has to write: a comment in the recipe, and a note."""
        self.tables.setdefault(table, {})
        self.missing.setdefault(table, []).append(line)
        self.open.append(why)

    def put_model(self, key: str) -> None:
        """The model that the configuration names under `key`."""
        model = self.given.get(key)
        if model is None:
            self.wanted("policy", 'model = "..."', "the configuration names no model: set policy.model")
        else:
            self.put("policy", "model", str(model), key)

    def put_source(self, data: Any, key: str, otherwise: str) -> None:
        """The `data` that the configuration names under `key`, or a name to be replaced."""
        if data is None:
            self.put("task", "source", otherwise, "to be set: the configuration names no data")
            self.open.append("the configuration names no data: set task.source")
        else:
            self.put("task", "source", str(data), key)

    def put_columns(self) -> None:
        """The columns of the data, where these are a file or a directory that is here: those that the configuration
        names are looked for, and what else is needed is guessed from their names.
        """
        task = self.tables["task"]
        source, split = task["source"][0], task.get("split", ("train", ""))[0]
        if not Path(source).expanduser().exists():
            return
        try:
            named = {key: task[key][0] for key in NAMES_OF_COLUMNS if key in task}
            rows = with_inner(open_rows(source, split), named.values())
            for key in [key for key, column in named.items() if column not in rows.columns]:
                self.notes.append(f"{source} has no column {named.pop(key)!r}; it has {', '.join(rows.columns)}")
                del task[key]
            found = guess(rows, named, "grpo")
        except UserError as error:
            self.open.append(f"task.source = {source!r} as it is cannot be read: {error}")
            return
        for key, column in found.task.items():
            self.put("task", key, column, f"a column of {Path(source).name}" if key in NAMES_OF_COLUMNS else "")
        self.open += found.unsure
        if found.because and not self.rewards:
            self.open.append(f"of the data, a first reward would be {found.because}")

    def want_steps(self, passes: float, key: str) -> None:
        """The steps of so many passes over the data, whose size only a person knows."""
        prompts = self.tables["rollout"]["prompts_per_step"][0]
        self.wanted(
            "run",
            f"steps = {passes:g} x rows of the data / {prompts}",
            f"{key} = {passes:g}: set run.steps to {passes:g} x rows / {prompts}",
        )

    def put_trackers(self, key: str, nowhere: str) -> None:
        """Where the numbers go; `nowhere` is the name of what needs no tracker."""
        trackers: list[str] = []
        for tracker in as_list(self.given.get(key, [])):
            if isinstance(tracker, str) and tracker in SINKS:
                trackers.append(tracker)
            elif tracker != nowhere:
                self.notes.append(f"no counterpart: {key} = {tracker!r}")
        if trackers:
            self.put("run", "trackers", trackers, key)

    def put_template_args(self, key: str) -> None:
        """What the configuration gives the chat template under `key`."""
        given = self.given.get(key) or {}
        if not isinstance(given, Mapping):
            self.notes.append(f"no counterpart: {key} = {given!r}")
            return
        plain = {name: value for name, value in given.items() if isinstance(value, bool | int | float | str)}
        if plain:
            self.put("task", "template_args", plain, key)
        self.notes += [
            f"no counterpart: {key}.{name} = {value!r}" for name, value in given.items() if name not in plain
        ]

    def done(self, source: str, order: Sequence[str]) -> Imported:
        """The recipe, with all keys that nobody took among the notes."""
        rest: dict[str, list[str]] = {}
        for key, value in self.given.rest().items():
            place, _, name = key.rpartition(".")
            rest.setdefault(place, []).append(f"{name} = {value!r}")
        left = [f"no counterpart: {f'{place}: ' if place else ''}{', '.join(keys)}" for place, keys in rest.items()]
        lines = [f"# From {source} by `cohort config import`. Look at it with cohort explain, then cohort check."]
        lines += [_line(key, *value) for key, value in self.head.items()]
        for table in sorted(self.tables, key=lambda name: order.index(name.partition(".")[0])):
            if table != "reward":
                lines += ["", f"[{table}]", *(_line(key, *value) for key, value in self.tables[table].items())]
            for reward in self.rewards if table == "reward" else ():
                lines += ["", "[[reward]]", *(f"{key} = {toml_value(value)}" for key, value in reward.items())]
            lines += [f"# {line}" for line in self.missing.get(table, ())]
        return Imported("\n".join(lines) + "\n", (*self.notes, *left), tuple(self.open))


def _line(key: str, value: Any, source: str) -> str:
    text = f"{key} = {toml_value(value)}"
    return f"{text:<38}  # {' '.join(source.split())}" if source else text
