"""`cohort sample`: a group of completions of one prompt."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from cohort.engine.engine import Engine
from cohort.machine import quiet_libraries
from cohort.policy.load import load_policy
from cohort.policy.text import to_rollout
from cohort.rewards import RewardTable, ScoringItem, resolve, score_group
from cohort.tasks import Renderer
from cohort.types import Prompt, SampleRequest, Sampling, UserError
from cohort.views.console import visible

__all__ = ["sample_group"]


def sample_group(
    model: str,
    question: str,
    count: int,
    max_tokens: int,
    temperature: float,
    template: str,
    answer: str | None,
    reward: str,
    seed: int,
) -> None:
    """Print `count` completions with their length, how they ended, and their score when the gold answer is known."""
    if not question.strip():
        raise UserError("the prompt is empty; write a question")
    quiet_libraries()
    scorer = resolve(RewardTable(use=reward)) if answer is not None else None
    policy = load_policy(model, trainable=False)
    prompt = Renderer(policy.tokenizer, template).render(Prompt.make(text=question, answer=answer))
    room = max((policy.max_context or 2**31) - len(prompt.tokens), 1)
    request = SampleRequest(0, prompt.tokens, count, seed, Sampling(min(max_tokens, room), temperature))
    _, completions = next(Engine(policy).sample([request]))
    rollouts = [to_rollout(completion, policy.tokenizer) for completion in completions]
    console = Console(highlight=False, soft_wrap=True)
    scores: tuple[float, ...] = ()
    if scorer is not None:
        scores = score_group([scorer], ScoringItem.of(prompt, rollouts, seed)).rewards
    for i, rollout in enumerate(rollouts):
        score = f"score {scores[i]:g}  " if scores else ""
        head = f"{i + 1}  {score}{len(rollout.tokens)} tokens, {'ended' if rollout.finish == 'stop' else 'cut off'}"
        console.print(f"[dim]{head}[/]")
        console.print(escape(visible(rollout.text.strip())) + "\n")
    if scores:
        console.print(f"mean score {sum(scores) / len(scores):.3f}")
