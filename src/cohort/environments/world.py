"""From the recipe's table to what the policy acts in: tools, an environment of the user's own, or nothing.

world = environments.open(settings.Environment(tools=("calculator",)), template="chat")
play = world.player(tokenizer, eos_ids, sampler)
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort import settings
from cohort.environments.build import build_environment, build_tools
from cohort.environments.dialogue import Dialogue, choose_format, open_dialogue
from cohort.environments.episodes import Episodes, OneTurn, Player, Rules
from cohort.environments.formats import Format
from cohort.environments.tool import Tool
from cohort.environments.tools import Tools
from cohort.policy.text import to_rollout
from cohort.types import Environment, Sampler

__all__ = ["World", "open"]


@dataclass(frozen=True, slots=True)
class World:
    """What the policy acts in, before its tokenizer is known: `tools`, or an environment of the user's `own`. Where
    there is neither, one completion is the whole rollout.
    """

    table: settings.Environment
    chat: bool = True  # prompts are rendered with the tokenizer's chat template
    stop: tuple[str, ...] = ()  # texts that end a completion
    retries: int = 2  # further tries of a tool that the world failed
    tools: tuple[Tool, ...] = ()
    own: Environment | None = None

    @property
    def schemas(self) -> tuple[Mapping[str, Any], ...]:
        """What the chat template is told of the tools: nothing, where calls are not written as the template says."""
        return tuple(tool.schema for tool in self.tools) if self.chat and self.table.format != "tags" else ()

    def dialogue(self, tokenizer: Any, eos_ids: Collection[int]) -> Dialogue:
        """How turns are written. Raises UserError where the tokenizer has no form for them."""
        longest = self.table.max_result_tokens
        return open_dialogue(tokenizer, self._format(tokenizer), self.chat, self.schemas, eos_ids, longest)

    def player(self, tokenizer: Any, eos_ids: Collection[int], sampler: Sampler) -> Player:
        """What plays prompts to their end. Raises UserError as `dialogue` does."""
        chosen = self._format(tokenizer)
        ends = () if chosen is None else chosen.stop
        read = functools.partial(to_rollout, tokenizer=tokenizer, stop=(*self.stop, *ends))
        environment = self.own if chosen is None else Tools(self.tools, chosen, self.retries)
        if environment is None:
            return OneTurn(sampler, read)
        table = self.table
        patience = table.timeout_s if self.own is not None else None  # each tool has a time limit of its own
        rules = Rules(table.max_turns, table.max_turn_tokens, ends, table.concurrency, patience)
        dialogue = self.dialogue(tokenizer, eos_ids)
        return Episodes(sampler, environment, dialogue, lambda completion: read(completion).text, rules)

    def close(self) -> None:
        """Give back what the tools hold. They start afresh when they are used again."""
        for tool in self.tools:
            tool.close()

    def _format(self, tokenizer: Any) -> Format | None:
        """How calls are written; None where there is nothing to call."""
        wanted = None if self.table.format == "auto" else self.table.format
        return choose_format(tokenizer, wanted, self.chat) if self.tools else None


def open(table: settings.Environment, template: str = "chat", stop: Sequence[str] = (), retries: int = 2) -> World:
    """What the recipe's table names, checked. `template` is `task.template`, `stop` is `rollout.stop`, `retries` is
    `run.retries`. Raises UserError for whatever is wrong with the table.
    """
    own = None if table.use is None else build_environment(table.use, table.args)
    tools = build_tools(table.tools, table.args, table.timeout_s) if table.tools and own is None else ()
    return World(table, template == "chat", tuple(stop), retries, tools, own)
