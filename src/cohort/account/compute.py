"""What a run has cost: floating-point operations, energy, and what seconds and tokens were spent on."""

from __future__ import annotations

from cohort.account.sources import RunFiles, StageFiles
from cohort.account.tally import OUTCOMES
from cohort.record.claims import Claim, gap

# Kaplan et al. 2020 (2001.08361), section 2.1: a forward pass takes about 2 N operations a token, a backward pass twice
# that. Without attention over long contexts, which adds 2 x layers x context x width a token.
METHOD = (
    "2 N a token of a forward pass, 4 N of a backward one (2001.08361, section 2.1), N all parameters; where only "
    "some are trained, the backward pass takes 2 N + 2 N of these; attention over the context, evaluations, and "
    "reward models are not counted"
)


def flops(files: StageFiles) -> Claim:
    """Operations of sampling, of scoring by the policies (old and reference log-probs), and of learning."""
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
    if stage.kind == "grpo":
        prompts = tally.prompt_tokens if tally else 0
        learnt_prompts = tally.learnt_prompt_tokens if tally else 0
        if tally is None:
            why += "; prompts are not counted, as no rollouts were kept"
        found["sampling"] = 2.0 * parameters * (prompts + (files.total("tokens/sampled") or 0))
        o = files.objective
        once = learnt / passes + learnt_prompts
        old = stage.optimizer.updates_per_batch * passes > 1 and not stage.objective.bypasses
        found["scoring"] = 2.0 * parameters * once * (old + bool(o.needs_reference))
        learnt += learnt_prompts * passes
    else:
        why += "; prompts are not counted"
    found["learning"] = (4.0 * parameters + 2.0 * trained) * learnt
    found["total"] = sum(found.values())
    return files.run.claim("derived", found, files.path("metrics.jsonl"), "environment.json", reason=why)


def total_flops(run: RunFiles) -> Claim:
    """Operations of all stages."""
    of = {files.stage.name: flops(files) for files in run.stages}
    unknown = [name for name, claim in of.items() if claim.value is None]
    if len(unknown) == len(of):
        return next(iter(of.values()))
    total = sum(claim.value["total"] for claim in of.values() if claim.value)
    return run.claim(
        "derived", total, "environment.json", reason=f"without {', '.join(unknown)}: not known" if unknown else METHOD
    )


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
    """Energy of the steps, where the machine says it."""
    joules = files.total("energy/step_j")
    if joules is None:
        return gap("measured", "the processor's energy counter (RAPL) cannot be read on this machine")
    lines = sum("energy/step_j" in line for line in files.steps)
    why = "RAPL: processor packages, without memory, GPUs and losses"
    why += f"; {len(files.steps) - lines} steps were not measured" if lines < len(files.steps) else ""
    return files.claim("measured", {"joules": joules, "kwh": joules / 3.6e6}, "metrics.jsonl", reason=why)


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
