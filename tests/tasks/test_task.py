"""Tasks: columns, answers, tags, held-out prompts, and what is refused."""

from __future__ import annotations

import json

import pytest

from cohort.tasks import open_task
from cohort.tasks.embedded.problems import Problems
from cohort.tasks.embedded.word_problems import WORD_PROBLEMS
from cohort.tasks.sources.columns import gsm8k_answer
from cohort.types import Prompt, UserError

ROWS = [{"question": f"What is {i} + 1?", "gold": str(i + 1), "topic": "sums"} for i in range(200)]


def items(prompts):
    return [prompts[i] for i in range(prompts.size)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(*args, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_task(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_columns_become_prompt_answer_and_tags(tmp_path):
    task = open_task(write(tmp_path / "t.jsonl", ROWS), prompt="question", answer="gold")
    assert task.columns == ("question", "gold", "topic")
    assert task.held_out is None
    assert task.train.size == 200
    tags = {"topic": "sums", "gold": "4"}  # an answer column with a name of its own is a tag, too
    assert task.train[3] == Prompt.make("What is 3 + 1?", answer="4", tags=tags)
    with pytest.raises(IndexError):
        task.train[200]
    with pytest.raises(IndexError):
        task.train[-1]


def test_conversations():
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
    by_prompt = open_task([{"prompt": chat, "answer": "x"}])
    by_name = open_task([{"chat": chat, "answer": "x"}], messages="chat")
    by_default = open_task([{"messages": chat, "answer": "x"}])
    assert by_prompt.train[0] == by_name.train[0] == by_default.train[0]
    assert by_prompt.train[0].messages == tuple(chat)
    assert by_prompt.train[0].question == "Hi?"


def test_answer_may_be_absent_unless_named():
    assert open_task([{"prompt": "a"}]).train[0].answer is None
    assert "has no column 'gold'; it has 'prompt', 'solution'" in refused(
        [{"prompt": "a", "solution": 1}], answer="gold"
    )
    assert "has no column 'answer'" in refused([{"prompt": "a"}], answer_required=True)
    assert "the list, row 2 has no column 'answer'" in refused(
        [{"prompt": "a", "answer": 1}, {"prompt": "b"}], answer_required=True
    )


def test_an_answer_that_is_null_is_empty_and_not_missing():
    rows = [{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": None}]
    assert "the list, row 2 has an empty 'answer'. Fill it in" in refused(rows, answer_required=True)
    assert open_task(rows).train[1].answer is None


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_an_answer_that_is_no_finite_number(tmp_path, number):
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "a", "answer": 1}\n{"prompt": "b", "answer": ' + number + "}\n")
    assert refused(path).startswith(f"{path}:2: the answer in 'answer' is ")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "\ud800 1"},
        {"prompt": [{"role": "user", "content": "a\udfff"}]},
        {"prompt": "a", "answer": "\ud800"},
        {"prompt": "a", "hint": {"deep": ["\ud800"]}},
    ],
)
def test_half_characters_are_refused_where_they_stand(tmp_path, row):
    path = write(tmp_path / "t.jsonl", [{"prompt": "\U0001f600"}, row])
    message = refused(path)
    assert message.startswith(f"{path}:2: '{list(row)[-1]}' is not valid text")
    message.encode()
    assert "prompt 1: 'text' is not valid text" in refused([Prompt.make("\ud800")])


def test_missing_prompt_column_names_the_nearest(tmp_path):
    path = write(tmp_path / "t.jsonl", ROWS)
    assert f"{path}:1 has no column 'qustion'; it has 'question', 'gold', 'topic'. Did you mean 'question'?" in refused(
        path, prompt="qustion"
    )
    assert 'Name the column: prompt = "..."' in refused(path)
    assert f"{path}:2 has no column 'question'" in refused(write(path, [ROWS[0], {"gold": "1"}]), prompt="question")


@pytest.mark.parametrize("empty", ["", "  \n", None, [], [{"role": "user", "content": " "}]])
def test_empty_prompt_names_the_row(tmp_path, empty):
    path = write(tmp_path / "t.jsonl", [ROWS[0], {"question": empty, "gold": "1"}])
    assert f"{path}:2 has an empty 'question'" in refused(path, prompt="question")


def test_wrong_conversations():
    says = '\'prompt\' holds a number; it must be text or a list of {"role", "content"}. Put it in quotes, or name'
    assert says in refused([{"prompt": 7}])
    assert "'prompt' holds true or false; it must be text" in refused([{"prompt": True}])
    assert "'prompt' holds an object; it must be text" in refused([{"prompt": {"a": 1}}])
    assert "\"role\" and \"content\"; one is {'role': 'user'}" in refused([{"prompt": [{"role": "user"}]}])
    ended = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert open_task([{"prompt": ended}]).train[0].question == "a"  # the completion goes on from there
    assert "there is no question" in refused([{"prompt": ended[1:]}])


def test_gsm8k_answers():
    assert gsm8k_answer("2 + 3 = 5 #### no\nso\n#### 1,234 ", "x") == ("2 + 3 = 5 #### no\nso", "1234")
    rows = [{"question": "How many?", "answer": "She has 2 + 3 = <<2+3=5>>5.\n#### 5"}]
    prompt = open_task(rows, prompt="question", answer_format="gsm8k").train[0]
    assert prompt.answer == "5"
    assert prompt.tags == {"reasoning": "She has 2 + 3 = <<2+3=5>>5."}
    for wrong in ("5", "work ####  "):
        message = refused([*rows, {"question": "b", "answer": wrong}], prompt="question", answer_format="gsm8k")
        assert 'the list, row 2: no "#### answer"' in message
    assert "has no column 'answer'" in refused([{"question": "b"}], prompt="question", answer_format="gsm8k")


def test_held_out_share_splits_by_question():
    doubled = [*ROWS, *({**row, "question": row["question"].upper().replace(" ", "  ")} for row in ROWS)]
    task = open_task(doubled, prompt="question", answer="gold", held_out=0.25)

    def questions(prompts):
        return {" ".join(prompt.text.lower().split()) for prompt in items(prompts)}

    train, held_out = questions(task.train), questions(task.held_out)
    assert not train & held_out
    assert len(train | held_out) == 200
    assert task.train.size == 2 * len(train)
    assert task.held_out.size == 2 * len(held_out)
    assert 0.15 < len(held_out) / 200 < 0.35
    reordered = open_task(doubled[::-1], prompt="question", answer="gold", held_out=0.25, seed=9)
    assert questions(reordered.held_out) == held_out  # a property of the question, not of order or seed


def test_held_out_source(tmp_path):
    held_out = write(tmp_path / "test.jsonl", [ROWS[0], {"question": "New?", "gold": "1"}])
    task = open_task(ROWS, prompt="question", answer="gold", held_out=held_out)
    assert [prompt.text for prompt in items(task.held_out)] == ["What is 0 + 1?", "New?"]
    assert "has no column 'question'" in refused(
        ROWS, prompt="question", held_out=write(tmp_path / "x.jsonl", [{"a": 1}])
    )


def test_held_out_split_of_the_same_source(tmp_path):
    write(tmp_path / "train.jsonl", ROWS[:5])
    write(tmp_path / "validation.jsonl", ROWS[5:8])
    task = open_task(tmp_path, prompt="question", held_out_split="validation")
    assert (task.train.size, task.held_out.size) == (5, 3)


@pytest.mark.parametrize("options", [{"split": "test"}, {"held_out_split": "test"}, {"config": "main"}])
@pytest.mark.parametrize("kind", ["file", "directory", "list"])
def test_a_split_of_what_has_none_is_refused(tmp_path, kind, options):
    file = write(tmp_path / "rows.jsonl", ROWS)
    source = {"file": file, "directory": tmp_path, "list": ROWS}[kind]
    if (kind, "config" in options) == ("list", True):
        return  # which a function may have read
    said = refused(source, prompt="question", **options)
    assert f"has no file for the split {'test'!r}" in said or " = 'test'" in said or "config = 'main'" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 1.5}, "share between 0 and 1, a file or another source, not 1.5"),
        ({"held_out": 0}, "not 0"),
        ({"held_out": 1e-9}, "leaves no held-out prompt"),
        ({"held_out": 1 - 1e-9}, "leaves no training prompt"),
        ({"template": "chatml"}, "template must be one of 'auto', 'chat', 'r1_zero' or 'none', not 'chatml'"),
        ({"answer_format": "math"}, "not 'math'"),
        ({"limit": 0}, "at least 1, not 0"),
        ({"levels": (1,)}, "levels belong to the source 'word_problems'"),
    ],
)
def test_refused_options(options, message):
    assert message in refused(ROWS, prompt="question", **options)


def test_limit():
    task = open_task(ROWS, prompt="question", limit=3)
    assert [prompt.text for prompt in items(task.train)] == [row["question"] for row in ROWS[:3]]
    assert open_task(ROWS, prompt="question", limit=10_000).train.size == 200
    assert open_task("word_problems", limit=3).train.size == 3


def test_word_problems():
    task = open_task("word_problems", levels=(2,), seed=5)
    assert task.train.size is None
    assert task.train[0] == Problems(WORD_PROBLEMS, (2,), 5, "train")[0]
    assert task.held_out[0] == Problems(WORD_PROBLEMS, (2,), 5, "held_out")[0]
    assert set(task.train[0].tags) <= set(task.columns)
    assert "remove held_out" in refused("word_problems", held_out=0.1)
    assert open_task(ROWS, prompt="question", held_out="word_problems").held_out.size is None


def test_python_sources():
    datasets = pytest.importorskip("datasets")
    prompts = [
        Prompt.make(row["question"], answer=row["gold"], tags={"topic": "sums", "gold": row["gold"]}) for row in ROWS
    ]
    by_prompts = open_task(prompts)
    by_dataset = open_task(datasets.Dataset.from_list(ROWS), prompt="question", answer="gold")
    assert items(by_prompts.train) == prompts == items(by_dataset.train)
    assert by_prompts.columns == ("prompt", "answer", "topic", "gold")
