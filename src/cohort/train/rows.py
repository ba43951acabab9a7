"""Rows that a program gave, written into the run's directory: the recipe then names a file, and the run resumes."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cohort.recipe import Recipe
from cohort.record.files import remove
from cohort.settings import Prompts, PythonRows, Stage
from cohort.tasks.sources.rows import open_rows
from cohort.train.directory import has_begun, refuse_existing, run_directory
from cohort.types import UserError
from cohort.wording import one_line, shorten

PLAIN = Prompts.model_fields["split"].default


def with_rows_kept(recipe: Recipe, resume: bool) -> Recipe:
    """The recipe with a file in the place of all rows: data.jsonl, data-2.jsonl and so on, in the run's directory.
    Raises `UserError` where the run cannot begin or go on there.
    """
    files: dict[tuple[int, str], tuple[Any, Path]] = {}  # (which rows, which split) -> them, and where they go
    directory = run_directory(recipe)

    def file_of(given: PythonRows, split: str) -> str:
        number = len(files) + 1
        name = "data.jsonl" if number == 1 else f"data-{number}.jsonl"
        split = split if isinstance(given.rows, Mapping) else ""
        return str(files.setdefault((id(given.rows), split), (given.rows, directory / name))[1])

    def kept(table: Prompts) -> dict[str, Any]:
        found: dict[str, Any] = {}
        chosen = {"split": table.split} if table.split != PLAIN else {}
        chosen |= {"held_out_split": table.held_out_split} if table.held_out_split is not None else {}
        held_out_split = table.held_out_split or "test"
        for key, value in chosen.items():
            given = table.held_out if key == "held_out_split" and table.held_out is not None else table.source
            if isinstance(given, PythonRows) and not isinstance(given.rows, Mapping):
                raise UserError(
                    f"{key} = {value!r} names a split, and the rows that were given have none: give a DatasetDict, or "
                    "other rows"
                )
        if isinstance(table.source, PythonRows):
            found |= {"source": file_of(table.source, table.split), "split": PLAIN}  # a file has no splits
            if table.held_out_split is not None and table.held_out is None:
                found |= {"held_out": file_of(table.source, held_out_split), "held_out_split": None}
        if isinstance(table.held_out, PythonRows):
            found |= {"held_out": file_of(table.held_out, held_out_split), "held_out_split": None}
        return found

    def stage_of(stage: Stage) -> Stage:
        mixture = {name: one.with_(**kept(one)) for name, one in stage.task.mixture.items()}
        return stage.with_(task={**kept(stage.task), "mixture": mixture})

    stages = tuple(map(stage_of, recipe.stages))
    if not files:
        return recipe
    recipe = recipe.model_copy(update={"stages": stages})
    if has_begun(directory):
        refuse_existing(directory, recipe, resume)
    for (_, split), (rows, file) in files.items():
        _write(open_rows(rows, split), file)
    return recipe


def _write(rows: Any, file: Path) -> None:
    """Write the rows as JSON Lines. Those that a run has begun with stay, and others in their place are refused."""
    new = file.with_name(f".{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        remove(new)  # what was left or put there is not written through
        with new.open("x", encoding="utf-8") as out:
            for index in range(len(rows)):
                out.write(_line(rows[index], rows.place(index)))
        if has_begun(file.parent) and not (file.exists() and filecmp.cmp(new, file, shallow=False)):
            raise UserError(
                f"these are other rows than those that the run began with ({file}): give the same ones, or start "
                'another run with name="..."'
            )
        new.replace(file)
    except OSError as error:
        raise UserError(f'cannot write the rows to {file}: {error.strerror}; choose run={{"directory": ...}}') from None
    finally:
        new.unlink(missing_ok=True)


def _line(row: Mapping[str, Any], place: str) -> str:
    def plain(value: Any) -> Any:
        for method in ("tolist", "isoformat"):  # of numpy; of dates and times
            if hasattr(value, method):
                return getattr(value, method)()
        raise UserError(f"{place} holds {shorten(value)}, which is no text, number, list or dict; convert or remove it")

    try:
        return json.dumps(dict(row), default=plain) + "\n"
    except (TypeError, ValueError, RecursionError) as error:  # keys that are no text; a row that holds itself
        raise UserError(f"{place} cannot be written as JSON ({one_line(error)}); convert or remove it") from None
