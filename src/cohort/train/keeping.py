"""record.json and the cards of a run, written by the run itself: at its end, and at every stop that saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cohort.account.making import account_for
from cohort.recipe import Recipe
from cohort.record.files import write_bytes
from cohort.record.manifest import EVALUATIONS
from cohort.views.cards.card import card
from cohort.views.cards.hub import evaluation_files
from cohort.views.cards.page import page


def keep_account(directory: Path, recipe: Recipe, models: bool = True) -> dict[str, Any]:
    """Write the record of the run as it is now, and what is made of it: card.md and card.html in the run's directory,
    and with `models` beside every trained model its card and its evaluations as the hub reads them. Returns the record.
    """
    record = account_for(directory, recipe)
    for index, stage in enumerate(record["stages"] if models else ()):
        last = index == len(record["stages"]) - 1
        final = (directory if last else directory / "stages" / stage["name"]) / "final"
        if final.is_dir():
            write_bytes(final / "README.md", card(record, index).encode("utf-8", "replace"))
            for name, text in evaluation_files(record, index).items():
                write_bytes(final / EVALUATIONS / name, text.encode())
    write_bytes(directory / "card.md", card(record).encode("utf-8", "replace"))
    write_bytes(directory / "card.html", page(record).encode("utf-8", "replace"))
    return record
