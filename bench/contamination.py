"""How long looking for a benchmark in generated training rows takes, and in how much memory.

    python bench/contamination.py --rows 1000000 --questions 10000

Questions are words drawn by their frequency, as in a text (Zipf); copies of every class are planted, one in a thousand
rows, and counted afterwards. Without --near the layer of near-duplicates is left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator

import numpy as np

from cohort.machine import peak_memory_gb
from cohort.preflight.contamination import EVERY, Question, look

WORDS = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bcdfghjklmnpqrstvwxyz"])
EVERY_SO_MANY = 1_000


def questions(count: int, seed: int, name: str) -> Iterator[Question]:
    """Questions of 20 to 60 words with two numbers and an answer, a thousand drawn at a time."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, len(WORDS) + 1)
    for start in range(0, count, 1_000):
        drawn = rng.choice(len(WORDS), (1_000, 60), p=share / share.sum())
        lengths, numbers = rng.integers(20, 61, 1_000), rng.integers(2, 10_000, (1_000, 3))
        for row in range(min(1_000, count - start)):
            words = [*WORDS[drawn[row, : lengths[row]]]]
            words[5], words[12] = str(numbers[row, 0]), f"{numbers[row, 1]},"
            yield Question(f"{name}{start + row}", f"{name}:{start + row}", " ".join(words), str(numbers[row, 2]))


def planted(rows: int, benchmark: list[Question]) -> Iterator[Question]:
    """Training rows, of which every thousandth is a question of the benchmark: as it is, or with one word changed."""
    for number, row in enumerate(questions(rows, 2, "train")):
        if number % EVERY_SO_MANY:
            yield row
            continue
        copied = benchmark[number // EVERY_SO_MANY % len(benchmark)]
        words = copied.text.split()
        if number // EVERY_SO_MANY % 2:
            words[len(words) // 2] = "another"
        yield Question(row.id, row.place, " ".join(words).title(), copied.answer)


def told(rows: Iterable[Question], count: int) -> Iterator[Question]:
    """The rows; after each tenth of them a line says how far it has come, by how much work, in how much memory."""
    worked = time.process_time()
    for number, row in enumerate(rows, start=1):
        yield row
        if number % max(count // 10, 1) == 0:
            spent = time.process_time() - worked
            each = f"{1e3 * spent / number:.2f} ms a row"
            print(
                f"  {number:>9,} rows, {spent:.0f} s of one core ({each}), peak {peak_memory_gb():.2f} GB", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--near", action="store_true", help="near-duplicates, too")
    given = parser.parse_args()
    benchmark = list(questions(given.questions, 1, "benchmark"))
    layers = [name for name in EVERY if given.near or name != "near_duplicate"]
    began, worked = time.perf_counter(), time.process_time()
    rows = told(planted(given.rows, benchmark), given.rows)
    report = look("benchmark", benchmark, rows, given.rows, layers)
    spent = f"{time.perf_counter() - began:.0f} s ({time.process_time() - worked:.0f} s of one core)"
    print(f"{given.rows:,} rows against {given.questions:,} questions: {spent}, peak {peak_memory_gb():.2f} GB")
    for name, found in report.layers.items():
        print(f"  {name:<18} {len(found.ids):>6} questions in {found.prompts:>7} prompts")
    for name, why in report.not_looked.items():
        print(f"  {name:<18} {why}")


if __name__ == "__main__":
    main()
