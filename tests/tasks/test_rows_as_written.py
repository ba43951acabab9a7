"""Rows mean the same whatever holds them: contents in parts, fields that a row lacks, long fields; and what cannot be
read is said with its place. Tried with JSON Lines, Parquet, datasets and lists; prompts, demonstrations, preferences.
"""

from __future__ import annotations

import json
import os

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort.environments.tools import tool_of
from cohort.tasks import open_demonstrations, open_preferences, open_task
from cohort.tasks.sources.rows import open_rows
from cohort.types import UserError

PARTS = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1 + 1?"}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def user(content):
    return {"role": "user", "content": content}


def said(content):
    return {"role": "assistant", "content": content}


# ---- contents in parts


def test_parts_that_are_text_are_text_in_prompts(tmp_path):
    task = open_task(write(tmp_path / "a.jsonl", [{"prompt": [{"role": "system", "content": PARTS}, user(PARTS)]}]))
    assert [message["content"] for message in task.train[0].messages] == ["What is 1 + 1?"] * 2
    assert task.train[0].question == "What is 1 + 1?"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user(PARTS), said([{"type": "text", "text": "2"}])]},
        {"prompt": [user(PARTS)], "completion": [said([{"type": "text", "text": "2"}])]},
    ],
)
def test_parts_that_are_text_are_text_in_demonstrations(row):
    example = open_demonstrations([row])[0]
    assert (example.prompt.question, example.completion) == ("What is 1 + 1?", "2")


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [user(PARTS), said([{"type": "text", "text": "2"}])], "rejected": [user(PARTS), said("3")]},
        {"prompt": [user(PARTS)], "chosen": [said([{"type": "text", "text": "2"}])], "rejected": [said("3")]},
    ],
)
def test_parts_that_are_text_are_text_in_preferences(row):
    pair = open_preferences([row]).train[0]
    assert (pair.prompt.question, pair.chosen, pair.rejected) == ("What is 1 + 1?", "2", "3")


def test_parts_that_are_text_are_text_in_results_of_tools():
    def look(query: str) -> list:
        """Look.

        Args:
            query: What for.
        """
        return PARTS if query == "parts" else [{"type": "image"}]

    assert tool_of(look).call({"query": "parts"}).result == "What is 1 + 1?"
    assert tool_of(look).call({"query": "other"}).result == '[{"type": "image"}]'


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image"}],
        [{"type": "text", "text": "How many?"}, {"type": "image_url", "image_url": "cats.png"}],
        [{"type": "text"}],
        [{"type": "text", "text": 5}],
        ["How many?"],
        {"text": "hi"},
        12,
        True,
    ],
)
def test_a_content_that_is_no_text_is_refused_with_its_line(tmp_path, content):
    good = {"prompt": [user("?")], "messages": [user("?"), said("!")], "chosen": [said("a")], "rejected": [said("b")]}
    bad = {
        "prompt": [user(content)],
        "messages": [user(content), said("!")],
        "chosen": [user(content), said("a")],
        "rejected": [user(content), said("b")],
    }
    path = write(tmp_path / "a.jsonl", [good, bad])
    for opened in (open_task, lambda p: open_demonstrations(p, messages="messages"), open_preferences):
        with pytest.raises(
            UserError, match=r"a\.jsonl:2: the content of a message in '\w+' is .*Cohort trains on text"
        ):
            opened(path)


def test_only_an_assistant_may_say_nothing(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": None}}}]}
    bare = {key: value for key, value in call.items() if key != "content"}
    for one in (call, bare):
        path = write(tmp_path / "a.jsonl", [{"prompt": [user("?"), one, {"role": "tool", "content": "2"}]}])
        message = open_task(path).train[0].messages[1]
        assert message["content"] == ""
        assert message["tool_calls"][0]["function"]["arguments"] == {"x": None}  # as it was written
    for messages in (
        [user(None)],
        [{"role": "tool", "content": None}, user("?")],
        [{"role": "user"}],
        [{"content": "?"}],
    ):
        with pytest.raises(UserError, match=r'a\.jsonl:1: every message in .* needs "role" and "content"'):
            open_task(write(tmp_path / "a.jsonl", [{"prompt": messages}]))


# ---- fields that a row lacks


def calls(name, **arguments):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return [user("hi"), {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "ok"}]


ROWS = [
    {"prompt": calls("move", x=0, y=1), "answer": "2", "info": {"a": 1, "deep": [{"b": {"c": 1}}]}, "tools": []},
    {
        "prompt": calls("weather", city="Bonn"),
        "answer": "3",
        "info": {"d": "q"},
        "tools": [{"name": "f", "strict": True}],
    },
    {"prompt": calls("none"), "answer": None, "info": {"deep": [{"e": [{"f": "x"}, {"g": "y"}]}]}, "tools": []},
]


@pytest.mark.parametrize("kind", ["parquet", "saved", "dataset", "splits", "directory"])
def test_a_field_that_a_row_lacks_is_not_there(tmp_path, kind):
    made = datasets.Dataset.from_list(ROWS)
    source = {
        "parquet": lambda: made.to_parquet(tmp_path / "a.parquet") and tmp_path / "a.parquet",
        "directory": lambda: made.to_parquet(tmp_path / "a.parquet") and tmp_path,
        "saved": lambda: made.save_to_disk(tmp_path / "saved") or tmp_path / "saved",
        "dataset": lambda: made,
        "splits": lambda: datasets.DatasetDict(train=made),
    }[kind]()
    found, expected = open_task(source), open_task(write(tmp_path / "rows.txt", ROWS).rename(tmp_path / "b.jsonl"))
    for index, row in enumerate(ROWS):
        prompt = found.train[index]
        assert prompt.messages == expected.train[index].messages
        assert prompt.tags == {"info": row["info"], "tools": row["tools"]}
        assert prompt.answer == row["answer"]  # a column that is None stays so


def test_preferences_have_no_tools():
    row = {"prompt": "?", "chosen": "a", "rejected": "b"}
    assert open_preferences([{**row, "tools": None}]).train[0].chosen == "a"
    with pytest.raises(UserError, match="row 1 has tools in its column 'tools'"):
        open_preferences([{**row, "tools": [{"name": "f"}]}])


# ---- files


def test_a_field_of_csv_may_have_any_length(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('prompt,answer\n"' + "x" * 300_000 + '",1\nb,2\n')
    assert [len(open_rows(path)[i]["prompt"]) for i in range(2)] == [300_000, 1]


def test_a_damaged_parquet_file_is_a_sentence(tmp_path):
    """Whatever byte is damaged: the rows are read, or the file is refused; nothing else happens."""
    path = tmp_path / "a.parquet"
    table = pa.table({"prompt": ["one", "two", "one", "three"] * 5, "answer": ["1", "2", "1", "3"] * 5})
    pq.write_table(table, path, compression="none", use_dictionary=True)
    whole, refused = path.read_bytes(), 0
    for place in range(4, len(whole) - 8, 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            rows = open_rows(path)
            assert [dict(rows[i]) for i in range(len(rows))]
        except UserError as error:
            refused += "a.parquet" in str(error)
    assert refused > 20


def test_a_file_that_is_there_is_not_its_own_correction(tmp_path):
    (tmp_path / "train.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match=r"train\.jsonl is a link to .*gone\.jsonl, which does not exist"):
        open_rows(tmp_path / "train.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UserError, match=r"pipe\.jsonl is neither a file nor a directory"):
        open_rows(tmp_path / "pipe.jsonl")
    with pytest.raises(UserError, match=r"cannot be read: File name too long"):
        open_rows(tmp_path / ("x" * 300 + ".jsonl"))


def test_a_stream_of_rows_is_a_sentence():
    stream = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    for source in (stream, datasets.IterableDatasetDict(train=stream)):
        with pytest.raises(UserError, match=r"not IterableDataset\. Make it a list first"):
            open_task(source)


def test_a_source_that_makes_prompts_is_no_file_of_rows():
    with pytest.raises(
        UserError, match=r"word_problems does not exist in .*, and the source of that name makes prompts"
    ):
        open_rows("word_problems")
    with pytest.raises(UserError, match="reasoning_gym:chain_sum has questions and answers but no pairs"):
        open_preferences("reasoning_gym:chain_sum")


# ---- names that are there twice

ROW = '{"prompt": "1 + 1?", "answer": "2"}'


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.jsonl",
            f'{ROW}\n{{"prompt": "x", "answer": "2", "answer": "3"}}\n',
            "a.jsonl:2 has the key 'answer' twice",
        ),
        ("a.jsonl", '{"prompt": "x", "meta": {"a": 1, "a": 2}}\n', "a.jsonl:1 has the key 'a' twice"),
        ("a.json", f'[{ROW}, {{"prompt": "x", "prompt": "y"}}]', "a.json has the key 'prompt' twice"),
        ("a.csv", "prompt,answer,answer\n1 + 1?,2,3\n", "a.csv has two columns that are called 'answer'"),
    ],
)
def test_a_name_that_is_there_twice_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        [dict(row) for row in map(open_rows(str(tmp_path / name)).get, range(2))]
