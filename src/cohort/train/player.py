"""Where the rollouts of a stage come from: single completions, or turns in the environment that its recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.environments import (
    Dialogue,
    Episodes,
    OneTurn,
    Player,
    Rules,
    Tool,
    Tools,
    build_environment,
    build_tools,
    choose_format,
    open_dialogue,
)
from cohort.policy.policy import Policy
from cohort.policy.text import to_rollout
from cohort.settings import Stage
from cohort.types import Completion, Environment, Rollout, Sampler

__all__ = ["World", "open_player", "open_world", "stage_dialogue"]


@dataclass(frozen=True, slots=True)
class World:
    """What a stage acts in, before its tokenizer is known: tools, or an environment of the user's."""

    tools: tuple[Tool, ...] = ()
    own: Environment | None = None

    def close(self) -> None:
        """Give back what the tools hold. They start afresh when they are used again."""
        for tool in self.tools:
            tool.close()

    def schemas(self, stage: Stage) -> tuple[Mapping[str, Any], ...]:
        """What the chat template is told of the tools: nothing, where calls are not written as it says."""
        through_template = stage.task.template == "chat" and stage.environment.format != "tags"
        return tuple(tool.schema for tool in self.tools) if through_template else ()


def open_world(stage: Stage) -> World | None:
    """What the recipe names, checked; None where a completion is the whole rollout. Raises `UserError`."""
    e = stage.environment
    if e.use is not None:
        return World(own=build_environment(e.use, e.args))
    return World(build_tools(e.tools, e.args, e.timeout_s)) if e.tools else None


def stage_dialogue(stage: Stage, world: World, policy: Policy) -> tuple[Dialogue, Environment, tuple[str, ...]]:
    """How turns are written, the environment that reads them, and the texts that end one. Raises `UserError` where the
    tokenizer has no form for it.
    """
    e, chat, tokenizer = stage.environment, stage.task.template == "chat", policy.tokenizer
    wanted = None if e.format == "auto" else e.format
    chosen = choose_format(tokenizer, wanted, chat) if world.tools else None
    dialogue = open_dialogue(tokenizer, chosen, chat, world.schemas(stage), policy.eos_ids, e.max_result_tokens)
    if chosen is None:
        assert world.own is not None
        return dialogue, world.own, ()
    return dialogue, Tools(world.tools, chosen, stage.run.retries), chosen.stop


def open_player(stage: Stage, world: World | None, policy: Policy, sampler: Sampler) -> Player:
    """What plays the prompts of a stage, in training and in evaluations."""
    stop = tuple(stage.rollout.stop)

    def rollout(completion: Completion) -> Rollout:
        return to_rollout(completion, policy.tokenizer, stop)

    if world is None:
        return OneTurn(sampler, rollout)
    e = stage.environment
    dialogue, environment, ends = stage_dialogue(stage, world, policy)
    stop += ends
    rules = Rules(e.max_turns, e.max_turn_tokens, ends, e.concurrency, None if world.tools else e.timeout_s)
    return Episodes(sampler, environment, dialogue, lambda completion: rollout(completion).text, rules)
