"""From prompts to the tokens that one model sees, and how long they may be.

A template is the tokenizer's chat template, the R1-Zero template, or the text as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, get_args

from cohort import settings
from cohort.clock import told
from cohort.tasks.order.mixture import Mixture
from cohort.tasks.prompts import CHECKED, Prompts
from cohort.types import Prompt, UserError

TEMPLATES: tuple[str, ...] = get_args(settings.Task.model_fields["template"].annotation)

# DeepSeek-R1 (arXiv 2501.12948v1), Table 1, word for word; the question stands where the paper has "prompt".
R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
    "i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
)


class Renderer:
    """Shows prompts to one tokenizer's model."""

    def __init__(
        self,
        tokenizer: Any,
        template: str = "chat",
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.name = repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        if template not in TEMPLATES:
            raise UserError(f"template is one of {', '.join(TEMPLATES)}, not {template!r}.")
        if template == "chat" and not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"the tokenizer {self.name} has no chat template. "
                'Use template = "none" for plain text or template = "r1_zero" for a base model.'
            )
        if template == "r1_zero" and system is not None:
            raise UserError('template = "r1_zero" brings its own instructions. Remove system, or use another template.')
        self.tokenizer, self.template, self.system = tokenizer, template, system
        self.tools = [dict(tool) for tool in tools] or None

    def render(self, prompt: Prompt) -> Prompt:
        """The prompt with its tokens, ready for the completion to follow."""
        if self.template == "chat":
            tokens = self._chat(prompt, tokenize=True)
        else:
            tokens = self._encode(self.text(prompt))
        if not tokens:
            raise UserError(f"the prompt {prompt.id} renders to no tokens at all. Check the prompt and the template.")
        return replace(prompt, tokens=tuple(int(token) for token in tokens))

    def text(self, prompt: Prompt) -> str:
        """What the model sees, as text: a view for people, except for templates that are text."""
        if self.template == "chat":
            return str(self._chat(prompt, tokenize=False))
        if prompt.messages is not None and len(prompt.messages) > 1:
            raise UserError(
                f"the prompt {prompt.id} is a conversation of {len(prompt.messages)} messages, and template = "
                f'"{self.template}" shows a single question. Use template = "chat".'
            )
        if self.template == "r1_zero":
            return R1_ZERO.replace("{prompt}", prompt.question)
        return prompt.question if self.system is None else f"{self.system}\n\n{prompt.question}"

    def _chat(self, prompt: Prompt, tokenize: bool) -> Any:
        """The conversation in the tokenizer's own template, up to where the assistant begins. The system message is
        added unless the conversation has its own.
        """
        import jinja2

        chat = [dict(message) for message in prompt.messages or [{"role": "user", "content": prompt.text}]]
        if self.system is not None and chat[0].get("role") != "system":
            chat.insert(0, {"role": "system", "content": self.system})
        try:
            return self.tokenizer.apply_chat_template(
                chat,
                tools=self.tools,
                add_generation_prompt=True,
                tokenize=tokenize,
                return_dict=False,
                **told(self.tokenizer, self.tools),
            )
        except jinja2.TemplateError as error:  # e.g. a template that knows no system role
            raise UserError(
                f"the chat template of {self.name} refuses the prompt {prompt.id}: {error}. "
                'Mend the conversation, leave out system, or use template = "none".'
            ) from error

    def _encode(self, text: str) -> list[int]:
        """Text to tokens, with the beginning token that the tokenizer adds but never an end token."""
        tokens = list(self.tokenizer.encode(text))
        end = self.tokenizer.eos_token_id
        bare = list(self.tokenizer.encode(text, add_special_tokens=False))
        return tokens[:-1] if end is not None and tokens[-1:] == [end] != bare[-1:] else tokens


def fit(prompt: Prompt, max_prompt_tokens: int, too_long: str = "error") -> Prompt | None:
    """The prompt if it fits, else what the rule `too_long` says: an error, None (drop it), or its last tokens."""
    if len(prompt.tokens) <= max_prompt_tokens:
        return prompt
    if too_long == "drop":
        return None
    if too_long == "truncate_left":
        return replace(prompt, tokens=prompt.tokens[-max_prompt_tokens:])
    if too_long != "error":
        raise UserError(f'too_long is "error", "drop" or "truncate_left", not {too_long!r}.')
    raise UserError(
        f"the prompt {prompt.id} ({prompt.question[:40]!r}...) has {len(prompt.tokens)} tokens and the limit is "
        f"{max_prompt_tokens}. Raise task.max_prompt_tokens (or lower rollout.max_tokens, if the context is full), or "
        'say task.too_long = "drop" or "truncate_left".'
    )


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
        prompt = self._renderer.render(self._prompts[index])
        return prompt if len(prompt.tokens) <= self._limit else fit(prompt, self._limit, self._too_long)

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
