"""Preference pairs in the forms in which people have them."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort.settings import Preferences, Task
from cohort.tasks.preferences import open_preferences, open_with_history
from cohort.tasks.prompts import place_of
from cohort.types import UserError

ROW = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
USER = {"role": "user", "content": "2 + 2?"}


def said(text):
    return {"role": "assistant", "content": text}


def only(row, **options):
    pairs = open_preferences([row], **options).train
    assert pairs.size == 1
    return pairs[0]


def refused(rows, **options):
    with pytest.raises(UserError) as caught:
        open_preferences(rows if isinstance(rows, list) else [rows], **options)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv"])
def test_a_file(tmp_path, suffix):
    file = tmp_path / f"pairs.{suffix}"
    rows = [{**ROW, "prompt": f"{i} + 2?"} for i in range(5)]
    if suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == "json":
        file.write_text(json.dumps(rows))
    elif suffix == "csv":
        file.write_text("prompt,chosen,rejected\n" + "".join(f"{row['prompt']},4,5\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    pairs = open_preferences(str(file))
    assert (pairs.train.size, pairs.held_out) == (5, None)
    pair = pairs.train[3]
    assert (pair.prompt.text, pair.chosen, pair.rejected, pair.margin) == ("3 + 2?", "4", "5", 0.0)


def test_answers_as_messages():
    pair = only({"prompt": [USER], "chosen": [said("4")], "rejected": [said("5")]})
    assert (pair.prompt.messages, pair.chosen, pair.rejected) == ((USER,), "4", "5")


def test_whole_conversations_with_and_without_a_prompt_column():
    row = {"chosen": [USER, said("4")], "rejected": [USER, said("5")]}
    assert only(row).prompt.messages == (USER,)
    assert only({**row, "prompt": "2 + 2?"}) == only(row)
    assert "answer different conversations" in refused({**row, "rejected": [{**USER, "content": "3?"}, said("5")]})
    assert "answer different conversations" in refused({**row, "rejected": "5"})


def test_the_form_of_hh_rlhf():
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 2 + 2?\n\nAssistant:"
    pair = only({"chosen": f"{start} It is 4.", "rejected": f"{start} It is 5."})
    assert [message["role"] for message in pair.prompt.messages] == ["user", "assistant", "user"]
    assert pair.prompt.question == "2 + 2?"
    assert (pair.chosen, pair.rejected) == ("It is 4.", "It is 5.")
    # One answer goes on with a turn of its own: that is part of the answer.
    pair = only({"chosen": f"{start} 4", "rejected": f"{start} 5\n\nHuman: No\n\nAssistant: 4"})
    assert pair.rejected == "5\n\nHuman: No\n\nAssistant: 4"


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "4", "rejected": "5"},
        {"chosen": "\n\nHuman: a\n\nAssistant: 4", "rejected": "\n\nHuman: b\n\nAssistant: 4"},
        {"chosen": "x\n\nHuman: a\n\nAssistant: 4", "rejected": "x\n\nHuman: a\n\nAssistant: 5"},
    ],
)
def test_texts_that_share_no_conversation_are_refused(row):
    assert "do not begin with a conversation" in refused(row)


def test_margins():
    assert only({**ROW, "by": 1}, margin="by").margin == 1.0
    for wrong in (-1, None, "2", float("nan"), float("inf"), True):
        assert "a margin is a number of at least 0" in refused({**ROW, "by": wrong}, margin="by")
    assert "no column 'margin'" in refused(ROW, margin="margin")


def test_what_is_wrong_with_a_row_is_said_with_its_place(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "chosen": " "}) + "\n")
    with pytest.raises(UserError, match=r"pairs\.jsonl:2 has no text in 'chosen'"):
        open_preferences(str(file))
    assert only({**ROW, "rejected": ""}).rejected == ""  # saying nothing may well be the worse answer
    assert "'chosen' holds a number" in refused({**ROW, "chosen": 4})
    assert "'rejected' holds nothing" in refused({**ROW, "rejected": None})
    assert "the last message of 'chosen' is the user's" in refused({**ROW, "chosen": [USER]})
    assert "no column 'chosen'" in refused({"prompt": "a", "better": "b", "rejected": "c"})
    assert "Did you mean 'Prompt'" in refused({**ROW, "Prompt": "a"}, prompt="prmpt")
    assert "lone surrogate" in refused({**ROW, "rejected": "\ud800"})
    assert "empty 'prompt'" in refused({**ROW, "prompt": "  "})


def test_other_column_names():
    row = {"question": "2 + 2?", "good": "4", "bad": "5"}
    assert only(row, prompt="question", chosen="good", rejected="bad").chosen == "4"


def test_held_out_share_splits_by_question():
    rows = [{**ROW, "prompt": f"question {i % 40}", "rejected": str(i)} for i in range(200)]
    pairs = open_preferences(rows, held_out=0.3)
    inside = {pairs.train[i].prompt.text for i in range(pairs.train.size)}
    outside = {pairs.held_out[i].prompt.text for i in range(pairs.held_out.size)}
    assert pairs.train.size + pairs.held_out.size == 200
    assert not inside & outside
    assert 5 <= len(outside) <= 20
    assert "leaves no held-out pair" in refused([ROW], held_out=0.01)
    for wrong in (1.5, 0.0, -1, True):
        assert "share between 0 and 1" in refused([ROW], held_out=wrong)


def test_held_out_source_and_limit():
    pairs = open_preferences([ROW] * 5, held_out=[ROW] * 2, limit=3)
    assert (pairs.train.size, pairs.held_out.size) == (3, 2)
    assert open_preferences([ROW] * 5, limit=99).train.size == 5
    assert "at least 1" in refused([ROW], limit=0)
    with pytest.raises(IndexError):
        pairs.held_out[2]


def test_a_held_out_split(tmp_path):
    for name, count in (("train", 3), ("test", 2)):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(ROW) + "\n") * count)
    pairs = open_preferences(str(tmp_path), held_out_split="test")
    assert (pairs.train.size, pairs.held_out.size) == (3, 2)


@pytest.fixture
def sources(tmp_path):
    """Files of new pairs and of earlier ones; some questions are in several."""
    made = {"new": range(90), "old": range(60, 160), "older": range(140, 200)}
    for name, numbers in made.items():
        rows = ({**ROW, "prompt": f"question {i}", "rejected": f"{name} {i}"} for i in numbers)
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(tmp_path / f"{name}.jsonl") for name in made}


@pytest.mark.parametrize("replay", [0.1, 0.5, 0.99])
def test_a_share_of_the_pairs_are_earlier_ones_and_none_of_them_asks_what_is_held_out(sources, replay):
    history = Preferences(history=(sources["old"], sources["older"]), replay=replay)
    task = Task(source=sources["new"], held_out=0.2)
    found = open_with_history(task, history, seed=3)
    every = [found.train[i] for i in range(found.train.size)]
    new = [pair for pair in every if pair.rejected.startswith("new")]
    assert every[: len(new)] == new
    assert found.replayed == len(every) - len(new)
    assert len({pair.rejected for pair in every}) == len(every)
    if replay < 0.9:
        assert found.replayed / len(every) == pytest.approx(replay, abs=0.01)
        assert {pair.rejected.split()[0] for pair in every} == {"new", "old", "older"}
    asked = {found.held_out[i].prompt.text for i in range(found.held_out.size)}
    assert asked
    assert not asked & {pair.prompt.text for pair in every}
    again, other = (open_with_history(task, history, seed) for seed in (3, 4))
    assert [again.train[i] for i in range(again.train.size)] == every
    assert replay > 0.9 or [other.train[i] for i in range(other.train.size)] != every
    assert re.search(r"old(er)?\.jsonl:\d+$", place_of(found.train, len(every) - 1, "pair"))


def test_without_history_or_replay_the_pairs_are_the_new_ones(sources):
    task = Task(source=sources["new"])
    for table in (Preferences(), Preferences(history=(sources["old"],), replay=0.0)):
        found = open_with_history(task, table, seed=0)
        assert (found.train.size, found.replayed) == (90, 0)
