"""Supervised training, as the REINFORCE loss with advantage 1 on demonstrations: -1 x log-prob, averaged over tokens.

So the same learner, packing and checkpoints serve both kinds of stage.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing

from cohort.algorithms import objectives
from cohort.environments import Dialogue
from cohort.learn.batch import collate
from cohort.learn.learner import Learner
from cohort.learn.optimizer import load_optimizer
from cohort.monitor.machine import peak_memory_gb
from cohort.policy.policy import Policy
from cohort.record.metrics import MetricsLog
from cohort.seeds import derive_seed
from cohort.tasks import Demonstrations, Ledger, Renderer
from cohort.train.checkpoint import latest_checkpoint, prune, readable, save_checkpoint
from cohort.train.plan import sft_plan
from cohort.train.setup import build_policy, open_world, optimizer_settings, rate_at, resumed_policy
from cohort.train.stage_run import StageRun
from cohort.types import Batch, Group, Prompt, Rollout, UserError

__all__ = ["run_sft"]

SUPERVISED = objectives.preset(
    "reinforce", baseline="none", scale="none", aggregation="token_mean", zero_std="zero", kl_coef=0.0
)


def run_sft(run: StageRun, examples: Demonstrations) -> Policy:
    """Train a stage from its start or its last checkpoint to its end. Returns the trained policy."""
    stage = run.stage
    checkpoint = latest_checkpoint(run.directory / "checkpoints")
    if checkpoint is None:
        policy = build_policy(stage, run.seed, run.start, run.live)
    else:
        with readable(checkpoint):
            policy = resumed_policy(stage, checkpoint.path)
    done = checkpoint.step if checkpoint else 0
    log = MetricsLog(run.directory / "metrics.jsonl")
    log.keep_until(done)
    tokens = stage.optimizer.tokens_per_micro_batch
    learner = Learner(policy, SUPERVISED, optimizer_settings(stage), tokens_per_micro_batch=tokens)
    seed = derive_seed(run.seed, "ledger")
    ledger = Ledger(examples.size, seed)
    if checkpoint is not None:
        with readable(checkpoint):
            load_optimizer(learner.optimizer, checkpoint.path)
        ledger = Ledger.restore(checkpoint.state["ledger"], examples.size, seed)
    with closing(open_world(stage)) as world:
        renderer = Renderer(policy.tokenizer, stage.task.template, stage.task.system, world.schemas)
        dialogue = world.dialogue(policy.tokenizer, policy.eos_ids) if world.tools else None
    run.console.plan(run.title, sft_plan(stage, policy, run.threads, examples.size))

    with run.console.steps("sft", stage.run.steps, done) as view:
        for step in range(done + 1, stage.run.steps + 1):
            began = time.perf_counter()
            tickets = [ledger.issue() for _ in range(stage.supervised.examples_per_step)]
            batch = supervised_batch([_encode(renderer, examples, t.index, policy, dialogue) for t in tickets])
            report = learner.update(batch, rate_at(stage, step))
            for ticket in tickets:
                ledger.finish(ticket.number, "trained")
            spent = time.perf_counter() - began
            seen = sum(map(len, batch.prompts)) + int(batch.lengths.sum())
            metrics = {key: report.metrics[key] for key in ("loss", "grad_norm", "lr", "tokens/trained")} | {
                "time/step_s": spent,
                "memory/peak_gb": peak_memory_gb(),
                "tokens_per_s": seen / spent,
            }
            log.write(step, metrics)
            view.step(step, metrics)
            if run.saves_at(step):
                directory = run.directory / "checkpoints"
                save_checkpoint(directory, step, policy, learner.optimizer, {"ledger": ledger.state()})
                prune(directory, stage.run.keep_checkpoints)
    return policy


def supervised_batch(examples: Sequence[tuple[Sequence[int], list[int], list[bool]]]) -> Batch:
    """Prompts, completions and what of them is to be learnt -> a batch with advantage 1 everywhere, in which each token
    weighs 1 / (all tokens to be learnt).
    """
    groups = []
    for number, (prompt, completion, own) in enumerate(examples):
        rollout = Rollout(completion, own, [0.0] * len(own), version=0, finish="stop", text="")
        groups.append(Group(number, Prompt("", tokens=prompt), (rollout,), advantages=(1.0,)))
    return collate(groups, SUPERVISED, max_tokens=0)


def _encode(
    renderer: Renderer, examples: Demonstrations, index: int, policy: Policy, dialogue: Dialogue | None
) -> tuple[Sequence[int], list[int], list[bool]]:
    """The tokens of an example: its prompt as the policy will see it, its completion with the end token, and which of
    them are to be learnt: not what a tool said.
    """
    example = examples[index]
    prompt = renderer.render(example.prompt).tokens
    tokenizer = policy.tokenizer
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else policy.eos_ids[0]
    if dialogue is None:
        runs = [(list(tokenizer.encode(example.completion, add_special_tokens=False)), True)]
    else:
        runs = dialogue.demonstration(example.completion)
    runs.append(([end], True))
    completion = [token for tokens, _ in runs for token in tokens]
    room = policy.max_context
    if room is not None and len(prompt) + len(completion) > room:
        raise UserError(
            f"demonstration {index} has {len(prompt)} + {len(completion)} tokens, but the model has {room} positions. "
            "Shorten or remove it."
        )
    return prompt, completion, [own for tokens, own in runs for _ in tokens]
