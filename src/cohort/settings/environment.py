"""What the policy acts in, turn by turn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cohort.settings.table import Function, Resumable, Table, Text, Tokens, key


class Environment(Table):
    """What the policy acts in: nothing, where a completion is the whole rollout, or tools that it may call."""

    tools: Annotated[tuple[str | Function, ...], Field(strict=False)] = key(
        (), "Tools it may call: calculator, python, http, mcp, or module:function."
    )
    use: Text | Function | None = key(
        None, "An environment instead: module:function that makes one, verifiers, or endpoint."
    )
    agent: Text | Function | None = key(
        None, "With use = endpoint: your agent, module:function or a command; it asks by the OpenAI API."
    )
    args: dict[str, Any] = key({}, "Settings of built-in tools by their name, or keyword arguments for the function.")
    format: Literal["auto", "tags", "hermes", "llama3"] = key(
        "auto",
        "How calls are written; auto: as the chat template does, tags without one (a policy from scratch needs tags).",
    )
    max_turns: int = key(8, "Most turns of a rollout.", ge=1, le=10_000)
    max_turn_tokens: Tokens | None = key(None, "Longest turn; what is left of rollout.max_tokens when not given.")
    max_result_tokens: Tokens = key(256, "What of a result is shown to the policy, in tokens.")
    concurrency: int = key(16, "Rollouts that are with tools at the same time.", ge=1, le=1024)
    timeout_s: Resumable[float] = key(
        30.0,
        "Seconds that a call of your function, a step of your environment, or your agent between two calls, may take.",
        gt=0,
    )

    @property
    def acts(self) -> bool:
        """Whether there is anything to act in: tools, or an environment."""
        return bool(self.tools) or self.use is not None
