"""What a model, a reward or a file has written never drives the terminal."""

from __future__ import annotations

import io
import sys
import unicodedata

import pytest

from cohort.commands import door
from cohort.rewards import RewardFailure, RewardTable, ScoringItem, resolve, score_group
from cohort.types import Group, Prompt, Rollout, UserError
from cohort.views.console import Console
from cohort.wording import one_line, visible

HOSTILE = [
    "\x1b[2J\x1b[31mred",  # clears the screen
    "\x1b]0;title\x07",  # names the window
    "\x9b2J",  # the same in one character
    "\x08\x7f",
    "a\rb",
    "\u202eabc\u202c",  # right to left
    "\u2066abc\u2069",
    "\u200e\u200f\u061c",
    "\u2028\u2029",
    "\u200b\ufeff\u00ad",
    "\U000e0041",
    "\ud800",
]


def drives(text):
    return [
        c for c in text if c not in "\n\t\u200c\u200d" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]


@pytest.fixture
def console():
    """A console, and what it has written."""
    file = io.StringIO()
    return Console(file=file, width=200), file


@pytest.mark.fault("escape sequences that a model wrote", "they are shown, and not obeyed")
@pytest.mark.parametrize("text", HOSTILE)
def test_no_way_to_the_console_lets_it_through(console, text):
    console, file = console
    console.say(text)
    console.warn(text)
    console.marked("word", text)
    console.plan(text, {"name": text, text: "value"})
    console.table([text, "b"], [[text, "1"]])
    console.evaluations([(text, {"eval/greedy": 0.5, "eval/greedy_low": 0.4, "eval/greedy_high": 0.6})], text)
    rollout = Rollout((1,), (True,), (0.0,), 0, "stop", text)
    prompt = Prompt.make(text=text, answer=text)
    console.group(1, Group(0, prompt, (rollout, rollout), {"r": (0.0, 1.0)}, (0.0, 1.0), (0.0, 1.0)))
    assert drives(file.getvalue()) == []
    file.getvalue().encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_of_a_reward_shows_what_it_is_made_of(text, capsys):
    def mine(completion):
        raise ValueError(text)

    with pytest.raises(RewardFailure) as caught:
        score_group([resolve(RewardTable(use=mine))], ScoringItem(text, (text, text)))
    assert drives(str(caught.value)) == []
    assert drives(one_line(ValueError(text))) == []
    door._failed(str(UserError(f"no such file: {text}")), 1)
    assert drives(capsys.readouterr().err) == []


def test_what_is_no_danger_stays():
    for text in (
        "plain",
        "two\nlines\tand a tab",
        "é 北京 🙂",
        "👩\u200d🔬",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "[bold]",
    ):
        assert visible(text) == text
    assert visible("\x1b\u202e\U000e0041\ud800") == r"\x1b\u202e\U000e0041\ud800"
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    assert drives(visible(every)) == []


def test_what_goes_into_a_file_is_as_it_is(console):
    console, file = console
    console.plain("a\u200bb")  # such as `cohort config show > recipe.toml`
    assert file.getvalue() == "a\u200bb"
