"""A table of a recipe, and the reader that keeps what is right in one and says all that is wrong in sentences.

A table becomes a flat map from path to value, e.g. {("rollout", "group_size"): 8}. Flat maps make the rest simple:
a later layer is a dictionary update, and where a value came from is kept beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from cohort.settings.words import missing, report, shown, wrong_value
from cohort.types import UserError
from cohort.wording import nearest

Path = tuple[str, ...]  # of a key inside a stage: ("rollout", "group_size")
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]  # strict=False: TOML and Python write lists
# More than any run has: a slip of the hand is a sentence, not a crash.
TOKENS = 10**7
LARGEST = 3e38  # of float32, in which the arithmetic is done
Tokens = Annotated[int, Field(ge=1, le=TOKENS)]
Many = Annotated[int, Field(ge=1, le=10**6)]  # prompts, rows, passes
Count = Annotated[int, Field(ge=0, le=10**9)]  # steps, or groups that are looked back at
Positive = Annotated[int, Field(ge=1, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Function = Annotated[
    Callable[..., Any], WithJsonSchema({"type": "string", "description": "A function, as module:function."})
]


def key(default: Any, about: str, **limits: Any) -> Any:
    """A key of a table: its default, one line on what it does, and the limits of its value (ge, gt, le, lt)."""
    return Field(default=default, description=about, **limits)


@dataclass(frozen=True)
class OneOf:
    """The type of a key that names a part: one of the names in a table of parts, or "module:name" of one's own."""

    parts: Mapping[str, str]  # name -> "module:name"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Callable[..., Any]) -> dict[str, Any]:
        own = {"type": "string", "pattern": ":", "description": "A part of one's own, as module:name."}
        return {"anyOf": [{"enum": list(self.parts), "type": "string"}, own]}

    def _known(self, value: str) -> str:
        if value not in self.parts and ":" not in value:
            raise ValueError
        return value


# What a value may do to a run. NoEffect: it changes no number of the result. Resumable: a run may at least be continued
# with another one. Every other value has to stay.
T = TypeVar("T")
NoEffect = Annotated[T, "no effect"]
Resumable = Annotated[T, "resumable"]
# A key that came after digests of recipes were published: at its default it stays out of them.
LATER = ("later",)
Later = Annotated[T, LATER]


class Table(BaseModel):
    """A frozen table. Values are taken as they are: "8" is not 8, and an unknown key is a mistake, not an extra."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    place: ClassVar[Path] = ()  # where in a stage the table stands, if not under its own name

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError:
            raise UserError(report(_mistakes(type(self), values))) from None

    # Tells pydantic that this is no change of behaviour: tables inside tables are then validated in one pass, so that
    # every mistake is found and not only the first.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def with_(self, **changes: Any) -> Self:
        """The table with other values of these keys, unchecked; a dictionary for a table in it changes keys of that."""

        def new(old: Any, value: Any) -> Any:
            return old.with_(**value) if isinstance(old, Table) and isinstance(value, dict) else value

        return self.model_copy(update={name: new(getattr(self, name), value) for name, value in changes.items()})


def table_of(field: FieldInfo) -> tuple[type[Table] | None, bool]:
    """The table that a field holds (None: it holds a plain value), and whether it holds a list of them."""
    return _find_table(field.annotation, False)


def named_tables(field: FieldInfo) -> type[Table] | None:
    """The table of a field that holds several by names that the person chooses, as [task.mixture.NAME] does."""
    inner = get_args(field.annotation)[1] if get_origin(field.annotation) is dict else None
    return inner if isinstance(inner, type) and issubclass(inner, Table) else None


def _find_table(annotation: Any, in_list: bool) -> tuple[type[Table] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation, in_list
    if get_origin(annotation) is dict:
        return None, False
    if get_origin(annotation) is Annotated:
        return _find_table(get_args(annotation)[0], in_list)
    for part in get_args(annotation):
        found = _find_table(part, in_list or get_origin(annotation) is tuple)
        if found[0]:
            return found
    return None, False


def effect_of(table: type[Table], path: Path) -> str | None:
    """What a value at `path` may do to a run that is continued with another one: "no effect", "resumable", or None
    where it has to stay.
    """
    known = table.model_fields.get(path[0])
    inner = table_of(known)[0] if known is not None else None
    if inner is not None and len(path) > 1:
        return effect_of(inner, path[1:])
    return next((mark for mark in known.metadata if isinstance(mark, str)), None) if known is not None else None


def as_list(given: Any) -> list[Any]:
    """A key that takes one thing or several (a name, a function, a table, or a list of these) as a list."""
    return list(given) if isinstance(given, list | tuple) else [given]


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


def _unknown_key(path: Path, prefix: str, siblings: Iterable[str]) -> str:
    """The sentence for a key that its table does not have."""
    close = nearest(path[-1], siblings)
    hint = f"; did you mean {'.'.join((*path[:-1], close))!r}?" if close else f"; there is {', '.join(siblings)}"
    return f"unknown key {prefix + '.'.join(path)!r}{hint}"


@dataclass
class Reader:
    """Reads tables from one source: `origin` says which, `prefix` which stage ("" when there is only one).

    `unknown` makes the sentence for a key that its table does not have; who knows more tables can say more. `beside`
    are keys that may stand where the outermost table's stand.
    """

    problems: Problems
    origin: str
    prefix: str = ""
    unknown: Callable[[Path, str, tuple[str, ...]], str] = _unknown_key
    beside: tuple[str, ...] = ()

    def table(self, table: type[Table], given: Any, at: Path = ()) -> Flat:
        """What a table sets, flat. `given` is a dictionary or the table itself."""
        is_table = isinstance(given, Table)
        values = {name: getattr(given, name) for name in given.model_fields_set} if is_table else given
        if not isinstance(values, Mapping):
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
            siblings = tuple(table.model_fields) + (() if at or self.prefix else self.beside)
            meant = nearest(key, table.model_fields)  # so that nobody is told that this one is missing
            self._add(self.unknown(path, self.prefix, siblings), path, *([(*at, meant)] if meant else []))
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
        if any(isinstance(one, int | float) and abs(one) > LARGEST for one in as_list(value)):
            what = f"{self._dotted(path)} must be a number that 32 bits hold (at most {LARGEST:g})"
            self._add(f"{what}, not {shown(value)}", path)
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
        for item in as_list(given):
            if isinstance(item, str) or callable(item):
                item = {required: item}
            here = Problems()  # its own, so that one bad item does not hide another
            flat = replace(self, problems=here).table(inner, item, at)
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


def _hint(at: Path, given: Any) -> str:
    """What to write instead, where a table's one important key can be guessed."""
    key = {"objective": "preset", "task": "source", "policy": "model"}.get(at[-1]) if at else None
    return f" (write {at[-1]}.{key} = {given!r})" if key and isinstance(given, str) else ""


def _mistakes(table: type[Table], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arguments of one table built from Python, a sentence each."""
    problems, at = Problems(), table.place or (table.__name__.lower(),)
    Reader(problems, "python").table(table, values, at)
    for name, known in table.model_fields.items():
        if known.is_required() and values.get(name) is None:
            problems.add(f"{missing('.'.join((*at, name)), known)} (python)")
    return list(problems.sentences)
