"""What a run reads may change before it is resumed: that is noticed, said, and refused where it decides the result.

Tried: the clock of a template, in prompts, in what is said after a turn, and in a reward model's reader.
"""

from __future__ import annotations

import copy
from datetime import datetime

import pytest

from cohort.clock import stopped_at, told
from cohort.record.rollouts import read_groups
from cohort.rewards.models.text import chat_tokens

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
    run(run={"steps": 2}, **settings)
    resumed = run(run={"steps": 4}, resume=True, **settings)
    log = resumed.directory / "log"
    prompts = [read_groups(log / f"step-{step:06d}.parquet")[0].prompt.tokens for step in (1, 2, 3, 4)]
    dates = {clock.decode(tokens).partition("What")[0] for tokens in prompts}
    assert len(dates) == 1
    assert dates.pop().strip().isdigit()
    assert told(clock) == {}  # outside of the run the clock goes on


def test_all_who_render_are_told_the_same_moment(clock, tokenizer):
    chat = [{"role": "user", "content": "x"}]
    with stopped_at("2026-01-31T10:59:58.000001"):
        assert clock.decode(chat_tokens(clock, chat, True)).startswith("5958000001")
        with stopped_at("2026-01-31T10:11:12"):
            assert clock.decode(chat_tokens(clock, chat, True)).startswith("1112000000")
        assert told(tokenizer) == {}
    assert not clock.decode(chat_tokens(clock, chat, True)).startswith("5958000001")


def test_the_stopped_clock_writes_what_the_real_one_does(clock):
    moment = datetime(2026, 3, 7, 4, 5, 6, 70)
    for form in ("%d %b %Y", "%A, %-d %B %y", "%Y-%m-%dT%H:%M:%S", "%I:%M %p", "100%% %d%%", "%j %U %x", "plain"):
        clock.chat_template = f"\n  {{{{ strftime_now({form!r}) }}}}|{{{{ messages[0]['content'] }}}}"
        chat = [{"role": "user", "content": "x"}]
        with stopped_at(moment.isoformat()):
            text = clock.apply_chat_template(chat, tokenize=False, **told(clock))
        assert text == f"\n  {moment.strftime(form)}|x"
