"""What a stage did, in sentences that a newcomer reads: which model, which data, by which method."""

from __future__ import annotations

from collections.abc import Callable

from cohort.algorithms.fields import GROUP_BASELINES
from cohort.algorithms.presets import PRESETS
from cohort.settings import GROUPS, Stage, named_stage, policy_of
from cohort.views.cards.reading import amount
from cohort.views.dashboard.runs import RunFiles, StageFiles


def what_was_trained(run: RunFiles, stage: StageFiles) -> list[str]:
    """The model, the task, the reward and the method."""
    table = stage.table
    if table is None:
        return ["Its recipe cannot be read by this version; its numbers and rollouts can."]
    method = _METHODS.get(stage.kind, _group if stage.kind in GROUPS else _own)
    return [_model(run, stage, table), method(table)]


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


def _group(table: Stage) -> str:
    """GRPO and its family."""
    if table.kind == "distill":
        several = len(table.distillation.teacher) > 1
        whose = "teachers" if several else "a teacher"
        return f"{_asked(table)}; every token of its answers was moved towards what {whose} would have said there."
    if table.kind == "self_distill":
        return (
            f"{_asked(table)}; every token of its answers was moved towards what it says itself when it is shown more "
            "than the question."
        )
    return (
        f"{_asked(table)}; an answer's reward was {_paid(table)}, and it was pushed towards the answers that were paid "
        f"more than {_baseline(table)}."
    )


def _baseline(table: Stage) -> str:
    preset = PRESETS.get(table.objective.preset)
    baseline = table.objective.fields().get("baseline") or (preset.fields.get("baseline") if preset else None)
    return "their group's mean" if baseline is None or baseline in GROUP_BASELINES else "expected"


def _supervised(table: Stage) -> str:
    return (
        f"It was shown answers to {_source(table)}, {table.supervised.examples_per_step} in each step, and learnt to "
        "write them word by word (supervised fine-tuning)."
    )


def _pairs(table: Stage) -> str:
    return (
        f"It saw pairs of answers to {_source(table)}, {table.preferences.pairs_per_step} in each step, one of which "
        "is the better, and learnt "
    )


def _ranking(table: Stage) -> str:
    return f"{_pairs(table)}to give that one the higher score (a reward model)."


def _preferring(table: Stage) -> str:
    return f"{_pairs(table)}to find that one likelier, without going far from where it began (DPO)."


def _steps(table: Stage) -> str:
    return f"It saw solutions of {_source(table)} whose steps are marked right or wrong, and learnt to score steps."


def _keeping(table: Stage) -> str:
    of = table.reject
    kept = f"{of.per_prompt} answer{'s' * (of.per_prompt != 1)} to a prompt"
    return f"{_asked(table)}; nothing was trained: of the right answers at most {kept} were kept for a later stage."


def _learning_right(table: Stage) -> str:
    return f"{_asked(table)}; it learnt to write those of its answers again that were right (rejection fine-tuning)."


def _measured(table: Stage) -> str:
    return f"Nothing was trained: it answered held-out problems of {_source(table)}."


def _own(table: Stage) -> str:
    return f"Stage {table.name} is of kind {table.kind}, on {_source(table)}."


_METHODS: dict[str, Callable[[Stage], str]] = {
    "sft": _supervised,
    "reward_model": _ranking,
    "process_model": _steps,
    "dpo": _preferring,
    "reject": _keeping,
    "rft": _learning_right,
    "evaluate": _measured,
}
