"""`cohort record rollouts`: what was sampled, to read; and which of it."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from cohort.record.rollouts import write_groups
from cohort.record.where import condition
from cohort.types import Group, Observation, Prompt, Rollout, ToolCall, Turn, UserError


def rollout(text, finish="stop"):
    tokens = tuple(range(len(text)))
    return Rollout(tokens, (True,) * len(tokens), (0.0,) * len(tokens), 1, finish, text)


@pytest.fixture
def run(desk):
    """A run of two steps: three groups in the second, one of them played, one lost."""
    log = desk / "runs" / "mine" / "log"
    log.mkdir(parents=True)
    (log.parent / "recipe.toml").write_text('name = "mine"\n')
    prompt = Prompt.make(text="What is 2 + 3?", answer="5")
    sums = Group(
        ticket=4,
        prompt=prompt,
        rollouts=(rollout("It is\n[5]."), rollout("no idea", "length"), rollout("\x1b[31m6")),
        scores={"exact_number": (1.0, 0.0, 0.0), "short": (0.5, float("nan"), 0.25)},
        labels={"exact_number": (None, "unparsed", None)},
        rewards=(1.5, 0.0, 0.25),
        accuracy=(1.0, 0.0, 0.0),
        advantages=(1.0, -0.5, -0.5),
        disposition="trained",
    )
    told = Observation(({"role": "tool", "content": "five"},), (ToolCall("adder", {"a": 2}, "5"),))
    turns = (Turn(0, 1, "ask", told), Turn(2, 3, "done"))
    played = Rollout((1, 2, 3), (True, False, True), (0.0,) * 3, 1, "stop", "done", turns)
    talk = Group(7, prompt, (played,), scores={"exact_number": (0.0,)}, rewards=(0.0,), accuracy=(0.0,))
    lost = Group(9, prompt, (), disposition="error", error="the tool is down")
    write_groups(log / "step-000001.parquet", [sums], 1)
    write_groups(log / "step-000002.parquet", [sums, talk, lost], 2)
    return log.parent


def test_reasoning_is_shown_as_the_recipe_says(run, cohort):
    thought = Group(1, Prompt.make(text="?"), (rollout("<think>secret</think>5"),), rewards=(1.0,), accuracy=(1.0,))
    write_groups(run / "log" / "step-000003.parquet", [thought], 3)
    assert "secret" in cohort("record", "rollouts", run)[1]
    (run / "recipe.toml").write_text('name = "mine"\n[record]\ntraces = "hidden"\n')
    code, out, err = cohort("record", "rollouts", run)
    assert code == 0, err
    assert "secret" not in out
    assert "    5\n" in out
    assert "the log has it whole" in " ".join(out.split())
    assert "secret" not in cohort("record", "rollouts", run, "--json")[1]


def test_the_last_step_is_printed_to_read(run, cohort):
    code, out, err = cohort("record", "rollouts", run)
    assert code == 0, err
    assert out.count("What is 2 + 3?") == 3  # once a group
    assert "gold 5" in out
    assert "    It is\n    [5].\n" in out  # its line breaks, and brackets as they are
    assert "exact_number 0 (unparsed), short -" in out
    assert "reward 0, advantage -0.500, 7 tokens, finish length, trained" in out
    assert "\\x1b[31m6" in out
    assert "\x1b" not in out
    assert "assistant ask\n    tool five\n    assistant done" in out
    assert "the tool is down" in out
    assert "5 of 5 rollouts that match" in out


@pytest.mark.parametrize(
    ("where", "members"),
    [
        ("reward < 0.5", [(4, 1), (4, 2), (7, 0)]),
        ("reward<0.5 and finish == 'length'", [(4, 1)]),
        ("exact_number", [(4, 0)]),
        ("not exact_number and short > 0.1", [(4, 2)]),
        ("exact_number_label == 'unparsed'", [(4, 1)]),
        ("disposition in ['error', 'zero_std']", [(9, -1)]),
        ("0 < reward <= 1", [(4, 2)]),
        ("'idea' in text or tokens > 8", [(4, 0), (4, 1)]),
        ("short is None and reward == 0", [(4, 1), (7, 0)]),
        ("advantage < -0.4", [(4, 1), (4, 2)]),
        ("-advantage > 0.4", [(4, 1), (4, 2)]),
        ("-text > 0", []),
        ("reward != 0", [(4, 0), (4, 2)]),
        ("exact_number_label != 'right'", [(4, 1)]),
        ("exact_number_label not in ['right']", [(4, 1)]),
        ("exact_number_label != None", [(4, 1)]),
        ("short == None and reward == 0", [(4, 1), (7, 0)]),
    ],
)
def test_conditions(run, cohort, where, members):
    code, out, err = cohort("record", "rollouts", run, "--step", 2, "--where", where, "--json")
    assert code == 0, err
    assert [(row["ticket"], row["member"]) for row in json.loads(out)["rollouts"]] == members


def test_a_reward_that_is_called_as_a_column_hides_none(run, cohort):
    prompt = Prompt.make(text="2 + 3?", answer="5")
    scores = {"text": (1.0, 0.0), "my-own.score": (0.0, 1.0)}
    group = Group(1, prompt, (rollout("idea"), rollout("no")), scores=scores, rewards=(1.0, 1.0))
    write_groups(run / "log" / "step-000003.parquet", [group], 3)
    for where, members in (
        ("'idea' in text", [0]),
        ("text_score < 1", [1]),
        ("my_own_score == 1 and step == 3", [1]),
    ):
        code, out, err = cohort("record", "rollouts", run, "--where", where, "--json")
        assert code == 0, err
        assert [row["member"] for row in json.loads(out)["rollouts"]] == members


@pytest.mark.parametrize(
    "where",
    [
        "reward <",
        "__import__('os')",
        "reward.__class__",
        "[x for x in text]",
        "reward + 1",
        "lambda: 1",
        "f'{text}'",
        "(",
    ],
)
def test_a_condition_is_not_run_as_code(where):
    with pytest.raises(UserError, match="is no condition"):
        condition(where)


def test_a_name_that_rollouts_have_not_is_named(run, cohort):
    code, _, err = cohort("record", "rollouts", run, "--where", "rewards < 1")
    assert code == 1
    assert 'did you mean "reward"' in err.lower().replace("'", '"')


def test_what_is_not_there_is_said(run, desk, cohort):
    for words, said, code in (
        (["elsewhere"], "is no run", 2),
        ([run, "--step", 7], "it has 1 to 2, 2 in all", 1),
        ([run, "--stage", "cold"], "no earlier stage 'cold'", 2),
        ([run, "--eval", "greedy"], "holds no rollouts", 1),
    ):
        found, _, err = cohort("record", "rollouts", *words)
        assert (found, said in err) == (code, True), err
    (run / "log" / "step-000003.parquet").write_bytes(b"half")
    code, _, err = cohort("record", "rollouts", run)
    assert code == 1
    assert "cannot be read as recorded rollouts" in err


def test_labels_of_scores_go_to_disk(run):
    row = pq.read_table(run / "log" / "step-000001.parquet").to_pylist()[1]
    assert json.loads(row["labels"]) == {"exact_number": "unparsed"}
