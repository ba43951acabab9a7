"""What a run shows: in a pipe and on terminals of 60, 80 and 140 columns."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys

import pytest

from cohort.train.grpo import Grpo
from cohort.types import Group, Prompt, Rollout
from cohort.views.console import Console

STEP = {
    "reward/mean": 0.25,
    "reward/exact_number/mean": 0.125,
    "reward/format/mean": 1.0,
    "groups/signal": 0.5,
    "completions/mean_tokens": 123.4,
    "completions/truncated": 0.05,
    "policy/kl": 0.0123,
    "policy/entropy": 1.5,
    "tokens_per_s": 12345.0,
}
EVALUATION = {
    "eval/greedy": 0.042,
    "eval/greedy_low": 0.007,
    "eval/greedy_high": 0.202,
    "eval/pass@1": 0.042,
    "eval/pass@1_low": 0.0,
    "eval/pass@1_high": 0.098,
    "eval/pass@8": 0.5,
    "eval/mean_tokens": 29.6,
    "eval/truncated": 0.146,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[60, 80, 140])
def terminal(request, monkeypatch):
    """A terminal of so many columns."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    file = Terminal()
    return request.param, file, Console(file=file, width=request.param)


@pytest.fixture
def pipe():
    file = io.StringIO()
    return file, Console(file=file)


def lines_of(text: str) -> list[str]:
    """The lines without what a terminal does not show."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))


def group(text: str, rewards=(1.0, 0.0)) -> Group:
    rollouts = tuple(Rollout((1,), (True,), (0.0,), 0, "stop", text) for _ in rewards)
    return Group(0, Prompt.make(text="What is\n1 + 1?", answer="2"), rollouts, {"r": rewards}, rewards, rewards)


def test_lines_fit_the_terminal_and_a_history_of_rewards_stays(terminal):
    width, file, console = terminal
    with console.steps(Grpo.columns, 40, 0) as view:
        for step in range(1, 41):
            console.doing("finishing the step; once more stops at once")
            view.step(step, STEP)
    console.evaluated("step 40", EVALUATION, "exact_number")
    console.evaluations([("before", EVALUATION), ("after", EVALUATION)], "exact_number")
    lines = lines_of(file.getvalue())
    assert max(map(len, lines)) <= width
    kept = [int(line.split("/")[0]) for line in lines if re.match(r" +\d+/40  reward  0\.250", line)]
    assert kept == list(range(2, 41, 2))
    shown = " ".join(lines)
    for number in ("exact_number  0.125", "format  1.000", "kl 0.0123", "entropy 1.500", "greedy 4.2% [0.7%, 20.2%]"):
        assert number in shown
    assert "…" not in shown.replace("finishing the step; once more …", "")


def test_the_parts_of_a_reward_and_a_kl_are_shown_where_they_are(pipe):
    file, console = pipe
    with console.steps(Grpo.columns, 1, 0) as view:
        view.step(1, {"reward/mean": 0.5, "reward/only/mean": 0.5, "policy/kl": float("nan")})
    (line,) = file.getvalue().splitlines()
    assert line.endswith("reward  0.500")  # one part is the whole; no KL is measured


def test_no_line_of_a_pipe_ends_with_blanks(pipe):
    file, console = pipe
    console.plan("title", {"a": "short", "longer name": "word " * 60})
    console.say("many words " * 30)
    console.marked("bad", "words " * 60)
    console.table(["", "a", "b"], [["x", "1", ""], [], ["y", "", ""]])
    console.evaluations([("before", EVALUATION), ("after", {"eval/greedy": 0.1, **EVALUATION})], "r")
    console.group(1, group("a line  \n\nanother"))
    with console.steps(["reward/mean"], 1, 0) as view:
        view.step(1, STEP)
    assert [line for line in file.getvalue().split("\n") if line != line.rstrip()] == []
    assert file.getvalue().count("\n") > 20


def test_groups_keep_their_line_breaks(pipe):
    file, console = pipe
    console.group(3, group("<think>\n1 + 1\n  = 2\n</think>\n\n2"))
    shown = [line.strip() for line in file.getvalue().splitlines()]
    first = shown.index("<think>")
    assert shown[first : first + 6] == ["<think>", "1 + 1", "= 2", "</think>", "", "2"]
    assert "1 + 1?" in shown
    console.group(3, group("line\n" * 100))
    assert file.getvalue().count("line\n") < 40


def test_a_group_that_nothing_pays_is_shown_with_what_its_teacher_thinks(pipe):
    file, console = pipe
    unpaid = group("1 + 1 = 2")
    none = (math.nan, math.nan)
    console.group(3, unpaid.with_(rewards=none, teacher_logprobs=((-0.5,), (math.nan,))))
    assert "nan" not in file.getvalue()
    assert "first     -0.50 nats a token by the teacher" in file.getvalue()
    console.group(3, unpaid.with_(rewards=(math.nan, 1.0)))  # a reward that applies to one member alone
    assert "rewards 1" in file.getvalue()


def test_something_is_on_the_screen_before_torch_is_imported(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from cohort.cli import main; main()"
    for words in (("train", "quickstart"), ("check", "quickstart"), ("eval", ".")):
        words = [sys.executable, "-c", code, *words]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert "loading\n" in done.stdout, done.stderr
        assert "torch" in done.stderr


def test_a_line_that_is_set_in_goes_on_below_its_beginning(terminal):
    width, file, console = terminal
    words = " ".join(["word"] * 40)
    console.say(f"\n  [bold]head[/] {words}")
    console.warn(words)
    console.lines({"a name": words, "b": words}, whole=True)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in file.getvalue().splitlines()]
    assert all(len(line) <= width for line in lines)
    assert lines[0] == ""
    after = [i for i, line in enumerate(lines) if line.startswith(("  head", "note", "  a name", "  b "))]
    assert [lines[i + 1][:10].rstrip() for i in after] == ["  word wor", "      word", "", ""]


def test_whole_lines_stay_whole_in_a_pipe(pipe):
    file, console = pipe
    words = " ".join(["word"] * 60)
    console.lines({"a": words, "bcd": "[x]"}, whole=True, ends=True)
    assert file.getvalue().splitlines() == [f"    a: {words}", "  bcd: [x]"]


def test_a_table_that_has_no_room_is_lines(terminal):
    width, file, console = terminal
    console.evaluations([("before", EVALUATION), ("a model with a name that is long", EVALUATION)], "math")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()
    assert all(len(line) <= width for line in lines)
    assert ("with 95% intervals" in file.getvalue()) == (width == 140)
    assert file.getvalue().count("[0.7%, 20.2%]") == 2  # no cell is broken


def test_a_group_is_shown_with_its_traces_as_the_recipe_says():
    file = io.StringIO()
    rollout = Rollout((1,), (True,), (0.0,), 0, "stop", "secret</think>5")
    group = Group(0, Prompt.make(text="2 + 3?"), (rollout,), rewards=(1.0,))
    Console(file=file).group(1, group, "hidden")
    assert "secret" not in file.getvalue()
    assert "5" in file.getvalue().splitlines()[-2]
