"""Conversations and chat templates: what a message says as text, how a template writes it, where a template ends and
begins a turn of the assistant, and text that must not become a control token.

A chat template is a program that came with a model. All of Cohort writes through `ChatTemplate`, which bounds its time
and says in a sentence what went wrong in it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from itertools import takewhile
from typing import Any

from cohort.clock import told
from cohort.patience import HangsError, within
from cohort.types import Message, UserError
from cohort.wording import one_line

LIMIT_S = 5.0  # of one conversation; the templates of models take less than a millisecond
_QUESTION, _TURN = "[[a question]]", "[[a turn of the assistant]]"


class ChatTemplateError(UserError):
    """A chat template refuses a conversation, or fails on it. The message says how, and of which tokenizer it is."""


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def template_for(wanted: str, tokenizer: Any) -> str:
    """What `task.template` comes to: "auto" is "chat" where the tokenizer has a chat template, else "none"."""
    return wanted if wanted != "auto" else "chat" if has_template(tokenizer) else "none"


def text_of(content: Any) -> str:
    """What a message says: text, or a list of parts that are text. Raises ValueError, which names anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"{type(content).__name__} {content!r:.60}")
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"a part that is no text, {part!r:.60}")
    return "".join(part["text"] for part in content)


def specials(tokenizer: Any, marks: Collection[str] = ()) -> re.Pattern[str]:
    """What matches any special token of a tokenizer, written out; and `marks`, texts that mean something to a reader of
    the conversation.
    """
    known = getattr(tokenizer, "added_tokens_decoder", {})  # a tokenizer of one's own may have no special tokens
    added = [str(token) for token in known.values() if getattr(token, "special", True)]
    named = getattr(tokenizer, "all_special_tokens", ())
    texts = sorted({text for text in (*named, *added, *marks) if text}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


def ordinary(text: str, special: re.Pattern[str], by: str = "\u200b") -> str:
    """The text with `by`, an invisible character or a space, inside whatever would be a special token. It stays
    readable, but for a special token of one character, which `by` replaces.
    """
    return special.sub(lambda match: f"{match[0][0] if match[0][1:] else ''}{by}{match[0][1:]}", text)


def continued(text: str, begun: str) -> str:
    """The rest of `text` behind `begun`, which the prompt holds already, such as the `<think>` of a chat template."""
    if not begun.strip() or not text.lstrip().startswith(begun.strip()):
        return text
    return text.removeprefix(begun) if text.startswith(begun) else text.lstrip().removeprefix(begun.strip())


class ChatTemplate:
    """The chat template of a tokenizer, and the `args` that it is given beside every conversation, such as
    enable_thinking. Raises UserError for names that are filled for every conversation.
    """

    def __init__(self, tokenizer: Any, args: Mapping[str, Any] | None = None) -> None:
        self.tokenizer, self.args = tokenizer, dict(args or {})
        own = {"messages", *inspect.signature(type(tokenizer).apply_chat_template).parameters} if self.args else set()
        if taken := sorted((own - {"documents", "kwargs"}) & self.args.keys()):
            raise UserError(
                f"task.template_args cannot set {taken[0]!r}: it is filled for every conversation. Remove it."
            )
        self.name = repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        self._given_up = False  # it did not come to an end once, and is not waited for again
        self._takes_parts: bool | None = (
            None  # it shows only contents that are lists of parts, as of models with images
        )

    def write(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, go_on: bool = True
    ) -> str:
        """The conversation as the template writes it; with `go_on` up to where the assistant begins. Contents are text.

        Raises ChatTemplateError where the template refuses it, fails, or does not come to an end.
        """
        import jinja2

        chat = [dict(message) for message in messages]
        if self._takes_parts is None:
            self._takes_parts = False  # while it is asked
            self._takes_parts = not self._shows(_QUESTION) and self._shows([{"type": "text", "text": _QUESTION}])
        for message in chat if self._takes_parts else ():
            if isinstance(message.get("content"), str):
                message["content"] = [{"type": "text", "text": message["content"]}]
        given = None if tools is None else [dict(tool) for tool in tools]
        endless = f"the chat template of {self.name} does not come to an end: it was given up after {LIMIT_S:g} s"
        if self._given_up:
            raise ChatTemplateError(endless)
        try:
            beside = {**self.args, **told(self.tokenizer, given)}
            write = partial(self.tokenizer.apply_chat_template, chat, tools=given, **beside)
            return within(lambda: str(write(add_generation_prompt=go_on, tokenize=False)), LIMIT_S)
        except jinja2.TemplateError as error:  # raise_exception of the template, or what it cannot do
            raise ChatTemplateError(f"the chat template of {self.name} refuses it: {one_line(error)}") from error
        except HangsError:
            self._given_up = True
            raise ChatTemplateError(endless) from None
        except Exception as error:  # the template is a program: it may raise anything
            raise ChatTemplateError(self._failure(error)) from error

    def _failure(self, error: Exception) -> str:
        templates = getattr(self.tokenizer, "chat_template", None)
        if not isinstance(templates, Mapping) or "default" in templates:
            return f"the chat template of {self.name} fails: {type(error).__name__}: {one_line(error)}"
        return (
            f"the tokenizer {self.name} has chat templates by name ({', '.join(map(repr, templates))}) and none is the "
            "default: choose one, such as tokenizer.chat_template = tokenizer.chat_template"
            f"[{next(iter(templates), '')!r}], and save the tokenizer"
        )

    def opened(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None) -> tuple[str, str]:
        """The conversation up to where a completion goes on, and what it has begun of that turn: what the template
        itself writes there, then what a last message of the assistant says.
        """
        ended = len(messages) < 2 or messages[-1].get("role") != "assistant"
        asked = messages if ended else messages[:-1]
        text = self.write(asked, tools)
        begun = self.begun(asked, tools, text)
        rest = "" if ended else continued(str(messages[-1]["content"]), begun)  # a template may write <think> itself
        return text + rest, begun + rest

    @property
    def unread(self) -> list[str]:
        """The names of arguments that the template does not read."""
        import jinja2

        templates = getattr(self.tokenizer, "chat_template", None) or ""
        texts = templates.values() if isinstance(templates, Mapping) else [templates]
        try:
            words = {word for text in texts for _, kind, word in jinja2.Environment().lex(text) if kind == "name"}
        except jinja2.TemplateError:  # whoever writes with it says what is wrong with it
            return []
        return [name for name in self.args if name not in words]

    def begun(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, written: str) -> str:
        """What the template itself has begun of the assistant's turn in `written`, a conversation that goes on: "" or
        such as `<think>` and a line break.
        """
        header, usual, begun = self._beginning
        if written.endswith(usual):
            return begun
        before = self.write(messages, tools, go_on=False)
        return _behind(header, written.removeprefix(before)) if written.startswith(before) else ""

    @cached_property
    def turn_end(self) -> tuple[str, int | None]:
        """What the template writes right behind a turn of the assistant, as text and as the one token that it is.

        No token: it writes nothing there, or text that the tokenizer has no token for; the text is then what it wrote.
        """
        question = {"role": "user", "content": _QUESTION}
        turn = {"role": "assistant", "content": _TURN}
        added = {str(token): index for index, token in self.tokenizer.added_tokens_decoder.items()}
        plain = ""
        for chat in ([question, turn], [question, turn, question]):  # some write the end before a next turn only
            try:
                rest = self.write(chat, go_on=False).rpartition(_TURN)[2].lstrip()
            except ChatTemplateError:  # a template of one turn; where prompts need it, they say what is wrong with it
                break
            if found := [text for text in added if rest.startswith(text)]:
                end = max(found, key=len)
                return end, added[end]
            plain = plain or rest.partition(_QUESTION)[0].strip() if chat[-1] is turn else plain
        return plain, None

    @cached_property
    def _beginning(self) -> tuple[str, str, str]:
        """How a turn of the assistant begins in the history, what is written where the assistant goes on, and what
        that has more.
        """
        question = {"role": "user", "content": _QUESTION}
        turn = {"role": "assistant", "content": _TURN}
        before = self.write([question], go_on=False)
        usual = self.write([question])
        usual = usual[len(before) :] if usual.startswith(before) else ""
        try:
            history, found, _ = self.write([question, turn, question], go_on=False).partition(_TURN)
        except ChatTemplateError:
            found = ""
        if not found:  # a template of one question
            return usual, usual, ""
        header = history[len(before) :] if history.startswith(before) else usual
        header = header.partition("<think>")[0]  # some write empty thoughts into the history
        return header, usual, _behind(header, usual)

    def _shows(self, content: Any) -> bool:
        try:
            return _QUESTION in self.write([{"role": "user", "content": content}])
        except ChatTemplateError:
            return False


def _behind(start: str, text: str) -> str:
    """The text without the beginning that it shares with `start`."""
    return text[sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(start, text))) :]
