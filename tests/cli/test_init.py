"""`cohort init`: the recipe that it writes is one that `cohort check` takes without change."""

from __future__ import annotations

import json
import tomllib

import pytest

NUMBERS = [{"question": f"What is {i} plus {i + 1}?", "answer": str(2 * i + 1)} for i in range(120)]
DATA = {
    "numbers": (NUMBERS, "exact_number"),
    "gsm8k": ([row | {"answer": f"Well.\n#### {row['answer']}"} for row in NUMBERS[:30]], "exact_number"),
    "formulas": (
        [{"problem": f"Half of {i}?", "solution": f"\\frac{{{i}}}{{2}}"} for i in range(1, 40, 2)],
        "math",
    ),
    "letters": ([{"question": f"Question {i}?", "answer": "ABCD"[i % 4]} for i in range(24)], "choice"),
    "texts": ([{"question": f"Capital {i}?", "answer": f"City{'abcdefgh'[i % 8]}"} for i in range(24)], "exact_text"),
    "no answers": ([{"question": f"Write about {i}."} for i in range(24)], "one_answer"),
}


@pytest.fixture
def written(desk, cohort):
    """Write the recipe for rows into a file; returns its tables and the words."""

    def write(rows, *words):
        (desk / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        code, out, err = cohort("init", "base", "rows.jsonl", *words)
        assert code == 0, err
        (desk / "starter.toml").write_text(out)
        return tomllib.loads(out), err

    return write


@pytest.mark.parametrize("case", DATA)
def test_check_takes_it_without_change(written, cohort, case):
    rows, reward = DATA[case]
    tables, words = written(rows)
    assert tables["name"] == "base"
    assert [table["use"] for table in tables["reward"]] == [reward]
    assert f"the reward {reward}" in words
    assert ("held_out" in tables["task"]) == (len(rows) >= 100)
    code, out, err = cohort("check", "starter.toml")
    assert code == 0, out + err


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "Say it.", "completion": "It."}, "sft"),
        ({"prompt": "Say it.", "chosen": "It.", "rejected": "No."}, "reward_model"),
    ],
)
def test_other_kinds_of_stage(written, cohort, row, kind):
    tables, _ = written([row | {"prompt": f"Say {i}."} for i in range(20)])
    assert tables["kind"] == kind
    assert "reward" not in tables
    code, out, err = cohort("check", "starter.toml")
    assert code == 0, out + err


def test_every_key_says_what_it_does(written):
    written(NUMBERS)
    with open("starter.toml") as file:
        keys = [line for line in file if " = " in line and not line.startswith(("#", "name", "seed", "use"))]
    assert len(keys) > 10
    assert all("  # " in line for line in keys)


def test_a_verifier_that_does_not_read_every_answer_is_not_written(written, cohort):
    rows = [{"question": f"q{i}", "answer": a} for i, a in enumerate(["$x^2$", "$1$", "$\\frac{1}{$"] * 8)]
    tables, words = written(rows)
    assert tables["reward"][0]["use"] == "exact_text"
    assert "as another does not do" in words


def test_made_problems_and_json(desk, cohort):
    code, out, err = cohort("init", "base", "word_problems", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert tomllib.loads(found["recipe"])["task"] == {"source": "word_problems"}
    assert found["took"]
    assert found["unsure"] == []
    (desk / "starter.toml").write_text(found["recipe"])
    assert cohort("check", "starter.toml")[0] == 0
