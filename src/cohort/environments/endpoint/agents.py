"""The agent of a recipe: a function, or a program, that speaks to a model by the OpenAI API, as it is.

    def solve(prompt, base_url, api_key): ...              # [environment] agent = "my_agent:solve"
    python my_agent.py {prompt}                            # finds OPENAI_BASE_URL and OPENAI_API_KEY in its environment

What it comes to is a text, a reward, a reward for each of its calls, or both: {"text": ..., "reward": ...}.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cohort.environments.foreign_code import THE_WORLD, broken
from cohort.patience import awaited
from cohort.types import InfrastructureError, Prompt, UserError
from cohort.wording import find_function, one_line, shorten

_POLICYS = (ValueError, ArithmeticError, LookupError)  # what an agent raises that cannot make sense of an answer
_CODE = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
_FILLED = ("base_url", "api_key", "model", "prompt", "messages", "seed")


@dataclass(frozen=True, slots=True)
class Way:
    """How an agent reaches the policy, in one rollout."""

    base_url: str
    api_key: str
    seed: int
    model: str = "policy"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an agent came to: a text, rewards (one: of the rollout; several: one a call), or nothing. `crashed`: it
    could not make sense of an answer.
    """

    text: str | None = None
    rewards: tuple[float, ...] = ()
    crashed: str | None = None


@dataclass(slots=True)
class Task:
    """One agent at work: what it must be ended by, where it can be ended."""

    process: subprocess.Popen[str] | None = None
    ended: bool = False

    def end(self) -> None:
        """A program is killed with all that it started; a function goes on alone, and is answered no more."""
        self.ended = True
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Agent:
    """`run` does one rollout: it is given a prompt, the way to the policy, and its task. Raises what the agent does."""

    name: str
    run: Callable[[Prompt, Way, Task], Any]


def open_agent(use: str | Callable[..., Any] | None, args: Mapping[str, Any]) -> Agent:
    """The agent that `environment.agent` names. Raises UserError for one that is not there or takes no base URL."""
    if use is None:
        raise UserError(
            'environment.use = "endpoint" plays an agent of yours: name it, as in agent = "my_agent:solve" or agent = '
            '"python my_agent.py {prompt}"'
        )
    if isinstance(use, str) and not _CODE.fullmatch(use):
        if args:
            raise UserError("environment.args are for an agent that is a function; a program's stand in its command")
        return _program(use)
    function = find_function(use, "environment.agent") if isinstance(use, str) else use
    name = use if isinstance(use, str) else str(getattr(use, "__name__", use))
    takes = inspect.signature(function).parameters
    every = any(one.kind == one.VAR_KEYWORD for one in takes.values())
    if "base_url" not in takes and not every:
        raise UserError(
            f"the agent {name} takes no base_url, so it would not ask the policy: give it that parameter, or run "
            "it as a program, which finds OPENAI_BASE_URL and OPENAI_API_KEY"
        )
    if strange := [one for one in args if one not in takes and not every]:
        raise UserError(f"environment.args.{strange[0]} has no effect: the agent {name} takes no such parameter")

    def run(prompt: Prompt, way: Way, task: Task) -> Any:
        messages = [dict(one) for one in prompt.messages or ({"role": "user", "content": prompt.text},)]
        own = (way.base_url, way.api_key, way.model, prompt.question, messages, way.seed)
        known = {**prompt.tags, **dict(zip(_FILLED, own, strict=True)), **args}
        wanted = [one for one in known if one in takes or (every and one in (*_FILLED, *args))]
        needed = [n for n, p in takes.items() if p.default is p.empty and p.kind in (1, 3) and n not in known]
        if needed:
            raise UserError(
                f"the agent {name} needs {needed[0]!r}, which is neither one of {', '.join(_FILLED)}, nor a column of "
                "the task, nor in environment.args"
            )
        found = function(**{one: known[one] for one in wanted})
        return awaited(found) if inspect.isawaitable(found) else found

    return Agent(name, run)


def _program(command: str) -> Agent:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"environment.agent = {command!r} cannot be read as a command: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise UserError(
            f"environment.agent names the program {(words or [''])[0]!r}, which is not there: it is a command, or "
            '"module:function"'
        )

    def run(prompt: Prompt, way: Way, task: Task) -> Any:
        own = {"OPENAI_BASE_URL": way.base_url, "OPENAI_API_KEY": way.api_key, "OPENAI_MODEL": way.model}
        told = {"{prompt}": prompt.question, "{base_url}": way.base_url, "{api_key}": way.api_key}
        task.process = subprocess.Popen(
            [told.get(word, word) for word in words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
            env={**os.environ, **own, "COHORT_SEED": str(way.seed)}, start_new_session=True,
        )  # fmt: skip
        if task.ended:  # while it began
            task.end()
        said, problems = task.process.communicate(prompt.question)
        if code := task.process.returncode:
            last = (problems.strip().splitlines() or ["it said nothing"])[-1]
            raise InfrastructureError(f"it ended with the code {code}: {shorten(last)}")
        return said.strip() or None

    return Agent(words[0] if len(words) == 1 else f"{words[0]} {words[1]}", run)


def outcome_of(agent: Agent, prompt: Prompt, way: Way, task: Task, answered: Callable[[], int]) -> Outcome:
    """Run the agent and read what it comes to; `answered` counts the calls that it was answered. Raises
    InfrastructureError where the world failed, and UserError where the agent's own code is broken.
    """
    what = f"the agent {agent.name}, asked {shorten(prompt.question)},"
    try:
        found = agent.run(prompt, way, task)
    except UserError:
        raise
    except THE_WORLD as error:
        raise InfrastructureError(f"{what} failed: {one_line(error) or type(error).__name__}") from error
    except BaseException as error:
        if isinstance(error, _POLICYS) and answered():
            return Outcome(crashed=f"{type(error).__name__}: {one_line(error)}")
        if type(error).__module__.partition(".")[0] in ("openai", "httpx", "httpx2", "requests", "urllib3", "aiohttp"):
            raise InfrastructureError(f"{what} was not answered: {type(error).__name__}: {one_line(error)}") from error
        advice = "Mend it; what may pass is an InfrastructureError or ConnectionError, a bad answer a ValueError"
        raise broken(what, error, advice) from error
    return _read(found, what)


def _read(found: Any, what: str) -> Outcome:
    if isinstance(found, Mapping) and found.keys() <= {"text", "reward"}:
        rest = _read(found.get("reward"), what)
        if rest.text is None and isinstance(found.get("text"), str | None):
            return Outcome(found.get("text"), rest.rewards)
    elif found is None or isinstance(found, str):
        return Outcome(found)
    else:
        numbers = found if isinstance(found, (list, tuple)) else [found]
        if all(isinstance(one, (int, float)) and math.isfinite(one) for one in numbers):
            return Outcome(None, tuple(map(float, numbers)))
    raise UserError(
        f"{what} returned {shorten(found)}; an agent returns a text, a reward, a list of rewards (one a call), "
        '{"text": ..., "reward": ...}, or nothing'
    )
