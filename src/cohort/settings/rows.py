"""Rows that a program gives where a recipe names a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class PythonRows:
    """A `datasets.Dataset` or `DatasetDict`, a list of dicts or another iterable of them, which is read to its end when
    its rows are first asked for.
    """

    def __init__(self, given: Any) -> None:
        self._given = given

    @cached_property
    def rows(self) -> Any:
        """What was given, as something that can be read again and again."""
        given = self._given
        again = isinstance(given, (Mapping, Sequence)) or hasattr(given, "column_names")
        return given if again or not isinstance(given, Iterable) else list(given)

    def __repr__(self) -> str:
        return "rows of Python"


class _OrRows:
    """A type that also takes rows, which only Python can give. A path becomes text."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._taken, handler(source))

    def _taken(self, given: Any, text: Callable[[Any], Any]) -> Any:
        if isinstance(given, PythonRows):
            return given
        if isinstance(given, Mapping):
            rows = bool(given) and all(hasattr(split, "column_names") for split in given.values())
        elif isinstance(given, (str, bytes, type)) or not isinstance(given, Iterable):
            rows = False
        else:
            rows = not isinstance(given, Sequence) or (bool(given) and all(isinstance(row, Mapping) for row in given))
        return PythonRows(given) if rows else text(fspath(given) if isinstance(given, PathLike) else given)


Data = Annotated[str, Field(min_length=1), _OrRows()]  # a path, a name, or rows
