"""Who may import whom: downward only, read from the source, imports inside functions included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "cohort"

# Packages of one level do not import each other, with the exceptions below.
LEVELS = [
    {"types"},
    {"seeds", "wording", "frozen_array"},
    {"settings"},
    {"sandbox"},
    {"kernels"},
    {"algorithms", "rewards", "tasks", "record", "recipe", "policy"},
    {"environments", "engine", "learn"},
    {"integrations", "preflight"},
    {"samplers", "evaluate", "monitor"},
    {"train"},
    {"cluster", "dashboard", "commands"},
    {"cli"},
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


# A reward that is itself a model imports these when its worker starts: inside functions, never when it is named.
LATE = {f"rewards/models/{name}.py" for name in ("checkpoint", "process_model", "reward_model")}


def modules() -> list[tuple[str, Path]]:
    """(package, file) of every module; the top `__init__` may name anything, because it imports on use only."""
    found = []
    for file in SOURCE.rglob("*.py"):
        relative = file.relative_to(SOURCE)
        if relative != Path("__init__.py"):
            found.append((relative.parts[0].removesuffix(".py"), file))
    return found


def imports(file: Path, in_functions: bool = True, members: bool = False) -> set[str]:
    """Dotted names that a file imports at run time (those under TYPE_CHECKING are for the type checker alone).

    With `members` also what comes out of a package, which may be a module; the package itself then counts only where
    something else comes out of it.
    """
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
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            if members or node.module == "cohort":
                names.update(inner)
            if not members or not all(_is_module(name) for name in inner):
                names.add(node.module)
    return names


def _is_module(name: str) -> bool:
    path = SOURCE.parent / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize(("package", "file"), modules(), ids=lambda x: str(getattr(x, "name", x)))
def test_imports_point_downward(package, file):
    at_once = imports(file, in_functions=str(file.relative_to(SOURCE)) not in LATE)
    for name in imports(file):
        top, _, rest = name.partition(".")
        assert name not in at_once or top not in NEVER.get(package, set()), f"{package} must not import {name}"
        if top == "cohort" and rest:
            target = rest.split(".")[0]
            assert target in LEVEL, f"{target} has no place in the layers"
            if target != package:
                assert LEVEL[target] < LEVEL[package], f"{file.name}: {package} must not import {target}"
                assert target != "integrations", f"{file.name}: only names in tables lead to integrations"


def test_algorithms_know_nothing_but_torch():
    import sys

    for package, allowed in ONLY_TORCH.items():
        for file in (SOURCE / package).rglob("*.py"):
            for name in imports(file):
                top = name.partition(".")[0]
                own = name.startswith(f"cohort.{package}")
                assert own or top in allowed or top in sys.stdlib_module_names, f"{file.name} imports {name}"


def test_every_package_has_its_place():
    assert {package for package, _ in modules()} <= set(LEVEL)


# Rooms in which no module imports, by whatever way, one that imports it.
WITHOUT_CIRCLES = ["rewards", "preflight"]


def edges(room: str) -> dict[str, list[str]]:
    """Which modules of a room each of its modules imports: `{"rewards.items": ["rewards.combination"], ...}`."""
    files = {}
    for file in [*(SOURCE / room).rglob("*.py"), *SOURCE.glob(f"{room}.py")]:
        parts = file.relative_to(SOURCE).with_suffix("").parts
        files[".".join(part for part in parts if part != "__init__")] = file
    found = {}
    for name, file in files.items():
        targets = {target.removeprefix("cohort.") for target in imports(file, members=True)}
        found[name] = sorted(target for target in targets if target in files and target != name)
    return found


def circle(graph: dict[str, list[str]]) -> list[str]:
    """The modules of one circle, in the order in which they import each other; empty if there is none."""
    done: set[str] = set()
    for start in sorted(graph):
        path, branches = [start], [iter(graph[start])]
        while path:
            target = next(branches[-1], None)
            if target is None:
                done.add(path.pop())
                branches.pop()
            elif target in path:
                return [*path[path.index(target) :], target]
            elif target not in done:
                path.append(target)
                branches.append(iter(graph[target]))
    return []


@pytest.mark.parametrize("room", WITHOUT_CIRCLES)
def test_no_circles_inside_a_room(room):
    found = circle(edges(room))
    assert not found, "a circle of imports: " + " -> ".join(found)


def test_a_circle_is_found_and_named():
    assert circle({"a": ["b"], "b": ["c", "d"], "c": [], "d": ["b"]}) == ["b", "d", "b"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_rewards_has_few_files_beside_its_families():
    assert len(list((SOURCE / "rewards").glob("*.py"))) <= 20
