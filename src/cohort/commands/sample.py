"""`cohort sample`: a group of completions of one prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from cohort.commands.door import argument
from cohort.commands.place import full_path, where_trained
from cohort.engine.engine import Engine
from cohort.machine import quiet_libraries
from cohort.policy.load import load_policy, locate
from cohort.policy.text import to_rollout
from cohort.record.manifest import refuse_damaged
from cohort.rewards import RewardTable, ScoringItem, resolve, score_group
from cohort.tasks import Renderer
from cohort.types import Finish, Prompt, SampleRequest, Sampling, UserError
from cohort.views.console import Console, visible


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion, with its score where the gold answer is known."""

    text: str
    tokens: int
    finish: Finish
    score: float | None


@dataclass(frozen=True, slots=True)
class Sampled:
    """A group of completions."""

    prompt: str
    completions: tuple[Sample, ...]
    mean_score: float | None


def sample_group(
    model: str, question: str, count: int, sampling: Sampling, template: str, answer: str | None, reward: str, seed: int
) -> Sampled:
    """`count` completions, no longer than the model's context leaves room for."""
    if not question.strip():
        raise UserError("the prompt is empty; write a question")
    quiet_libraries()
    scorer = resolve(RewardTable(use=reward)) if answer is not None else None
    model = full_path(model)
    with where_trained(model), argument():  # from where an adapter finds its base
        refuse_damaged(Path(locate(model)))
        policy = load_policy(model, trainable=False)
    prompt = Renderer(policy.tokenizer, template).render(Prompt.make(text=question, answer=answer))
    room = max((policy.max_context or 2**31) - len(prompt.tokens), 1)
    sampling = Sampling(min(sampling.max_tokens, room), sampling.temperature)
    _, completions = next(Engine(policy).sample([SampleRequest(0, prompt.tokens, count, seed, sampling)]))
    rollouts = [to_rollout(completion, policy.tokenizer) for completion in completions]
    scores: tuple[float, ...] = ()
    if scorer is not None:
        scores = score_group([scorer], ScoringItem.of(prompt, rollouts, seed)).rewards
    samples = [
        Sample(rollout.text.strip(), len(rollout.tokens), rollout.finish, scores[i] if scores else None)
        for i, rollout in enumerate(rollouts)
    ]
    return Sampled(question, tuple(samples), sum(scores) / len(scores) if scores else None)


def show(console: Console, found: Sampled) -> None:
    """Each completion with its score, its length, and how it ended."""
    for number, one in enumerate(found.completions, start=1):
        score = "" if one.score is None else f"score {one.score:g}  "
        console.say(f"[dim]{number}  {score}{one.tokens} tokens, {'ended' if one.finish == 'stop' else 'cut off'}[/]")
        console.say(escape(visible(one.text)) + "\n", fold=False)
    if found.mean_score is not None:
        console.say(f"mean score {found.mean_score:.3f}")
