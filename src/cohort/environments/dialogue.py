"""How the environment's messages become tokens behind a turn of the policy. Earlier tokens are never touched again."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from cohort.chat import ChatTemplate, ChatTemplateError, ordinary, specials
from cohort.environments.formats import FORMATS, RESULT, Format, FormatName
from cohort.policy.text import silent
from cohort.types import Message, Turn, UserError

_TURN = "[[a turn of the assistant]]"
_PROBE = "[[a result]]"


class Dialogue(Protocol):
    """The written form of a conversation, for one tokenizer."""

    schemas: tuple[Mapping[str, Any], ...]  # what the prompt's chat template is given as `tools`

    def following(self, last: int, messages: Sequence[Message]) -> list[int]:
        """The tokens from a turn, which ended in the token `last`, to where the policy goes on."""
        ...

    def final(self, turns: Sequence[Turn]) -> str:
        """What the policy itself wrote in its last message."""
        ...

    def demonstration(self, text: str) -> list[tuple[list[int], bool]]:
        """A completion to learn from as runs of tokens, each with whether they are the policy's own."""
        ...


class ChatDialogue:
    """Messages through the tokenizer's own chat template. A turn ends with the template's end token."""

    def __init__(
        self,
        text: _Text,
        schemas: Sequence[Mapping[str, Any]],
        eos_ids: Collection[int],
        template_args: Mapping[str, Any] = {},
    ) -> None:
        self._text, self._tokenizer, self._eos_ids = text, text.tokenizer, frozenset(eos_ids)
        self._template = ChatTemplate(text.tokenizer, template_args)
        self.schemas = tuple(schemas)
        self._roles: set[str] = set()  # those that the template is known to show
        if schemas and not self._shows("tool"):
            raise _no_tools(self._tokenizer, "does not show what a tool answers")

    def following(self, last: int, messages: Sequence[Message]) -> list[int]:
        """See `Dialogue`. The end token that the template writes is left out where the policy has written one."""
        for role in {message["role"] for message in messages} - self._roles:
            if not self._shows(role):  # the policy would go on without having been told anything
                raise UserError(
                    f"the chat template of {_named(self._tokenizer)} does not show messages with the role {role!r}, so "
                    'the policy would not see them; use one that it knows, such as "user"'
                )
            self._roles.add(role)
        safe = [{**message, "content": self._text.safe(message["content"])} for message in messages]
        tokens = self._text.encode(self._rendered(safe))
        # Behind another end token, such as that of a base model, the template's own still follows.
        return tokens[1:] if tokens[:1] == [last] and last in self._eos_ids else tokens

    def final(self, turns: Sequence[Turn]) -> str:
        """See `Dialogue`: every turn is a message."""
        return turns[-1].text

    def demonstration(self, text: str) -> list[tuple[list[int], bool]]:
        """See `Dialogue`: a completion is one turn."""
        return [(self._text.encode(text), True)]

    def _shows(self, role: str) -> bool:
        return _PROBE in self._rendered([{"role": role, "name": "probe", "content": _PROBE}])

    def _rendered(self, messages: Sequence[Message]) -> str:
        """What the template writes behind the content of an assistant's turn."""
        chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _TURN}, *map(dict, messages)]
        try:
            text = self._template.write(chat)
        except ChatTemplateError as error:
            roles = " or ".join(sorted({repr(message["role"]) for message in messages}))
            raise _no_tools(self._tokenizer, f"refuses a message with the role {roles} ({error})") from None
        _, turn, rest = text.rpartition(_TURN)
        if not turn:
            raise _no_tools(self._tokenizer, "leaves out earlier turns of the assistant")
        return rest


class InlineDialogue:
    """Results written into the assistant's one message, as text: `<tool>...</tool><result>...</result>`."""

    schemas: tuple[Mapping[str, Any], ...] = ()

    def __init__(self, text: _Text) -> None:
        self._text = text

    def following(self, last: int, messages: Sequence[Message]) -> list[int]:
        """See `Dialogue`. What is no tool's message is written as it is."""
        written = []
        for message in messages:
            content = self._text.safe(message["content"])
            written.append(content.join(RESULT) if message["role"] == "tool" else content)
        return self._text.encode("".join(written))

    def final(self, turns: Sequence[Turn]) -> str:
        """See `Dialogue`: all turns are one message."""
        return "".join(turn.text for turn in turns)

    def demonstration(self, text: str) -> list[tuple[list[int], bool]]:
        """See `Dialogue`: results are the tool's, and encoded alone, as they are in a rollout."""
        parts = re.split(f"({re.escape(RESULT[0])}.*?{re.escape(RESULT[1])})", text, flags=re.DOTALL)
        return [(self._text.encode(part), index % 2 == 0) for index, part in enumerate(parts) if part]


def open_dialogue(
    tokenizer: Any,
    chosen: Format | None,
    chat: bool,
    schemas: Sequence[Mapping[str, Any]],
    eos_ids: Collection[int],
    longest: int,
    template_args: Mapping[str, Any] = {},
) -> Dialogue:
    """The dialogue of a tokenizer; `chat` says that prompts are rendered with its chat template. Calls are written in
    the `chosen` format (None: nothing is called). No message gives more than `longest` tokens. Raises UserError where
    the tokenizer cannot have such a dialogue.
    """
    text = _Text(tokenizer, chosen.marks if chosen is not None else (), longest)
    if chosen is FORMATS["tags"] or not chat:
        return InlineDialogue(text)
    return ChatDialogue(text, schemas, eos_ids, template_args)


def choose_format(tokenizer: Any, wanted: FormatName | None, chat: bool, eos_ids: Collection[int] = ()) -> Format:
    """The format `wanted`, or that of the tokenizer's chat template where prompts are rendered with it. Raises
    UserError where there is none that could be read.
    """
    chosen = FORMATS[wanted or (_format_of(tokenizer) if chat else "tags")]
    left_out = {str(token) for token in tokenizer.convert_ids_to_tokens(sorted(silent(tokenizer, eos_ids)))}
    if hidden := [mark for mark in chosen.marks if mark in left_out]:
        raise UserError(
            f"{hidden[0]!r} ends a completion, or pads or begins one, and is no text, so calls in the format "
            f'{chosen.name!r} could not be read. Choose another environment.format, such as "tags"'
        )
    return chosen


def _format_of(tokenizer: Any) -> FormatName:
    """The format that a chat template teaches, by its own words."""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    if "<tool_call>" in template and "<function=" not in template:
        return "hermes"
    if "<|python_tag|>" in template or "ipython" in template:
        return "llama3"
    raise _no_tools(tokenizer, "has no tool calls in a format that Cohort reads")


def _no_tools(tokenizer: Any, problem: str) -> UserError:
    return UserError(
        f'the chat template of {_named(tokenizer)} {problem}. Set environment.format: "tags" goes with every model, '
        '"hermes" and "llama3" with templates that have a role for tools'
    )


def _named(tokenizer: Any) -> str:
    return repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


class _Text:
    """Text as tokens, of which a message gives at most `longest`. Keeps what tools say from being read as anything but
    text.
    """

    def __init__(self, tokenizer: Any, marks: Collection[str], longest: int) -> None:
        self.tokenizer, self._longest = tokenizer, longest
        self._controls = specials(tokenizer, marks)

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return tokens

    def safe(self, content: Any) -> str:
        """The content, cut to its length, with every control text broken up by a space."""
        text = ordinary(str(content), self._controls, by=" ")
        tokens, most = self.encode(text), self._longest
        if len(tokens) <= most:
            return text
        return f"{self.tokenizer.decode(tokens[:most])} ... ({len(tokens) - most} more tokens)"
