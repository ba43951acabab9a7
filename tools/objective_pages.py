"""Write the generated parts of docs/objectives: `python tools/objective_pages.py`. A test checks that they are current.

On each preset's page that is its one-line summary and its equation, on the index the table of all presets.
"""

from __future__ import annotations

import re
from pathlib import Path

from cohort.algorithms import explain, unified
from cohort.algorithms.equation import Shape
from cohort.algorithms.notation import number
from cohort.algorithms.objectives import PRESETS, preset

PAGES = Path(__file__).parent.parent / "docs" / "objectives"
INDEX = PAGES / "index.md"


def page(name: str) -> Path:
    return PAGES / f"{name}.md"


def preset_page(name: str, text: str) -> str:
    """The page of a preset with its summary and equation written anew."""
    objective = preset(name)
    return _replace(text, "equation", f"{explain.one_line(objective)}\n\n```text\n{explain.equation(objective)}\n```")


def index_page(text: str) -> str:
    """The index with its table written anew."""
    rows = ["| preset | method | what differs from `grpo` | hash |", "|---|---|---|---|"]
    for name, named in PRESETS.items():
        rows.append(f"| [`{name}`]({name}.md) | {named.title} | {_changes(name)} | `{preset(name).hash[:12]}` |")
    view = ["| method | data | reward | gradient coefficient |", "|---|---|---|---|"]
    for row in unified.rows(preset("grpo"), Shape()):
        name = "`grpo`" if row.name == "this recipe" else f"`{row.name}`"
        view.append(f"| {name} | {row.data} | {row.reward} | {row.coefficient} |")
    del view[3]  # grpo once
    return _replace(_replace(text, "table", "\n".join(rows)), "view", "\n".join(view))


def _changes(name: str) -> str:
    """The fields of a preset that differ from those of grpo, as a recipe would write them."""
    changes = explain.difference(preset("grpo"), preset(name))
    return "<br>".join(f"`{field} = {_toml(value)}`" for field, _, value, _ in changes) or "nothing"


def _toml(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return '"off"' if value is None else f'"{value}"' if isinstance(value, str) else str(value)


def _replace(text: str, part: str, content: str) -> str:
    marks = re.compile(rf"(<!-- {part}: generated -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"there is no '<!-- {part}: generated -->' ... '<!-- end -->' to write into")
    return marks.sub(lambda m: f"{m[1]}{content}\n{m[2]}", text, count=1)


if __name__ == "__main__":
    INDEX.write_text(index_page(INDEX.read_text(encoding="utf-8")), encoding="utf-8")
    for name in PRESETS:
        page(name).write_text(preset_page(name, page(name).read_text(encoding="utf-8")), encoding="utf-8")
