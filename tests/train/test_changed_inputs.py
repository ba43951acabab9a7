"""What a run reads may change before it is resumed: that is noticed, said, and refused where it decides the result.

Tried: the clock of a template, in prompts and in a reward model's reader; the code of rewards (modules, what they
import, defaults, tables, closures, classes, partial functions, scripts, lambdas), of tools, environments,
samplers and sources.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import io
import subprocess
import sys
from datetime import datetime

import orjson
import pytest

from cohort.chat import ChatTemplate
from cohort.clock import stopped_at, told
from cohort.recipe import Recipe
from cohort.record.code import code_of
from cohort.record.rollouts import read_groups
from cohort.train.inputs import code_of_stages
from cohort.types import UserError
from cohort.views.console import Console

CLOCK = (
    "{% if strftime_now is defined %}{{ strftime_now('%M%S%f') }}{% endif %}"
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
)


@pytest.fixture
def clock(tokenizer):
    """A tokenizer whose template writes the time."""
    found = copy.deepcopy(tokenizer)
    found.chat_template = CLOCK
    return found


def test_a_template_that_writes_the_date_writes_the_one_on_which_the_run_began(run, clock, checkpoint_dir):
    clock.save_pretrained(checkpoint_dir)
    settings = {"evaluate": {"problems": 0}}
    text = io.StringIO()
    whole = run(name="whole", console=Console(file=text, width=300), **settings)
    assert "the chat template asks for the date; this run tells it 20" in text.getvalue()
    run(run={"steps": 2}, **settings)
    resumed = run(run={"steps": 4}, resume=True, **settings)
    days = {orjson.loads((done.directory / "environment.json").read_bytes())["began"][:10] for done in (whole, resumed)}
    same = (whole.final / "model.safetensors").read_bytes() == (resumed.final / "model.safetensors").read_bytes()
    assert same or len(days) > 1  # midnight may have come between the two
    log = resumed.directory / "log"
    prompts = [read_groups(log / f"step-{step:06d}.parquet")[0].prompt.tokens for step in (1, 2, 3, 4)]
    dates = {clock.decode(tokens).partition("What")[0] for tokens in prompts}
    assert len(dates) == 1
    assert dates.pop().strip().isdigit()
    assert told(clock) == {}  # outside of the run the clock goes on


def written(tokenizer, chat):
    return tokenizer.encode(ChatTemplate(tokenizer).write(chat), add_special_tokens=False)


def test_all_who_render_are_told_the_same_moment(clock, tokenizer):
    chat = [{"role": "user", "content": "x"}]
    with stopped_at("2026-01-31T10:59:58.000001"):
        assert clock.decode(written(clock, chat)).startswith("5958000001")
        with stopped_at("2026-01-31T10:11:12"):
            assert clock.decode(written(clock, chat)).startswith("1112000000")
        assert told(tokenizer) == {}
    assert not clock.decode(written(clock, chat)).startswith("5958000001")


def test_the_stopped_clock_writes_what_the_real_one_does(clock):
    moment = datetime(2026, 3, 7, 4, 5, 6, 70)
    for form in ("%d %b %Y", "%A, %-d %B %y", "%Y-%m-%dT%H:%M:%S", "%I:%M %p", "100%% %d%%", "%j %U %x", "plain"):
        clock.chat_template = f"\n  {{{{ strftime_now({form!r}) }}}}|{{{{ messages[0]['content'] }}}}"
        chat = [{"role": "user", "content": "x"}]
        with stopped_at(moment.isoformat()):
            text = clock.apply_chat_template(chat, tokenize=False, **told(clock))
        assert text == f"\n  {moment.strftime(form)}|x"


def load(path, name="mine"):
    """The module of a file, as if this were another process."""
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(name, path / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


MINE = """
import helper
WORDS = {"a", "e"}
def make(number):
    def made(completion):
        return number
    return made
class Counts:
    def __call__(self, completion):
        return float(len(completion))
def score(completion, least=1):  # a comment
    return helper.count(completion) / 9
"""
HELPER = "def count(text):\n    return text.count('a')\n"
EDITS = {
    "the function": (MINE.replace("/ 9", "/ 8"), HELPER),
    "a default": (MINE.replace("least=1", "least=2"), HELPER),
    "a table of the module": (MINE.replace('"e"', '"i"'), HELPER),
    "a module that it imports": (MINE, HELPER.replace("'a'", "'b'")),
}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mine", "helper"):
        monkeypatch.setitem(sys.modules, name, None)

    def write(mine, helper):
        (tmp_path / "mine.py").write_text(mine)
        (tmp_path / "helper.py").write_text(helper)
        load(tmp_path, "helper")
        return load(tmp_path)

    return write


@pytest.mark.parametrize("case", EDITS)
def test_an_edited_module_is_another_code_and_a_comment_is_none(desk, case):
    first = desk(MINE, HELPER)
    before = [code_of(thing) for thing in (first.score, first.Counts(), first.make(1))]
    again = desk(MINE.replace("# a comment", "# another\n"), "\n\n" + HELPER)
    assert [code_of(thing) for thing in (again.score, again.Counts(), again.make(1))] == before
    assert code_of(again.make(2)) != before[2]
    assert code_of(functools.partial(again.score, least=2)) != code_of(functools.partial(again.score, least=3))
    edited = desk(*EDITS[case])
    assert code_of(edited.score) != before[0]


SCRIPT = """
import functools, re
WORDS = ["a", "e"]
PATTERN = re.compile("a")
@functools.cache
def words():
    return frozenset(WORDS)
def score(completion):
    return sum(word in completion for word in words()) + len(PATTERN.findall(completion))
from cohort.record.code import code_of
WORDS.append("state that changes")
print(code_of(score), code_of(lambda completion: score(completion)))
"""


def test_a_function_of_a_script_is_what_it_refers_to(tmp_path):
    def codes(text):
        (tmp_path / "script.py").write_text(text)
        done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, check=True)
        return done.stdout.split()

    before = codes(SCRIPT)
    assert codes(SCRIPT + "\nresume = True\n") == before  # in another process, with another seed of hashes
    assert codes(SCRIPT.replace('"e"]', '"i"]')) != before
    assert all(old != new for old, new in zip(codes(SCRIPT.replace("+ len", "- len")), before, strict=True))


@pytest.mark.fault("code or data changed between start and resume", "what changed is named, and it is not continued")
def test_a_run_is_not_continued_with_an_edited_reward(run, desk, tmp_path):
    desk(MINE, HELPER)
    settings = {"reward": ["mine:score"], "evaluate": {"problems": 0}}
    run(run={"steps": 2}, **settings)
    desk(MINE, HELPER.replace("'a'", "'b'"))
    with pytest.raises(UserError, match=r"the code of reward score of stage grpo has changed since this run began"):
        run(run={"steps": 4}, resume=True, **settings)
    desk(MINE.replace("# a comment", "# another"), HELPER)
    assert run(run={"steps": 4}, resume=True, **settings).metrics[-1]["step"] == 4


def test_a_reward_that_failed_may_be_mended(run, desk, tmp_path):
    log = tmp_path / "runs/small/log/step-000002.parquet"
    desk(f"import os\ndef score(completion):\n    return 1 / (not os.path.exists({str(log)!r}))\n", HELPER)
    settings = {"reward": ["mine:score"], "evaluate": {"problems": 0}}
    with pytest.raises(UserError, match="ZeroDivisionError"):
        run(**settings)
    desk("def score(completion):\n    return 1.0 * len(completion)\n", HELPER)
    text = io.StringIO()
    run(resume=True, console=Console(file=text, width=300), **settings)
    assert "the code of reward score of stage grpo has changed since the run failed" in text.getvalue()
    desk(MINE, HELPER)
    with pytest.raises(UserError, match="has changed since this run began"):
        run(resume=True, **settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": {"tools": ["own:thing"]}},
        {"environment": {"use": "own:thing"}},
        {"rollout": {"sampler": "own:thing"}},
        {"task": {"source": "own:thing"}},
        {"evaluate": {"reward": "own:thing"}},
    ],
    ids=str,
)
def test_all_code_of_ones_own_counts(tables, tmp_path, monkeypatch, changes):
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for text in ("def thing(completion):\n    return 1\n", "def thing(completion):\n    return 2\n"):
        (tmp_path / "own.py").write_text(text)
        load(tmp_path, "own")
        merged = {name: {**tables.get(name, {}), **table} for name, table in changes.items()}
        found.append(code_of_stages(Recipe(**{**tables, **merged})))
    monkeypatch.delitem(sys.modules, "own")
    assert len([what for what in found[0] if found[0][what] != found[1][what]]) == 1
