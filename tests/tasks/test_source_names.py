"""Sources by name: those of the table, and one of one's own, named as module:function."""

from __future__ import annotations

import json
import pkgutil
import sys

import pytest

from cohort.recipe import Recipe
from cohort.tasks import open_demonstrations, open_preferences, open_prompts, open_task
from cohort.tasks.sources.base import DEMONSTRATIONS, SOURCES
from cohort.types import Prompt, UserError

MODULE = """
from cohort.tasks import Found
from cohort.types import Prompt

asked = []

def squares(table, held_out, seed):
    asked.append((held_out, seed, table.args))
    numbers = range(100, 110) if held_out else range(1, 100)
    return [{table.prompt: f"What is {i} * {i}?", table.answer: str(i * i), "kind": "square"} for i in numbers]

def made(table, held_out, seed):
    return [Prompt.make(f"{i}?", answer="x", tags={"kind": "made"}) for i in range(3)]

class Endless:
    size = None
    def __init__(self, word):
        self.word = word
    def __getitem__(self, index):
        return Prompt.make(f"{self.word} {index}?", answer=str(index), tags={"parity": index % 2})

def endless(table, held_out, seed):
    return Found(Endless(f"held out {seed}" if held_out else f"train {seed}"), ("prompt", "answer", "parity"))

def learnt(table, held_out, seed):
    return [{"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"}]

def path(table, held_out, seed):
    return "rows.jsonl"

def breaks(table, held_out, seed):
    return {}["key"]

def gives_a_number(table, held_out, seed):
    return 7
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of somebody's own in the current directory."""
    (tmp_path / "my_arithmetic.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_arithmetic", None)


def refused(opens, source, **options) -> str:
    with pytest.raises(UserError) as caught:
        opens(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("where", [*SOURCES.values(), *DEMONSTRATIONS.values()])
def test_everything_in_the_tables_is_there(where):
    assert callable(pkgutil.resolve_name(where))


def test_rows_of_a_source_of_ones_own(own):
    task = open_task("my_arithmetic:squares", prompt="q", answer="gold", args={"x": 1}, held_out=0.2, seed=5)
    assert task.columns == ("q", "gold", "kind")
    assert task.train.size + task.held_out.size == 99
    assert task.train[0].tags == {"kind": "square", "gold": task.train[0].answer}
    assert sys.modules["my_arithmetic"].asked == [(False, 5, {"x": 1})]
    split = open_task("my_arithmetic:squares", held_out_split="test", limit=4)
    assert (split.train.size, split.held_out.size) == (4, 10)
    assert split.held_out[0].text == "What is 100 * 100?"
    assert open_task("my_arithmetic:squares", held_out="my_arithmetic:squares").held_out.size == 10
    assert open_task([{"prompt": "a"}], held_out="my_arithmetic:squares").held_out.size == 10


def test_prompts_of_a_source_of_ones_own(own):
    assert open_task("my_arithmetic:made").train[2] == Prompt.make("2?", answer="x", tags={"kind": "made"})
    task = open_task("my_arithmetic:endless", seed=3, held_out_seed=9)
    assert (task.train.size, task.train[7].text, task.held_out[7].text) == (None, "train 3 7?", "held out 9 7?")
    assert "parity" in task.columns
    assert open_task("my_arithmetic:endless", limit=5).train.size == 5
    assert "holds out its own problems; remove held_out_split = 'test'" in refused(
        open_task, "my_arithmetic:endless", held_out_split="test"
    )


def test_a_path_and_examples_from_a_source_of_ones_own(own):
    (own / "rows.jsonl").write_text(json.dumps({"prompt": "from the file"}) + "\n")
    assert open_task("my_arithmetic:path").train[0].text == "from the file"
    assert open_demonstrations("my_arithmetic:learnt")[0].completion == "b"
    assert open_preferences("my_arithmetic:learnt").train[0].chosen == "c"


def test_a_recipe_names_a_source_of_ones_own(own):
    recipe = Recipe.from_tables(
        {
            "policy": {"scratch": {}},
            "task": {"mixture": {"mine": {"source": "my_arithmetic:squares"}, "words": {"source": "word_problems"}}},
            "reward": "exact_number",
        }
    )
    task = open_prompts(recipe.stages[0].task, seed=1)
    tickets = task.tickets(0)
    assert [task.train[tickets.issue().index].tags["domain"] for _ in range(4)] == ["mine", "words"] * 2


def test_a_file_with_a_colon_wins(own):
    (own / "my_arithmetic:squares").mkdir()
    (own / "my_arithmetic:squares" / "train.jsonl").write_text(json.dumps({"prompt": "from the file"}) + "\n")
    assert open_task("my_arithmetic:squares").train[0].text == "from the file"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("my_arithmetic:square", "has no function 'square' (did you mean 'squares'?)"),
        ("my_arithmetics:squares", "there is no module 'my_arithmetics'"),
        ("word-problems:2", "there is no source 'word-problems:2'. Did you mean \"word_problems:2\"?"),
        ("word_problems:2", "the source word_problems has no parts"),
        ("verifiers", 'is not of the form "verifiers:PACKAGE"'),
        ("my_arithmetic:breaks", "source 'my_arithmetic:breaks' raised KeyError: 'key'"),
        ("my_arithmetic:gives_a_number", "not int"),
        ("data:train.jsonl", "data:train.jsonl does not exist in"),
    ],
)
def test_what_is_refused(own, source, says):
    assert says in refused(open_task, source)


def test_a_source_without_completions_is_none_of_demonstrations():
    assert "no completions to learn from" in refused(open_demonstrations, "verifiers:x")
