from __future__ import annotations

import json

import pytest

from cohort.account.traces import as_shown, rows_as_shown

TEXT = "<think>one two secret</think><answer>4</answer>"


def test_exposed_traces_are_as_they_are():
    assert as_shown(TEXT, "exposed") == as_shown(TEXT, None) == TEXT


@pytest.mark.parametrize("traces", ["hidden", "filtered"])
@pytest.mark.parametrize(
    ("text", "begun"),
    [
        (TEXT, False),
        ("secret</think><answer>4</answer>", True),  # the prompt has opened the tag
        ("secret</think><answer>4</answer>", False),  # and nobody says so
        ("<think>a</think><answer>4</answer><think>secret</think>", False),
        ("<answer>4</answer><think>secret that was cut off", False),
    ],
)
def test_what_is_thought_is_not_shown(text, begun, traces):
    shown = as_shown(text, traces, begun)
    assert "secret" not in shown
    assert "<answer>4</answer>" in shown


def test_all_of_a_completion_that_never_closes_the_prompts_tag_is_hidden():
    assert as_shown("secret", "hidden", begun=True) == ""


def test_a_summary_is_short_and_says_so():
    shown = as_shown(f"<think>{'word ' * 100}</think>4", "summarised")
    assert "[100 words, shortened]" in shown
    assert shown.count("word ") < 20


@pytest.mark.parametrize("mark", ["#### 4", "\\boxed{4}", "<answer>4</answer>"])
def test_what_stands_before_the_mark_of_an_answer_is_a_trace_too(mark):
    assert as_shown(f"secret\n{mark}", "hidden") == mark
    assert as_shown(f"secret\n{mark}", "filtered") == f"<think>[filtered]</think>{mark}"
    assert as_shown(mark, "hidden") == mark
    assert as_shown("four", "hidden") == "four"  # nothing says what of it would be the answer


def test_rollouts_are_shown_without_what_would_tell_their_traces():
    turns = json.dumps([{"text": TEXT, "observation": {"messages": []}}])
    rows: list[dict] = [{"text": TEXT, "turns": turns, "tokens": [1, 2]}, {"text": None, "turns": None, "tokens": None}]
    assert rows_as_shown(rows, None) == rows_as_shown(rows, "exposed") == rows
    first, erased = rows_as_shown(rows, "filtered")
    assert "secret" not in json.dumps(first)
    assert json.loads(first["turns"])[0]["text"] == "<think>[filtered]</think><answer>4</answer>"
    assert first["tokens"] is None
    assert erased == rows[1]
