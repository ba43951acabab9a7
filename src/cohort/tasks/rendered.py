"""A task's prompts as one model sees them, and how long they may be."""

from __future__ import annotations

from itertools import islice

from cohort.tasks.order.mixture import Mixture
from cohort.tasks.prompts import CHECKED, Prompts
from cohort.tasks.render import Renderer, fit
from cohort.types import Prompt, UserError

__all__ = ["RenderedPrompts", "held_out_prompts", "prompt_limit"]


def prompt_limit(context: int | None, max_tokens: int, longest: int | None, key: str = "rollout.max_tokens") -> int:
    """The longest prompt that leaves room for a completion of `max_tokens` tokens, and is no longer than `longest`.

    `context` is how many positions the model has; None, where no limit is known, counts as 2**31. `key` is where the
    recipe says `max_tokens`, for the error when nothing is left.
    """
    room = 2**31 if context is None else context - max_tokens
    if room < 1:
        raise UserError(
            f"{key} = {max_tokens} leaves no room for a prompt: the model has {context} positions. Lower {key}."
        )
    return min(room, longest or room)


class RenderedPrompts:
    """A task's prompts as one model sees them; None where the rule `too_long` drops one of more than `limit` tokens."""

    def __init__(self, prompts: Prompts, renderer: Renderer, limit: int, too_long: str):
        self._prompts, self._renderer = prompts, renderer
        self._limit, self._too_long = limit, too_long

    def __getitem__(self, index: int) -> Prompt | None:
        """The prompt with its tokens."""
        return fit(self._renderer.render(self._prompts[index]), self._limit, self._too_long)

    def refuse_long(self) -> None:
        """Look at the lengths of the first prompts before the first step, rather than meet a long one hours later. With
        `too_long = "error"`, reading a prompt that is too long raises.
        """
        known = self._prompts.ends() if isinstance(self._prompts, Mixture) else range(self._prompts.size or 0)
        for index in islice(known, CHECKED):
            self[index]


def held_out_prompts(
    prompts: Prompts | None, renderer: Renderer, limit: int, too_long: str, wanted: int
) -> tuple[list[Prompt], int]:
    """What evaluations ask: the first `wanted` held-out prompts, no question twice; and how many were left out because
    they are too long. A rule "error" is one for training: here it drops.
    """
    if prompts is None or not wanted:
        return [], 0
    rendered = RenderedPrompts(prompts, renderer, limit, "drop" if too_long == "error" else too_long)
    found: dict[str, Prompt] = {}
    dropped = 0
    for index in range(prompts.size if prompts.size is not None else 20 * wanted):
        prompt = rendered[index]
        if prompt is None:
            dropped += 1
        else:
            found.setdefault(prompt.id, prompt)
        if len(found) == wanted:
            break
    return list(found.values()), dropped
