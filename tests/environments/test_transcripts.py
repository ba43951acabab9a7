"""What rewards and people see of a rollout, and what is counted of it."""

from __future__ import annotations

import io

import pytest

from cohort.monitor.metrics import group_metrics
from cohort.record.rollouts import read_groups, write_groups
from cohort.rewards import RewardTable, ScoringItem, resolve, score_group
from cohort.types import Group, Observation, Prompt, Rollout, ToolCall, Turn, UserError
from cohort.views.console import Console


def message(content):
    return {"role": "tool", "name": "calculator", "content": content}


def rollout(finish="stop"):
    """Two turns of three and two tokens, with four of the tool's between them; the first call failed."""
    call = ToolCall("calculator", {"expression": "1/0", "nested": {"x": [1, None]}}, "error: no", failed=True)
    turns = (
        Turn(0, 3, "<tool>calculator: 1/0</tool>", Observation((message("error: no"),), (call,))),
        Turn(7, 9, " 42", Observation(calls=(ToolCall("calculator", {}, "5"),))),
    )
    mask = (True,) * 3 + (False,) * 4 + (True,) * 2
    return Rollout(tuple(range(9)), mask, tuple(-0.5 * own for own in mask), 3, finish, " 42", turns)


def single():
    return Rollout((1, 2), (True, True), (-1.0, -2.0), 3, "length", "plain")


def group(*rollouts):
    ones = (1.0,) * len(rollouts)
    return Group(4, Prompt.make(text="What?", answer="42"), rollouts, {"r": ones}, ones, ones)


def test_rewards_get_the_answer_and_the_whole_transcript():
    seen = []

    def look(completion, transcript, tokens, finish):
        seen.append((completion, transcript, tokens, finish))
        return 1.0

    reward = resolve(RewardTable(use=look))
    score_group([reward], ScoringItem.of(Prompt.make(text="?"), [rollout("tool"), single()]))
    first, second = seen
    assert first == (
        " 42",
        [
            {"role": "assistant", "content": "<tool>calculator: 1/0</tool>"},
            message("error: no"),
            {"role": "assistant", "content": " 42"},
        ],
        5,
        "tool",
    )
    assert second == ("plain", [{"role": "assistant", "content": "plain"}], 2, "length")


def test_a_transcript_is_there_without_an_environment_too():
    reward = resolve(RewardTable(use=lambda transcript: float(len(transcript)), name="turns"))
    assert score_group([reward], ScoringItem("?", ("a", "b"))).rewards == (1.0, 1.0)
    with pytest.raises(ValueError, match="transcripts has 1 entries for 2 completions"):
        ScoringItem("?", ("a", "b"), transcripts=((),))
    with pytest.raises(UserError, match="args cannot set 'transcript'"):
        resolve(RewardTable(use=lambda transcript: 1.0, name="turns", args={"transcript": 3}))


def test_turns_are_recorded_and_read_back(tmp_path):
    groups = [group(rollout(), single()), Group(5, Prompt.make(text="lost"), (), error="the server is down")]
    write_groups(tmp_path / "log.parquet", groups, 1)
    assert read_groups(tmp_path / "log.parquet") == groups


def test_only_the_policys_tokens_are_counted():
    metrics = group_metrics([group(rollout("tool"), rollout())], [])
    assert metrics["tokens/sampled"] == 10
    assert metrics["completions/mean_tokens"] == 5
    assert metrics["turns/mean"] == 2
    assert metrics["turns/limit"] == 0.5
    assert metrics["tools/calls"] == 2
    assert metrics["tools/errors"] == 0.5
    assert metrics["tools/tokens"] == 4
    assert "turns/mean" not in group_metrics([group(single())], [])


def test_the_console_shows_the_conversation():
    file = io.StringIO()
    Console(file=file).group(3, group(rollout(), rollout()))
    assert "<tool>calculator: 1/0</tool> => error: no 42" in " ".join(file.getvalue().split())
