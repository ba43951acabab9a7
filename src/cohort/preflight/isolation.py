"""What stands between a run and the code that its policy writes, for the record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cohort.preflight.parts import SamplingParts
from cohort.rewards.code import code
from cohort.sandbox import Isolation, RemoteSandbox, Sandbox, SandboxError
from cohort.settings import Stage
from cohort.types import UserError


def isolation_of(stages: Iterable[tuple[Stage, SamplingParts]]) -> dict[str, dict[str, Any]]:
    """For each reward and tool that executes what the policy writes, the isolation that was seen to hold just now:
    level, reached, missing. Empty where nothing is executed. Raises UserError when no sandbox can be started.
    """
    urls: dict[str, str | None] = {}
    for stage, parts in stages:
        for reward in (*parts.rewards, *parts.verifiers):
            if reward.function is code:
                urls[reward.name] = reward.args["url"]
        if "python" in stage.environment.tools:
            urls["python"] = stage.environment.args.get("python", {}).get("url")
    reached = {url: _reached(url).as_dict() for url in set(urls.values())}
    return {name: reached[url] for name, url in urls.items()}


def _reached(url: str | None) -> Isolation:
    if url is not None:
        return RemoteSandbox(url).isolation
    try:
        with Sandbox(minimum="process") as sandbox:  # what is too little for a recipe is refused where it is used
            return sandbox.isolation
    except SandboxError as error:
        raise UserError(f"untrusted code cannot be run here: {error}. `cohort doctor` says what is missing") from None
