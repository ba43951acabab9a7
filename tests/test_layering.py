"""Who may import whom: downward only, read from the source, imports inside functions included."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "cohort"

# Packages of one level do not import each other, with the exceptions below.
LEVELS = [
    {"types"},
    {"seeds", "wording", "frozen_array", "clock", "patience", "remote_code"},
    {"settings"},
    {"sandbox"},
    {"kernels"},
    {"machine", "chat", "listening"},
    {"algorithms", "rewards", "tasks", "record", "recipe", "policy"},
    {"environments", "engine", "learn"},
    {"monitor", "evaluate"},
    {"integrations", "preflight"},
    {"account"},
    {"backends", "views"},
    {"train"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
ONLY_TORCH = {"algorithms": {"torch"}}
NEVER = {
    "train": {"ray", "vllm"},
    "rewards": {"torch", "transformers"},
    "types": {"torch", "transformers"},
    "settings": {"torch", "transformers"},
    "recipe": {"torch", "transformers"},
}


# Data of a room that rooms below it may read. The recipe's objective table is made from the one list of fields and the
# one list of presets; neither imports torch, nor any other room.
OBJECTIVES = {"cohort.algorithms.fields", "cohort.algorithms.presets"}
MAY_READ = {"settings": OBJECTIVES, "recipe": OBJECTIVES}

# A reward that is itself a model imports these when its worker starts: inside functions, never when it is named.
LATE = {f"rewards/models/{name}.py" for name in ("checkpoint", "reward_model")}


def modules() -> list[tuple[str, Path]]:
    """(package, file) of every module; the top `__init__` may name anything, because it imports on use only."""
    found = []
    for file in SOURCE.rglob("*.py"):
        relative = file.relative_to(SOURCE)
        if relative != Path("__init__.py"):
            found.append((relative.parts[0].removesuffix(".py"), file))
    return found


@functools.cache  # every file is asked about by several tests
def imports(file: Path, in_functions: bool = True) -> set[str]:
    """Dotted names of modules that a file imports at run time (those under TYPE_CHECKING are for the type checker)."""
    tree = ast.parse(file.read_text())
    if not in_functions:
        tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            names.update(part if is_module(part) else node.module for part in parts)
    return names


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or a package of ours."""
    path = SOURCE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize(("package", "file"), modules(), ids=lambda x: str(getattr(x, "name", x)))
def test_imports_point_downward(package, file):
    where = str(file.relative_to(SOURCE))
    at_once = imports(file, in_functions=where not in LATE)
    for name in imports(file):
        top, _, rest = name.partition(".")
        assert name not in at_once or top not in NEVER.get(package, set()), f"{package} must not import {name}"
        if top == "cohort" and rest:
            target = rest.split(".")[0]
            assert target in LEVEL, f"{target} has no place in the layers"
            if target != package and name not in MAY_READ.get(package, set()):
                assert LEVEL[target] < LEVEL[package], f"{where}: {package} must not import {target}"
                assert target != "integrations", f"{where}: only names in tables lead to integrations"


# Libraries that draw and serve pages, and those of trackers, with the rooms that may import them. The endpoint answers
# agents while a stage samples (docs/decisions.md).
SHOWS = {
    **dict.fromkeys(("rich", "latex2mathml", "tensorboard", "wandb", "trackio"), ("views",)),
    **dict.fromkeys(("starlette", "uvicorn"), ("views", "environments/endpoint")),
}


def test_only_views_show():
    for _, file in modules():
        where = file.relative_to(SOURCE).as_posix()
        for name in imports(file):
            rooms = SHOWS.get(name.partition(".")[0], ("",))
            assert where.startswith(rooms), f"{where} imports {name}, which is for {' and '.join(rooms)}"


def test_algorithms_know_nothing_but_torch():
    for package, allowed in ONLY_TORCH.items():
        for file in (SOURCE / package).rglob("*.py"):
            for name in imports(file):
                top = name.partition(".")[0]
                own = name.startswith(f"cohort.{package}")
                known = own or top in allowed or top in sys.stdlib_module_names
                assert known, f"{file.relative_to(SOURCE)} imports {name}"


def test_every_package_has_its_place():
    assert {package for package, _ in modules()} <= set(LEVEL)


def circles(package: str) -> list[list[str]]:
    """Circles of imports among the modules of one package, each as the way round."""
    names = {file: ".".join(("cohort", *file.relative_to(SOURCE).with_suffix("").parts)) for _, file in modules()}
    names = {file: name.removesuffix(".__init__") for file, name in names.items()}
    inside = {name: file for file, name in names.items() if f"{name}.".startswith(f"cohort.{package}.")}
    graph = {name: sorted(imports(file) & inside.keys() - {name}) for name, file in inside.items()}
    found, done = [], set()

    def walk(name: str, way: list[str]) -> None:
        if name in way:
            found.append([*way[way.index(name) :], name])
        elif name not in done:
            for target in graph[name]:
                walk(target, [*way, name])
            done.add(name)

    for name in graph:
        walk(name, [])
    return found


@pytest.mark.parametrize("package", sorted({package for package, _ in modules()}))
def test_no_room_imports_in_circles(package):
    assert not circles(package), "\n".join(" -> ".join(way) for way in circles(package))


def test_rewards_has_few_files_beside_its_families():
    assert len(list((SOURCE / "rewards").glob("*.py"))) <= 20
