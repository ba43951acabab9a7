"""Supervised stages, as the REINFORCE loss with advantage 1 on demonstrations: -1 x log-prob, averaged over tokens.

So the same learner, packing and checkpoints serve both kinds of stage.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort import environments
from cohort.algorithms import objectives
from cohort.backends.base import open_backend
from cohort.chat import continued
from cohort.environments import Dialogue, World
from cohort.learn.batch import collate
from cohort.learn.optimizer import rate_at
from cohort.machine import peak_memory_gb
from cohort.policy.policy import PolicyFacts
from cohort.preflight.contamination import Report
from cohort.preflight.parts import SamplingParts, open_parts
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks import Demonstrations, Ledger, Renderer, open_examples
from cohort.train.checkpoint import Checkpoint
from cohort.train.contamination import cleaned
from cohort.train.evaluation import Evaluator
from cohort.train.stage import Context, Plan, first_texts, refuse_few
from cohort.types import Batch, Group, Prompt, Rollout, UserError
from cohort.views.plan import sft_plan

SUPERVISED = objectives.preset(
    "reinforce", baseline="none", scale="none", aggregation="token_mean", zero_std="zero", kl_coef=0.0
)


@dataclass(frozen=True, slots=True)
class PreparedSft:
    """All of a supervised stage that needs no model. `parts` are there where a reward says what is right."""

    examples: Demonstrations
    world: World
    parts: SamplingParts | None
    dropped: Report | None = None  # what was found in the demonstrations that were left out

    def texts(self) -> Iterable[str]:
        """The first demonstrations."""
        return first_texts(self.examples, lambda example: f"{example.prompt.question} {example.completion}")


class _Training:
    """A `Training` on demonstrations."""

    def __init__(self, context: Context, prepared: PreparedSft, checkpoint: Checkpoint | None):
        stage, self._context, self._examples = context.stage, context, prepared.examples
        self._stage = stage
        self.weights_of = checkpoint.step if checkpoint else 0
        # Log-probs of demonstrations are those of the model itself, whatever temperature the stage samples at.
        plain = stage.rollout.model_copy(update={"temperature": 1.0})
        origin = context.origin(prepared, checkpoint)
        self._backend = open_backend(stage.model_copy(update={"rollout": plain}), SUPERVISED, origin)
        if checkpoint is not None:
            self._backend.load(checkpoint.path)
        self.facts: PolicyFacts = self._backend.facts
        self.policy = self._backend.policy
        tokenizer, world = self.facts.tokenizer, prepared.world
        self._renderer = Renderer.of(stage.task, tokenizer, world.schemas)
        self._dialogue = world.dialogue(tokenizer, self.facts.eos_ids) if world.tools else None
        size, seed = prepared.examples.size, derive_seed(context.seed, "ledger")
        state = checkpoint.ledger if checkpoint else None
        self._ledger = Ledger.restore(state, size, seed) if state else Ledger(size, seed)
        self._evaluator: Evaluator | None = None
        with ExitStack() as stack:
            stack.callback(world.close)
            if (parts := prepared.parts) is not None:
                stack.callback(parts.world.close)
            if parts is not None or context.suites:
                self._evaluator = Evaluator(context, parts, self.facts, self._backend.sampler, stack)
            self._opened = stack.pop_all()

    def step(self, step: int) -> dict[str, float]:
        began = time.perf_counter()
        tickets = [self._ledger.issue() for _ in range(self._stage.supervised.examples_per_step)]
        batch = supervised_batch(
            [encode(self._renderer, self._examples, t.index, self.facts, self._dialogue) for t in tickets]
        )
        report = self._backend.update(batch, rate_at(self._stage.optimizer, self._stage.run.steps, step))
        self.weights_of = step
        for ticket in tickets:
            self._ledger.finish(ticket.number, "trained")
        spent = time.perf_counter() - began
        seen = sum(map(len, batch.prompts)) + int(batch.lengths.sum())
        wanted = ("loss", "grad_norm", "lr", "tokens/trained", "policy/not_finite")
        return {key: report.metrics[key] for key in wanted if key in report.metrics} | {
            "time/step_s": spent,
            "memory/peak_gb": peak_memory_gb(),
            "tokens_per_s": seen / spent,
        }

    def evaluate(self, step: int) -> dict[str, float] | None:
        if self._evaluator is None:
            return None
        self._backend.publish(self.weights_of)
        return self._evaluator(step)

    def adapt(self, stage: Stage) -> None:
        self._stage = stage

    def go_back(self, path: Path) -> None:
        self._backend.restore(path)

    def save(self, directory: Path) -> Mapping[str, Any]:
        self._backend.save(directory)
        return {"ledger": self._ledger.state()}

    def finish(self, directory: Path) -> None:
        self._backend.save_model(directory)

    def close(self) -> None:
        self._opened.close()


class Supervised:
    """`kind = "sft"`, a `StageKind`."""

    tables = ("policy", "task", "environment", "supervised", "optimizer", "rollout", "reward", "evaluate", "run")
    columns = ("loss", "grad_norm", "tokens_per_s")
    makes_policy = True
    acts = ("adapt", "roll_back")
    open = _Training

    def prepare(self, stage: Stage, seed: int) -> PreparedSft:
        """The demonstrations; and what accuracy is measured with, where the stage has a reward."""
        judged = bool(stage.reward) or stage.evaluate.reward is not None
        if not judged and (stage.task.held_out is not None or stage.task.held_out_split is not None):
            raise UserError(
                f"stage '{stage.name}' holds problems out (task.held_out), but has no reward that says which answers "
                'to them are right: add one, such as evaluate.reward = "exact_number", or hold nothing out'
            )
        parts = open_parts(stage, seed) if judged else None
        examples = open_examples(stage.task, derive_seed(seed, "task"))
        prepared: PreparedSft = cleaned(stage, PreparedSft(examples, environments.open(stage), parts))
        wanted = stage.supervised.examples_per_step
        refuse_few(prepared.examples, "demonstrations", "supervised.examples_per_step", wanted)
        return prepared

    def plan(self, stage: Stage, prepared: PreparedSft, facts: PolicyFacts) -> Plan:
        """How many demonstrations, how often."""
        held_out = None if prepared.parts is None else prepared.parts.task.held_out
        return sft_plan(stage, facts, prepared.examples.size, held_out)


def supervised_batch(examples: Sequence[tuple[Sequence[int], list[int], list[bool]]]) -> Batch:
    """Prompts, completions and what of them is to be learnt -> a batch with advantage 1 everywhere, in which each token
    weighs 1 / (all tokens to be learnt).
    """
    groups = []
    for number, (prompt, completion, own) in enumerate(examples):
        rollout = Rollout(completion, own, [0.0] * len(own), version=0, finish="stop", text="")
        groups.append(Group(number, Prompt("", tokens=prompt), (rollout,), advantages=(1.0,)))
    return collate(groups, SUPERVISED, max_tokens=0)


def encode(
    renderer: Renderer, examples: Demonstrations, index: int, facts: PolicyFacts, dialogue: Dialogue | None
) -> tuple[Sequence[int], list[int], list[bool]]:
    """The tokens of an example: its prompt as the policy will see it, its completion with the end token, and which of
    them are to be learnt: not what a tool said.
    """
    example = examples[index]
    rendered = renderer.render(example.prompt)
    prompt, written = rendered.tokens, continued(example.completion, rendered.begun)
    tokenizer = facts.tokenizer
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else facts.eos_ids[0]
    if renderer.template == "chat" and facts.turn_end is not None:
        end = facts.turn_end
    if dialogue is None:
        runs = [(list(tokenizer.encode(written, add_special_tokens=False)), True)]
    else:
        runs = dialogue.demonstration(written)
    runs.append(([end], True))
    completion = [token for tokens, _ in runs for token in tokens]
    if facts.context is not None and len(prompt) + len(completion) > facts.context:
        raise UserError(
            f"demonstration {index} has {len(prompt)} + {len(completion)} tokens, but the model has {facts.context} "
            "positions. Shorten or remove it."
        )
    return prompt, completion, [own for tokens, own in runs for _ in tokens]
