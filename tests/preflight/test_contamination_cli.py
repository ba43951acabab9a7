"""Contamination as a person meets it: `cohort check --against`, before a run, and in the record."""

from __future__ import annotations

import io
import json

import orjson
import pytest

from cohort import Recipe
from cohort.commands.check import check_recipe
from cohort.preflight.contamination.report import Report
from cohort.preflight.contamination.sides import benchmark_of, without_held_out
from cohort.tasks import open_mixture, open_task
from cohort.train import train
from cohort.train.contamination import found_before
from cohort.train.examples import PreparedPairs
from cohort.train.run import prepare
from cohort.train.sft import PreparedSft
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console

LONG = "A farmer has a red barn with twelve cows in it and sells {} of them on Monday. How many are left on Tuesday?"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def tables(tmp_path, checkpoint_dir):
    rows = [{"question": f"What is {i} plus {i + 1}?", "solution": str(2 * i + 1)} for i in range(12)]
    rows.append({"question": LONG.format(5), "solution": "7"})
    asked = [*rows[:2], {"question": LONG.format(9), "solution": "3"}, {"question": "Why is 4 even?", "solution": "4"}]
    return {
        "name": "small",
        "policy": {"model": str(checkpoint_dir)},
        "task": {
            "source": write(tmp_path / "train.jsonl", rows),
            "held_out": write(tmp_path / "test.jsonl", asked),
            "prompt": "question",
            "answer": "solution",
        },
        "rollout": {"prompts_per_step": 2, "group_size": 2, "max_tokens": 8},
        "reward": [{"use": "exact_number"}],
        "evaluate": {"problems": 4, "samples": 0},
        "run": {"steps": 1, "directory": str(tmp_path / "runs"), "threads": 1},
    }


def test_a_run_says_what_it_also_trains_on_and_the_record_has_both_accuracies(tables, tmp_path):
    text = io.StringIO()
    done = train(Recipe(**tables), console=Console(file=text, width=400))
    assert "3 held-out questions are also trained on (2 whole, else 13 words of it in a row)" in text.getvalue()
    found = orjson.loads((done.directory / "contamination.json").read_bytes())["grpo"]
    assert found["questions"] == 4
    assert found["prompts_flagged"] == 3
    assert not found["dropped"]
    assert len(found["layers"]["exact"]["ids"]) == 2
    claim = orjson.loads((done.directory / "record.json").read_bytes())["stages"][0]["data"]["contamination"]
    assert claim["basis"] == "measured"
    assert claim["value"]["flagged"] == found["flagged"]
    greedy = claim["value"]["accuracy"]["greedy"]
    assert {name: side["problems"] for name, side in greedy.items()} == {"clean": 1, "flagged": 3}
    assert {one["path"] for one in claim["evidence"]} >= {"contamination.json", "log/eval-000001-greedy.parquet"}
    first = orjson.loads((done.directory / "log" / "chain.jsonl").read_bytes().splitlines()[0])
    assert "contamination.json" in first["recipe"]["files"]


def test_what_holds_a_held_out_question_is_left_out_where_the_recipe_says_so(tables):
    task = open_task(**tables["task"])
    left, report = without_held_out(task, made=4)
    assert left.train.size == 10
    assert [left.train[i].text for i in range(10)] == [f"What is {i} plus {i + 1}?" for i in range(2, 12)]
    assert report.found_in.tolist() == [0, 1, 12]
    assert set(report.layers["exact"].prompt_ids) == {task.train[0].id, task.train[1].id}
    everything = open_task(**tables["task"] | {"held_out": tables["task"]["source"]})
    with pytest.raises(UserError, match='decontaminate = "drop" would leave no training prompt'):
        without_held_out(everything, made=4)
    assert without_held_out(open_task("word_problems"), made=4)[1] is None


def test_drop_in_a_mixture_leaves_every_source_its_own():
    rows = [{"prompt": f"Question number {i}, please?", "answer": str(i)} for i in range(8)]
    mixed = open_mixture({"a": {"source": rows[:4], "held_out": [rows[6]]}, "b": {"source": rows[4:]}})
    left, report = without_held_out(mixed, made=4)
    assert [source.train.size for source in left.sources] == [4, 3]
    assert report.found_in.tolist() == [6]
    assert {left.train[i].text for i in range(6)} <= {row["prompt"] for row in rows if row is not rows[6]}


def test_a_benchmark_is_read_by_the_names_of_its_columns_or_by_those_that_are_given(tmp_path):
    plain = write(tmp_path / "a.jsonl", [{"problem": "Why?", "solution": "42", "topic": "all"}])
    assert [(q.text, q.answer) for q in benchmark_of(plain)] == [("Why?", "42")]
    odd = write(tmp_path / "b.jsonl", [{"ask": "Why?", "say": 42}])
    assert [(q.text, q.answer) for q in benchmark_of(f"{odd}:question=ask,answer=say")] == [("Why?", "42")]
    gsm8k = write(tmp_path / "c.jsonl", [{"question": "Why?", "answer": "Well. #### 1,042"}])
    assert [q.answer for q in benchmark_of(gsm8k)] == ["1042"]
    (tmp_path / "d.csv").write_text("question,answer\nWhy?,42\n")
    assert [q.answer for q in benchmark_of(str(tmp_path / "d.csv"))] == ["42"]


HOSTILE = {
    "empty.jsonl": (b"", "has no rows"),
    "binary.jsonl": (b"\x00\x01\xff\xfe\n" * 9, "--against"),
    "columns.jsonl": (b'{"a": 1}\n', r"Name the column of the questions: --against .*question=COLUMN"),
    "blank.jsonl": (b'{"question": "x"}\n{"question": " "}\n', "has an empty 'question'"),
    "not.xyz": (b"hello", "Cohort reads"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_benchmark_that_cannot_be_read_is_one_sentence(tmp_path, name):
    content, says = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        benchmark_of(str(tmp_path / name))
    assert str(error.value).startswith("--against ")
    assert "\n" not in str(error.value)


WRONG = ("x.jsonl:question=", "x.jsonl:frage=a", "x.jsonl:question=a,answer=b,answer=c", "no.jsonl", "word_problems")


def test_a_column_of_a_benchmark_that_is_not_there_is_told_as_it_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"ask": "Why?", "say": "42"}\n')
    with pytest.raises(UserError, match=r"no column 'nope'.* Name the column: --against .*x\.jsonl:question=COLUMN"):
        benchmark_of(f"{tmp_path / 'x.jsonl'}:question=nope")


@pytest.mark.parametrize("given", WRONG)
def test_a_wrong_word_for_a_benchmark_is_one_sentence(given):
    with pytest.raises(UserError, match=f"^--against {given}: "):
        benchmark_of(given)


def test_demonstrations_and_pairs_lose_what_is_held_out(tables, tmp_path):
    demos = [{"question": f"What is {i} plus {i + 1}?", "solution": "1", "completion": "One."} for i in range(8)]
    task = {**tables["task"], "source": write(tmp_path / "demos.jsonl", demos), "decontaminate": "drop"}
    supervised = {"name": "sft", "kind": "sft", "policy": tables["policy"], "task": task, "reward": tables["reward"]}
    (one,) = prepare(Recipe(**supervised, supervised={"examples_per_step": 2}))
    assert isinstance(one.prepared, PreparedSft)
    assert one.prepared.dropped is not None
    assert (one.prepared.examples.size, one.prepared.dropped.found_in.tolist()) == (6, [0, 1])
    assert found_before(one) is one.prepared.dropped
    pairs = [{"prompt": f"What is {i} plus {i + 1}?", "chosen": "a", "rejected": "b"} for i in range(8)]
    task = {"source": write(tmp_path / "p.jsonl", pairs), "held_out": write(tmp_path / "q.jsonl", pairs[:3])}
    learnt = {"name": "rm", "kind": "reward_model", "policy": tables["policy"], "preferences": {"pairs_per_step": 2}}
    (one,) = prepare(Recipe(**learnt, task=task | {"decontaminate": "drop"}))
    assert isinstance(one.prepared, PreparedPairs)
    assert one.prepared.dropped is not None
    assert (one.prepared.pairs.train.size, len(one.prepared.dropped.flagged)) == (5, 3)
    (warned,) = prepare(Recipe(**learnt, task=task))
    assert isinstance(warned.prepared, PreparedPairs)
    found = found_before(warned)
    assert isinstance(found, Report)
    assert (warned.prepared.pairs.train.size, len(found.flagged)) == (8, 3)
    (off,) = prepare(Recipe(**learnt, task=task | {"decontaminate": "off"}))
    assert found_before(off) == 'task.decontaminate = "off"'


def test_check_fails_where_a_benchmark_is_trained_on(tables, tmp_path):
    recipe = Recipe(**tables)
    bench = str(tmp_path / "test.jsonl")
    clean = write(tmp_path / "clean.jsonl", [{"question": "Name the river of Paris.", "answer": "Seine"}])
    text = io.StringIO()
    (stage,) = check_recipe(recipe, Console(file=text, width=300), [bench, clean], finish=2)
    assert not stage.holds
    assert len(stage.contamination[bench]["flagged"]) == len(stage.contamination["held-out"]["flagged"]) == 3
    assert (stage.contamination[clean]["flagged"], stage.contamination[clean]["prompts"]) == ((), 13)
    assert stage.contamination[bench]["finished"]["questions"] == 1  # the others are too short
    assert stage.contamination[clean]["finished"] is None
    assert "3 of 4 questions are among the training prompts, in 3 of these" in text.getvalue()
    assert f"{clean}: no question has 12 words" in text.getvalue()
    with pytest.raises(UnreadableError, match="name it with --against FILE"):
        check_recipe(recipe, Console(quiet=True), [], finish=2)
