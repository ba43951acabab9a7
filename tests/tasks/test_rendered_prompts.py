"""A task's prompts as one model sees them: which are too long, and which of the held-out ones are asked."""

from __future__ import annotations

import pytest

from cohort.tasks import Renderer, fit, open_mixture, open_task
from cohort.tasks.render import held_out_prompts, prompt_limit, refuse_long
from cohort.types import UserError


class Letters:
    """A tokenizer: a letter is a token."""

    eos_token_id = None

    def encode(self, text, add_special_tokens=True):
        return [ord(letter) for letter in text]


RENDERER = Renderer(Letters(), "none")


def prompts(*texts):
    return open_task([{"prompt": text} for text in texts]).train


def test_the_limit_leaves_room_for_the_completion():
    assert prompt_limit(100, 30, None) == 70
    assert prompt_limit(100, 30, 20) == 20
    assert prompt_limit(100, 30, 90) == 70
    assert prompt_limit(None, 30, None) == 2**31
    with pytest.raises(UserError, match=r"evaluate\.max_tokens = 100 leaves no room.*has 100 positions\. Lower evalu"):
        prompt_limit(100, 100, None, "evaluate.max_tokens")


def test_the_rule_for_long_prompts():
    whole = prompts("abc", "abcdef")
    short, long = (RENDERER.render(whole[index]) for index in (0, 1))
    assert (fit(short, 4, "drop").tokens, fit(long, 4, "drop")) == ((97, 98, 99), None)
    assert fit(long, 4, "truncate_left").tokens == tuple(b"cdef")
    with pytest.raises(UserError, match=r"'abcdef'.* has 6 tokens and the limit is 4"):
        refuse_long(whole, RENDERER, 4)
    refuse_long(prompts("abc"), RENDERER, 4)
    refuse_long(open_task("word_problems").train, RENDERER, 4)  # without an end: none is read


def test_the_long_prompts_of_a_mixture_are_refused_too():
    mixture = open_mixture(
        {"rows": {"source": [{"prompt": "abc"}, {"prompt": "abcdef"}]}, "made": {"source": "arithmetic"}}
    )
    with pytest.raises(UserError, match="'abcdef'"):
        refuse_long(mixture.train, RENDERER, 4)


def test_held_out_prompts_are_different_and_short_enough():
    whole = prompts("a", "long one", "a", "b", "c")
    found, dropped = held_out_prompts(whole, RENDERER, 4, "error", 2)
    assert ([prompt.text for prompt in found], dropped) == (["a", "b"], 1)
    found, dropped = held_out_prompts(whole, RENDERER, 4, "truncate_left", 9)
    assert ([prompt.text for prompt in found], dropped) == (["a", "long one", "b", "c"], 0)
    assert held_out_prompts(None, RENDERER, 4, "drop", 2) == held_out_prompts(whole, RENDERER, 4, "drop", 0) == ([], 0)


def test_of_prompts_without_an_end_so_many_are_looked_at():
    endless = open_task("word_problems", levels=(1,)).held_out
    assert len(held_out_prompts(endless, RENDERER, 1000, "drop", 5)[0]) == 5
    assert held_out_prompts(endless, RENDERER, 1, "drop", 5) == ([], 100)
