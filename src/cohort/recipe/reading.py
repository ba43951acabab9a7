"""Reads tables as a person wrote them: keeps what is right, and says all that is wrong in sentences.

A table becomes a flat map from path to value, e.g. {("rollout", "group_size"): 8}. Flat maps make the rest simple:
a later layer is a dictionary update, and where a value came from is kept beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import ValidationError

from cohort.recipe.names import TOP_KEYS, Path, all_keys, named_tables, table_of, unknown_key
from cohort.recipe.stage import Stage, reward_list
from cohort.recipe.tables import Table
from cohort.recipe.wording import missing, shown, wrong_value
from cohort.wording import nearest

__all__ = ["Flat", "Problems", "Reader", "Written", "mistakes", "value_problem"]


class Written(NamedTuple):
    """A value and where it was written."""

    value: Any
    origin: str


Flat = dict[Path, Written]


@dataclass
class Problems:
    """What is wrong with a recipe: sentences in order, without repeats, and the paths that they are about.

    A path that is known to be bad is left out of the recipe, so what depends on it must not be complained about too.
    """

    sentences: dict[str, None] = field(default_factory=dict)
    paths: set[Path] = field(default_factory=set)

    def add(self, sentence: str, *paths: Path) -> None:
        """Note a problem; a second one in the same words is the same problem."""
        self.sentences[sentence] = None
        self.paths.update(paths)

    def touch(self, *paths: Path) -> bool:
        """Whether one of the paths, or a table around it, is known to be bad."""
        return any(path[:length] in self.paths for path in paths for length in range(1, len(path) + 1))


def value_problem(table: type[Table], name: str, value: Any) -> bool:
    """Whether the field does not take the value. The other fields of the table do not matter."""
    try:
        table.model_validate({name: value})
    except ValidationError as error:
        return any(item["loc"][:1] == (name,) for item in error.errors(include_url=False, include_input=False))
    return False


@dataclass
class Reader:
    """Reads tables from one source: `origin` says which, `prefix` which stage ("" when there is only one)."""

    problems: Problems
    origin: str
    prefix: str = ""

    def table(self, table: type[Table], given: Any, at: Path = ()) -> Flat:
        """What a table sets, flat. `given` is a dictionary or the table itself."""
        values = _as_mapping(given)
        if values is None:
            must = "a name, a function, a table or a list of these" if at == ("reward",) else "a table"
            self._add(f"{self._dotted(at) or 'stage'} must be {must}{_hint(at, given)}, not {shown(given)}", at)
            return {}
        flat: Flat = {at: Written({}, self.origin)} if at else {}
        for key, value in values.items():
            flat.update(self._field(table, str(key), value, at))
        return flat

    def _field(self, table: type[Table], key: str, value: Any, at: Path) -> Flat:
        path = (*at, key)
        if key not in table.model_fields:
            siblings = tuple(table.model_fields) + (() if at or self.prefix else TOP_KEYS)
            meant = nearest(key, table.model_fields)  # so that nobody is told that this one is missing
            self._add(unknown_key(path, self.prefix, siblings), path, *([(*at, meant)] if meant else []))
            return {}
        known = table.model_fields[key]
        if named := named_tables(known):
            return self._named(named, value, path)
        inner, in_list = table_of(known)
        if inner and in_list:
            return self._list(inner, value, path)
        if inner and value is not None:
            return self.table(inner, value, path)
        if value_problem(table, key, value):
            self._add(wrong_value(self._dotted(path), known, value), path)
            return {}
        return {path: Written(value, self.origin)}

    def _named(self, inner: type[Table], given: Any, at: Path) -> Flat:
        """Tables by names that the person chooses."""
        if not isinstance(given, Mapping):
            self._add(f"{self._dotted(at)} must be tables by name, not {shown(given)}", at)
            return {}
        flat: Flat = {at: Written({}, self.origin)}
        for name, table in given.items():
            if re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):
                flat.update(self.table(inner, table, (*at, str(name))))
            else:
                names = "a name in it is made of letters, digits, '-' and '_'"
                self._add(f"{self._dotted(at)}: {names}, not {shown(name)}", (*at, str(name)))
        return flat

    def _list(self, inner: type[Table], given: Any, at: Path) -> Flat:
        """A list of tables is one value: a later layer replaces it as a whole."""
        items = []
        required = next(name for name, known in inner.model_fields.items() if known.is_required())
        for item in reward_list(given):
            if isinstance(item, str) or callable(item):
                item = {required: item}
            here = Problems()  # its own, so that one bad item does not hide another
            flat = Reader(here, self.origin, self.prefix).table(inner, item, at)
            values = {path[-1]: written.value for path, written in flat.items() if path != at}
            if required in values:
                items.append(values)
            else:
                if not here.touch((*at, required)):
                    path = self._dotted((*at, required))
                    here.add(f"{missing(path, inner.model_fields[required])} ({self.origin})")
                here.paths.add(at)
            for sentence in here.sentences:
                self.problems.add(sentence, *here.paths)
        return {at: Written(items, self.origin)}

    def _dotted(self, path: Path) -> str:
        return self.prefix + ".".join(path)

    def _add(self, sentence: str, *paths: Path) -> None:
        self.problems.add(f"{sentence} ({self.origin})", *paths)


def _as_mapping(given: Any) -> Mapping[Any, Any] | None:
    if isinstance(given, Table):
        return {name: getattr(given, name) for name in given.model_fields_set}
    return given if isinstance(given, Mapping) else None


def _hint(at: Path, given: Any) -> str:
    """What to write instead, where a table's one important key can be guessed."""
    key = {"objective": "preset", "task": "source", "policy": "model"}.get(at[-1]) if at else None
    return f" (write {at[-1]}.{key} = {given!r})" if key and isinstance(given, str) else ""


def mistakes(table: type[Table], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arguments of one table built from Python, a sentence each."""
    problems = Problems()
    at = _place(table)
    Reader(problems, "python").table(table, values, at)
    for name, known in table.model_fields.items():
        if known.is_required() and values.get(name) is None:
            problems.add(f"{missing('.'.join((*at, name)), known)} (python)")
    return list(problems.sentences)


def _place(table: type[Table]) -> Path:
    """Where in a recipe a table stands."""
    if table is Stage:
        return ()
    for path in all_keys():
        place: type[Table] | None = Stage
        for key in path:
            place = table_of(place.model_fields[key])[0] if place else None
        if place is table:
            return path
    return (table.__name__,)
