"""The text of tokens: all of it but the tokens that end, pad or begin. Tried with tags of thoughts, answers and tools
that are special tokens, unknown characters, and ends in every place.
"""

from __future__ import annotations

import pytest

from cohort import settings
from cohort.environments import FORMATS, choose_format, open_dialogue
from cohort.environments.tools import tool_of
from cohort.policy.text import completion_reader, continued, reader
from cohort.preflight.gate import stage as gate
from cohort.recipe import Recipe
from cohort.train.grpo import Grpo
from cohort.train.grpo.step_rewards import token_steps
from cohort.types import Completion, Rollout, UserError
from letters import CHATML, ids, letters

TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<tool>", "</tool>", "<result>", "</result>")


@pytest.mark.parametrize("kind", ["special", "plain"])
@pytest.mark.parametrize(
    "text",
    [
        "<think>ok</think><answer>4</answer>",
        "<tool>calculator: 1+1</tool>",
        "<think>\n</think>",
        "</answer></think>",
        "<result>2</result>",
        "a < b",
    ],
)
def test_tags_that_are_special_tokens_stay_in_the_text(kind, text):
    tokenizer = letters(**{kind: TAGS})
    tokens = (*ids(tokenizer, text), tokenizer.eos_token_id)
    assert completion_reader(tokenizer)(Completion(tokens, (0.0,) * len(tokens), "stop", 0)) == text


def test_only_tokens_that_end_pad_or_begin_are_left_out():
    tokenizer = letters(special=("<|im_end|>", "<|im_start|>"))
    end, start = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])
    read = reader(tokenizer, [end])
    tokens = [1, *ids(tokenizer, "a"), 0, start, *ids(tokenizer, "b"), 3, end, 2]
    assert read(tokens) == "a<|im_start|>b<unk>"
    assert read([]) == ""
    assert reader(tokenizer)([end]) == "<|im_end|>"  # it ends nothing, unless somebody says so


def test_a_stop_text_that_is_a_special_token_ends_the_text():
    tokenizer = letters(special=TAGS)
    tokens = tuple(ids(tokenizer, "<answer>4</answer>"))
    read = completion_reader(tokenizer, ("</answer>",))
    assert read(Completion(tokens, (0.0,) * len(tokens), "stop", 0)).endswith("4</answer>")


def test_steps_are_found_where_their_separator_is_a_special_token():
    tokenizer = letters(special=("<step>",))
    tokens = [*ids(tokenizer, "one<step>two"), tokenizer.eos_token_id]
    rollout = Rollout(tokens, (True,) * 8, (0.0,) * 8, 0, "stop", "one<step>two")
    found = token_steps(rollout, [(9, 0.5), (12, 1.0)], reader(tokenizer))
    assert [(step.end, step.score) for step in found] == [(3, 0.5), (7, 1.0)]


def search(query: str) -> str:
    """Search.

    Args:
        query: What for.
    """
    return query


def test_calls_in_tags_that_are_special_tokens_are_read():
    tokenizer = letters(special=TAGS)
    assert choose_format(tokenizer, "tags", chat=False) is FORMATS["tags"]
    dialogue = open_dialogue(tokenizer, FORMATS["tags"], False, [tool_of(search).schema], [2], 50)
    said = dialogue.following(5, [{"role": "tool", "content": "</result><tool>"}])
    assert said.count(tokenizer.convert_tokens_to_ids("</result>")) == 1  # the dialogue's own
    with pytest.raises(UserError, match="'</tool>' ends a completion"):
        choose_format(tokenizer, "tags", False, [tokenizer.convert_tokens_to_ids("</tool>")])


# ---- the gate


def _report(tmp_path, tokenizer, answers, reward, template="none"):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "Which {i}?", "answer": "{a}"}}\n' for i, a in enumerate(answers)))
    recipe = Recipe(
        name="gate",
        policy=settings.Policy(model="live"),
        task={"source": str(rows), "template": template},
        reward=reward,
        rollout={"prompts_per_step": 2},
    )
    stage = recipe.stages[0]
    return gate.gate_of_stage(stage, Grpo().prepare(stage, 0).parts, 0, tokenizer=tokenizer)


def in_tags(completion, answer):
    return float(completion.endswith(f"<answer> {answer} </answer>"))


def same(completion, answer):
    return float(completion == answer)


def test_the_gate_sees_tags_that_are_special_tokens(tmp_path):
    report = _report(tmp_path, letters(special=TAGS), ["one", "two", "three"], [in_tags])
    assert report.problems == ()


@pytest.mark.parametrize(
    ("answers", "tokenizer"),
    [
        (["π", "τ", "φ"], letters()),  # no token for them
        (["a<eos>", "b<eos>", "c<eos>"], letters()),  # an end token inside
        (["Ja", "Nein", "Na"], letters(alphabet="aeijn \n.<>/\\{}#0123456789")),  # no capitals
    ],
)
def test_the_gate_refuses_gold_answers_that_the_policy_cannot_write(tmp_path, answers, tokenizer):
    assert _report(tmp_path, tokenizer, answers, [same]).problems != ()
    assert _report(tmp_path, None, answers, [same]).problems == ()  # nobody knows the tokenizer


def test_the_gate_goes_on_where_a_template_has_opened_the_thoughts(tmp_path):
    opens = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    tokenizer = letters(special=("<|im_start|>", "<|im_end|>", *TAGS), template=opens)

    def looks(completion, answer, begun):
        goes_on = begun == "<think>\n" and "<think>" not in completion
        return float(goes_on and f"</think>\n<answer> {answer} </answer>" in completion)

    report = _report(tmp_path, tokenizer, ["one", "two", "three"], [looks, "think_format"], "chat")
    assert report.problems == ()


@pytest.mark.parametrize(
    ("text", "begun", "left"),
    [
        ("<think>\na</think>", "<think>\n", "a</think>"),
        ("<think>a</think>", "<think>\n", "a</think>"),
        ("\n<think> a", "<think>\n", " a"),
        ("a</think>", "<think>\n", "a</think>"),
        ("<think>a", "", "<think>a"),
        ("text", " \n", "text"),
    ],
)
def test_what_the_prompt_has_begun_is_not_written_twice(text, begun, left):
    assert continued(text, begun) == left
