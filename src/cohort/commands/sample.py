"""`cohort sample`: a group of completions of one prompt, of a run as the run made them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cohort import environments
from cohort.account.traces import as_shown
from cohort.commands.model import load_model, play_group
from cohort.commands.place import full_path
from cohort.machine import quiet_libraries
from cohort.recipe import Recipe
from cohort.rewards import Reward, RewardTable, ScoredGroup, ScoringItem, resolve, score_group
from cohort.rewards.verifiers.trace import OPEN
from cohort.settings import Stage
from cohort.tasks import Renderer
from cohort.train.place import where_trained
from cohort.types import Finish, InfrastructureError, Message, Prompt, Sampling, UserError
from cohort.views.console import Console, escape
from cohort.wording import counted

PLAIN = {"name": "sample", "reward": "exact_number", "task": {"source": "none"}, "rollout": {"max_tokens": 256}}


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion, or one conversation, with its scores where the gold answer is known."""

    text: str
    tokens: int
    finish: Finish
    score: float | None
    scores: dict[str, float]
    transcript: tuple[Message, ...]  # empty where there was one turn


@dataclass(frozen=True, slots=True)
class Sampled:
    """A group of completions. `settings` says what a run's own recipe decided; `unscored` why a reward of it did not
    score; `traces` how its reasoning is shown.
    """

    prompt: str
    settings: str
    completions: tuple[Sample, ...]
    mean_score: float | None
    unscored: tuple[str, ...]
    traces: str = "exposed"


def sample_group(
    model: str, question: str, count: int, answer: str | None, seed: int, reward: str | None, **given: Any
) -> Sampled:
    """`count` completions, no longer than the model's context leaves room for. Of a run, with its system prompt,
    template, sampling, tools and rewards; `given` are `template`, `system`, `max_tokens` and `temperature`, None where
    nothing else was wanted.
    """
    if not question.strip():
        raise UserError("the prompt is empty; write a question")
    quiet_libraries()
    model = full_path(model)
    with where_trained(model):  # from where an adapter finds its base, and a run its rewards
        return _sampled(model, question, count, answer, seed, reward, given)


def _sampled(
    model: str, question: str, count: int, answer: str | None, seed: int, reward: str | None, given: dict[str, Any]
) -> Sampled:
    run = Path(model, "recipe.toml")
    stage = stage_of(model, run, given)
    said = {key: value for key, value in given.items() if value is not None}
    sampling = replace(
        stage.rollout.sampling(), **{key: said[key] for key in ("max_tokens", "temperature") if key in said}
    )
    rewards, unscored = _rewards(stage, answer, reward)
    world = environments.open(stage)
    with closing(world):
        policy = load_model(model, compute=stage.policy.compute, device=stage.policy.device)
        renderer = Renderer.of(stage.task, policy.tokenizer, world.schemas)
        prompt = renderer.render(Prompt.make(text=question, answer=answer))
        try:
            sampling, played = play_group(policy, stage, world, prompt, count, seed, sampling)
        except InfrastructureError as error:
            raise UserError(f"the completions could not be played: {error}") from None
    scored = score_group(rewards, ScoringItem.of(prompt, played, seed)) if rewards else None
    return Sampled(
        question,
        _said(stage, renderer.template, sampling) if run.is_file() else "",
        tuple(_sample(rollout, scored, index, stage, prompt.begun) for index, rollout in enumerate(played)),
        sum(scored.rewards) / len(played) if scored is not None else None,
        tuple(unscored),
        stage.record.traces or "exposed",
    )


def show(console: Console, found: Sampled) -> None:
    """Each completion with its scores, its length, and how it ended; a conversation turn by turn."""
    if found.settings:
        console.say(f"[dim]as the run samples: {escape(found.settings)}[/]\n", fold=False)
    if found.traces != "exposed":
        console.warn(f"reasoning is {found.traces}, as [record] traces of the run says")
    for number, one in enumerate(found.completions, start=1):
        several = ", ".join(f"{name} {value:g}" for name, value in one.scores.items()) if len(one.scores) > 1 else ""
        score = "" if one.score is None else f"score {one.score:g}{f' ({several})' if several else ''}  "
        ended = {"stop": "ended", "length": "cut off", "tool": "wanted another turn", "error": "gave up"}[one.finish]
        console.say(f"[dim]{number}  {escape(score)}{counted(one.tokens, 'token')}, {ended}[/]")
        for message in one.transcript:
            console.say(f"[dim]{escape(str(message['role']))}[/] {escape(str(message['content']))}", fold=False)
        console.say(escape(one.text) + "\n" if not one.transcript else "", fold=False)
    if found.mean_score is not None:
        console.say(f"mean score {found.mean_score:.3f}")
    for why in found.unscored:
        console.warn(why)


def stage_of(model: str, run: Path, given: dict[str, Any]) -> Stage:
    """The last stage of a run, or a plain one, with the template and the system prompt that were given."""
    recipe = Recipe.load(run) if run.is_file() else Recipe.from_tables({**PLAIN, "policy": {"model": model}})
    stage = recipe.stages[-1]
    said = {key: value for key, value in given.items() if value is not None and key in type(stage.task).model_fields}
    return stage.with_(task=said)


def _rewards(stage: Stage, answer: str | None, reward: str | None) -> tuple[list[Reward], list[str]]:
    """The rewards that can score a question with a gold answer and nothing else, and why others cannot."""
    found: list[Reward] = []
    unscored: list[str] = []
    if answer is None:
        return found, unscored
    for table in stage.reward if reward is None else (RewardTable(use=reward),):
        try:
            found.append(resolve(table, columns=[] if reward is None else None))
        except UserError as error:
            if reward is not None:
                raise
            unscored.append(f"{table.name} does not score here: {error}")
    names = {one.name for one in found}
    gated = [one for one in found if one.gate is not None and one.gate.reward not in names]
    unscored += [f"{one.name} does not score here: its gate does not" for one in gated]
    return [one for one in found if one not in gated], unscored


def _said(stage: Stage, template: str, sampling: Sampling) -> str:
    """How the completions of a run are sampled, in a line."""
    task = stage.task
    parts = [
        f"template {template}",
        f"temperature {sampling.temperature:g}",
        f"at most {counted(sampling.max_tokens, 'token')}",
    ]
    parts += [f"system {task.system!r:.60}"] if task.system else []
    tools = [use if isinstance(use, str) else use.__name__ for use in stage.environment.tools]
    parts += [f"tools {', '.join(tools)}"] if tools else []
    parts += [f"environment {stage.environment.use}"] if stage.environment.use is not None else []
    return ", ".join(parts)


def _sample(rollout: Any, scored: ScoredGroup | None, index: int, stage: Stage, begun: str) -> Sample:
    shown = partial(as_shown, traces=stage.record.traces, begun=OPEN in begun)
    return Sample(
        shown(rollout.text.strip()),
        sum(rollout.mask),
        rollout.finish,
        scored.rewards[index] if scored is not None else None,
        {name: values[index] for name, values in scored.scores.items()} if scored is not None else {},
        tuple(_message(message, shown) for message in rollout.transcript) if rollout.turns else (),
    )


def _message(message: Message, shown: Callable[[str], str]) -> Message:
    """A message of a conversation as it may be shown: what the policy did not write is no trace of its reasoning."""
    return {**message, "content": shown(str(message["content"]))} if message["role"] == "assistant" else message
