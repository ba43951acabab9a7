"""What an agent says and is answered, as tokens and back: nothing that the policy wrote is ever encoded again."""

from __future__ import annotations

import json

import pytest

from cohort.environments.endpoint.talk import Talk
from cohort.environments.endpoint.wire import ApiError, Chat, Text, read
from cohort.types import Completion

WEATHER = {"type": "function", "function": {"name": "weather", "description": "?", "parameters": {"type": "object"}}}
USER = {"role": "user", "content": "Rain?"}
CALLS = {
    "hermes": 'Let me look.\n<tool_call>{"name": "weather", "arguments": {"city": "Ulm"}}</tool_call>',
    "llama3": '{"name": "weather", "parameters": {"city": "Ulm"}}',
}


def drawn(tokenizer, text, finish="stop", end=True):
    tokens = [*tokenizer.encode(text, add_special_tokens=False), *([tokenizer.eos_token_id] if end else [])]
    return Completion(tuple(tokens), (-1.0,) * len(tokens), finish, 0)


def ask(form=Chat, **body):
    return read(form, json.dumps({"model": "m", **body}).encode())


@pytest.fixture
def made(chat_tokenizer):
    return chat_tokenizer[1]


@pytest.fixture
def talk(made):
    return Talk(made, (made.eos_token_id,))


def kind(tokenizer):
    return "hermes" if "<tool_call>" in tokenizer.chat_template else "llama3"


def test_a_call_is_read_and_its_result_follows_the_very_tokens(talk, made):
    asked = ask(messages=[USER], tools=[WEATHER])
    prompt, new = talk.tokens(asked)
    assert new == (USER,)
    completion = drawn(made, CALLS[kind(made)])
    reply, said = talk.reply(asked, prompt, completion)
    (call,) = reply.message["tool_calls"]
    assert reply.finish == "tool_calls"
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Ulm"}
    assert reply.message["content"] == ("Let me look." if kind(made) == "hermes" else None)
    # As clients send it back: more fields, and the content as None or text.
    back = {**reply.message, "refusal": None, "annotations": []}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "no"}
    tokens, new = talk.tokens(ask(messages=[USER, back, result], tools=[WEATHER]), [said])
    whole = (*prompt, *completion.tokens)
    assert tokens[: len(whole)] == whole
    assert new == (result,)
    assert "no" in made.decode(list(tokens[len(whole) :]))
    # Another history, or other tools, is written anew.
    for other in (
        ask(messages=[USER, {**back, "content": "I forgot."}, result], tools=[WEATHER]),
        ask(messages=[USER, back, result]),
    ):
        assert talk.tokens(other, [said])[0][: len(whole)] != whole


def test_a_broken_call_is_text(talk, made):
    broken = CALLS[kind(made)].replace('"Ulm"', "Ulm")
    reply, _ = talk.reply(ask(messages=[USER], tools=[WEATHER]), (1,), drawn(made, broken))
    assert "tool_calls" not in reply.message
    assert reply.message["content"] == broken
    assert reply.finish == "stop"


def test_tools_that_are_not_to_be_called_are_not_shown(talk):
    with_tools, without = (
        talk.tokens(ask(messages=[USER], tools=[WEATHER], tool_choice=one))[0] for one in ("auto", "none")
    )
    assert without == talk.tokens(ask(messages=[USER]))[0]
    assert len(with_tools) >= len(without)


def test_a_text_goes_on_behind_the_tokens_with_its_stop_string(talk, made):
    asked = ask(Text, prompt="Question: 2+2\nThought:", stop=["Observation:"])
    prompt, _ = talk.tokens(asked)
    completion = drawn(made, " add\nObservation:", end=False)
    reply, said = talk.reply(asked, prompt, completion)
    assert reply.message["content"] == " add\n"
    tokens, new = talk.tokens(ask(Text, prompt="Question: 2+2\nThought: add\nObservation: 4\n"), [said])
    assert tokens[: len(prompt) + len(completion.tokens)] == (*prompt, *completion.tokens)
    assert new == ({"role": "user", "content": " 4\n"},)


def test_control_texts_of_others_stay_text(talk, made):
    end = made.eos_token
    tokens, _ = talk.tokens(ask(messages=[{"role": "user", "content": f"a{end}b"}]))
    plain, _ = talk.tokens(ask(messages=[{"role": "user", "content": "ab"}]))
    assert tokens.count(made.eos_token_id) == plain.count(made.eos_token_id)


def test_without_a_chat_template_texts_are_answered_and_chats_refused(made):
    made.chat_template = None
    talk = Talk(made, (made.eos_token_id,))
    assert talk.tokens(ask(Text, prompt="a"))[0]
    assert talk.tokens(ask(Text, prompt=[1, 2, 3]))[0] == (1, 2, 3)
    for body, form in (({"messages": [USER]}, Chat), ({"prompt": [10**9]}, Text), ({"prompt": ["a", "b"]}, Text)):
        with pytest.raises(ApiError) as caught:
            talk.tokens(ask(form, **body))
        assert caught.value.status == 400
