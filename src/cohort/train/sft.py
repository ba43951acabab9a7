"""Supervised stages, as the REINFORCE loss with advantage 1 on demonstrations: -1 x log-prob, averaged over tokens.

So the same learner, packing and checkpoints serve both kinds of stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cohort import environments
from cohort.algorithms import objectives
from cohort.backends.base import Backend
from cohort.chat import continued
from cohort.environments import Dialogue, World
from cohort.learn.batch import collate
from cohort.policy.policy import PolicyFacts
from cohort.preflight.contamination import Report
from cohort.preflight.parts import SamplingParts, open_parts
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.settings import Task as TaskTable
from cohort.tasks import Demonstrations, Renderer, open_examples
from cohort.tasks.prompts import place_of
from cohort.train.checkpoint import Checkpoint
from cohort.train.contamination import cleaned
from cohort.train.examples import ExamplesTraining, Told
from cohort.train.stage import NOBODY_JUDGES, Context, Plan, first_texts, refuse_few
from cohort.train.unread import NO_GROUPS, NO_PAIRS, ONE_UPDATE
from cohort.types import Batch, Group, Prompt, Rollout, UserError
from cohort.views.plan import sft_plan

SUPERVISED = objectives.preset(
    "reinforce", baseline="none", scale="none", aggregation="token_mean", zero_std="zero", kl_coef=0.0
)
UPDATED = ("loss", "grad_norm", "lr", "tokens/trained", "policy/not_finite")  # of an update, what such a stage tells
Encoded = tuple[Sequence[int], list[int], list[bool]]  # prompt, completion, what of the completion is to be learnt


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


class _Demonstrations:
    """A `Lesson` of demonstrations."""

    def __init__(self, stage: Stage, prepared: PreparedSft, facts: PolicyFacts):
        self._examples, self._facts, world = prepared.examples, facts, prepared.world
        self._renderer = Renderer.of(stage.task, facts.tokenizer, world.schemas)
        self._dialogue = world.dialogue(facts.tokenizer, facts.eos_ids) if world.tools else None
        self.size = prepared.examples.size

    def learn(self, backend: Backend, indices: Sequence[int], rate: float) -> Told:
        taken = [encode(self._renderer, self._examples, index, self._facts, self._dialogue) for index in indices]
        batch = supervised_batch(taken)
        return updated(backend.update(batch, rate).metrics), seen_in(batch)

    def measure(self, backend: Backend) -> dict[str, float]:
        return {}


class Supervised:
    """`kind = "sft"`, a `StageKind`."""

    tables = ("policy", "task", "environment", "supervised", "optimizer", "rollout", "reward", "evaluate", "run")
    unread = (*NO_GROUPS, *NO_PAIRS, *ONE_UPDATE)
    columns = ("loss", "grad_norm", "tokens_per_s")
    makes_policy = True
    reads = ("completion",)
    acts = ("adapt", "roll_back")

    def open(self, context: Context, prepared: PreparedSft, checkpoint: Checkpoint | None) -> ExamplesTraining:
        """See `StageKind`."""
        stage = context.stage
        lesson, per_step = partial(_Demonstrations, stage, prepared), stage.supervised.examples_per_step
        return ExamplesTraining(context, prepared, checkpoint, SUPERVISED, per_step, lesson, prepared.world)

    def prepare(self, stage: Stage, seed: int) -> PreparedSft:
        """The demonstrations; and what accuracy is measured with, where the stage has a reward."""
        judged = bool(stage.reward) or stage.evaluate.reward is not None
        named = not isinstance(stage.task.held_out, TaskTable) and stage.task.held_out is not None
        if not judged and (named or stage.task.held_out_split is not None):
            raise UserError(NOBODY_JUDGES.format(stage.name))
        parts = open_parts(asked(stage), seed) if judged else None
        examples = open_examples(stage.task, derive_seed(seed, "task"))
        prepared: PreparedSft = cleaned(stage, PreparedSft(examples, environments.open(stage), parts))
        wanted = stage.supervised.examples_per_step
        refuse_few(prepared.examples, "demonstrations", "supervised.examples_per_step", wanted)
        return prepared

    def plan(self, stage: Stage, prepared: PreparedSft, facts: PolicyFacts) -> Plan:
        """How many demonstrations, how often."""
        held_out = None if prepared.parts is None else prepared.parts.task.held_out
        return sft_plan(stage, facts, prepared.examples.size, held_out)


def asked(stage: Stage) -> Stage:
    """The stage with the task of its held-out problems, where its data were made by another stage of other prompts."""
    task = stage.task.held_out
    return stage.with_(task=task) if isinstance(task, TaskTable) else stage


def supervised_batch(examples: Sequence[Encoded]) -> Batch:
    """Prompts, completions and what of them is to be learnt -> a batch with advantage 1 everywhere, in which each token
    weighs 1 / (all tokens to be learnt).
    """
    groups = []
    for number, (prompt, completion, own) in enumerate(examples):
        rollout = Rollout(completion, own, [0.0] * len(own), version=0, finish="stop", text="")
        groups.append(Group(number, Prompt("", tokens=prompt), (rollout,), advantages=(1.0,)))
    return collate(groups, SUPERVISED, max_tokens=0)


def updated(report: Mapping[str, float]) -> dict[str, float]:
    """Of the numbers of an update those that a stage without groups tells."""
    return {key: report[key] for key in UPDATED if key in report}


def seen_in(batch: Batch) -> int:
    """The tokens of a batch, prompts included."""
    return sum(map(len, batch.prompts)) + int(batch.lengths.sum())


def encode(
    renderer: Renderer, examples: Demonstrations, index: int, facts: PolicyFacts, dialogue: Dialogue | None
) -> Encoded:
    """The tokens of demonstration `index`, as `encoded` has them."""
    example, what = examples[index], place_of(examples, index, "demonstration")
    return encoded(renderer, example.prompt, example.completion, facts, dialogue, what)


def encoded(
    renderer: Renderer, prompt: Prompt, text: str, facts: PolicyFacts, dialogue: Dialogue | None, what: str
) -> Encoded:
    """The tokens of an example: its prompt as the policy will see it, its completion with the end token, and which of
    them are to be learnt: not what a tool said. `what` names it where it is too long.
    """
    rendered = renderer.render(prompt)
    begins, written = rendered.tokens, continued(text, rendered.begun)
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
    if facts.context is not None and len(begins) + len(completion) > facts.context:
        raise UserError(
            f"{what} has {len(begins)} + {len(completion)} tokens, but the model has {facts.context} positions. "
            "Shorten or remove it."
        )
    return begins, completion, [own for tokens, own in runs for _ in tokens]
