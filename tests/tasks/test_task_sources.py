"""Rows from files, directories and datasets, and the sentence for everything that can be wrong with them."""

from __future__ import annotations

import json
from unittest.mock import MagicMock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort.tasks.sources.rows import open_rows
from cohort.types import UserError
from cohort.wording import nearest

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
    assert refused(path).startswith(f"{path}:1 is not UTF-8 text")
    path.write_text('{"prompt": "a"}\n{"prompt": "b", "answer": ' + "9" * 5000 + "}\n")
    message = refused(path)
    assert message.startswith(f"{path}:2 has a number of thousands of digits, which must be written as text")
    assert "sys." not in message
    path.write_text("[" * 100_000 + "\n")
    assert f"{path}:1 has lists or objects nested too deeply" in refused(path)


def test_jsonl_named_json(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert "name it .jsonl" in refused(path)
    path.write_text('[{"answer": ' + "9" * 5000 + "}]")
    assert refused(path) == f"{path} has a number of thousands of digits, which must be written as text. Mend it."
    path.write_bytes(b"\x1f\x8b\xff")
    assert refused(path) == f"{path} is not UTF-8 text. Save it as UTF-8."
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


def test_relative_paths_name_the_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    assert refused("trian.jsonl") == f"trian.jsonl does not exist in {tmp_path}. Did you mean train.jsonl?"
    assert refused("zzzzzz.csv") == f"zzzzzz.csv does not exist in {tmp_path}. Check the path."
    assert f"there is no directory {tmp_path / 'nowhere'}" in refused("nowhere/train.jsonl")
    (tmp_path / "train.jsonl").rename(tmp_path / "train.txt")
    assert f"the directory {tmp_path} holds no data file" in refused(".")


# --- the hub ---


@pytest.fixture
def hub(monkeypatch):
    """A hub in which every dataset has ROWS, until a test sets `answer` to an error; `calls` has what was asked."""
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    class Hub:
        def __init__(self):
            self.calls, self.answer = [], None

        def info(self, api, name, revision, timeout):
            if self.answer:
                raise self.answer

        def load(self, name, config, split, revision):
            self.calls.append((name, config, split, revision, datasets.config.HF_HUB_OFFLINE))
            if self.answer:
                raise ConnectionError("Couldn't reach the Hub\nwith details")
            return datasets.Dataset.from_list(ROWS)

    made = Hub()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda api, *args, **kw: made.info(api, *args, **kw))
    monkeypatch.setattr(datasets, "load_dataset", made.load)
    return made


def test_hub_id_gets_split_config_and_revision(hub):
    rows = open_rows("openai/gsm8k", split="test", config="main", revision="abc")
    assert hub.calls == [("openai/gsm8k", "main", "test", "abc", False)]
    assert rows.place(0) == "openai/gsm8k, row 1"


def test_without_a_network_only_the_cache_is_asked(hub):
    import datasets

    hub.answer = ConnectionError("no network")
    message = refused("someone/some-data")
    assert "'someone/some-data' is neither a file here nor a dataset that could be loaded from the hub" in message
    assert "(the hub cannot be reached, and it is not in the cache)" in message
    assert hub.calls == [("someone/some-data", None, "train", None, True)]
    assert datasets.config.HF_HUB_OFFLINE is False


def test_a_dataset_that_the_hub_does_not_have(hub):
    from huggingface_hub.errors import RepositoryNotFoundError

    hub.answer = RepositoryNotFoundError("404", response=MagicMock())
    assert "(the hub has no public dataset of that name)" in refused("someone/some-data")
    assert hub.calls == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("word_problem", "Did you mean word_problems?"),
        ("gsm8k", "Give word_problems, a file, a directory, or a hub dataset as owner/name."),
        ("train", "Did you mean train.jsonl?"),
        ("someone/train.jsonl", "there is no directory"),
        ("someone/train.jsnl", "there is no directory"),
        ("someone/notes.txt", "there is no directory"),
        ("data/train", "does not exist in"),
        ("a/b/c", "there is no directory"),
    ],
)
def test_what_is_no_owner_and_name_never_asks_the_hub(hub, tmp_path, monkeypatch, source, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    assert says in refused(source)
    assert hub.calls == []
    assert len(open_rows("someone/v1.1")) == len(ROWS)  # a dot alone makes no file


def test_wrong_object():
    assert "not int" in refused(7)
    assert "not list" in refused([1, 2])


def test_nearest():
    assert nearest("Quesion", ["answer", "question"]) == "question"
    assert nearest("prompt", ["x", "y"]) is None
