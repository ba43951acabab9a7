"""One default for one thing: a function's default is that of its table, or it has none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort import settings

SOURCE = Path(__file__).parent.parent / "src" / "cohort"

# The tables that set a room. A parameter of one of its functions, or a field of one of its classes, which has the name
# of a key and a default, must have the key's default.
ROOMS = {
    "tasks": (settings.Task, settings.Source, settings.Curriculum, settings.Adaptive),
    "policy": (settings.Policy, settings.Lora, settings.Scratch),
    "learn": (settings.Optimizer, settings.Critic, settings.Reference),
    "engine": (settings.Rollout,),
    "algorithms": (settings.Critic, settings.Preferences),
    "backends": (settings.Policy, settings.Rollout, settings.Optimizer),
    "environments": (settings.Environment, settings.Rollout, settings.Run, settings.Task),
    "evaluate": (settings.Evaluate,),
    "integrations": (settings.Task,),
    "preflight": (settings.Run, settings.Evaluate),
    "rewards": (settings.Reward, settings.Run),
    "train": (settings.Run, settings.Task, settings.Rollout, settings.Optimizer, settings.Evaluate),
    "types.py": (settings.Rollout, settings.Evaluate),
}
# (file, parameter): the name means another thing there than in the table.
OTHER = {
    ("train/measure.py", "groups"),  # what was sampled; not how it is found
    ("train/stage.py", "stop"),  # whether somebody wants the stage to stop; not the texts that end a completion
    ("train/reward_model/scorer.py", "steps"),  # of a solution, each of which gets a score; not of a run
    ("train/reward_model/training.py", "steps"),
    ("policy/attention.py", "device"),  # where a mask is made
    ("integrations/reasoning_gym/source.py", "levels"),  # none: the task's own configuration
    ("integrations/reasoning_gym/source.py", "args"),
    ("algorithms/losses.py", "centring"),  # the loss as it was published has no such term
    ("environments/episodes.py", "timeout_s"),  # none: tools have limits of their own
    ("environments/tools.py", "timeout_s"),  # none: a tool that stops by itself
    ("environments/tools.py", "retries"),  # of one call, whose caller says how often
    ("rewards/calling/call.py", "steps"),  # of completions, not of a run
    ("rewards/items.py", "steps"),
    ("rewards/items.py", "retries"),  # how often each reward was asked again
    ("rewards/judge/client.py", "retries"),  # of a request to the judge's server
    ("rewards/verifiers/format.py", "timeout_s"),  # of one comparison, within the time of a group
    ("rewards/verifiers/length.py", "timeout_s"),
    ("rewards/verifiers/math/answer.py", "timeout_s"),
    ("rewards/verifiers/structured/structured.py", "timeout_s"),
}


def defaults(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(name, default) of every parameter and every field of a class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            plain = [*given.posonlyargs, *given.args]
            pairs = [*zip(plain[len(plain) - len(given.defaults) :], given.defaults, strict=True)]
            pairs += [
                (name, default) for name, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default
            ]
            yield from ((parameter.arg, default) for parameter, default in pairs)
        elif isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value is not None:
                    yield field.target.id, field.value


def known(room: str) -> dict[str, list[Any]]:
    """The defaults of a room's keys, by name."""
    found: dict[str, list[Any]] = {}
    for table in ROOMS[room]:
        for name, field in table.model_fields.items():
            if not field.is_required():
                found.setdefault(name, []).append(field.get_default(call_default_factory=True))
    return found


def value_of(default: ast.expr) -> Any:
    """What is written as a default; the expression itself where it is no literal."""
    written = ast.unparse(default)
    if written == "field(default_factory=dict)":
        return {}
    try:
        return ast.literal_eval(written)
    except ValueError:
        return written


def differing(source: str, keys: dict[str, list[Any]]) -> list[str]:
    """The parameters whose default is another one than the table's."""
    wrong = []
    for name, default in defaults(ast.parse(source)):
        if name in keys:
            value = value_of(default)
            if not any(type(value) is type(other) and value == other for other in keys[name]):
                wrong.append(name)
    return wrong


def files_of(room: str) -> list[Path]:
    place = SOURCE / room
    return [place] if place.is_file() else [*place.rglob("*.py")]


@pytest.mark.parametrize("room", ROOMS)
def test_defaults_are_those_of_the_tables(room):
    keys = known(room)
    for file in files_of(room):
        where = file.relative_to(SOURCE).as_posix()
        wrong = [name for name in differing(file.read_text(), keys) if (where, name) not in OTHER]
        assert not wrong, f"{where}: the defaults of {wrong} are not those of the tables"


def test_the_excuses_are_needed():
    found = {
        (file.relative_to(SOURCE).as_posix(), name)
        for room in ROOMS
        for file in files_of(room)
        for name in differing(file.read_text(), known(room))
    }
    assert found >= OTHER, f"no longer another default: {sorted(OTHER - found)}"


def test_a_drifted_default_is_found():
    keys = known("tasks")
    assert differing("def f(careful=0.5, *, limit=3, split='train'): ...", keys) == ["careful", "limit"]
    assert differing("class C:\n    window: int = 31\n    review: float = 0.0", keys) == ["window"]
