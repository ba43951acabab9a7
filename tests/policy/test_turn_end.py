"""The end of a turn, as chat templates write it: what ends a completion, what a supervised stage and an environment
write, and what the plan says. Tried with ChatML over a base model's end token, Gemma's, Llama's, an end that is an
ordinary added token, one that is written before a next turn only, blanks before it, several, none, and no token.
"""

from __future__ import annotations

import pytest
from transformers import GenerationConfig

from cohort.chat import ChatTemplate
from cohort.environments import open_dialogue
from cohort.policy.load import load_policy, save_policy
from cohort.policy.policy import Policy
from cohort.tasks import Renderer, open_demonstrations
from cohort.train.sft import encode
from cohort.views.plan import ends_line
from letters import CHAT_MARKS, CHATML, ids, letters
from tiny import make_tiny

GEMMA = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
BEFORE_A_NEXT_TURN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if not loop.last %}<|im_end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_end|><|im_start|>assistant\n{% endif %}"
)
BLANK = CHATML.replace("{{ m['content'] }}<|im_end|>", " {{ m['content'] }} <|im_end|>")
THOUGHTS = CHATML.replace(
    "{{ m['content'] }}", "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}"
)
USER = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
WORDS = "{% for m in messages %}{{ m.role }}: {{ m.content }}### End\n{% endfor %}"
NOTHING = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
ONE_TURN = "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0].content }}"
CHAT = {"special": CHAT_MARKS}


@pytest.mark.parametrize(
    ("template", "tokens", "end"),
    [
        (CHATML, CHAT, "<|im_end|>"),
        (CHATML, {"plain": CHAT_MARKS}, "<|im_end|>"),
        (GEMMA, {"special": ("<start_of_turn>", "<end_of_turn>")}, "<end_of_turn>"),
        (BEFORE_A_NEXT_TURN, CHAT, "<|im_end|>"),
        (BLANK, CHAT, "<|im_end|>"),
        (THOUGHTS, CHAT, "<|im_end|>"),
        (USER, CHAT, "<|im_start|>"),
        (CHATML.replace("<|im_end|>", "<eos>"), CHAT, "<eos>"),
        (CHATML.replace("<|im_end|>", "<|im_end|><eos>"), CHAT, "<|im_end|>"),
        (NOTHING, {}, None),
        (ONE_TURN, {}, None),
    ],
)
def test_the_end_of_a_turn_is_read_from_the_template(template, tokens, end):
    tokenizer = letters(template=template, **tokens)
    found = ChatTemplate(tokenizer).turn_end[1]
    assert found == (None if end is None else tokenizer.convert_tokens_to_ids(end))


@pytest.fixture(scope="module")
def base():
    """A base model that ends texts with `<eos>`, whose template ends turns with `<|im_end|>`."""
    tokenizer = letters(template=CHATML, **CHAT)
    model = make_tiny("qwen3", tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return Policy(model, tokenizer)


def test_both_ends_end_a_completion_and_the_plan_says_so(base):
    assert base.eos_ids == (2, base.tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert ends_line(base.facts()) == "<eos> or <|im_end|> (the chat template's)"


def test_a_saved_model_ends_its_turns_for_everybody(base, tmp_path):
    save_policy(base, tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == list(base.eos_ids)
    assert load_policy(str(tmp_path)).eos_ids == base.eos_ids


def test_an_end_that_is_no_token_is_said():
    tokenizer = letters(template=WORDS)
    facts = Policy(make_tiny("qwen3", tokenizer), tokenizer).facts()
    assert "the chat template ends a turn with '### End', which is no token: see rollout.stop" in ends_line(facts)


@pytest.mark.parametrize(("template", "end"), [("chat", "<|im_end|>"), ("none", "<eos>")])
def test_a_supervised_stage_ends_a_turn_as_its_template_does(base, template, end):
    examples = open_demonstrations([{"prompt": "1+1", "completion": "2"}])
    prompt, completion, own = encode(Renderer(base.tokenizer, template), examples, 0, base.facts(), None)
    assert base.tokenizer.decode(completion) == f"2{end}"
    assert own == [True, True]
    if template == "chat":
        chat = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
        whole = base.tokenizer.apply_chat_template(chat, tokenize=False)
        assert base.tokenizer.decode([*prompt, *completion]) == whole.rstrip("\n")


def test_a_demonstration_does_not_repeat_what_the_template_has_begun(base):
    opens = letters(template=CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"), **CHAT)
    examples = open_demonstrations([{"prompt": "1+1", "completion": "<think>\neasy</think>2"}])
    prompt, completion, _ = encode(Renderer(opens), examples, 0, base.facts(), None)
    assert opens.decode([*prompt, *completion]).count("<think>") == 1
    assert opens.decode(completion).startswith("easy</think>")


@pytest.mark.parametrize(
    ("last", "said"),
    [("<|im_end|>", ""), ("x", "<|im_end|>"), ("<eos>", "<|im_end|>")],  # of the turn, then what the environment adds
)
def test_an_environment_ends_a_turn_as_the_template_does(base, last, said):
    dialogue = open_dialogue(base.tokenizer, None, True, [], base.eos_ids, 100)
    tokens = dialogue.following(base.tokenizer.convert_tokens_to_ids(last), [{"role": "user", "content": "again"}])
    assert base.tokenizer.decode(tokens) == f"{said}\n<|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"
    assert ids(base.tokenizer, "") == []
