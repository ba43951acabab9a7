"""Write the tables of docs/reliability.md from the tests: `python tools/reliability_page.py`. A test checks them.

A row is a test, its sentence the test's name; above a table stands what its file says was tried beside it. The first
table is made of the marks `fault(befalls, happens, lost)` of tests, wherever they stand.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
MARK = "<!-- tests: written by tools/reliability_page.py -->\n"
AREAS = {
    "Weights that are not the model's": ("policy/test_fit", "train/test_broken_weights", "faults/test_bad_models"),
    "Adapters": ("policy/test_adapters", "train/test_adapter_reference", "cli/test_export"),
    "Number types": ("train/test_bfloat16", "train/test_bfloat16_masters", "train/test_torch_settings"),
    "Damaged checkpoints, kills, resume": ("train/test_damaged_checkpoints", "train/test_resume", "faults/test_kills"),
    "Stopping": ("train/test_stopping",),
    "Disks and directories": ("train/test_lost_directories", "faults/test_full_disks"),
    "What changed since a run began": ("train/test_changed_inputs",),
    "Output and encodings": ("views/test_output", "views/test_terminal", "test_encodings", "test_windows"),
    "Rows": ("tasks/test_rows_as_written", "faults/test_bad_data"),
    "Templates, turns, special tokens": ("tasks/test_chat_templates", "policy/test_turn_end", "policy/test_text"),
    "Text that rewards read": ("rewards/test_characters",),
    "Rewards that are out of range": ("algorithms/test_range",),
    "Rewards that fail": ("train/test_failures", "rewards/test_reward_async"),
    "Tool calls": ("environments/test_formats", "environments/test_tools"),
    "What must not leave, or come in": ("train/test_secrets", "record/test_outside", "train/test_remote_code"),
    "Ways out of the sandbox": ("sandbox/test_attacks",),
    "Input of any kind": ("test_any_input",),
    "The kernels' cache": ("kernels/test_library",),
}


def reliability_page(page: str) -> str:
    """The page with its tables as the tests are."""
    areas = (area(title, files) for title, files in AREAS.items())
    return "\n".join([page[: page.index(MARK)] + MARK, faults(), *areas])


def faults() -> str:
    """Faults that are injected: what befalls a run, what happens then, what is lost, and the test that shows it."""
    rows = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text("utf-8")
        for test in ast.parse(source).body if "mark.fault(" in source else []:
            for mark in test.decorator_list if isinstance(test, ast.FunctionDef) else []:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    befalls, happens, *lost = (ast.literal_eval(value) for value in mark.args)
                    place = path.relative_to(ROOT / "tests").as_posix()
                    rows.append(f"| {befalls} | {happens} | {(lost or ['nothing'])[0]} | `{place}`: `{test.name}` |")
    return "\n".join(
        ["## Faults", "", "| fault | what happens | what is lost | test |", "|---|---|---|---|", *rows, ""]
    )


def area(title: str, files: tuple[str, ...]) -> str:
    """A section: the tests of some files."""
    lines = [f"## {title}", ""]
    for file in files:
        path = ROOT / "tests" / f"{file}.py"
        tree = ast.parse(path.read_text("utf-8"))
        tests = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
        assigned = [n for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)]
        tables = {ast.unparse(n.targets[0]): size for n in assigned if (size := _size(n.value)) is not None}
        rows = [f"| {test.name.removeprefix('test_').replace('_', ' ')} | {_cases(test, tables)} |" for test in tests]
        said = " ".join((ast.get_docstring(tree) or "").split())
        lines += [f"{said} (`tests/{file}.py`)", "", "| what is tested | cases |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _cases(test: ast.FunctionDef, tables: dict[str, int]) -> str:
    """How many inputs a test names in its own lists, or in the tables of its file; "" for one."""
    count = 1
    for mark in test.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("parametrize"):
            values = mark.args[1]
            known = tables.get(values.id) if isinstance(values, ast.Name) else _size(values)
            if known is None:
                return "several"
            count *= known
    return str(count) if count > 1 else ""


def _size(values: ast.expr) -> int | None:
    """How many things a list or a table has, where it is written out."""
    if isinstance(values, ast.List | ast.Tuple):
        return len(values.elts)
    return len(values.keys) if isinstance(values, ast.Dict) else None


if __name__ == "__main__":
    PAGE.write_text(reliability_page(PAGE.read_text("utf-8")), "utf-8")
