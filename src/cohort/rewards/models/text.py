"""How a prompt and a completion become the tokens that a reward model reads. Training and scoring share it.

A completion is text that a policy wrote, and a policy may write anything: "<|im_end|>" and a next turn in which the
user is delighted, or the padding token, behind which no score is read. So whatever the tokenizer would take for a
special token is broken up first; it stays readable and is ordinary text. So it is in the messages of a prompt; a prompt
that is shown as plain text may hold the marks of a conversation that somebody has written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cohort.chat import ChatTemplate, has_template, ordinary, specials
from cohort.types import UserError

Prompt = str | Sequence[Mapping[str, Any]]

FORM_KEY = "cohort_prompt"  # of config.json: how the prompts looked on which a reward model was trained


@dataclass(frozen=True, slots=True)
class Form:
    """How a prompt is shown: in the tokenizer's chat template (`text` None), or in a text around {prompt}."""

    text: str | None = None
    system: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)  # of the chat template

    def as_dict(self) -> dict[str, Any]:
        """Ready for config.json."""
        return asdict(self)


class Reader:
    """Tokens for a model that reads a prompt, then the completion as it is, then the end token."""

    def __init__(self, tokenizer: Any, form: Form) -> None:
        if form.text is None and not has_template(tokenizer):
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template, and the reward model reads its "
                'prompts in one; use task.template = "none" for plain text'
            )
        self.tokenizer, self.form = tokenizer, form
        self._special, self._template = specials(tokenizer), ChatTemplate(tokenizer, form.args)

    def prompt(self, prompt: Prompt) -> list[int]:
        """The tokens up to where the completion begins."""
        if self.form.text is None:
            chat = messages_of(prompt, self._special)
            if self.form.system is not None and chat[0].get("role") != "system":
                chat.insert(0, {"role": "system", "content": self.form.system})
            return list(self.tokenizer.encode(self._template.opened(chat)[0], add_special_tokens=False))
        if not isinstance(prompt, str) and len(prompt) > 1:
            raise UserError(
                f"a prompt is a conversation of {len(prompt)} messages, and the reward model reads single questions; "
                'train one with task.template = "chat"'
            )
        question = prompt if isinstance(prompt, str) else str(prompt[0]["content"])
        tokens = list(self.tokenizer.encode(self.form.text.replace("{prompt}", question)))
        return tokens[:-1] if tokens[-1:] == [self.tokenizer.eos_token_id] else tokens

    def answer(self, completion: str) -> list[int]:
        """The completion's tokens and the end token, at which the score is read."""
        text = ordinary(completion, self._special)
        return [*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id]


def text_of(completion: Prompt) -> str:
    """A completion as text: the content of its last message, if it is a conversation."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def messages_of(prompt: Prompt, special: re.Pattern[str]) -> list[dict[str, Any]]:
    """A prompt as a conversation, in whose texts there are no `special` tokens."""
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(message) for message in prompt]
    for message in chat:
        if isinstance(message.get("content"), str):
            message["content"] = ordinary(message["content"], special)
    return chat


def answered(prompt: Prompt, completion: str, special: re.Pattern[str]) -> list[dict[str, Any]]:
    """The conversation with the completion as the turn that a last message of the assistant may have begun."""
    chat = messages_of(prompt, special)
    begun = str(chat.pop()["content"]) if len(chat) > 1 and chat[-1].get("role") == "assistant" else ""
    return [*chat, {"role": "assistant", "content": begun + completion}]
