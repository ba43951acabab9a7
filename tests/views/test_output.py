"""Output is never a reason to stop: consoles that cannot show a character, that nobody reads, or that are not there.

Tried: ascii, cp1252, latin-1, lone surrogates in UTF-8; a pipe whose reader has gone, a full disk, a closed file, no
standard output at all; a live line on such a terminal; a real run whose output goes to `head`, under the C locale.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from cohort.types import Group, Prompt, Rollout
from cohort.views.console import Console

TEXT = "Größe ≤ 5 … 你好 😀 π_θ \ud800"


def everything(console):
    """What a run says."""
    rollout = Rollout((1,), (True,), (0.0,), 0, "stop", TEXT)
    group = Group(0, Prompt.make(text=TEXT, answer="é"), (rollout, rollout), rewards=(1.0, 0.0))
    console.plan(TEXT, {"objective": TEXT})
    console.warn(TEXT)
    console.marked("bad", TEXT)
    console.plain(TEXT)
    with console.steps(["reward/mean"], 2, 0) as view:
        for step in (1, 2):
            console.doing("sampling")
            view.step(step, {"reward/mean": 0.5})
            console.group(step, group)
    console.table([TEXT], [["x"]])


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_character_that_the_console_cannot_show_is_a_question_mark(encoding):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    everything(Console(file=file, width=100))
    file.flush()
    text = raw.getvalue().decode(encoding)
    assert "Gr??e ? 5 ? ?? ? ?_? ?" in text or encoding != "ascii"
    assert "Größe" in text or encoding == "ascii"
    assert "2/2" in text


class Failing(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    flush = None

    def isatty(self):
        return True  # a live line, too


FAILURES = [
    BrokenPipeError(32, "Broken pipe"),
    OSError(28, "No space left on device"),
    OSError(5, "Input/output error"),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_a_console_that_fails_ends_nothing(error, monkeypatch):
    file = Failing(error)
    file.flush = lambda: file.write("")
    everything(Console(file=file, width=100))
    monkeypatch.setattr(sys, "stdout", file)
    file.fileno = lambda: os.open(os.devnull, os.O_WRONLY)
    everything(Console(width=100))
    assert sys.stdout is file


def test_a_closed_file_and_no_output_at_all_end_nothing(monkeypatch):
    file = io.StringIO()
    file.close()
    everything(Console(file=file))
    monkeypatch.setattr(sys, "stdout", None)
    everything(Console())


def test_what_goes_to_standard_output_goes_to_the_one_of_that_moment(capsys, monkeypatch):
    console = Console()
    other = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", other)
        console.say("there")
    console.say("here")
    assert (other.getvalue(), capsys.readouterr().out) == ("there\n", "here\n")


RECIPE = """name = "größe"
policy.scratch = { hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16 }
task = { source = "data.jsonl", prompt = "question", template = "none", system = "Größe ≤ 5 … 你好" }
rollout = { prompts_per_step = 2, group_size = 4, max_tokens = 8 }
run = { steps = 2, threads = 1, show_group_every = 1, gate = "off", save_every = 1 }
evaluate.problems = 0
reward = "exact_number"
"""


@pytest.mark.fault("a pipe that closes, such as `head`, in the C locale", "it goes on without it")
def test_a_run_whose_output_goes_to_head_under_the_c_locale_ends_well_and_is_continued(tmp_path):
    rows = [{"question": "你好 1+1 😀 [bold]x[/bold] [/] שלום", "answer": "2"}, {"question": "café 2+1", "answer": "3"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "data.jsonl").write_text(lines, "utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("größe", "plain"), "utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "cohort", "train", "recipe.toml"]
    first = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **plain}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    first.stdout.readline()
    first.stdout.close()
    assert first.stderr.read() == b""
    assert first.wait(timeout=120) == 0
    assert (tmp_path / "runs/plain/final/config.json").exists()
    more = subprocess.run(
        [*command, "run.steps=3", "--resume", "--json"],
        cwd=tmp_path,
        env={**os.environ, **plain},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert more.returncode == 0, more.stderr
    assert json.loads(more.stdout)["steps"] == 3
    assert b"Gr??e" not in (tmp_path / "runs/plain/recipe.toml").read_bytes()


@pytest.mark.parametrize("words", [["config", "schema"], ["config", "schema", "--json"]], ids=" ".join)
def test_a_command_that_nobody_reads_ends_as_it_would(words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cohort", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=120, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
