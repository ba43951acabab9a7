"""`task.template_args` reach the chat template wherever it writes: prompts, supervised stages, conversations, reward
models, the plan; what it does not read is said, what it is given anyway is refused. And a last message of the assistant
begins the completion: tried with text, with `<think>` that a template writes too, in supervised rows, and where nothing
can be gone on from.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from cohort import environments, settings
from cohort.chat import ChatTemplate, specials
from cohort.recipe import Recipe, to_toml
from cohort.rewards.models.text import Form, Reader, answered
from cohort.tasks import Renderer, open_demonstrations, open_preferences, open_task
from cohort.train.reward_model.training import form_of
from cohort.train.sft import encode
from cohort.types import Prompt, UserError
from cohort.views.plan import template_line
from letters import CHAT_MARKS, CHATML, ids, letters

SWITCH = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
THINKS = CHATML.removesuffix("{% endif %}") + SWITCH
OPENS = CHATML.removesuffix("{% endif %}") + "<think>\n{% endif %}"
BEGUN = "<think>\n\n</think>\n\n"
OFF: dict[str, Any] = {"enable_thinking": False}


def tokenizer(template=THINKS):
    return letters(CHAT_MARKS, template=template)


def renderer(template=THINKS, **more):
    return Renderer(tokenizer(template), **more)


def user(content):
    return {"role": "user", "content": content}


def said(content):
    return {"role": "assistant", "content": content}


# ---- arguments of the template


def test_a_switch_of_the_template_reaches_prompts_and_what_they_begin():
    assert tokenizer().decode(renderer().render(Prompt.make("a")).tokens).endswith("assistant\n")
    prompt = renderer(template_args=OFF).render(Prompt.make("a"))
    assert prompt.begun == BEGUN
    assert tokenizer().decode(prompt.tokens).endswith(BEGUN)
    table = settings.Task(source="x", template_args=OFF)
    assert Renderer.of(table, tokenizer()).render(Prompt.make("a")).begun == BEGUN


def test_it_reaches_supervised_rows_conversations_and_reward_models():
    made = tokenizer()
    facts: Any = SimpleNamespace(tokenizer=made, eos_ids=(2,), turn_end=None, context=None)
    examples = open_demonstrations([{"prompt": "a", "completion": f"{BEGUN}b"}])
    prompt, completion, _ = encode(Renderer(made, template_args=OFF), examples, 0, facts, None)
    assert made.decode(prompt).endswith(BEGUN)
    assert completion == [*ids(made, "b"), 2]  # what the prompt has begun is not learnt a second time
    table = settings.Task(source="x", template_args=OFF)
    world = environments.open(settings.Stage(task=table, environment=settings.Environment(use=Own)))
    following = world.dialogue(made, [2]).following(2, [user("go on")])
    assert made.decode(following).endswith(BEGUN)
    form = form_of(table, made)
    assert made.decode(Reader(made, Form(**form.as_dict())).prompt("a")).endswith(BEGUN)
    assert Form(text=None, system=None).args == {}  # of a reward model that was trained before


class Own:
    def reset(self, prompt, seed): ...

    def step(self, state, reply): ...


def test_the_plan_and_the_recipe_name_them():
    table = {"source": "a", "template_args": OFF | {"tools_in": ["a", "b"]}}
    made = Recipe(policy={"model": "m"}, task=table, reward="math")
    assert "template_args = { enable_thinking = false, tools_in = [" in to_toml(made)
    facts: Any = SimpleNamespace(tokenizer=tokenizer())
    line = template_line(made.stages[0], facts)
    assert line == "the tokenizer's chat template, enable_thinking = false, tools_in = ['a', 'b']"


def test_a_name_that_the_template_does_not_read_is_said():
    with pytest.warns(UserWarning, match=r"does not read task\.template_args\.enable_thinkin: it has no effect"):
        renderer(template_args={"enable_thinkin": False})
    with pytest.warns(UserWarning, match=r'template = "none" does not read task\.template_args\.enable_thinking'):
        Renderer(letters(), template_args=OFF)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        renderer(template_args=OFF)
    commented = "{# enable_thinking #}thinking is in the text" + CHATML
    assert ChatTemplate(tokenizer(commented), OFF | {"thinking": True}).unread == ["enable_thinking", "thinking"]
    generation = "{% generation %}{{ x }}{% endgeneration %}{% break %}"  # tags that plain jinja does not know
    assert ChatTemplate(tokenizer(generation), {"x": 1, "y": 2}).unread == ["y"]


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "chat_template", "tokenize"])
def test_what_every_conversation_is_given_cannot_be_set(name):
    with pytest.raises(UserError, match=f"template_args cannot set '{name}'"):
        renderer(template_args={name: True})


@pytest.mark.parametrize("value", [3, "x", {"a": {"b": 1}}, {"a": object()}])
def test_what_is_no_table_of_plain_values_is_refused(value):
    with pytest.raises(UserError, match=r"task\.template_args must be a table of"):
        settings.Task(source="x", template_args=value)


# ---- the beginning of a completion


def test_a_last_message_of_the_assistant_begins_the_completion():
    task = open_task([{"prompt": [user("a"), said("Let me see")], "answer": "1"}])
    with pytest.warns(UserWarning, match="ends with a turn of the assistant, 'Let me see': completions go on"):
        prompt = renderer().render(task.train[0])
    assert prompt.begun == "Let me see"
    assert tokenizer().decode(prompt.tokens).endswith("<|im_start|>assistant\nLet me see")
    assert prompt.question == "a"


def test_a_template_that_writes_the_same_beginning_writes_it_once():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for template in (OPENS, CHATML):
            prompt = renderer(template).render(Prompt.make(messages=[user("a"), said("<think>\nSo")]))
            text = tokenizer().decode(prompt.tokens)
            assert (text.count("<think>"), text.endswith("<think>\nSo"), prompt.begun) == (1, True, "<think>\nSo")
        made = tokenizer(CHATML)
        facts: Any = SimpleNamespace(tokenizer=made, eos_ids=(2,), turn_end=None, context=None)
        examples = open_demonstrations([{"prompt": [user("a"), said("So")], "completion": "So it is"}])
        assert encode(Renderer(made), examples, 0, facts, None)[1] == [*ids(made, " it is"), 2]


def test_reward_models_read_the_beginning_and_the_completion_as_one_turn():
    chat = [user("a"), said("So")]
    made = tokenizer(CHATML)
    assert made.decode(Reader(made, Form()).prompt(chat)).endswith("<|im_start|>assistant\nSo")
    assert answered(chat, " it is", specials(made)) == [user("a"), said("So it is")]
    assert answered("a", "b", specials(made)) == [user("a"), said("b")]


def test_what_nothing_can_go_on_from_is_refused():
    for messages in ([said("a")], [user("a"), said("a") | {"tool_calls": [{}]}], [user("a"), said("")]):
        with pytest.raises(UserError, match=r"turn of the assistant|has an empty"):
            open_task([{"prompt": messages}])
    with pytest.raises(UserError, match="ends with the assistant's turn"):
        open_preferences([{"prompt": [user("a"), said("b")], "chosen": "c", "rejected": "d"}])
    with pytest.raises(UserError, match="of 2 messages"):
        Renderer(letters()).render(Prompt.make(messages=[user("a"), said("b")]))
