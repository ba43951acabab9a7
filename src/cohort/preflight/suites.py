"""The suites of a stage, opened and checked before a model loads."""

from __future__ import annotations

from dataclasses import dataclass

from cohort.preflight.parts import SamplingParts, open_parts
from cohort.settings import Prompts, Stage, Suite
from cohort.settings.suite import JUDGES
from cohort.types import UserError


@dataclass(frozen=True, slots=True)
class OpenSuite:
    """A suite, as a stage that has it as its held-out problems, and the parts of that."""

    table: Suite
    stage: Stage
    parts: SamplingParts


def open_suites(stage: Stage, seed: int) -> tuple[OpenSuite, ...]:
    """Every suite of a stage. Raises `UserError` for whatever is wrong with one, by its name."""
    found = []
    for table in stage.suite:
        try:
            of = as_stage(table, stage)
            parts = open_parts(of, seed)
            if not (parts.task.held_out is not None and parts.task.held_out.size != 0):
                raise UserError("it has no problems")
        except UserError as error:
            raise UserError(f"suite '{table.name}': {error}") from None
        found.append(OpenSuite(table, of, parts))
    return tuple(found)


def as_stage(table: Suite, stage: Stage) -> Stage:
    """The stage with the suite in place of its task, and only what judges it of its rewards."""
    task, evaluate = stage.task, stage.evaluate
    own = ("config", "levels", "args", "limit", "curriculum", "adaptive", "held_out", "held_out_split", "messages")
    plain = {key: Prompts.model_fields[key].get_default(call_default_factory=True) for key in own}
    where = {"held_out": table.source} if table.split is None else {"held_out_split": table.split}
    columns = {"source": table.source, "prompt": table.prompt, "answer": table.answer, "mixture": {}}
    template = {"template": table.template or task.template}
    use = table.use or JUDGES.get(table.kind)
    named = tuple(reward for reward in stage.reward if use in (None, reward.name))
    if not named and use is None and evaluate.reward is None:
        raise UserError('nothing says which answers are right: add use, such as use = "exact_number"')
    judged = {"reward": use or evaluate.reward, "gold": None, "cluster": None}
    limit = {"problems": evaluate.problems if table.problems is None else table.problems}
    return stage.with_(task=plain | where | columns | template, evaluate=judged | limit, reward=named)
