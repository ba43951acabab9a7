"""What the record costs of a step: `python bench/record.py [--recipe quickstart] [--sft 40] [--grpo 12]`.

Trains the first steps of the quickstart and adds up what the log does in them: salts, commitments, leaves and roots of
all rollouts, the columns that they need in Parquet, entries and signatures. It is put beside the time of the steps, by
the clock and in processor seconds; of a busy machine the second says more. Checkpoints and what is hashed once when a
stage begins are left out: they are not of a step.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cohort.record.rollouts as rollouts
import cohort.train.recorder as recorder
from cohort.recipe import Recipe
from cohort.recipe.loader import shipped
from cohort.record.chain import Chain
from cohort.record.entries import UNSIGNED
from cohort.record.leaves import OWN
from cohort.train import train
from cohort.train.examples import ExamplesTraining as SftTraining
from cohort.train.grpo.training import GrpoTraining
from cohort.views.console import Console

spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])  # clock seconds, processor seconds, calls


@contextlib.contextmanager
def timed(what: str) -> Any:
    before = time.perf_counter(), time.process_time()
    yield
    found = spent[what]
    found[0] += time.perf_counter() - before[0]
    found[1] += time.process_time() - before[1]
    found[2] += 1


def watch(place: Any, name: str, what: str) -> None:
    """Add up the time of a function."""
    original = getattr(place, name)

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        with timed(what):
            return original(*args, **kwargs)

    setattr(place, name, watched)


def watch_parquet() -> None:
    """The columns of the record, as what a file takes more with them than without."""
    original = rollouts.to_bytes

    def watched(table: Any) -> bytes:
        with timed("parquet"):
            content = original(table)
        with timed("parquet without"):
            original(table.drop_columns(list(OWN)))
        return content

    rollouts.to_bytes = watched


def watch_entries() -> None:
    original = Chain.append

    def watched(self: Chain, kind: str, **parts: Any) -> str:
        with timed("entries" if kind in UNSIGNED else "entries that are not of a step"):
            return original(self, kind, **parts)

    Chain.append = watched  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--sft", type=int, default=40, help="steps of the first stage")
    parser.add_argument("--grpo", type=int, default=12, help="steps of the last stage")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    watch(rollouts, "leaves", "leaves")
    watch(recorder, "Tree", "roots")
    watch(SftTraining, "step", "sft steps")
    watch(GrpoTraining, "step", "grpo steps")
    watch_parquet()
    watch_entries()
    with tempfile.TemporaryDirectory() as folder:
        changes = [f"cold_start.run.steps={given.sft}", f"grpo.run.steps={given.grpo}", "grpo.evaluate.problems=0"]
        recipe = Recipe.load(shipped(given.recipe) or Path(given.recipe), [*changes, f"run.directory={folder}"])
        train(recipe, console=Console(quiet=True))
    for what, (clock, cpu, calls) in sorted(spent.items()):
        print(f"{what:<32} {calls:>5} times {1e3 * clock / calls:9.3f} ms, {1e3 * cpu / calls:9.3f} ms of processor")
    shares = {}
    for unit, i in (("by the clock", 0), ("of processor time", 1)):
        of_rollouts = spent["leaves"][i] + spent["parquet"][i] - spent["parquet without"][i]
        entry = (spent["roots"][i] + spent["entries"][i]) / (given.sft + given.grpo)
        grpo = (of_rollouts + given.grpo * entry) / (spent["grpo steps"][i] - spent["parquet without"][i])
        shares[unit] = {"sft": given.sft * entry / spent["sft steps"][i], "grpo": grpo}
        print(f"the record {unit}: {shares[unit]['sft']:.2%} of a supervised step, {grpo:.2%} of a GRPO step")
    if given.json:
        given.json.write_text(json.dumps({"shares": shares, "parts": spent}), encoding="utf-8")


if __name__ == "__main__":
    main()
