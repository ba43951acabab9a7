"""What people bring is read as it is: columns inside of columns (verl's layout, SQuAD's lists), packed files, TSV, and
rows of a program. Tried: prompts, demonstrations, preferences, guesses; names that are nearly right, columns whose name
has a dot; JSON Lines, CSV, TSV, JSON and Parquet, plain and with .gz; damaged archives.
"""

from __future__ import annotations

import gzip
import json

import datasets
import pytest

from cohort.recipe import Recipe, digest, to_toml
from cohort.rewards.calling.reward import applies
from cohort.settings.reward import Reward
from cohort.tasks import open_demonstrations, open_preferences, open_task
from cohort.tasks.guess import guess
from cohort.tasks.sources.rows import open_rows
from cohort.types import UserError

VERL = [
    {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": f"{i} + 1?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
        "extra_info": {"split": "train", "index": i},
    }
    for i in range(40)
]
ROWS = [{"prompt": "1 + 1?", "answer": "2"}, {"prompt": "é\n?", "answer": "3"}]


def refused(call, *arguments, **fields):
    with pytest.raises(UserError) as caught:
        call(*arguments, **fields)
    return str(caught.value)


# ---- columns inside of columns


@pytest.mark.parametrize("form", ["parquet", "jsonl", "list", "dataset"])
def test_the_gold_answer_inside_of_verls_column_is_found(tmp_path, form):
    made = datasets.Dataset.from_list(VERL)
    source = {"list": VERL, "dataset": made}.get(form, tmp_path / f"a.{form}")
    if form == "parquet":
        made.to_parquet(source)
    elif form == "jsonl":
        source.write_text("".join(json.dumps(row) + "\n" for row in VERL))
    task = open_task(source, answer="reward_model.ground_truth", held_out=0.3)
    found = [prompts[i] for prompts in (task.train, task.held_out) for i in range(prompts.size)]
    assert {prompt.answer for prompt in found} == {str(i) for i in range(1, 41)}
    assert found[0].messages[0]["content"].endswith("+ 1?")
    assert found[0].tags["reward_model"]["style"] == "rule"  # rewards may ask for the column as it is
    assert applies({"extra_info.split": "train"}, found[0].tags)
    assert not applies({"extra_info.nothing": "train"}, found[0].tags)


def test_every_column_may_lie_inside_of_another_one_and_in_a_list():
    row = {
        "q": {"text": ["no", "1 + 1?"]},
        "a": {"good": ["two"], "bad": "x"},
        "by": {"how": {"much": 2}},
        "a.b": "dot",
    }
    assert open_task([row], prompt="q.text.1", answer="a.good.0").train[0].text == "1 + 1?"
    assert open_task([row], prompt="q.text.1", answer="a.b").train[0].answer == "dot"
    assert open_demonstrations([row], prompt="q.text.0", completion="a.good.0")[0].completion == "two"
    pairs = open_preferences([row], prompt="q.text.1", chosen="a.good.0", rejected="a.bad", margin="by.how.much")
    assert (pairs.train[0].chosen, pairs.train[0].rejected, pairs.train[0].margin) == ("two", "x", 2)
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert open_demonstrations([{"x": {"chat": chat}}], messages="x.chat")[0].completion == "b"


def test_a_name_inside_of_a_column_that_is_nearly_right_is_told():
    said = refused(open_task, VERL, answer="reward_model.ground_truht")
    assert "row 1 has no column 'reward_model.ground_truht'" in said
    assert "Did you mean 'reward_model.ground_truth'?" in said
    assert "Did you mean 'reward_model.ground_truth'?" in refused(open_task, VERL, answer="ground_truth")
    assert "row 41 has no column" in refused(open_task, [*VERL, {**VERL[0], "reward_model": {}}], answer=NAME)
    assert "has an empty" in refused(open_task, [{**VERL[0], "reward_model": {"ground_truth": None}}], answer=NAME)
    assert refused(open_task, [{"q": "a", "answer": "b"}]).endswith('Name the column: prompt = "...".')  # of any table
    assert "no column 'q.text.7'" in refused(open_task, [{"q": {"text": ["a"]}}], prompt="q.text.7")


NAME = "reward_model.ground_truth"


def test_verls_rows_are_known_to_those_who_guess():
    found = guess(open_rows(VERL))
    assert found.task == {"prompt": "prompt", "answer": NAME}
    assert found.reward == {"use": "exact_number"}
    assert guess(open_rows(VERL), {"answer": "extra_info.index"}).took[1].startswith("answers in 'extra_info.index'")


# ---- files


def packed(name, text):
    return gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()


def written(name):
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind == "json":
        return json.dumps(ROWS)
    if kind in ("csv", "tsv"):
        between = "," if kind == "csv" else "\t"
        return f'prompt{between}answer\n1 + 1?{between}2\n"é\n?"{between}3\n'
    return "\n".join(json.dumps(row) + "\n" for row in ROWS)


FILES = [f"train.{kind}{end}" for kind in ("jsonl", "ndjson", "json", "csv", "tsv", "CSV") for end in ("", ".gz")]


@pytest.mark.parametrize("name", FILES)
def test_packed_files_and_tabs_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(packed(name, written(name.lower())))
    (tmp_path / "test.parquet.gz").write_bytes(b"no")  # nothing that is read, so not a file of another split
    for source in (tmp_path / name, tmp_path):
        rows = open_rows(source)
        assert [dict(rows[i]) for i in (1, 0)] == [ROWS[1], ROWS[0]]
    if "json" in name and "l" in name:
        assert rows.place(1) == f"{tmp_path / name}:3"
    other = tmp_path / "train.txt"
    other.write_text("x")
    assert "Cohort reads" in refused(open_rows, other)


@pytest.mark.parametrize("damage", ["cut", "plain", "flipped"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "json"])
def test_a_damaged_archive_is_told(tmp_path, damage, kind):
    whole = gzip.compress((written(f"a.{kind}") * 50).encode())
    data = {"cut": whole[:-20], "plain": b"{}", "flipped": whole[:12] + b"\xff\xff\xff" + whole[15:]}[damage]
    (tmp_path / f"a.{kind}.gz").write_bytes(data)
    assert f"a.{kind}.gz" in refused(open_rows, tmp_path / f"a.{kind}.gz")


# ---- rows of a program in a recipe


def recipe(**task):
    return Recipe(policy={"model": "m"}, task=task, reward=[Reward(use="exact_number")])


def test_a_recipe_takes_rows_and_reads_an_iterable_once(tmp_path):
    for rows in (ROWS, tuple(ROWS), iter(ROWS), (row for row in ROWS), datasets.Dataset.from_list(ROWS)):
        table = recipe(source=rows).stages[0].task
        assert [open_task(table.source).train[i].answer for _ in range(2) for i in range(2)] == ["2", "3"] * 2
    split = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))
    assert open_task(recipe(source=split).stages[0].task.source).train.size == 2
    assert recipe(source=tmp_path / "a.jsonl").stages[0].task.source == str(tmp_path / "a.jsonl")
    made = recipe(source=ROWS)
    assert "# rows that a program gave" in to_toml(made)
    assert len(digest(made)) == 64
    assert Recipe(policy={"model": "m"}, task=made.stages[0].task, reward="exact_number").stages[0].task.source


@pytest.mark.parametrize("value", [5, True, ["a.jsonl", "b.jsonl"], [], {"train": [1]}, {}, "", b"x", list])
def test_what_is_no_source_is_refused(value):
    said = refused(recipe, source=value)
    assert said.startswith("task.source must be text that is not empty, not ")


def test_a_data_frame_is_told_how_it_becomes_rows():
    frame = pytest.importorskip("pandas").DataFrame(ROWS)
    assert 'frame.to_dict("records")' in refused(open_task, frame)
    assert open_task(frame.to_dict("records")).train.size == 2
