"""Write the table of kinds in docs/rewards/math.md from the pairs in tests/rewards/math_pairs.txt.

.venv/bin/python tools/math_table.py
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
PAIRS = ROOT / "tests" / "rewards" / "math_pairs.txt"
PAGE = ROOT / "docs" / "rewards" / "math.md"
BEGIN, END = "<!-- tools/math_table.py -->\n", "<!-- end -->\n"
SHOWN = 3  # pairs of each sort


def pairs() -> list[tuple[str, bool, str, str]]:
    """(kind, whether it is paid, gold, answer) of every pair."""
    found, kind = [], ""
    for line in PAIRS.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            kind = line[2:]
        elif line:
            gold, answer = line[2:].split(" :: ")
            found.append((kind, line[0] == "+", gold, answer))
    return found


def cell(some: list[tuple[str, str]]) -> str:
    """The first pairs of one sort, of the shorter ones."""
    chosen = sorted(some, key=lambda pair: len(" ".join(pair)) > 48)[:SHOWN]
    return "<br>".join(f"{code(gold)} ← {code(answer)}" for gold, answer in chosen)


def code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def table() -> str:
    """The table: a row a kind, with some of its pairs and how many there are."""
    lines = ["| kind | paid (gold ← answer) | not paid | pairs |", "|---|---|---|---|"]
    found = pairs()
    for kind in dict.fromkeys(kind for kind, *_ in found):
        paid = [(gold, answer) for of, pays, gold, answer in found if of == kind and pays]
        wrong = [(gold, answer) for of, pays, gold, answer in found if of == kind and not pays]
        lines.append(f"| {kind} | {cell(paid)} | {cell(wrong)} | {len(paid)} + {len(wrong)} |")
    return "\n".join(lines) + "\n"


def math_page() -> str:
    """The page with the table as the pairs have it now."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(math_page(), encoding="utf-8")
