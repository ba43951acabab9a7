"""Rows behind the first 20,000 that lack something are found before a model loads, wherever they stand."""

from __future__ import annotations

import json

import pytest

from cohort.tasks import open_task
from cohort.tasks.prompts import CHECKED
from cohort.types import UserError


def lines(count, late, at, **more):
    rows = [{"prompt": f"p{i}", "answer": str(i), **{k: v(i) for k, v in more.items()}} for i in range(count)]
    rows[at] = late
    return "".join(json.dumps(row) + "\n" for row in rows)


def names(i):
    return {f"k{i}": 1}


@pytest.mark.parametrize("more", [{}, {"meta": names}], ids=["alike", "a column whose values are all other tables"])
def test_a_prompt_that_is_missing_late(tmp_path, more):
    file = tmp_path / "train.jsonl"
    file.write_text(
        lines(CHECKED + 50, {"answer": "1", **{k: v(0) for k, v in more.items()}}, CHECKED + 20, **more), "utf-8"
    )
    with pytest.raises(UserError, match=rf"train\.jsonl:{CHECKED + 21}"):
        open_task(str(file))


def test_an_answer_that_is_missing_late_is_among_the_rows_that_are_looked_at(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text(lines(CHECKED + 50, {"prompt": "late"}, CHECKED + 20), "utf-8")
    for task in (open_task(str(file)), open_task(str(file), held_out=0.1)):
        found = [place for place, prompt in task.rows() if prompt.question == "late"]
        assert found
        assert all(str(CHECKED + 21) in place for place in found)


def test_a_late_row_of_the_second_file(tmp_path):
    (tmp_path / "train-0.jsonl").write_text(lines(CHECKED, {"prompt": "a", "answer": "1"}, 0), "utf-8")
    (tmp_path / "train-1.jsonl").write_text(lines(40, {"answer": "1"}, 20), "utf-8")
    with pytest.raises(UserError, match=r"train-1\.jsonl:21"):
        open_task(str(tmp_path))


def test_a_link_to_nothing_in_a_directory_is_said(tmp_path):
    (tmp_path / "train-0.jsonl").write_text(lines(3, {"prompt": "a", "answer": "1"}, 0), "utf-8")
    (tmp_path / "train-1.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match="link"):
        open_task(str(tmp_path))
