"""`task.template = "auto"`: the chat template where the tokenizer has one, plain text where it has none; in the plan
and the record. Tried: grpo, supervised and reward-model stages, tools, rows of messages, sample, init, a resumed run
whose tokenizer has changed.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from vowels import share_of_vowels

import cohort
from cohort import environments, settings
from cohort.chat import ChatTemplate, template_for
from cohort.commands.init import starter
from cohort.commands.sample import sample_group
from cohort.policy.scratch import make_model
from cohort.recipe import Recipe
from cohort.settings import Scratch
from cohort.tasks import Renderer
from cohort.types import Prompt, UserError
from cohort.views.console import Console
from letters import CHAT_MARKS, CHATML, letters

ROWS = [{"prompt": f"{i} + 1?", "answer": str(i + 1), "completion": f"{i + 1}"} for i in range(4)]
SIZES = Scratch(hidden_size=32, layers=1, heads=2, kv_heads=1, head_dim=16, intermediate_size=64)
SHORT: dict[str, Any] = {"run": {"steps": 1, "threads": 1, "gate": "off"}}
KINDS: dict[str, dict[str, Any]] = {
    "grpo": {"rollout": {"prompts_per_step": 2, "group_size": 2, "max_tokens": 6}, "reward": [share_of_vowels]},
    "sft": {"supervised": {"examples_per_step": 2}},
    "reward_model": {"preferences": {"pairs_per_step": 2}},
}


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, template in (("base", None), ("chat", CHATML)):
        tokenizer = letters(CHAT_MARKS, template=template)
        make_model(tokenizer, 3, SIZES).save_pretrained(name)
        tokenizer.save_pretrained(name)

    def call(model, kind="grpo", rows=ROWS, resume=False, **more):
        text = io.StringIO()
        rows = [{"prompt": r["prompt"], "chosen": "yes", "rejected": "no"} for r in rows] if kind[0] == "r" else rows
        tables = {"policy": {"model": model}, "task": {"source": rows}, "name": f"{model}-{kind}", **SHORT}
        recipe = Recipe(**{**tables, "kind": kind, **KINDS[kind], **more})
        return cohort.train(recipe, resume=resume, console=Console(file=text, width=200)), text.getvalue()

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_model_without_a_chat_template_trains_on_plain_text(start, kind):
    for model, said, found in (
        ("base", "plain text, as the tokenizer has no chat template", "none"),
        ("chat", "the tokenizer's chat template", "chat"),
    ):
        run, shown = start(model, kind)
        assert said in shown
        assert json.loads((run.directory / "environment.json").read_text())["templates"] == {kind: found}
        assert 'template = "auto"' in (run.directory / "recipe.toml").read_text()
        if kind == "reward_model":
            form = json.loads((run.final / "config.json").read_text())["cohort_prompt"]
            assert form["text"] == ("{prompt}" if model == "base" else None)


@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_a_run_whose_prompts_are_written_otherwise_is_not_continued(start, kind, monkeypatch):
    run, _ = start("chat", kind)
    assert set(json.loads((run.directory / "environment.json").read_text())["probes"]) == {kind}
    longer = {"run": {**SHORT["run"], "steps": 2}}
    written = ChatTemplate.write
    with monkeypatch.context() as patch:  # as another version of the library may
        patch.setattr(ChatTemplate, "write", lambda self, *given, **more: written(self, *given, **more) + " ")
        with pytest.raises(
            UserError, match=rf"prompts of stage '{kind}' are written otherwise than when this run began"
        ):
            start("chat", kind, resume=True, **longer)
    start("chat", kind, resume=True, **longer)


def test_a_run_whose_tokenizer_lost_its_template_is_not_continued(start):
    run, _ = start("chat")
    file = run.directory / "environment.json"
    file.write_text(file.read_text().replace('"grpo": "chat"', '"grpo": "none"'))
    longer = {"run": {**SHORT["run"], "steps": 2}}
    recipe = Recipe.load(run.directory / "recipe.toml", ["run.steps=2"])
    assert longer["run"]["steps"] == recipe.stages[0].run.steps
    with pytest.raises(UserError, match="came to 'none' when this run began, and comes to 'chat' now"):
        cohort.train(recipe, resume=True, console=Console(quiet=True))


def test_one_message_is_its_text_and_several_are_refused_in_a_sentence(start):
    one = [{"prompt": [{"role": "user", "content": row["prompt"]}], "answer": row["answer"]} for row in ROWS]
    run, _ = start("base", rows=one)
    assert run.metrics
    renderer = Renderer(letters())
    chat = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert letters().decode(renderer.render(Prompt.make(messages=chat[1:])).tokens) == "b"
    with pytest.raises(UserError, match=r"of 2 messages, and the tokenizer .* has no chat template"):
        renderer.render(Prompt.make(messages=chat))
    briefly = Renderer(letters(), system="Be brief.").render(Prompt.make("b"))
    assert letters().decode(briefly.tokens) == "Be brief.\n\nb"


def test_environments_ask_the_tokenizer_too():
    plain, chat = letters(), letters(CHAT_MARKS, template=CHATML)
    stage = settings.Stage(task=settings.Task(source="x"), environment=settings.Environment(tools=("calculator",)))
    world = environments.open(stage)
    assert type(world.dialogue(plain, [2])).__name__ == "InlineDialogue"
    assert Renderer(plain, tools=world.schemas).render(Prompt.make("a")).tokens
    with pytest.raises(UserError, match="has no tool calls in a format"):
        world.dialogue(chat, [2])
    hermes = settings.Environment(tools=("calculator",), format="hermes")
    forced = environments.open(stage.model_copy(update={"environment": hermes}))
    with pytest.raises(UserError, match="is written by a chat template, and the tokenizer has none"):
        forced.dialogue(plain, [2])
    assert [template_for(wanted, plain) for wanted in ("auto", "chat", "r1_zero")] == ["none", "chat", "r1_zero"]


def test_init_writes_a_recipe_that_a_base_model_can_run(start, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    text = starter("base", "a.jsonl", "train", None).recipe
    assert "template" not in text
    changes = ["rollout.prompts_per_step=2", "rollout.group_size=2", "rollout.max_tokens=4", "run.steps=1"]
    (tmp_path / "r.toml").write_text(text)
    recipe = Recipe.load(tmp_path / "r.toml", [*changes, "run.gate=off", "run.threads=1", "evaluate.problems=0"])
    assert cohort.train(recipe, console=Console(quiet=True)).metrics


def test_sample_says_what_the_template_came_to(start):
    run, _ = start("base")
    found = sample_group(str(run.directory), "1 + 1?", 2, None, 0, None, max_tokens=2)
    assert found.settings.startswith("template none")
    assert sample_group("base", "1 + 1?", 2, None, 0, None, max_tokens=2).completions
