"""`cohort record show`, `diff` and `export`: the record of a run, two of them, and what other tools read of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cohort.account.fields import title_of
from cohort.account.making import make_record
from cohort.commands.explain import stage_differences
from cohort.recipe import Recipe, differences
from cohort.recipe.loader import of_run
from cohort.record.claims import Claim, claims, read_record
from cohort.record.files import new_directory
from cohort.record.manifest import sha256_of
from cohort.settings import GROUPS
from cohort.settings.words import plain
from cohort.types import UnreadableError, UserError
from cohort.views.cards.terminal import show_difference, show_record
from cohort.views.console import Console
from cohort.views.exports import EXPORTS, Bundle, File
from cohort.views.exports.checks import Absent
from cohort.wording import find, one_line

__all__ = ["compared", "export", "record_of", "show_difference", "show_export", "show_record"]

# Columns that hold what was written or what it says again: token ids are text.
TEXT = ("text", "prompt", "prompt_json", "tokens", "prompt_tokens", "answer", "turns", "extra", "labels")


def record_of(run: Path) -> dict[str, Any]:
    """The record of a run; of one that has none, such as an older Cohort's, one that is made from its other files.
    Raises `UnreadableError` for what is no run.
    """
    return read_record(run) or make_record(run, _recipe(run))


def _recipe(run: Path) -> Recipe:
    file = of_run(run)
    try:
        return Recipe.load(file)
    except UserError as error:
        raise UnreadableError(f"{run} was trained by a Cohort with other settings: {error}") from None


# --- two runs


def compared(a: Path, b: Path) -> dict[str, Any]:
    """What two runs chose otherwise, stage by stage, with the consequence of each difference where `explain` knows it;
    the settings that differ beside it; and the facts that do.
    """
    one, other = _recipe(a), _recipe(b)
    stages, said = [], set[str]()
    for stage in one.stages:
        there = next((s for s in other.stages if s.name == stage.name), None)
        if there is None or stage.kind != there.kind or stage.kind not in GROUPS:
            continue
        rows = stage_differences(stage, there)
        said |= {
            f"{prefix}{row[0]}"
            for row in rows
            for prefix in ("", "objective.", f"{stage.name}.", f"{stage.name}.objective.")
        }
        keys = ("field", "here", "there", "consequence")
        stages.append({"stage": stage.name, "differences": [dict(zip(keys, row, strict=True)) for row in rows]})
    rest = [
        {"field": field, "here": plain(here), "there": plain(there), "consequence": ""}
        for field, here, there in differences(one, other)
        if field not in said
    ]
    return {"a": str(a), "b": str(b), "stages": stages, "settings": rest, "facts": _facts(record_of(a), record_of(b))}


_FACTS = ("compute.", "behaviour.", "rewards.verifier", "policies.base", "identity.software", "data.rejected")


def _facts(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """What the two runs found otherwise: cost, behaviour, code, machine."""
    here, there = (dict(claims({"run": one["run"], "stages": one["stages"]})) for one in (a, b))
    rows = []
    for at in dict.fromkeys([*here, *there]):
        values = [of[at]["value"] if at in of else None for of in (here, there)]
        section = ".".join(at.split(".")[-2:])
        if values[0] != values[1] and section.startswith(_FACTS):
            one, other = (dict(_leaves(value)) for value in values)
            differ = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
            stage = "" if at.startswith("run.") or len(a["stages"]) == 1 else f" ({at.split('.')[1]})"
            sides = {"here": {n: one.get(n) for n in differ}, "there": {n: other.get(n) for n in differ}}
            rows.append({"field": title_of(at) + stage, "path": at, **sides})
    return rows


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """What a value holds, each with its place in it."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{at} {name}".strip())
    else:
        yield at or "value", value


# --- exports


def export(run: Path, to: Path, with_text: bool) -> dict[str, Any]:
    """Write the rollouts and every projection of the record into a new directory, each checked by its own library, or
    by a schema that Cohort ships. Raises `UserError` for a directory that is there, and for what is not valid.
    """
    record = record_of(run)
    if to.exists():
        raise UserError(f"{to} is there already: name a directory that does not exist yet")
    if not to.absolute().parent.is_dir():
        raise UserError(f"there is no directory {str(to.absolute().parent)!r} to make {to.name} in")
    record = record if with_text else _without_text(record)
    checked = {}
    with new_directory(to) as new:
        shards = sorted((run / "log").glob("step-*.parquet"))
        rollouts = tuple(_copied(shard, new, with_text) for shard in shards)
        bundle = Bundle(record, rollouts)
        for name, one in EXPORTS.items():
            made = find(one.make, "export")(record if one.of_record else bundle)
            if isinstance(made, str):
                content = made.encode("utf-8", "replace")
            else:
                content = orjson.dumps(made, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
            (new / name).write_bytes(content)
            checked[name] = _checked(name, one.check, content.decode("utf-8"))
    return {"to": to, "rollouts": len(rollouts), "with_text": with_text, "files": checked}


def _checked(name: str, check: str | None, text: str) -> str:
    if check is None:
        return "written"
    try:
        problem = find(check, "check")(text)
    except Absent as absent:
        return f"not checked: {absent} is not installed (pip install 'cohort[exports]')"
    if problem is not None:
        raise UserError(f"{name} would not be valid: {problem}. The record may have been edited; remove record.json")
    return "valid"


def _without_text(record: dict[str, Any]) -> dict[str, Any]:
    """The record without what was asked and answered."""
    held = Claim(None, "measured", "withheld", "exported without text").as_json()
    return {**record, "stages": [{**stage, "samples": held} for stage in record["stages"]]}


def _copied(shard: Path, new: Path, with_text: bool) -> File:
    """A file of rollouts in the new directory, without the columns that hold text where those stay at home."""
    (new / "rollouts").mkdir(exist_ok=True)
    target = new / "rollouts" / shard.name
    try:
        table = pq.read_table(shard)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shard} cannot be read as recorded rollouts: {one_line(error)}") from None
    if with_text:
        target.write_bytes(shard.read_bytes())
    else:
        table = table.drop_columns([name for name in TEXT if name in table.column_names])
        pq.write_table(table, target, compression="zstd")
    columns = {field.name: str(field.type) for field in table.schema}
    return File(f"rollouts/{shard.name}", sha256_of(target), target.stat().st_size, columns)


def show_export(console: Console, found: dict[str, Any]) -> None:
    """Every file, and whether it is valid."""
    console.lines(found["files"])
    what = "" if found["with_text"] else ", without text"
    console.saved(f"{found['rollouts']} shards", Path(f"{found['to']}/rollouts"))
    console.say(f"\n  exported to {found['to']}{what}", fold=False)
