"""From prompts to the tokens that one model sees, and how long they may be.

A template is the tokenizer's chat template, the R1-Zero template, or the text as it is.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, get_args

from cohort import settings
from cohort.chat import ChatTemplate, ChatTemplateError, has_template, ordinary, specials, template_for
from cohort.tasks.order.mixture import Mixture
from cohort.tasks.prompts import CHECKED, Prompts
from cohort.tasks.sources.columns import of_text
from cohort.types import Message, Prompt, UserError
from cohort.wording import shorten

TEMPLATES: tuple[str, ...] = get_args(settings.Task.model_fields["template"].annotation)

# DeepSeek-R1 (arXiv 2501.12948v1), Table 1, word for word; the question stands where the paper has "prompt".
R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
    "i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
)


_DROP = "Remove or rename that column, or change the other."


def tools_of(prompt: Prompt) -> list[Mapping[str, Any]]:
    """The tools in a row's column `tools`, as JSON schemas: a list, or a text that holds one as JSON."""
    value = prompt.tags.get("tools")
    if isinstance(value, str) and value.strip()[:1] in ("[", ""):
        with suppress(ValueError):
            value = json.loads(value or "[]")
    if value is None or value == []:
        return []
    if not isinstance(value, (list, tuple)) or not all(isinstance(tool, Mapping) for tool in value):
        raise UserError(
            f"the prompt {prompt.id} has a column 'tools' that holds {shorten(value)}: it is a list of JSON schemas, "
            "which the chat template shows. Rename the column if it holds something else."
        )
    return list(value)


LOOKED_AT = 64  # prompts, to find out how long they are


class Renderer:
    """Shows prompts to one tokenizer's model, in `template`: what the one that was asked for comes to."""

    def __init__(
        self,
        tokenizer: Any,
        template: str = "auto",
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        special_tokens: bool = False,
        template_args: Mapping[str, Any] = {},
    ) -> None:
        self.name = repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        if template not in TEMPLATES:
            raise UserError(f"template is one of {', '.join(TEMPLATES)}, not {template!r}.")
        if template == "chat" and not has_template(tokenizer):
            raise UserError(
                f"the tokenizer {self.name} has no chat template. "
                'Use template = "none" for plain text or template = "r1_zero" for a base model.'
            )
        if template == "r1_zero" and system is not None:
            raise UserError('template = "r1_zero" brings its own instructions. Remove system, or use another template.')
        self.tokenizer, self.template, self.system = tokenizer, template_for(template, tokenizer), system
        self.tools = [dict(tool) for tool in tools] or None if self.template == "chat" else None
        self._chat_template = ChatTemplate(tokenizer, template_args)
        if unread := self._chat_template.unread if self.template == "chat" else [*template_args]:
            by = f"the chat template of {self.name}" if self.template == "chat" else f'template = "{self.template}"'
            warnings.warn(f"{by} does not read task.template_args.{unread[0]}: it has no effect", stacklevel=2)
        self._special = None if special_tokens else specials(tokenizer)  # what must stay text in a question
        self._told = False  # that a question had some
        self._told_begun = False  # that a conversation ends with the assistant's turn
        self._shows_tools: bool | None = None  # whether the chat template does; None: nobody knows yet

    @classmethod
    def of(cls, table: settings.Task, tokenizer: Any, tools: Sequence[Mapping[str, Any]] = ()) -> Renderer:
        """The renderer that a [task] table describes."""
        return cls(tokenizer, table.template, table.system, tools, table.special_tokens, table.template_args)

    def render(self, prompt: Prompt) -> Prompt:
        """The prompt with its tokens, ready for the completion to follow, and with what they have begun of it.

        A conversation is shown in the tokenizer's own template, up to where the assistant begins, or behind what its
        last message has begun of that turn; the system message is added unless it has its own.
        """
        prompt = of_text(prompt, f"the prompt {prompt.id}")
        try:
            tools = self._tools(prompt)
            opened = self._chat_template.opened(self._conversation(prompt), tools) if self.template == "chat" else None
        except ChatTemplateError as error:  # e.g. a template that knows no system role
            raise UserError(
                f"the prompt {prompt.id} cannot be shown: {error}. Mend the conversation or the template, leave out "
                'system, or use template = "none".'
            ) from error
        text, begun = opened or (self._plain(prompt), "")
        if not begun and text.rstrip().endswith("<think>"):  # whoever wrote it
            begun = text[text.rindex("<think>") :]
        # A chat template writes the beginning token itself.
        tokens = self._encode(text) if opened is None else self.tokenizer.encode(text, add_special_tokens=False)
        if not tokens:
            raise UserError(f"the prompt {prompt.id} renders to no tokens at all. Check the prompt and the template.")
        return replace(prompt, tokens=tuple(tokens), begun=begun)

    def _plain(self, prompt: Prompt) -> str:
        """A single question in a template that is text."""
        if prompt.messages is not None and len(prompt.messages) > 1:
            what = f"the prompt {prompt.id} is a conversation of {len(prompt.messages)} messages, and"
            if not has_template(self.tokenizer):
                raise UserError(
                    f"{what} the tokenizer {self.name} has no chat template, so that a single question is all that can "
                    "be shown. Give the tokenizer a chat template, or give prompts of one message (task.system goes "
                    "before each)."
                )
            raise UserError(f'{what} template = "{self.template}" shows a single question. Use template = "chat".')
        question = self._ordinary(prompt.question, prompt)
        if self.template == "r1_zero":
            return R1_ZERO.replace("{prompt}", question)
        return question if self.system is None else f"{self.system}\n\n{question}"

    def _conversation(self, prompt: Prompt) -> list[Message]:
        """The messages of a prompt and of the system. The assistant's own turns may hold special tokens."""
        chat = [
            message if message.get("role") == "assistant" else self._ordinary(message, prompt)
            for message in prompt.messages or [{"role": "user", "content": prompt.text}]
        ]
        if self.system is not None and chat[0].get("role") != "system":
            chat.insert(0, {"role": "system", "content": self.system})
        if chat[-1].get("role") == "assistant" and not self._told_begun:
            self._told_begun = True
            begun = shorten(chat[-1]["content"])
            warnings.warn(
                f"a prompt ends with a turn of the assistant, {begun}: completions go on from there, in this and other "
                "prompts. Remove such turns if they are answers",
                stacklevel=2,
            )
        return chat

    def _tools(self, prompt: Prompt) -> Sequence[Mapping[str, Any]] | None:
        """The tools that the chat template is told of: those of the environment, or of the row's column `tools`."""
        own = tools_of(prompt)
        if not own:
            return self.tools
        if self.template != "chat" or self.tools:
            why = "environment.tools names others" if self.tools else f'template = "{self.template}" shows no tools'
            raise UserError(f"the prompt {prompt.id} has tools of its own in the column 'tools', and {why}. {_DROP}")
        tools: list[Mapping[str, Any]] = [self._ordinary(tool, prompt) for tool in own]
        if self._shows_tools is None:
            chat = self._conversation(prompt)
            self._shows_tools = self._chat_template.opened(chat, tools)[0] != self._chat_template.opened(chat)[0]
        if not self._shows_tools:
            raise UserError(
                f"the prompt {prompt.id} has tools of its own in the column 'tools', and the chat template of "
                f"{self.name} does not show tools. {_DROP}"
            )
        return tools

    def _ordinary(self, value: Any, prompt: Prompt) -> Any:
        """A value of a row, in whose texts nothing becomes a special token, unless the recipe wants it so."""
        if self._special is None:
            return value
        if isinstance(value, Mapping):
            return {key: self._ordinary(part, prompt) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._ordinary(part, prompt) for part in value]
        if not isinstance(value, str) or (found := self._special.search(value)) is None:
            return value
        if not self._told:
            self._told = True
            warnings.warn(
                f"the prompt {prompt.id} holds {found[0]!r}, a special token of the tokenizer, which is shown as text "
                f"({ordinary(found[0], self._special, by=' ')!r}), there and in other prompts. Say "
                "task.special_tokens = true if prompts may hold special tokens",
                stacklevel=2,
            )
        return ordinary(value, self._special, by=" ")

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


def refuse_long(prompts: Prompts, renderer: Renderer, limit: int) -> None:
    """Look at the lengths of the first prompts before the first step, rather than meet a long one hours later."""
    known = prompts.ends() if isinstance(prompts, Mixture) else range(prompts.size or 0)
    for index in islice(known, CHECKED):
        fit(renderer.render(prompts[index]), limit)


def longest_prompt(prompts: Prompts, renderer: Renderer, limit: int) -> int:
    """The most tokens of the first prompts, of those that are no longer than `limit`."""
    size = LOOKED_AT if prompts.size is None else prompts.size
    known = prompts.ends() if isinstance(prompts, Mixture) else range(size)
    lengths = (len(renderer.render(prompts[index]).tokens) for index in islice(known, LOOKED_AT))
    return max((length for length in lengths if length <= limit), default=limit)


def held_out_prompts(
    prompts: Prompts | None, renderer: Renderer, limit: int, too_long: str, wanted: int
) -> tuple[list[Prompt], int]:
    """What evaluations ask: the first `wanted` held-out prompts, no question twice; and how many were left out because
    they are too long. A rule "error" is one for training: here it drops.
    """
    if prompts is None or not wanted:
        return [], 0
    rule = "drop" if too_long == "error" else too_long
    found: dict[str, Prompt] = {}
    dropped = 0
    for index in range(prompts.size if prompts.size is not None else 20 * wanted):
        prompt = fit(renderer.render(prompts[index]), limit, rule)
        if prompt is None:
            dropped += 1
        else:
            found.setdefault(prompt.id, prompt)
        if len(found) == wanted:
            break
    return list(found.values()), dropped
