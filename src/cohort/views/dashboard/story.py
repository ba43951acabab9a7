"""What a stage did, in sentences that a newcomer reads: which model, which data, by which method."""

from __future__ import annotations

from cohort.algorithms.fields import GROUP_BASELINES
from cohort.algorithms.presets import PRESETS
from cohort.settings import Stage, named_stage, policy_of
from cohort.views.cards.reading import amount
from cohort.views.dashboard.runs import RunFiles, StageFiles
from cohort.wording import counted


def what_was_trained(run: RunFiles, stage: StageFiles) -> list[str]:
    """The model, the task, the reward and the method."""
    table = stage.table
    if table is None:
        return ["Its recipe cannot be read by this version; its numbers and rollouts can."]
    method = _METHODS.get(stage.kind, "Stage {table.name} is of kind {table.kind}, on {source}.").format(
        table=table,
        source=_source(table),
        asked=_asked(table),
        paid=_paid(table),
        baseline=_baseline(table),
        teacher="teachers" if len(table.distillation.teacher) > 1 else "a teacher",
        kept=counted(table.reject.per_prompt, "answer"),
    )
    return [_model(run, stage, table), method]


def _model(run: RunFiles, stage: StageFiles, table: Stage) -> str:
    size = run.inside("environment.json", "policies", stage.name)
    parameters = f" of {amount(size['parameters'])} parameters" if isinstance(size.get("parameters"), int) else ""
    model = str(size.get("name") or "A model").removesuffix("ForCausalLM").removesuffix("ForSequenceClassification")
    if table.policy.scratch is not None:
        return f"{model}{parameters}, made by the recipe."
    assert run.recipe is not None
    before = policy_of(run.recipe.stages, run.stages.index(stage))
    begun = table.policy.model
    start = f" that began as {begun}" if begun else ""
    start = start if before is None else f" as stage {run.stages[before].name} left it"
    return f"{model}{parameters}{start}."


def _source(table: Stage) -> str:
    source = table.task.source
    if not isinstance(source, str):
        return "rows given in Python"
    return f"what stage {name} has kept" if (name := named_stage(source)) else source


def _paid(table: Stage) -> str:
    paid = [one for one in table.reward if one.weight]
    if len(paid) == 1 and paid[0].weight == 1:
        return paid[0].name
    return " + ".join(f"{one.weight:g} x {one.name}" for one in paid) or "nothing"


def _asked(table: Stage) -> str:
    prompts, times = table.rollout.prompts_per_step, table.rollout.group_size
    of = f"{prompts} prompts of {_source(table)}"
    if table.rollout.groups in ("beam", "diverse_beam"):
        return f"In each step it found {times} likely answers to each of {of}, by beam search"
    return f"In each step it answered {of} {times} times each"


def _baseline(table: Stage) -> str:
    preset = PRESETS.get(table.objective.preset)
    baseline = table.objective.fields().get("baseline") or (preset.fields.get("baseline") if preset else None)
    return "their group's mean" if baseline is None or baseline in GROUP_BASELINES else "expected"


_PAIRS = (
    "It saw pairs of answers to {source}, {table.preferences.pairs_per_step} in each step, one of which is the better, "
    "and learnt "
)
_METHODS = {  # by kind; a kind of one's own is only named
    "grpo": "{asked}; an answer's reward was {paid}, and it was pushed towards the answers that were paid more than "
    "{baseline}.",
    "distill": "{asked}; every token of its answers was moved towards what {teacher} would have said there.",
    "self_distill": "{asked}; every token of its answers was moved towards what it says itself when it is shown more "
    "than the question.",
    "sft": "It was shown answers to {source}, {table.supervised.examples_per_step} in each step, and learnt to write "
    "them word by word (supervised fine-tuning).",
    "reward_model": f"{_PAIRS}to give that one the higher score (a reward model).",
    "process_model": "It saw solutions of {source} whose steps are marked right or wrong, and learnt to score steps.",
    "dpo": f"{_PAIRS}to find that one likelier, without going far from where it began (DPO).",
    "reject": "{asked}; nothing was trained: of the right answers at most {kept} to a prompt were kept for a later "
    "stage.",
    "rft": "{asked}; it learnt to write those of its answers again that were right (rejection fine-tuning).",
    "evaluate": "Nothing was trained: it answered held-out problems of {source}.",
}
