"""The gate of a stage: which prompts and rewards it looks at."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from cohort.policy.text import continued, reader
from cohort.preflight.gate.examine import Asked, examine, taste
from cohort.preflight.gate.findings import NO_GOLD, GateReport
from cohort.preflight.gate.probes import stated_gold
from cohort.preflight.parts import SamplingParts
from cohort.rewards import Reward
from cohort.rewards.calling.parameters import returns_nothing
from cohort.rewards.calling.reward import applies
from cohort.rewards.marks import is_costly
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks import Prompts
from cohort.types import Prompt, UserError

LOOKED_AT = 200  # prompts among which those for each verifier are looked for
IN_A_RUN = 8  # prompts for each verifier before a run
COSTLY = 3  # prompts for each verifier where a reward is costly
LIMIT_S = 20.0  # what the gate before a run may take, as far as it can be cut short


def gate_of_stage(
    stage: Stage,
    parts: SamplingParts,
    seed: int,
    prompts: int | None = None,
    tokenizer: Any = None,
    say: Callable[[str], None] | None = None,
) -> GateReport:
    """Examine the rewards of a stage on `prompts` prompts for each verifier, fewer where a reward is costly. They see
    texts as the policy would write them, through `tokenizer`; None: any text is written as it is. `say` is told when a
    reward takes its time.

    Without `prompts` it is the short gate before a run: few prompts, and costly rewards only `taste` a few texts,
    unless the recipe names one as its verifier; where there is no gold answer, no other is asked. Raises RewardFailure
    when a reward breaks.
    """
    short = prompts is None
    silent = [reward.name for reward in parts.rewards if reward.weight and returns_nothing(reward.function)]
    if silent:
        why = (
            f"reward '{silent[0]}' never returns a score, only None, which says that it does not apply, so it pays for "
            "nothing; does it lack a return? With weight 0 it is called all the same"
        )
        return GateReport(prompts=0, seconds=0.0, rewards=(), total={}, problems=(why,), notes=())
    beside: tuple[str, ...] = ()
    if short:
        known = [verifier for verifier in parts.verifiers if _looks_at_gold(stage, verifier)]
        tested = {verifier.name for verifier in known if _is_named(stage) or not is_costly(verifier.function)}
        everybody, _ = _rewards(parts)
        dear = {one.name for one in everybody if is_costly(one.function)} - tested
        alone = parts.without({one.name for one in everybody} - dear)
        said, problems = _tasted(stage, alone, seed, say) if dear else ("", ())
        if problems or not tested:
            if not (said or problems):
                said = f"{parts.verifier_name or 'no verifier'} does not look at the gold answer"
            report = _untested(said, _unasked(parts, {*dear, *(one.name for one in parts.verifiers)}))
            return replace(report, prompts=min(len(dear), 1), problems=problems)
        parts, beside = parts.without(dear), (said,) * bool(said)
    rewards, verifiers = _rewards(parts)
    costly = any(is_costly(reward.function) for reward in rewards)
    count = COSTLY if costly else IN_A_RUN if prompts is None else prompts
    asked = [
        _asked(stage, parts.verifiers, prompt, derive_seed(seed, "gate", index))
        for index, prompt in enumerate(_prompts(parts.task.train, parts.verifiers, count))
    ]
    if short and not any(one.gold for one in asked):
        return _untested(NO_GOLD, (*beside, *_unasked(parts, {one.name for one in parts.verifiers})))
    if tokenizer is not None:  # behind the rendered prompt, which may have begun the completion, and by way of tokens
        renderer, read = parts.task.renderer(tokenizer), reader(tokenizer)
        asked = [replace(one, prompt=renderer.render(one.prompt)) for one in asked]
        asked = [replace(one, write=functools.partial(_written, tokenizer, read, one.prompt.begun)) for one in asked]
    untested = [reward.name for reward in verifiers if not _looks_at_gold(stage, reward)]
    names = [reward.name for reward in verifiers]
    limit_s, run = LIMIT_S if short else math.inf, stage.run
    report = examine(rewards, names, asked, untested, run.workers, limit_s, run.pass_environment, say)
    return replace(report, beside=beside)


def _tasted(
    stage: Stage, parts: SamplingParts, seed: int, say: Callable[[str], None] | None
) -> tuple[str, tuple[str, ...]]:
    """What costly rewards, which are all that `parts` have, make of a few texts for one prompt; what is wrong there."""
    rewards, _ = _rewards(parts)
    one = _asked(stage, parts.verifiers or rewards, parts.task.train[0], derive_seed(seed, "gate", 0))
    return taste(rewards, one, stage.run.pass_environment, say)


def _untested(why: str, beside: tuple[str, ...]) -> GateReport:
    return GateReport(
        prompts=0, seconds=0.0, rewards=(), total={}, problems=(), notes=(why,) * bool(why), beside=beside
    )


def _unasked(parts: SamplingParts, said: Collection[str]) -> tuple[str, ...]:
    """A line for each reward that is paid and of which nothing else was `said`."""
    names = [reward.name for reward in parts.rewards if reward.weight and reward.name not in said]
    return tuple(f"{name} is paid, and was not asked" for name in names)


def _rewards(parts: SamplingParts) -> tuple[list[Reward], list[Reward]]:
    """All rewards to score, and the verifiers among them. A verifier that is not rewarded adds nothing to the total."""
    rewards = {reward.name: reward for reward in parts.rewards}
    verifiers = []
    for verifier in parts.verifiers:
        rewarded = rewards.get(verifier.name)
        if rewarded is not None and rewarded.function is verifier.function:
            verifiers.append(rewarded)
        else:
            name = verifier.name if rewarded is None else f"evaluate.{verifier.name}"
            verifiers.append(replace(verifier, name=name, weight=0.0))
    return [*rewards.values(), *(one for one in verifiers if one.name not in rewards)], verifiers


def _prompts(prompts: Prompts, verifiers: Sequence[Reward], count: int) -> list[Prompt]:
    """`count` prompts for each verifier, spread over the task."""
    looked_at = count if len(verifiers) == 1 and not verifiers[0].when else LOOKED_AT
    candidates = list(_spread(prompts, looked_at))
    chosen: set[int] = set()
    for number, verifier in enumerate(verifiers):
        before = verifiers[:number]
        own = [
            index
            for index, prompt in enumerate(candidates)
            if applies(verifier.when, prompt.tags) and not any(applies(other.when, prompt.tags) for other in before)
        ]
        wanted = min(count, len(own))
        chosen.update(own[index * len(own) // wanted] for index in range(wanted))
    return [candidates[index] for index in sorted(chosen)] or candidates[:count]


def _spread(prompts: Prompts, count: int) -> Iterator[Prompt]:
    """At most `count` prompts at even distances; the first ones of a source without an end."""
    size = prompts.size
    wanted = count if size is None else min(count, size)
    for index in range(wanted):
        yield prompts[index if size is None else index * size // wanted]


def _asked(stage: Stage, verifiers: Sequence[Reward], prompt: Prompt, seed: int) -> Asked:
    column = stage.evaluate.gold
    if column is None:
        deciding = next((verifier for verifier in verifiers if applies(verifier.when, prompt.tags)), verifiers[0])
        return Asked(prompt, stated_gold(deciding, prompt), seed=seed)
    text = prompt.answer if column == stage.task.answer else prompt.tags.get(column)
    if text is not None and not isinstance(text, str):
        raise UserError(
            f"evaluate.gold = '{column}' names a column of right completions, but one of them is of type "
            f"{type(text).__name__}: a completion is text"
        )
    return Asked(prompt, text or None, whole=True, seed=seed)


def _written(tokenizer: Any, read: Callable[[Sequence[int]], str], begun: str, text: str) -> str:
    return read(tokenizer.encode(continued(text, begun), add_special_tokens=False))


def _is_named(stage: Stage) -> bool:
    """Whether somebody has said who decides what is right, or which completions are."""
    return stage.evaluate.reward is not None or stage.evaluate.gold is not None


def _looks_at_gold(stage: Stage, verifier: Reward) -> bool:
    """Whether gold answers can be expected to pay. Who names a verifier says so, and a model that judges must know them
    when it sees them; the first reward of a recipe may also be one that knows no answers.
    """
    if _is_named(stage) or is_costly(verifier.function):
        return True
    named = {*verifier.parameters.required, *verifier.parameters.optional}
    columns = (table.answer for table in (stage.task, *stage.task.mixture.values()))
    return not named.isdisjoint({"answer", *columns})
