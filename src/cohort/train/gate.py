"""What a run makes of what the gate finds: it is written down, shown, and may refuse the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from cohort.policy.load import Start, load_tokenizer
from cohort.preflight.gate.stage import gate_of_stage
from cohort.recipe import Recipe
from cohort.record.chain import CHAIN, read_lines
from cohort.record.entries import parsed
from cohort.record.files import write_bytes
from cohort.record.manifest import sha256_of
from cohort.rewards import RewardFailure
from cohort.train.contamination import FILE as CONTAMINATION
from cohort.train.models import starts_from, waits_for
from cohort.train.stage import PreparedStage
from cohort.types import UserError
from cohort.views.console import Console, escape
from cohort.views.gate import show_gate

FILE = "gate.json"
MEND = 'Mend the reward, or leave it out; run.gate = "warn" goes on all the same.'
HOW_TO_GO_ON = (
    'Mend the reward, check task.answer, or name another verifier with evaluate.reward; run.gate = "warn" trains all '
    "the same."
)


def pass_gate(directory: Path, recipe: Recipe, stages: Sequence[PreparedStage], console: Console, start: Start) -> None:
    """Put the rewards of every stage to the test before the first step of a run, but those whose models have yet to be
    trained, and write what was found to `gate.json`. Raises UserError when gold answers do not pay, unless `run.gate`
    says otherwise.
    """
    record: dict[str, Any] = {}
    all_parts = ((index, one, one.prepared.parts) for index, one in enumerate(stages))
    with_rewards = [(index, one, parts) for index, one, parts in all_parts if parts is not None and parts.rewards]
    for index, one, parts in with_rewards:
        stage = one.stage
        if stage.run.gate == "off":
            record[stage.name] = {"verdict": "off"}
            continue
        before = f"{stage.name}: " if len(with_rewards) > 1 else ""
        try:
            tokenizer = load_tokenizer(starts_from(recipe, index), start)
            report = gate_of_stage(stage, parts.without(waits_for(stage)), one.seed, None, tokenizer, console.warn)
        except RewardFailure as failure:
            record[stage.name] = {"verdict": "refused", "problems": [str(failure)]}
            problem: str | None = str(failure)
            advice = MEND
        else:
            advice = HOW_TO_GO_ON
            record[stage.name] = report.to_dict()
            problem = report.problems[0] if report.problems else None
            if report.problems and report.rewards:
                show_gate(console, report, verdict=False)
            elif not report.problems:
                for line in (report.sentence(), *report.paid_beside()):
                    console.say(f"[dim]gate[/]  {escape(before + line)}")
                for note in report.notes if report.tested else ():
                    console.warn(before + note)
        write_bytes(directory / FILE, orjson.dumps(record, option=orjson.OPT_INDENT_2))
        if problem is not None and stage.run.gate == "enforce":
            raise UserError(f"{before}{problem} {advice}")
        if problem is not None:
            console.warn(f'{before}{problem} (run.gate = "warn": training all the same)')
    write_bytes(directory / FILE, orjson.dumps(record, option=orjson.OPT_INDENT_2))


def refuse_damaged_findings(directory: Path) -> None:
    """Raise `UserError` where what was found before the run began is there, and is not what the first entry of the
    chain says of it.
    """
    first = next(read_lines(directory / CHAIN), None)
    said = {} if first is None else parsed(first)["recipe"].get("files", {})
    for name, what in {FILE: "what the gate found", CONTAMINATION: "which held-out questions are trained on"}.items():
        if name in said and (directory / name).exists() and sha256_of(directory / name) != said[name]:
            raise UserError(f"{directory / name} is damaged; restore or delete it: the record will then not say {what}")
