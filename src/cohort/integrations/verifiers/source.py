"""The tasks of a package, "verifiers:PACKAGE", as prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cohort import settings
from cohort.integrations.verifiers.play import COLUMN, blamed, environment_of, play, task_of
from cohort.tasks.prompts import listed
from cohort.tasks.sources.base import Found, has_no
from cohort.types import Prompt, UserError, content_id

PREFIX = "verifiers"


def open_tasks(table: settings.Prompts, held_out: bool, seed: int) -> Found:
    """The tasks of "verifiers:PACKAGE", on either side the same: a package has no other split. See `open_taskset`."""
    has_no(table, "levels")
    name = table.source.partition(":")[2]
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(
            f'{table.source!r} is not of the form "{PREFIX}:PACKAGE". A package of the Environments Hub is installed '
            "first, and then named without its owner and its version."
        )
    if table.held_out_split is not None or table.held_out == table.source:
        raise UserError(f"{table.source!r} has no other split: hold out a share of its tasks, such as held_out = 0.1.")
    prompts = open_taskset(name, table.args, table.limit)
    answered = all(prompt.answer is not None for prompt in prompts)
    columns = ("prompt", "answer", COLUMN) if answered else ("prompt", COLUMN)
    from verifiers.v1.envs.single_agent import SingleAgentEnv  # the library's own: a prompt and one reply

    one_turn = type(environment_of(name, table.args)).run is SingleAgentEnv.run
    return Found(listed(prompts), columns, environment=None if one_turn else PREFIX)


def open_taskset(name: str, args: Mapping[str, Any], limit: int | None = None) -> list[Prompt]:
    """The tasks of a taskset as prompts, the first `limit` of them. `args` are fields of its configuration.

    Raises UserError where the library or the package is missing, and for what cannot be played in this process.
    """
    env = environment_of(name, args)
    if not env.taskset.bounded and limit is None:
        raise UserError(f"the taskset {name!r} has no end: keep the first N tasks with limit = N.")
    with blamed(name, "load"):
        tasks = list(env.taskset if limit is None else env.taskset.take(limit))
    if not tasks:
        raise UserError(f"the taskset {name!r} has no tasks with args = {dict(args)!r}.")
    return [_prompt(name, dict(args), env, task) for task in tasks]


def _prompt(name: str, args: Mapping[str, Any], env: Any, task: Any) -> Prompt:
    """A task as a prompt: what is said before the first reply, and a column from which the task can be made again."""
    _refuse(name, env, task)
    kind = type(task)
    row = {
        "id": name,
        "args": args,
        "type": f"{kind.__module__}:{kind.__qualname__}",
        "data": task.data.model_dump(mode="json", exclude_defaults=True),
        "config": task.config.model_dump(mode="json", exclude_defaults=True),
    }
    with blamed(name, "load"):
        if task_of(row).data != task.data:
            raise UserError(f"a task is not the same after a way through JSON: {task.data!r:.200}")
    ((*before, last),) = play(row, ()).said
    answer = getattr(task.data, "answer", None)
    answer = answer if isinstance(answer, (str, int, float)) else None
    text = last["content"] if not before and last["role"] == "user" else None
    prompt = Prompt.make(text, None if text is not None else [*before, last], answer, {COLUMN: row})
    return replace(prompt, id=content_id(prompt.id, {**row["data"], "idx": None}))  # games may all begin alike


def _refuse(name: str, env: Any, task: Any) -> None:
    """Raise UserError for a task that takes more than a conversation."""
    from verifiers.v1.configs.agent import agent_config_fields

    from cohort.integrations.verifiers.stand_in import obstacles

    roles = list(agent_config_fields(env.config))
    why = f"it has several agents ({', '.join(roles)})" if len(roles) > 1 else next(obstacles(task), None)
    if why is None and type(env.taskset).toolsets(env.taskset.config):
        why = "its taskset has tools, which are MCP servers"
    if why is not None:
        raise UserError(
            f"the verifiers environment {name!r} cannot be trained on: {why}. Cohort plays conversations with one "
            "policy, in its own process."
        )
