"""`kind = "distill"` and `kind = "self_distill"`: GRPO's training with another signal."""

from __future__ import annotations

from cohort.backends.teachers import check_teachers
from cohort.policy.load import Start, load_tokenizer
from cohort.policy.policy import PolicyFacts
from cohort.settings import Stage
from cohort.tasks.prompts import CHECKED
from cohort.train.checkpoint import Checkpoint
from cohort.train.distill.lesson import route
from cohort.train.grpo import Grpo
from cohort.train.grpo.training import GrpoTraining, PreparedGrpo
from cohort.train.stage import Context, Plan
from cohort.types import UserError
from cohort.views.plan import teacher_line
from cohort.wording import did_you_mean


class Distill:
    """`kind = "distill"`, a `StageKind`: the student samples, and teachers say how likely they find it."""

    tables = (*(name for name in Grpo.tables if name != "cluster"), "distillation")
    unread = Grpo.unread
    columns = ("teacher/kl", "teacher/agreement", *(name for name in Grpo.columns if name != "groups/signal"))
    makes_policy = True

    def prepare(self, stage: Stage, seed: int) -> PreparedGrpo:
        """GRPO's; and the tokenizers of teachers and the teachers of prompts, as far as they can be known."""
        prepared = Grpo().prepare(stage, seed)
        begins = stage.policy.model not in (None, "live") or stage.policy.scratch is not None
        check_teachers(stage, load_tokenizer(stage.policy, Start()) if begins else None)
        prompts = prepared.parts.task.train
        for index in range(min(prompts.size or CHECKED, CHECKED) if stage.distillation.column is not None else 0):
            route(stage.distillation, prompts[index])
        return prepared

    def plan(self, stage: Stage, prepared: PreparedGrpo, facts: PolicyFacts) -> Plan:
        """GRPO's, and who teaches."""
        return {**teacher_line(stage), **Grpo().plan(stage, prepared, facts)}

    def open(self, context: Context, prepared: PreparedGrpo, checkpoint: Checkpoint | None) -> GrpoTraining:
        """The training, when the tokenizers of teachers that earlier stages have trained are known to fit."""
        if prepared.stored is None:
            check_teachers(context.stage, load_tokenizer(context.stage.policy, context.start))
        return GrpoTraining(context, prepared, checkpoint)


class SelfDistill:
    """`kind = "self_distill"`, a `StageKind`: the policy, shown a solution or feedback, teaches itself."""

    tables = (*Distill.tables[:-1], "self_distillation")
    unread = Grpo.unread
    columns = Distill.columns
    makes_policy = True
    open = GrpoTraining

    def prepare(self, stage: Stage, seed: int) -> PreparedGrpo:
        """GRPO's; the column that is shown must be there."""
        prepared, table = Grpo().prepare(stage, seed), stage.self_distillation
        columns = prepared.parts.task.columns
        if table.context == "column" and table.column not in (*columns, stage.task.answer, "answer"):
            raise UserError(
                f"self_distillation.column names the column '{table.column}'{did_you_mean(table.column, columns)}, "
                f"which the task does not have; it has {', '.join(columns)}"
            )
        return prepared

    def plan(self, stage: Stage, prepared: PreparedGrpo, facts: PolicyFacts) -> Plan:
        """GRPO's, and who teaches."""
        return Distill().plan(stage, prepared, facts)
