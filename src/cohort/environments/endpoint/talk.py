"""Between the messages of the API and tokens. What the policy wrote is never encoded again: a conversation that goes on
from an answer is the tokens of that answer, and behind them what is new.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cohort.chat import has_template
from cohort.environments.dialogue import Dialogue, choose_format, open_dialogue
from cohort.environments.endpoint.wire import ApiError, Asked, Chat, Likely, Reply, Text
from cohort.environments.formats import Format, FormatName
from cohort.policy.text import reader, silent
from cohort.tasks import Renderer
from cohort.types import Completion, Message, Prompt, UserError, content_id

Key = tuple[Any, ...]
Alternatives = Sequence[Sequence[tuple[int, float]]]  # of each token of a completion the likeliest, and their log-probs


@dataclass(frozen=True, slots=True)
class Said:
    """What was asked and answered: the conversation, its answer included, or the text; and the tokens of both."""

    keys: tuple[Key, ...] | str
    tools: str
    tokens: tuple[int, ...]


@dataclass(slots=True)
class Talk:
    """How one tokenizer's model is spoken to."""

    tokenizer: Any
    eos_ids: Collection[int]
    template_args: Mapping[str, Any] = field(default_factory=dict)
    form: FormatName | None = None  # of tool calls; None: as the chat template writes them
    _renderers: dict[str, Renderer] = field(default_factory=dict)
    _dialogue: Dialogue | None = None

    def tokens(self, asked: Asked, before: Sequence[Said] = ()) -> tuple[tuple[int, ...], tuple[Message, ...]]:
        """The tokens that a completion follows, and the messages in them that no answer `before` has. Raises
        `ApiError` for what the tokenizer cannot show.
        """
        try:
            if isinstance(asked, Chat):
                return self._conversation(asked, before)
            assert isinstance(asked, Text)
            question = asked.question
            if not isinstance(question, str):
                return self._ids(question), ()
            known = [one for one in before if isinstance(one.keys, str) and question.startswith(one.keys)]
            if known and (longest := max(known, key=lambda one: len(one.tokens))):
                rest = question.removeprefix(str(longest.keys))
                more = self.tokenizer.encode(rest, add_special_tokens=False) if rest else []
                return (*longest.tokens, *more), ({"role": "user", "content": rest},) * bool(rest)
            shown = self._renderer("none", ()).render(Prompt.make(text=question))
            return tuple(shown.tokens), ({"role": "user", "content": question},)
        except UserError as error:
            raise ApiError(400, str(error), param="messages" if isinstance(asked, Chat) else "prompt") from None

    def reply(
        self, asked: Asked, prompt: Sequence[int], completion: Completion, top: Alternatives | None = None
    ) -> tuple[Reply, Said | None]:
        """A completion as the API has it, and what to remember of it: nothing, where text cannot go on from it."""
        read = reader(self.tokenizer, self.eos_ids)
        uncut = read(completion.tokens)
        text = before_stop(uncut, asked.stops) if completion.finish == "stop" else uncut
        likely = None if asked.top is None else self._likely(completion, top)
        finish = "length" if completion.finish == "length" else "stop"
        message: dict[str, Any] = {"role": "assistant", "content": text}
        calls = self._format().calls(text) if isinstance(asked, Chat) and asked.schemas else ()
        if calls and all(call.problem is None for call in calls):  # what cannot be read as calls stays text
            name = content_id(list(prompt), list(completion.tokens))
            kept = calls[:1] if getattr(asked, "parallel_tool_calls", None) is False else calls
            found = [
                {"id": content_id(name, at)[:9], "type": "function", "function": {
                    "name": call.name, "arguments": json.dumps(call.arguments)}}
                for at, call in enumerate(kept)
            ]  # fmt: skip
            mark = next(iter(self._format().marks), None)
            content = text.partition(mark)[0].strip() if mark else ""
            message |= {"content": content or None, "tool_calls": found}
            finish = "tool_calls"
        made = Reply(message, finish, len(completion.tokens), likely)  # type: ignore[arg-type]
        tokens = (*prompt, *completion.tokens)
        if isinstance(asked, Chat):
            keys = tuple(map(_key, [*asked.messages, message]))
            return made, Said(keys, _written(asked.schemas), tokens)
        question = asked.question  # type: ignore[attr-defined]
        ended = bool(completion.tokens) and completion.tokens[-1] in self.eos_ids
        return made, None if ended or not isinstance(question, str) else Said(question + uncut, "", tokens)

    def _conversation(self, asked: Chat, before: Sequence[Said]) -> tuple[tuple[int, ...], tuple[Message, ...]]:
        if not has_template(self.tokenizer):
            raise UserError("this model has no chat template: ask /completions, with a prompt that is text")
        if asked.schemas:
            self._format()
        keys, tools = tuple(map(_key, asked.messages)), _written(asked.schemas)
        known = [
            one
            for one in before
            if one.tools == tools and len(one.keys) < len(keys) and keys[: len(one.keys)] == one.keys
        ]
        longest = max(known, key=lambda one: len(one.keys), default=None)
        new = tuple(map(_shown, asked.messages[0 if longest is None else len(longest.keys) :]))
        if longest is None or any(message["role"] == "assistant" for message in new):
            shown = self._renderer("chat", asked.schemas).render(
                Prompt.make(messages=tuple(map(_shown, asked.messages)))
            )
            return tuple(shown.tokens), new
        if self._dialogue is None:
            self._dialogue = open_dialogue(self.tokenizer, None, True, (), self.eos_ids, 2**31, self.template_args)
        return (*longest.tokens, *self._dialogue.following(longest.tokens[-1], new)), new

    def _format(self) -> Format:
        try:
            return choose_format(self.tokenizer, self.form, True, self.eos_ids)
        except UserError:
            name = getattr(self.tokenizer, "name_or_path", "") or type(self.tokenizer).__name__
            why = f"the chat template of {name!r} has no tool calls that Cohort reads: leave out `tools`"
            raise ApiError(400, why, param="tools") from None

    def _renderer(self, template: str, tools: Sequence[Mapping[str, Any]]) -> Renderer:
        key = template + _written(tools)
        if key not in self._renderers:
            if len(self._renderers) > 64:  # an agent may ask with ever new tools
                self._renderers.clear()
            args = self.template_args if template == "chat" else {}
            self._renderers[key] = Renderer(self.tokenizer, template, None, tools, template == "none", args)
        return self._renderers[key]

    def _ids(self, given: list[int]) -> tuple[int, ...]:
        if not given or not all(0 <= token < len(self.tokenizer) for token in given):
            raise UserError(f"token ids are numbers below {len(self.tokenizer)}, at least one")
        return tuple(given)

    def _likely(self, completion: Completion, top: Alternatives | None) -> tuple[Likely, ...]:
        def decode(token: int) -> str:
            text: str = self.tokenizer.decode([token])
            return self.tokenizer.convert_ids_to_tokens(token) if "\ufffd" in text else text  # a part of a character

        left_out = silent(self.tokenizer, self.eos_ids)
        others = top or ((),) * len(completion.tokens)
        return tuple(
            Likely(decode(token), logprob, tuple((decode(one), p) for one, p in of))
            for token, logprob, of in zip(completion.tokens, completion.logprobs, others, strict=True)
            if token not in left_out
        )


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stop strings in it."""
    return text[: min((text.find(one) for one in stops if one in text), default=len(text))]


def _key(message: Message) -> Key:
    """What makes two messages the same: of the assistant's the content and the calls alone, as clients add to them."""
    calls = tuple(
        (call.get("id"), call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    )
    more = () if message["role"] == "assistant" else (message.get("tool_call_id"), message.get("name"))
    return message["role"], message["content"] or "", calls, more


def _shown(message: Message) -> Message:
    """A message as chat templates take it: no empty fields, and arguments of calls as objects."""
    plain = {name: value for name, value in message.items() if value is not None}
    if calls := plain.get("tool_calls"):
        plain["tool_calls"] = [
            {"id": call.get("id"), "type": "function", "function": {
                "name": call["function"]["name"], "arguments": _object(call["function"]["arguments"])}}
            for call in calls
        ]  # fmt: skip
    return plain


def _object(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def _written(tools: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(list(tools), sort_keys=True) if tools else ""
