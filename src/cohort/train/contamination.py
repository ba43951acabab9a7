"""What a run makes of held-out questions that it also trains on: it says so, writes it down, or leaves them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from cohort.preflight.contamination.layers import SHORT
from cohort.preflight.contamination.report import Report
from cohort.preflight.contamination.sides import HELD_OUT, Side, held_out, look_in, trained_on, without
from cohort.preflight.contamination.texts import Question
from cohort.record.files import write_bytes
from cohort.settings import Stage, named_stage
from cohort.train.stage import P, Prepared, PreparedStage
from cohort.views.console import Console, escape

FILE = "contamination.json"
LOOKED_AT = 100_000  # training prompts, before a run that leaves none out


def sides_of(stage: Stage, prepared: Prepared) -> tuple[list[Side], list[Question]]:
    """The prompts that a stage trains on, as far as they have an end, and the held-out questions."""
    pairs, examples = getattr(prepared, "pairs", None), getattr(prepared, "examples", None)
    if pairs is not None:
        both = [("pair", pairs.train), ("held-out pair", pairs.held_out)]
        train, *rest = [Side(name, one, one.size, lambda pair: pair.prompt) for name, one in both if one is not None]
        return [train], [question for side in rest for question in side.questions()]
    asked = [] if prepared.parts is None else held_out(prepared.parts.task, stage.evaluate.problems)
    if examples is not None:
        size = examples.size
        return [] if size is None else [Side("demonstration", examples, size, lambda one: one.prompt)], asked
    return [] if prepared.parts is None else trained_on(prepared.parts.task), asked


def cleaned(stage: Stage, prepared: P) -> P:
    """What a stage learns from, demonstrations or pairs, without those that hold a held-out question, where the recipe
    says so. (`open_parts` leaves out prompts.)
    """
    if stage.task.decontaminate != "drop":
        return prepared
    sides, asked = sides_of(stage, prepared)
    if not sides or not asked:
        return prepared
    (left,), dropped = without(sides, asked)
    whole: Any = prepared  # the dataclass of its kind
    pairs = getattr(whole, "pairs", None)
    new = {"examples": left} if pairs is None else {"pairs": replace(pairs, train=left)}
    kept: P = replace(whole, **new, dropped=dropped)
    return kept


def found_before(one: PreparedStage) -> Report | str:
    """What of the held-out questions is in the training prompts, or was in those that were left out; or why nobody
    looked.
    """
    stage, prepared = one.stage, one.prepared
    if stage.task.decontaminate == "off":
        return 'task.decontaminate = "off"'
    if (name := named_stage(stage.task.source)) is not None:
        return f"the data are made by the stage '{name}', of its own prompts"
    learns = any(getattr(prepared, name, None) is not None for name in ("pairs", "examples"))
    of_task = None if learns or prepared.parts is None else prepared.parts.dropped
    if (dropped := getattr(prepared, "dropped", None) or of_task) is not None:
        return dropped
    sides, asked = sides_of(stage, prepared)
    if not asked:
        return "nothing is held out"
    if not sides:
        return "the training prompts are made without end, and so not compared with the held-out ones"
    return look_in(HELD_OUT, asked, sides, SHORT, LOOKED_AT)


def say_contamination(directory: Path, stages: Sequence[PreparedStage], console: Console) -> None:
    """Look for held-out questions among the training prompts of every stage, say in a line what was found, and write it
    to `contamination.json`.
    """
    record: dict[str, Any] = {}
    for one in stages:
        found = found_before(one)
        if isinstance(found, str):
            record[one.stage.name] = {"not_looked": {HELD_OUT: found}}
            continue
        record[one.stage.name] = found.to_dict() | {"dropped": one.stage.task.decontaminate == "drop"}
        if line := in_a_line(found, dropped=one.stage.task.decontaminate == "drop"):
            before = f"{one.stage.name}: " if len(stages) > 1 else ""
            console.warn(escape(before + line))
    write_bytes(directory / FILE, orjson.dumps(record, option=orjson.OPT_INDENT_2))


def in_a_line(found: Report, dropped: bool) -> str:
    """What was found of the held-out questions, in words; "" where nothing was."""
    if not found.flagged:
        return ""
    exact, many = len(found.layers["exact"].ids), len(found.flagged)
    longest = next(one.what for name, one in found.layers.items() if name != "exact")
    if dropped:
        prompts = f"{len(found.found_in):,} of {found.prompts:,} training prompts"
        return f"{prompts} hold a held-out question ({exact:,} whole, else {longest}), and are left out"
    return (
        f"{many:,} held-out questions are also trained on ({exact:,} whole, else {longest}), so their accuracy proves "
        f'little: {FILE} has which; task.decontaminate = "drop" leaves these training prompts out'
    )
