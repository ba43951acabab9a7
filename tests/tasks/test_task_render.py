"""Rendering with a tiny tokenizer made here: chat templates, the R1-Zero template, plain text, long prompts."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cohort.tasks import R1_ZERO, Renderer, fit, open_task
from cohort.types import Prompt, UserError

CHAT = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tiny(chat_template=CHAT, ends=False):
    """A tokenizer of bytes that begins every text with <s> and, if told so, ends it with </s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if ends else "<s> $A", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    made.chat_template = chat_template
    return made


def shown(renderer, prompt):
    return renderer.tokenizer.decode(renderer.render(prompt).tokens)


QUESTION = Prompt.make("What is 2 + 2?", answer="4")


def test_chat_template_of_text_and_of_messages():
    renderer = Renderer(tiny())
    prompt = Prompt.make(messages=[{"role": "user", "content": "What is 2 + 2?"}], answer="4")
    assert shown(renderer, QUESTION) == shown(renderer, prompt) == "[user]What is 2 + 2?[assistant]"
    rendered = renderer.render(QUESTION)
    assert all(type(token) is int for token in rendered.tokens)
    assert (rendered.id, rendered.answer, rendered.text) == (QUESTION.id, "4", QUESTION.text)


def test_system_message_unless_the_conversation_has_one():
    renderer = Renderer(tiny(), system="Be brief.")
    own = Prompt.make(messages=[{"role": "system", "content": "Own."}, {"role": "user", "content": "Hi"}])
    assert shown(renderer, QUESTION) == "[system]Be brief.[user]What is 2 + 2?[assistant]"
    assert shown(renderer, own) == "[system]Own.[user]Hi[assistant]"


def test_no_chat_template():
    with pytest.raises(UserError, match=r'has no chat template\. Use template = "none"'):
        Renderer(tiny(chat_template=None), "chat")
    assert shown(Renderer(tiny(chat_template=None), "none"), QUESTION) == "<s>What is 2 + 2?"


def test_a_template_that_refuses():
    prompt = Prompt.make(messages=[{"role": "tool", "content": "x"}])
    with pytest.raises(UserError, match="no tools here"):
        Renderer(tiny()).render(prompt)


def test_r1_zero_is_the_paper_word_for_word():
    text = shown(Renderer(tiny(), "r1_zero"), QUESTION).removeprefix("<s>")
    assert text == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
        "User: What is 2 + 2?. Assistant:"
    )
    assert R1_ZERO.count("{prompt}") == 1
    with pytest.raises(UserError, match="Remove system"):
        Renderer(tiny(), "r1_zero", system="Be brief.")


def test_plain_text():
    assert shown(Renderer(tiny(), "none", system="Sys."), QUESTION) == "<s>Sys.\n\nWhat is 2 + 2?"


def test_an_end_token_never_precedes_the_completion():
    assert tiny(ends=True).encode("a")[-1] == 1
    assert shown(Renderer(tiny(ends=True), "none"), QUESTION) == "<s>What is 2 + 2?"


def test_conversations_need_a_chat_template():
    chat = Prompt.make(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2)
    for template in ("none", "r1_zero"):
        with pytest.raises(UserError, match=r'conversation of 4 messages.*Use template = "chat"'):
            Renderer(tiny(), template).render(chat)


def test_unknown_template():
    with pytest.raises(UserError, match="not 'alpaca'"):
        Renderer(tiny(), "alpaca")


def test_fit():
    prompt = Renderer(tiny(), "none").render(Prompt.make("abcdef"))
    assert len(prompt.tokens) == 7
    assert fit(prompt, 7) is prompt
    assert fit(prompt, 6, "drop") is None
    short = fit(prompt, 3, "truncate_left")
    assert short.tokens == prompt.tokens[-3:]
    assert tiny().decode(short.tokens) == "def"
    with pytest.raises(UserError, match=r"'abcdef'.* has 7 tokens and the limit is 6\. Raise task\.max_prompt_tokens"):
        fit(prompt, 6)
    with pytest.raises(UserError, match=r'lower rollout\.max_tokens.*task\.too_long = "drop" or "truncate_left"\.'):
        fit(prompt, 6)
    with pytest.raises(UserError, match="not 'cut'"):
        fit(prompt, 6, "cut")


def test_the_renderer_of_a_task():
    task = open_task([{"prompt": "Hi"}], system="Sys.")
    assert shown(task.renderer(tiny()), task.train[0]) == "[system]Sys.[user]Hi[assistant]"
