"""From the recipe's table to what the policy acts in: tools, an environment of the user's own, or nothing.

world = environments.open(stage)
play = world.player(tokenizer, eos_ids, sampler)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.chat import template_for
from cohort.environments.dialogue import Dialogue, choose_format, open_dialogue
from cohort.environments.endpoint.agents import open_agent
from cohort.environments.endpoint.play import AgentPlay, Endpoint
from cohort.environments.endpoint.talk import Talk
from cohort.environments.episodes import Episodes, OneTurn, Player, Rules
from cohort.environments.foreign_code import broken
from cohort.environments.formats import Format
from cohort.environments.tools import Tool, Tools, tool_of
from cohort.policy.text import completion_reader
from cohort.settings import Stage
from cohort.types import Environment, InfrastructureError, Sampler, UserError
from cohort.wording import find_function

# The built-in tools, and where the function is that makes one from its settings, as "module:function".
TOOLS: Mapping[str, str] = {
    "calculator": "cohort.environments.calculator:calculator_tool",
    "python": "cohort.environments.python:python_tool",
    "http": "cohort.environments.http:http_tool",
    "mcp": "cohort.environments.mcp:mcp_tools",
}
ENDPOINT = "endpoint"  # an agent that asks the policy by the OpenAI API
# Environments of other libraries, and where each is.
ENVIRONMENTS: Mapping[str, str] = {"verifiers": "cohort.integrations.verifiers.environment:VerifiersTurns"}


@dataclass(frozen=True, slots=True)
class World:
    """What the policy acts in, before its tokenizer is known: `tools`, an environment of the user's `own`, or an agent
    behind an `endpoint`. Where there is nothing, one completion is the whole rollout.
    """

    stage: Stage
    tools: tuple[Tool, ...] = ()
    own: Environment | None = None
    endpoint: Endpoint | None = None

    @property
    def schemas(self) -> tuple[Mapping[str, Any], ...]:
        """What a chat template is told of the tools: nothing, where calls are not written as the template says."""
        by_template = self.stage.task.template in ("auto", "chat") and self.stage.environment.format != "tags"
        return tuple(tool.schema for tool in self.tools) if by_template else ()

    def untold(self, tokenizer: Any, eos_ids: Collection[int]) -> bool:
        """Whether the policy may call tools and no prompt says so: neither a chat template nor task.system."""
        chosen = self._format(tokenizer, eos_ids)
        return chosen is not None and chosen.name == "tags" and self.stage.task.system is None

    def dialogue(self, tokenizer: Any, eos_ids: Collection[int]) -> Dialogue:
        """How turns are written. Raises UserError where the tokenizer has no form for them."""
        longest, args = self.stage.environment.max_result_tokens, self.stage.task.template_args
        chosen, chat = self._format(tokenizer, eos_ids), self._is_chat(tokenizer)
        return open_dialogue(tokenizer, chosen, chat, self.schemas, eos_ids, longest, args)

    def player(self, tokenizer: Any, eos_ids: Collection[int], sampler: Sampler) -> Player:
        """What plays prompts to their end. Raises UserError as `dialogue` does."""
        if self.endpoint is not None:
            table, form = self.stage.environment, self.stage.environment.format
            talk = Talk(tokenizer, eos_ids, self.stage.task.template_args, None if form == "auto" else form)
            limits = Rules(table.max_turns, table.max_turn_tokens, (), table.concurrency, table.timeout_s)
            return AgentPlay(self.endpoint, sampler, limits, talk)
        chosen = self._format(tokenizer, eos_ids)
        stop = () if chosen is None else chosen.stop
        read = completion_reader(tokenizer, (*self.stage.rollout.stop, *stop), eos_ids)
        environment = self.own if chosen is None else Tools(self.tools, chosen, self.stage.run.retries)
        if environment is None:
            return OneTurn(sampler, read)
        table = self.stage.environment
        patience = table.timeout_s if self.own is not None else None  # each tool has a time limit of its own
        rules = Rules(table.max_turns, table.max_turn_tokens, stop, table.concurrency, patience)
        dialogue = self.dialogue(tokenizer, eos_ids)
        return Episodes(sampler, environment, dialogue, read, rules)

    def close(self) -> None:
        """Give back what the tools hold. They start afresh when they are used again."""
        for tool in self.tools:
            tool.close()
        if self.endpoint is not None:
            self.endpoint.close()

    def _format(self, tokenizer: Any, eos_ids: Collection[int]) -> Format | None:
        """How calls are written; None where there is nothing to call."""
        form, chat = self.stage.environment.format, self._is_chat(tokenizer)
        wanted = None if form == "auto" else form
        if self.tools and wanted not in (None, "tags") and not chat:
            raise UserError(
                f"environment.format = {wanted!r} is written by a chat template, and the tokenizer has none: use "
                'format = "tags"'
            )
        return choose_format(tokenizer, wanted, chat, eos_ids) if self.tools else None

    def _is_chat(self, tokenizer: Any) -> bool:
        """Whether prompts are shown in the tokenizer's chat template."""
        return template_for(self.stage.task.template, tokenizer) == "chat"


def open(stage: Stage) -> World:
    """What the [environment] table of a stage names, checked. Raises UserError for whatever is wrong with it."""
    table = stage.environment
    if table.use == ENDPOINT:
        return World(stage, endpoint=Endpoint(open_agent(table.agent, table.args), stage.run.retries))
    own = None if table.use is None else build_environment(table.use, table.args)
    tools = build_tools(table.tools, table.args, table.timeout_s) if table.tools and own is None else ()
    return World(stage, tools, own)


def build_tools(
    uses: Sequence[str | Callable[..., Any]], args: Mapping[str, Any], timeout_s: float
) -> tuple[Tool, ...]:
    """The tools of a recipe: built-in names, "module:function" or functions. `args` has the settings of built-in ones
    by their name; a call of a user's function takes at most `timeout_s`. Raises UserError for whatever is wrong.
    """
    strange = [name for name in args if name not in TOOLS or name not in uses]
    if strange:
        raise UserError(
            f"environment.args.{strange[0]} has no effect: it is for one of the built-in tools ({', '.join(TOOLS)}) "
            "that environment.tools names"
        )
    return tuple(tool for use in uses for tool in _tools(use, args, timeout_s))


def _tools(use: str | Callable[..., Any], args: Mapping[str, Any], timeout_s: float) -> tuple[Tool, ...]:
    if isinstance(use, str) and use in TOOLS:
        made: Tool | tuple[Tool, ...]
        made = _called(find_function(TOOLS[use], "tool"), args.get(use, {}), f"environment.args.{use}")
        return (made,) if isinstance(made, Tool) else made
    if isinstance(use, str) and ":" not in use:
        raise UserError(
            f"there is no tool '{use}'; the built-in ones are {', '.join(TOOLS)}, and your own is named "
            '"module:function"'
        )
    return (tool_of(find_function(use, "tool") if isinstance(use, str) else use, timeout_s=timeout_s),)


def build_environment(use: str | Callable[..., Any], args: Mapping[str, Any]) -> Environment:
    """The environment that a function makes from `args`: a user's function, or the one that `ENVIRONMENTS` names.
    Raises UserError where there is none.
    """
    if isinstance(use, str) and ":" not in use and use not in ENVIRONMENTS:
        hint = f', such as tools = ["{use}"]' if use in TOOLS else ""
        raise UserError(
            f'environment.use is "{ENDPOINT}", "{", ".join(ENVIRONMENTS)}" or your own "module:function", not {use!r}; '
            f"built-in tools are named in environment.tools{hint}"
        )
    function = find_function(ENVIRONMENTS.get(use, use), "environment") if isinstance(use, str) else use
    made = _called(function, args, "environment.args")
    for method in ("reset", "step"):
        if not callable(getattr(made, method, None)):
            raise UserError(
                f"environment.use made {type(made).__name__}, which has no method {method}; it needs reset and step"
            )
    environment: Environment = made
    return environment


def _called(function: Callable[..., Any], args: Any, where: str) -> Any:
    if not isinstance(args, Mapping):
        raise UserError(f"{where} is a table of settings, not {args!r}")
    try:
        return function(**args)
    except UserError:
        raise
    except InfrastructureError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:
        inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
        if isinstance(error, TypeError) and not inside:  # a setting too many, or one that is missing
            raise UserError(f"{where}: {error}") from None
        raise broken(f"the function called with {where}", error, "Mend it, or what it is called with") from error
