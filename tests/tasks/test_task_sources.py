"""Rows from files, directories and datasets, and the sentence for everything that can be wrong with them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort.tasks.nearest import nearest
from cohort.tasks.sources import open_rows
from cohort.types import UserError

ROWS = [{"prompt": f"What is {i} + 1?", "answer": i + 1} for i in range(7)]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def contents(rows):
    return [dict(rows[i]) for i in range(len(rows))]


def test_jsonl(tmp_path):
    rows = open_rows(write_jsonl(tmp_path / "train.jsonl", ROWS))
    assert contents(rows) == ROWS
    assert rows.columns == ("prompt", "answer")
    assert rows.place(2) == f"{tmp_path / 'train.jsonl'}:3"


def test_jsonl_with_blank_lines_a_byte_order_mark_and_no_last_newline(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "\xc3\xa9"}\r\n\r\n  \n{"prompt": "b", "x": 1}')
    rows = open_rows(str(path))
    assert contents(rows) == [{"prompt": "é"}, {"prompt": "b", "x": 1}]
    assert rows.columns == ("prompt", "x")
    assert rows.place(1).endswith(":4")


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"version": 1, "data": rows}])
def test_json(tmp_path, wrap):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(wrap(ROWS)))
    assert contents(open_rows(path)) == ROWS


def test_csv(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('prompt,answer\n"one, two",3\nb,4\n')
    assert contents(open_rows(path)) == [{"prompt": "one, two", "answer": "3"}, {"prompt": "b", "answer": "4"}]


def test_parquet_in_several_row_groups(tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=3)
    rows = open_rows(path)
    assert contents(rows) == ROWS
    assert rows[6] == ROWS[6]
    assert rows.place(6) == f"{path}, row 7"


def test_directory_of_files_in_order(tmp_path):
    write_jsonl(tmp_path / "b.jsonl", ROWS[4:])
    write_jsonl(tmp_path / "a.jsonl", ROWS[:4])
    (tmp_path / "notes.txt").write_text("not data")
    rows = open_rows(tmp_path)
    assert contents(rows) == ROWS
    assert rows.place(5) == f"{tmp_path / 'b.jsonl'}:2"


def test_directory_with_splits(tmp_path):
    write_jsonl(tmp_path / "train-00000.jsonl", ROWS[:2])
    write_jsonl(tmp_path / "train-00001.jsonl", ROWS[2:4])
    write_jsonl(tmp_path / "test.jsonl", ROWS[4:])
    assert contents(open_rows(tmp_path)) == ROWS[:4]
    assert contents(open_rows(tmp_path, split="test")) == ROWS[4:]
    with pytest.raises(UserError, match=r"no file for the split 'validation'; it holds test\.jsonl, train"):
        open_rows(tmp_path, split="validation")


def test_datasets_directories_and_objects(tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": dataset, "test": dataset.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert contents(open_rows(dataset)) == ROWS
    assert contents(open_rows(tmp_path / "one")) == ROWS
    assert contents(open_rows(tmp_path / "two", split="test")) == ROWS[1:2]
    assert open_rows(tmp_path / "one").columns == ("prompt", "answer")
    with pytest.raises(UserError, match="has no split 'validation'; it has 'train', 'test'"):
        open_rows(tmp_path / "two", split="validation")


def test_list_of_dicts():
    assert contents(open_rows(ROWS)) == ROWS


# --- what can be wrong ---


def refused(source, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_rows(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_file_suggests_the_nearest(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "other.jsonl", ROWS)
    message = refused(tmp_path / "trian.jsonl")
    assert "does not exist" in message
    assert f"Did you mean {tmp_path / 'train.jsonl'}?" in message
    assert "Did you mean" not in refused(tmp_path / "zzzzzzzzzzzz.csv")


def test_missing_directory(tmp_path):
    assert f"there is no directory {tmp_path / 'nowhere'}" in refused(tmp_path / "nowhere" / "train.jsonl")


@pytest.mark.parametrize("name", ["train.jsonl", "train.json", "train.csv"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).write_text("\n")
    assert "has no rows" in refused(tmp_path / name)


def test_empty_list():
    assert "has no rows" in refused([])


def test_malformed_line_is_pointed_at(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b"\n')
    assert refused(path).startswith(f"{path}:3 is not JSON")
    path.write_text('{"prompt": "a"}\n[1, 2]\n')
    assert f"{path}:2 holds a list" in refused(path)
    path.write_bytes(b'{"prompt": "\xff"}\n')
    assert refused(path).startswith(f"{path}:1 is not JSON")


def test_jsonl_named_json(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert "name it .jsonl" in refused(path)
    path.write_text('["a", "b"]')
    assert "must hold a list of JSON objects" in refused(path)


def test_broken_parquet_and_csv(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    assert "is not a Parquet file" in refused(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("prompt,answer\na,1\nb\n")
    assert "row 2 has not as many fields" in refused(tmp_path / "a.csv")


def test_unknown_extension_and_empty_directory(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"?")
    assert "'.xlsx'; Cohort reads .jsonl" in refused(tmp_path / "a.xlsx")
    assert "holds no data file" in refused(tmp_path)


def test_unreachable_hub_id(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def unreachable(name, config, split, revision):
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub (offline)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = refused("someone/some-data")
    assert "'someone/some-data' is neither a file here nor a dataset that could be loaded" in message
    assert "(Couldn't reach 'someone/some-data' on the Hub (offline))" in message


def test_hub_id_gets_split_config_and_revision(monkeypatch):
    datasets = pytest.importorskip("datasets")
    calls = []

    def load(name, config, split, revision):
        calls.append((name, config, split, revision))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = open_rows("openai/gsm8k", split="test", config="main", revision="abc")
    assert calls == [("openai/gsm8k", "main", "test", "abc")]
    assert rows.place(0) == "openai/gsm8k, row 1"


def test_wrong_object():
    assert "not int" in refused(7)
    assert "not list" in refused([1, 2])


def test_nearest():
    assert nearest("Quesion", ["answer", "question"]) == "question"
    assert nearest("prompt", ["x", "y"]) is None
