"""Rows of a source are read once, however many checks look at them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from cohort.settings import Task
from cohort.tasks import open_mixture, open_prompts, open_task
from cohort.tasks import prompts as sequences
from cohort.tasks.sources import files

ROWS = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1), "row": i} for i in range(50)]


@pytest.fixture
def reads(monkeypatch):
    """How often each row of a JSON Lines file was read after the file was indexed."""
    found: Counter[int] = Counter()
    plain = files.Rows.__getitem__

    def counted(self, index):
        found[index] += 1
        return plain(self, index)

    monkeypatch.setattr(files.Rows, "__getitem__", counted)
    return found


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_opening_splitting_and_checking_read_every_row_once(reads, file):
    task = open_prompts(Task(source=str(file), held_out=0.2), seed=0)
    rows = list(task.rows())
    assert len(rows) == len(ROWS)
    assert {prompt.tags["row"]: place for place, prompt in rows} == {i: f"{file}:{i + 1}" for i in range(50)}
    assert [task.train[i] for i in range(task.train.size)] == [prompt for _, prompt in rows[: task.train.size]]
    assert reads == Counter(range(50))


def test_a_source_keeps_no_more_than_its_share_of_memory(reads, file, monkeypatch):
    monkeypatch.setattr(sequences, "KEPT", 20 * sequences.OF_A_ROW)
    task = open_task(str(file))
    assert [prompt.tags["row"] for _, prompt in task.rows()] == list(range(50))
    assert Counter(reads.values()) == {1: 19, 2: 31}


def test_rows_that_hold_more_than_text_are_not_kept():
    class Image:
        pass

    rows = [{"prompt": "a", "image": Image()}]
    task = open_task(rows)
    assert task.train[0] is not task.train[0]
    assert open_task([{"prompt": "a"}]).train[0] is not None


def test_places_of_rows_and_of_what_is_made(file):
    task = open_mixture(
        {"rows": {"source": str(file), "limit": 2, "held_out": [{"prompt": "b"}]}, "words": {"source": "word_problems"}}
    )
    found = list(task.rows())
    assert [place for place, _ in found[:4]] == [f"{file}:1", f"{file}:2", "the list, row 1", "training prompt 1"]
    assert found[-1][0] == "held-out prompt 100"
    assert {prompt.tags["domain"] for _, prompt in found} == {"rows", "words"}
