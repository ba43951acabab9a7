"""What a run reads beside its recipe: data, models, and code of the person's own; continued only with what it had."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cohort.recipe import Recipe
from cohort.record.code import code_of
from cohort.settings import Task
from cohort.tasks import Renderer
from cohort.types import Prompt, UserError
from cohort.views.console import Console
from cohort.wording import another, find

Facts = Mapping[str, Any]  # as environment.json has them
PROBE = "What is 17 + 25? Answer with <answer>42</answer>."
FAILED = "failed.txt"  # why the run stopped, where that can be mended; gone when it goes on


def restore(what: str = "it") -> str:
    """What to do where a run would not go on as it began."""
    return f"Restore {what}, or start another run with {another()}."


def probe_of(table: Task, tokenizer: Any) -> str:
    """The fingerprint of one prompt as a stage writes it: of its tokens, or of the refusal."""
    try:
        written = str(list(Renderer.of(table, tokenizer).render(Prompt.make(text=PROBE)).tokens))
    except UserError:
        written = "refused"
    return hashlib.blake2b(written.encode(), digest_size=16).hexdigest()


def code_of_stages(recipe: Recipe) -> dict[str, str]:
    """The fingerprints of what of the person's own the stages call, by what it is there."""
    return {f"{what} of stage {stage}": code_of(thing) for stage, what, thing in functions_of(recipe)}


def functions_of(recipe: Recipe) -> Iterator[tuple[str, str, Any]]:
    """What of the person's own the stages call: the stage, what it is there, and the function or class itself."""
    for stage in recipe.stages:
        uses: dict[str, Any] = {f"reward {reward.name}": reward.use for reward in stage.reward}
        uses |= {f"environment.tools {number}": use for number, use in enumerate(stage.environment.tools)}
        uses |= {"evaluate.reward": stage.evaluate.reward, "environment.use": stage.environment.use}
        uses |= {"environment.agent": stage.environment.agent}
        uses |= {"kind": stage.kind, "rollout.sampler": stage.rollout.sampler}
        for name, table in {"task": stage.task, **stage.task.mixture}.items():
            uses |= {f"{name}.source": table.source, f"{name}.held_out": table.held_out}
        for what, use in uses.items():
            named = isinstance(use, str) and re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", use)
            if named and not Path(str(use)).exists():
                with contextlib.suppress(UserError):  # no function, such as reasoning_gym:NAME
                    yield stage.name, what, find(str(use), what)
            elif callable(use):
                yield stage.name, what, use


def changed_code(directory: Path, before: Facts, now: Facts, code: Mapping[str, str], console: Console) -> bool:
    """Whether functions of the person's own are others than when the run began. Refused, but after a failure, which
    they may mend: that is said.
    """
    known = before.get("code", {})
    changed = [what for what, value in code.items() if known.get(what, value) != value]
    listed, python = ", ".join(changed), [facts["python"].rpartition(".")[0] for facts in (before, now)]
    if changed and python[0] != python[1]:
        console.warn(f"with another Python than when the run began nobody can say whether the code of {listed} changed")
    elif changed and (directory / FAILED).exists():
        console.warn(f"the code of {listed} has changed since the run failed: from here on the new one counts")
    elif changed:
        raise UserError(
            f"the code of {listed} has changed since this run began, so it cannot be continued exactly. {restore()}"
        )
    return bool(changed)


def inputs_of_stages(recipe: Recipe) -> list[str | None]:
    """What the stages read from this disk, if it is there."""
    sources: list[str | None] = []
    for stage in recipe.stages:
        for table in (stage.task, *stage.task.mixture.values()):
            sources += [table.source, table.held_out if isinstance(table.held_out, str) else None]
        sources += stage.preferences.history
    return [*sources, *models_of_stages(recipe)]


def models_of_stages(recipe: Recipe) -> list[str | None]:
    """The models that stages begin with, are scored by or learn from, but those of stages before them."""
    scored = [reward.args.get("model") for stage in recipe.stages for reward in stage.reward]
    taught = [one.model for stage in recipe.stages for one in stage.distillation.teacher.values() if one.url is None]
    begun = [stage.policy.scratch.tokenizer for stage in recipe.stages if stage.policy.scratch is not None]
    named = [one for one in (*scored, *taught, *begun) if isinstance(one, str)]
    return [stage.policy.model for stage in recipe.stages] + named


def refuse_changed_inputs(before: dict[str, str], now: dict[str, str], directory: Path) -> None:
    """Raise `UserError` where a file or a directory that the run read when it began is not what it was. A file that
    lies in the run's own `directory` may have been in another one then.
    """
    for path, value in before.items():
        own = str(directory / Path(path).name)
        if now.get(path, now.get(own)) != value:
            state = "has changed" if path in now or own in now else "is gone"
            raise UserError(f"{path} {state} since this run began, so it cannot be continued exactly. {restore()}")
