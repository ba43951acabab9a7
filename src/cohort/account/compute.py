"""What a run has cost: floating-point operations, energy, and what seconds and tokens were spent on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open

from cohort.account.sources import RunFiles, StageFiles
from cohort.account.tally import OUTCOMES
from cohort.record.claims import Basis, Claim, gap
from cohort.settings import GROUPS, SAMPLED, named_stage

# Kaplan et al. 2020 (2001.08361), section 2.1: a forward pass takes about 2 N operations a token, a backward pass twice
# that. Without attention over long contexts, which adds 2 x layers x context x width a token.
METHOD = (
    "2 N a token of a forward pass, 4 N of a backward one (2001.08361, section 2.1), N all parameters; where only "
    "some are trained, the backward pass takes 2 N + 2 N of these; attention over the context is not counted"
)
MODELS = ("reward_model", "process_model")  # rewards that are models of which the weights are here


_ENERGY: tuple[tuple[str, Basis, str], ...] = (
    ("energy/step_j", "measured", "RAPL: processor packages, without memory, GPUs and losses"),
    (
        "energy/estimated_j",
        "derived",
        "estimated by codecarbon: GPUs as they say themselves, processor and memory by what their kind draws",
    ),
)


def flops(files: StageFiles) -> Claim:
    """Operations of sampling, of scoring by the policies (old and reference log-probs), by reward models and by
    teachers, of learning, and of what evaluations sample.
    """
    parameters, trained = files.size.get("parameters"), files.size.get("trained")
    learnt = files.total("tokens/trained")
    if not parameters or trained is None:
        return gap("derived", "the run did not write down the size of its policy")
    if learnt is None:
        return gap("derived", "no step is done")
    stage, tally = files.stage, files.tally
    found = {"sampling": 0.0, "scoring": 0.0}
    why = METHOD
    passes = stage.optimizer.epochs
    if stage.kind in SAMPLED:
        prompts = tally.prompt_tokens if tally else 0
        learnt_prompts = tally.learnt_prompt_tokens if tally else 0
        if tally is None:
            why += "; prompts are not counted, as no rollouts were kept"
        found["sampling"] = 2.0 * parameters * (prompts + (files.total("tokens/sampled") or 0))
        learns = stage.kind in GROUPS
        reference = learns and files.objective.needs_reference
        once = learnt / passes + learnt_prompts
        old = stage.optimizer.updates_per_batch * passes > 1 and not stage.objective.bypasses
        found["scoring"] = 2.0 * parameters * once * ((old and learns) + reference)
        learnt += learnt_prompts * passes
        read = 0 if tally is None else tally.read_tokens
        for name, model in reward_models(files):
            size = weights_in(model)
            why += "" if size else f"; the size of reward model {name} is not known here, so it is not counted"
            found["scoring"] += 2.0 * (size or 0) * read
        for name, size, heard in teachers(files):
            why += "" if size and heard is not None else f"; what {name} computes is not known here and not counted"
            found["scoring"] += 2.0 * (size or 0) * (heard or 0)
        asked = [one.name for one in stage.reward if one.use == "judge"]
        why += f"; the judge of {' and '.join(asked)} runs elsewhere and is not counted" if asked else ""
    else:
        why += "; prompts are not counted"
        if stage.kind == "dpo":  # log-probs of policy and reference, for the loss of whole answers
            found["scoring"] = 4.0 * parameters * learnt
    if answers := files.answers:
        found["evaluations"] = 2.0 * parameters * (answers.prompt_tokens + sum(answers.tokens.values()))
    found["learning"] = (4.0 * parameters + 2.0 * trained) * learnt
    found["total"] = sum(found.values())
    return files.run.claim("derived", found, files.path("metrics.jsonl"), "environment.json", reason=why)


def reward_models(files: StageFiles) -> Iterator[tuple[str, Path]]:
    """Names of the stage's rewards that are models, and where their weights are, or would be if they were here."""
    for table in files.stage.reward:
        if table.use in MODELS and isinstance(model := table.args.get("model"), str):
            yield table.name, _place(files, model)


def teachers(files: StageFiles) -> Iterator[tuple[str, int | None, float | None]]:
    """By teacher of a stage: who it is in words, how many parameters it has, and how many tokens it has read; None
    where that is not known here.
    """
    if files.stage.kind == "self_distill":
        yield "the policy as its teacher", files.size.get("parameters"), files.total("teacher/tokens")
    elif files.stage.kind == "distill":
        several = len(files.stage.distillation.teacher) > 1
        for name, table in files.stage.distillation.teacher.items():
            size = None if table.url is not None else weights_in(_place(files, table.model))
            yield f"the teacher {name}", size, files.total(f"teacher/{name}/tokens" if several else "teacher/tokens")


def _place(files: StageFiles, model: str) -> Path:
    """Where the weights of a model are that a recipe names, or would be if they were here."""
    stages = {one.stage.name: one.place for one in files.run.stages}
    place = stages.get(named_stage(model) or "", Path(model).expanduser())
    return place / "final" if (place / "final").is_dir() else place


def weights_in(directory: Path) -> int | None:
    """How many numbers the safetensors files of a checkpoint hold, by their headers; None where there are none."""
    total = 0
    for file in directory.glob("model*.safetensors"):
        with safe_open(file, framework="numpy") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total or None


def total_flops(run: RunFiles) -> Claim:
    """Operations of all stages."""
    of = {files.stage.name: flops(files) for files in run.stages}
    unknown = [name for name, claim in of.items() if claim.value is None]
    if len(unknown) == len(of):
        return next(iter(of.values()))
    total = sum(claim.value["total"] for claim in of.values() if claim.value)
    why = f"without {', '.join(unknown)}: not known" if unknown else METHOD
    return run.claim("derived", total, "environment.json", reason=why)


def share_of_base(run: RunFiles) -> Claim:
    """The run's operations as a share of those that the base model was trained with: above a third, a modifier is
    held for a provider by the EU's guidelines for general-purpose models.
    """
    base, own = run.declared.base_training_flops, total_flops(run)
    if base is None:
        return gap("derived", "[record] base_training_flops is not given")
    if own.value is None:
        return gap("derived", own.reason or "")
    return run.claim("derived", {"share": own.value / base, "base_flops": base}, "recipe.toml")


def energy(files: StageFiles) -> Claim:
    """Energy of the steps: measured where the machine says it, else estimated, which is derived."""
    for name, basis, why in _ENERGY:
        if (joules := files.total(name)) is not None:
            left = sum(name not in line for line in files.steps)
            why += f"; {left} of {len(files.steps)} steps are not in it" if left else ""
            return files.claim(basis, {"joules": joules, "kwh": joules / 3.6e6}, "metrics.jsonl", reason=why)
    return gap(
        "measured",
        "the processor's energy counter (RAPL) cannot be read on this machine; with pip install 'cohort[energy]' it is "
        "estimated",
    )


def spent(files: StageFiles) -> Claim:
    """Tokens and seconds by what became of the work. Sampling is shared out by tokens, scoring by rollouts; learning
    goes to what was trained on, as rollouts without signal are not computed.
    """
    tally = files.tally
    if tally is None or not sum(tally.tokens.values()):
        return gap("derived", "no rollouts were kept (run.save_rollouts)" if files.steps else "no step is done")
    tokens, rollouts = sum(tally.tokens.values()), max(sum(tally.rollouts.values()), 1)
    sample, score, learn = (files.total(f"time/{part}_s") or 0.0 for part in ("sample", "score", "learn"))
    seconds = {
        name: sample * tally.tokens[name] / tokens + score * tally.rollouts[name] / rollouts for name in OUTCOMES
    }
    seconds["trained"] += learn
    found = {"tokens": {name: tally.tokens[name] for name in OUTCOMES}, "seconds": seconds}
    return files.claim("derived", found, "metrics.jsonl", reason="seconds of sampling are shared out by tokens")
