"""What the policy acts in, turn by turn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cohort.settings.table import Function, Resumable, Table, Text, Tokens


class Environment(Table):
    """What the policy acts in: nothing, where a completion is the whole rollout, or tools that it may call."""

    tools: Annotated[tuple[str | Function, ...], Field(strict=False)] = Field(
        default=(), description="Tools it may call: calculator, python, http, mcp, or module:function."
    )
    use: Text | Function | None = Field(
        default=None, description="An environment instead: module:function that makes one, verifiers, or endpoint."
    )
    agent: Text | Function | None = Field(
        default=None,
        description="With use = endpoint: your agent, module:function or a command; it asks by the OpenAI API.",
    )
    args: dict[str, Any] = Field(
        default={}, description="Settings of built-in tools by their name, or keyword arguments for the function."
    )
    format: Literal["auto", "tags", "hermes", "llama3"] = Field(
        default="auto",
        description="How calls are written; auto: as the chat template does, tags without one (a policy from scratch "
        "needs tags).",
    )
    max_turns: int = Field(default=8, ge=1, le=10_000, description="Most turns of a rollout.")
    max_turn_tokens: Tokens | None = Field(
        default=None, description="Longest turn; what is left of rollout.max_tokens when not given."
    )
    max_result_tokens: Tokens = Field(default=256, description="What of a result is shown to the policy, in tokens.")
    concurrency: int = Field(default=16, ge=1, le=1024, description="Rollouts that are with tools at the same time.")
    timeout_s: Resumable[float] = Field(
        default=30.0,
        gt=0,
        description="Seconds that a call of your function, a step of your environment, or your agent between two "
        "calls, may take.",
    )

    @property
    def acts(self) -> bool:
        """Whether there is anything to act in: tools, or an environment."""
        return bool(self.tools) or self.use is not None
