"""A task's prompts as one model sees them: which are too long, and which of the held-out ones are asked."""

from __future__ import annotations

import pytest

from cohort.tasks import Renderer, open_mixture, open_task
from cohort.tasks.render import RenderedPrompts, held_out_prompts, prompt_limit
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
    dropping, cutting, refusing = (RenderedPrompts(whole, RENDERER, 4, r) for r in ("drop", "truncate_left", "error"))
    assert (dropping[0].tokens, dropping[1]) == ((97, 98, 99), None)
    assert cutting[1].tokens == tuple(b"cdef")
    with pytest.raises(UserError, match=r"'abcdef'.* has 6 tokens and the limit is 4"):
        refusing.refuse_long()
    RenderedPrompts(prompts("abc"), RENDERER, 4, "error").refuse_long()
    RenderedPrompts(
        open_task("word_problems").train, RENDERER, 4, "error"
    ).refuse_long()  # without an end: none is read


def test_the_long_prompts_of_a_mixture_are_refused_too():
    mixture = open_mixture(
        {"rows": {"source": [{"prompt": "abc"}, {"prompt": "abcdef"}]}, "made": {"source": "arithmetic"}}
    )
    with pytest.raises(UserError, match="'abcdef'"):
        RenderedPrompts(mixture.train, RENDERER, 4, "error").refuse_long()


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
