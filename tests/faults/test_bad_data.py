"""Data files that nobody should have: each is one sentence before any model is loaded, or is read as it is meant.

Tried: texts of every script, roles in any order, lines and fields of 200 MB and 1 GB, a row far behind that lacks a
column or has another type in it, files packed with gzip and zstd, whole, damaged and grown out of nothing, links in
circles, and many rows.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import time
import tracemalloc
from contextlib import nullcontext

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort.tasks import Renderer, open_demonstrations, open_task
from cohort.tasks.sources.rows import open_rows
from cohort.types import UserError

ROW = {"prompt": "What is 1 + 1?", "answer": "2"}
LINE = json.dumps(ROW) + "\n"
FAR = 40_000  # behind the rows that are read one after the other when a source is opened


@pytest.mark.fault("a line of 200 MB, of 1 GB, and a gigabyte without any line", "a sentence with its number at once")
@pytest.mark.parametrize("megabytes", [200, 1000])
@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_a_line_without_end_is_a_sentence_at_once(tmp_path, megabytes, ending):
    path = tmp_path / f"a{ending}"
    if ending == ".jsonl":
        with path.open("wb") as file:
            file.write(LINE.encode() + b'{"prompt": "')
            file.truncate(megabytes << 20)  # zeros that take no place on the disk
    else:
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(LINE.encode() + b'{"prompt": "')
            for _ in range(100):  # what comes behind is not looked at
                file.write(bytes(1 << 20))
    began = time.process_time()
    with pytest.raises(UserError, match=r":2 is a line of more than 64 MB"):
        open_task(path)
    assert time.process_time() - began < 5


@pytest.mark.fault("a text of 70 MB in CSV, JSON or Parquet", "a sentence with its row")
@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_a_text_that_is_no_prompt_is_a_sentence(tmp_path, ending):
    path, long = tmp_path / f"a{ending}", "a" * (70 << 20)
    if ending == ".csv":
        path.write_text(f"prompt,answer\nx,1\n{long},2\n")
    elif ending == ".json":
        path.write_text(json.dumps([ROW, {**ROW, "prompt": long}]))
    else:
        pq.write_table(pa.table({"prompt": ["x", long], "answer": ["1", "2"]}), path)
    with pytest.raises(UserError, match=r"row 2: 'prompt' is a text of more than 64 MB|field larger than field limit"):
        open_task(path)


def far(row, ending, tmp_path):
    """A source whose row number FAR is `row`."""
    rows = [ROW] * (FAR - 1) + [row, ROW]
    path = tmp_path / f"a{ending}"
    if ending == ".jsonl":
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    elif ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == ".csv":
        path.write_text(
            "prompt,answer\n" + "".join(f"{one.get('prompt', '')},{one.get('answer', '')}\n" for one in rows)
        )
    else:
        return datasets.Dataset.from_list(rows) if ending == "datasets" else rows
    return path


@pytest.mark.fault(
    "a column that is missing, or empty, in row 40,000", "a sentence with its place, before any model is loaded"
)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet", "datasets", "list"])
def test_a_column_that_is_missing_far_behind_is_found_at_the_start(tmp_path, ending):
    source = far({"answer": "2"}, ending, tmp_path)
    with pytest.raises(UserError, match=rf"(:|row ){FAR}\b.*'prompt'"):
        open_task(source)
    open_task(source, limit=FAR - 1)  # what is not asked for is not looked at


@pytest.mark.fault("another type in row 40,000", "a sentence with its place, before any model is loaded")
@pytest.mark.parametrize("prompt", [7, [], [{"role": "user"}], {"text": "x"}, [{"role": "user", "content": {"a": 1}}]])
def test_another_type_far_behind_is_found_at_the_start(tmp_path, prompt):
    with pytest.raises(UserError, match=rf":{FAR}\b"):
        open_task(far({**ROW, "prompt": prompt}, ".jsonl", tmp_path))


@pytest.mark.fault("a demonstration that is missing in row 40,001", "the same")
def test_a_demonstration_that_is_missing_far_behind_is_found_at_the_start():
    rows = [{"prompt": "x", "completion": "y"}] * FAR
    with pytest.raises(UserError, match=rf"row {FAR + 1}\b.*'completion'"):
        open_demonstrations([*rows, {"prompt": "x", "completion": None}])


@pytest.mark.fault("data packed with gzip or zstd", "it is read; what is damaged or no such file is a sentence")
@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv"])
def test_a_packed_file_is_read(tmp_path, ending, packing):
    plain = {".jsonl": LINE * 3, ".json": json.dumps([ROW] * 3), ".csv": "prompt,answer\n" + "What is 1 + 1?,2\n" * 3}
    path = tmp_path / f"train{ending}{packing}"
    packed = pa.Codec("gzip" if packing == ".gz" else "zstd").compress(plain[ending].encode(), asbytes=True)
    path.write_bytes(packed)
    rows = open_rows(path)
    assert [rows[index] for index in range(len(rows))] == [ROW] * 3
    assert len(open_rows(tmp_path)) == 3  # of a directory, by its split
    for damaged in (packed[: len(packed) // 2], b"\0" + packed[1:], plain[ending].encode(), b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot be read|has no rows|not UTF-8"):
            open_rows(path)


TEXTS = {
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u202e123\u202c \u0645\u0631\u062d\u0628\u0627",
    "emoji": "\U0001f469\u200d\U0001f52c\U0001f3f3\ufe0f\u200d\U0001f308",
    "combining characters": "Z\u0351\u036b\u0343a\u0334\u030al\u0321g\u0327o\u0361",
    "NUL and other controls": "a\0b\x07\x1b[2Jc\x7f",
    "ends of lines": "a\u2028b\x85c\r\nd\x0b",
    "a mark of the order of bytes": "\ufeffa",
}


@pytest.mark.fault("prompts right to left, of emoji, combining characters, controls, NUL", "they stay as they are")
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_text_of_any_script_stays_as_it_is(tmp_path, tokenizer, kind, ending):
    text, path = TEXTS[kind], tmp_path / f"a{ending}"
    if ending == ".parquet":
        pq.write_table(pa.table({"prompt": [text], "answer": ["1"]}), path)
    elif ending == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["prompt", "answer"], [text, "1"]])
    else:
        row = json.dumps({"prompt": text, "answer": "1"}, ensure_ascii=False)
        path.write_text(row if ending == ".jsonl" else f"[{row}]", "utf-8")
    prompt = open_task(path).train[0]
    assert prompt.text == text
    assert text in tokenizer.decode(Renderer(tokenizer).render(prompt).tokens)


@pytest.mark.fault("roles of a chat in any order", "they are written as they stand, or a sentence says what is missing")
@pytest.mark.parametrize(
    ("roles", "says"),
    [
        ("user user", ""),
        ("system user assistant user", ""),
        ("user system", ""),
        ("tool user", "knows the roles system, user and assistant"),
        ("prophet", "knows the roles system, user and assistant"),
        ("assistant", "nothing can go on from"),
        ("", "empty 'messages'"),
    ],
)
def test_roles_in_any_order(tokenizer, roles, says):
    chat = [{"role": role, "content": f"text {number}"} for number, role in enumerate(roles.split())]
    with pytest.raises(UserError, match=says) if says else nullcontext():
        prompt = open_task([{"messages": chat, "answer": "1"}]).train[0]
        shown = tokenizer.decode(Renderer(tokenizer).render(prompt).tokens)
    if says:
        return
    places = [shown.index(message["content"]) for message in chat]
    assert places == sorted(places)


@pytest.mark.fault("links that lead in a circle", "a sentence, whatever they stand for")
def test_links_in_a_circle_are_a_sentence(tmp_path):
    os.symlink("b.jsonl", tmp_path / "a.jsonl")
    os.symlink("a.jsonl", tmp_path / "b.jsonl")
    with pytest.raises(UserError, match="a link that leads in a circle"):
        open_rows(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="a link that leads in a circle"):
        open_rows(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/train.jsonl").write_text(LINE)
    os.symlink(tmp_path, tmp_path / "sub/up")  # a directory that holds itself
    assert len(open_rows(tmp_path / "sub")) == 1


@pytest.mark.fault("very many prompts", "10 microseconds and 20 bytes of memory for each at the start")
def test_many_rows_cost_little_memory(tmp_path):
    path, count = tmp_path / "a.jsonl", 50_000
    path.write_text(LINE * count)
    open_rows(path)  # what is imported
    tracemalloc.start()
    rows = open_rows(path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == count
    assert held < 20 * count
