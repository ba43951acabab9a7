"""Who may import whom: downward only, read from the source, imports inside functions included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "cohort"

# Packages of one level do not import each other, with the exceptions below.
LEVELS = [
    {"types"},
    {"seeds", "wording"},
    {"settings"},
    {"sandbox", "adapters"},
    {"kernels"},
    {"algorithms", "rewards", "tasks", "environments", "record", "recipe", "policy"},
    {"engine", "learn"},
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
LATE = {"rewards/model.py", "rewards/model_checkpoint.py", "rewards/process_model.py"}


def modules() -> list[tuple[str, Path]]:
    """(package, file) of every module; the top `__init__` may name anything, because it imports on use only."""
    found = []
    for file in SOURCE.rglob("*.py"):
        relative = file.relative_to(SOURCE)
        if relative != Path("__init__.py"):
            found.append((relative.parts[0].removesuffix(".py"), file))
    return found


def imports(file: Path, in_functions: bool = True) -> set[str]:
    """Dotted names that a file imports at run time (those under TYPE_CHECKING are for the type checker alone)."""
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
            names.add(node.module)
            if node.module == "cohort":
                names.update(f"cohort.{alias.name}" for alias in node.names)
    return names


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
