"""How layers become stages: what stands outside, what a stage says, and overrides."""

from __future__ import annotations

import pytest

from cohort.recipe import Recipe
from cohort.settings import Lora, Scratch

TWO = """
seed = 3
reward = ["exact_number", "think_format"]
[policy]
scratch = { hidden_size = 64 }
compute = "bfloat16"
[task]
source = "word_problems"
careful = { 2 = 0.5, 3 = 0.7 }
[objective]
preset = "dapo"
clip_high = 0.3
[rollout]
group_size = 4
max_tokens = 100
[[stage]]
kind = "sft"
name = "cold"
run.steps = 5
task.careful = { 2 = 0.1 }
[[stage]]
name = "rl"
rollout.group_size = 16
objective.kl_coef = 0.1
[stage.run]
steps = 50
"""


def test_tables_are_merged_key_by_key_and_the_stage_wins(load):
    cold, rl = load(TWO).stages
    assert (cold.kind, cold.name, rl.kind, rl.name) == ("sft", "cold", "grpo", "rl")
    assert (cold.rollout.group_size, rl.rollout.group_size) == (4, 16)
    assert (cold.rollout.max_tokens, rl.rollout.max_tokens) == (100, 100)
    assert (cold.run.steps, rl.run.steps) == (5, 50)
    assert (cold.task.careful, rl.task.careful) == ({"2": 0.1}, {"2": 0.5, "3": 0.7})
    assert rl.objective.fields() == {"clip_high": 0.3, "kl_coef": 0.1}


def test_a_later_stage_continues_from_the_one_before(load):
    cold, rl = load(TWO).stages
    assert cold.policy.scratch == Scratch(hidden_size=64)
    assert (rl.policy.model, rl.policy.scratch) == (None, None)
    assert rl.policy.compute == "bfloat16"  # the other keys of the table are ordinary defaults
    own = load(TWO + "[stage.policy]\nmodel = 'other'\n").stages[1].policy
    assert (own.model, own.scratch) == ("other", None)


def test_a_stage_that_names_a_model_replaces_a_scratch_policy_outside(load):
    first = load(TWO.replace('name = "cold"', 'name = "cold"\npolicy.model = "hub/it"')).stages[0].policy
    assert (first.model, first.scratch) == ("hub/it", None)


def test_rewards_are_replaced_as_a_whole(load):
    cold, rl = load(TWO + "[[stage.reward]]\nuse = 'random'\n").stages
    assert [reward.name for reward in cold.reward] == ["exact_number", "think_format"]
    assert [reward.name for reward in rl.reward] == ["random"]


@pytest.mark.parametrize(
    ("preset", "fields"), [("gspo", {"kl_coef": 0.1}), ("dapo", {"clip_high": 0.3, "kl_coef": 0.1})]
)
def test_another_preset_starts_over_and_the_same_does_not(load, preset, fields):
    stage = load(
        TWO.replace("objective.kl_coef = 0.1", f"objective = {{ kl_coef = 0.1, preset = '{preset}' }}")
    ).stages[1]
    assert (stage.objective.preset, stage.objective.fields()) == (preset, fields)


def test_another_preset_on_the_command_line_starts_over_too(load):
    cold, rl = load(TWO, "objective.clip_low=0.1", "rl.objective.preset=gspo").stages
    assert (rl.objective.preset, rl.objective.fields()) == ("gspo", {})
    assert cold.objective.fields() == {"clip_high": 0.3, "clip_low": 0.1}
    (only,) = load("policy.model='m'\ntask.source='t'\nreward='a'\nobjective.kl_coef=1", "objective.preset=grpo").stages
    assert only.objective.fields() == {"kl_coef": 1.0}  # grpo is what it was


def test_overrides_reach_every_stage_and_those_with_a_name_only_one(load):
    cold, rl = load(TWO, "rollout.group_size=2", "rl.run.steps=7", "rl.rollout.group_size=3", "seed=9", "name=x").stages
    assert (cold.rollout.group_size, rl.rollout.group_size) == (2, 3)
    assert (cold.run.steps, rl.run.steps) == (5, 7)
    recipe = load(TWO, "seed=9", "name=7")
    assert (recipe.seed, recipe.name) == (9, "7")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("task.source=my.jsonl", "source", "my.jsonl"),
        ("task.source=/data/a b.jsonl", "source", "/data/a b.jsonl"),
        ('task.source="quoted"', "source", "quoted"),
        ("task.source=a=b", "source", "a=b"),
        ("task.source=2024", "source", "2024"),
        ("task.source=true", "source", "true"),
        ("task.source=2024-01-01", "source", "2024-01-01"),
        ("task.source=1\nlimit = 3", "source", "1\nlimit = 3"),
        ("task.held_out=0.25", "held_out", 0.25),
        ("task.held_out=test.jsonl", "held_out", "test.jsonl"),
        ("task.levels=[1, 2]", "levels", (1, 2)),
        ("task = {limit = 3}", "limit", 3),
        ("task.careful={2 = 0.5}", "careful", {"2": 0.5}),
    ],
)
def test_override_values_are_toml_or_else_plain_text(load, base, override, key, value):
    task = load(base(), override).stages[0].task
    assert getattr(task, key) == value
    assert type(getattr(task, key)) is type(value)


def test_the_model_can_be_overridden_where_training_starts(load):
    cold, rl = load(TWO, "policy.model=Qwen/Qwen3-0.6B").stages
    assert (cold.policy.model, cold.policy.scratch) == ("Qwen/Qwen3-0.6B", None)
    assert (rl.policy.model, rl.policy.scratch) == (None, None)
    cold, rl = load(TWO, "policy.scratch.layers=2").stages
    assert cold.policy.scratch == Scratch(hidden_size=64, layers=2)
    assert rl.policy.scratch is None
    assert load(TWO, "rl.policy.model=x").stages[1].policy.model == "x"


def test_a_model_of_another_name_does_not_keep_the_revision(load, base):
    text = base(policy="revision = 'v1'")
    assert load(text).stages[0].policy.revision == "v1"
    assert load(text, "policy.model=other").stages[0].policy.revision is None
    assert load(text, "policy.model=other", "policy.revision=v2").stages[0].policy.revision == "v2"


def test_reward_overrides(load):
    cold, rl = load(TWO, "reward=random").stages
    assert [reward.name for stage in (cold, rl) for reward in stage.reward] == ["random", "random"]
    cold, rl = load(TWO, "rl.reward.think_format.weight=0.5", "reward.exact_number.args={tolerance = 1}").stages
    assert [reward.weight for reward in (*cold.reward, *rl.reward)] == [1, 1, 1, 0.5]
    assert [reward.args for reward in rl.reward] == [{"tolerance": 1}, {}]
    (reward,) = load(TWO, "reward=random", "reward.random.weight=2").stages[0].reward
    assert reward.weight == 2


def test_one_argument_of_a_reward_is_overridden(load, base):
    judge = "{ use = 'judge', args = { url = 'http://a/v1', extra = { top_p = 0.5 } } }"
    text = base().replace('"exact_number"', f"[{judge}]")
    recipe = load(text, "reward.judge.args.model=m", "reward.judge.args.extra.top_k=4")
    (reward,) = recipe.stages[0].reward
    assert reward.args == {"url": "http://a/v1", "model": "m", "extra": {"top_p": 0.5, "top_k": 4}}
    assert recipe.origins["reward.judge.args"] == "command line"
    assert load(text, "reward.judge.args={}").stages[0].reward[0].args == {}
    assert load(text).stages[0].reward[0].args["extra"] == {"top_p": 0.5}


def test_a_later_layer_that_replaces_a_value_leaves_nothing_of_the_earlier(load):
    cold, rl = load(TWO, "reward.exact_number.weight=2", "rl.reward=exact_number").stages
    assert (cold.reward[0].weight, rl.reward[0].weight) == (2.0, 1.0)
    cold, rl = Recipe(
        policy={"model": "m", "lora": {"rank": 2}},
        task={"source": "t"},
        reward="random",
        stage=[{"kind": "sft"}, {"policy": {"lora": None}}],
    ).stages
    assert (cold.policy.lora, rl.policy.lora) == (Lora(rank=2), None)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("run.steps", "an override is written key=value, such as run.steps=10, not 'run.steps'"),
        ("=3", "an override is written key=value, such as run.steps=10, not '=3'"),
        ("run..steps=3", "an override is written key=value, such as run.steps=10, not 'run..steps=3'"),
        ("stage=3", "stages are written in the recipe and not as an override: 'stage=3'"),
        ("cool.run.steps=3", "unknown key 'cool'; did you mean 'cold'?"),
        ("runn.steps=3", "unknown key 'runn'; did you mean 'run'?"),
        ("group_size=3", "unknown key 'group_size'; 'group_size' belongs in [rollout]"),
        ("seed.x=3", "seed is one value and no table: 'seed.x'"),
        ("rl.run.step=3", "unknown key 'rl.run.step'; did you mean 'rl.run.steps'?"),
        ("run.steps=many", "run.steps must be a whole number of at least 0, not 'many'"),
        ("task.held_out=1.5", "task.held_out must be a number between 0 and 1 or text that is not empty, not 1.5"),
        ("task.held_out=0", "task.held_out must be a number between 0 and 1 or text that is not empty, not 0"),
        ("task.held_out=true", "task.held_out must be a number between 0 and 1 or text that is not empty, not true"),
        ("rl.task.held_out=-1", "rl.task.held_out must be a number between 0 and 1 or text that is not empty, not -1"),
        (
            "qqqq=1",
            "unknown key 'qqqq'; a recipe has cluster, critic, distillation, dpo, environment, evaluate, kind, "
            "monitor, name, objective, optimizer, policy, preferences, record, reference, reject, reward, rft, "
            "rollout, run, seed, self_distillation, stage, suite, supervised, task, cold, rl",
        ),
        ("run.steps=", "run.steps must be a whole number of at least 0, not ''"),
        ("run.steps.x=1", "run.steps must be a whole number of at least 0, not { x = 1 }"),
        (
            "reward.rnd.weight=1",
            "no reward is called 'rnd' in 'reward.rnd.weight'; the rewards are exact_number, think_format",
        ),
        ("reward.exact_number.weight=big", "reward.exact_number.weight must be a number, not 'big'"),
        (
            "reward.exact_number.wieght=1",
            "unknown key 'reward.exact_number.wieght'; did you mean 'reward.exact_number.weight'?",
        ),
        (
            "reward.exact_number.url=x",
            "unknown key 'reward.exact_number.url'; [reward] has use, weight, name, style, args, timeout_s, split, "
            "fold, when, domain, gate, gate_at, gate_else; what its function takes is reward.exact_number.args.url",
        ),
        ("reward.weight=2", "'reward.weight' must be reward.NAME.weight; the rewards are exact_number, think_format"),
        (
            "reward.exact_number.weight.x=1",
            "reward.exact_number.weight is one value and no table: 'reward.exact_number.weight.x'",
        ),
    ],
)
def test_overrides_that_are_wrong(complaint, override, says):
    assert complaint(TWO, override) == f"{says} (command line)"


@pytest.mark.parametrize("text", ["0.25.jsonl", "test.jsonl", "'0.5'"])
def test_an_override_that_is_no_number_is_text(load, text):
    assert load(TWO, f"task.held_out={text}").stages[0].task.held_out == text.strip("'")
    assert load(TWO, "task.source=7").stages[0].task.source == "7"


def test_hostile_overrides_are_only_wrong(complaint):
    for key in ("run." * 5000 + "x", "task.careful." + "a." * 5000 + "b"):
        assert "an override is written key=value" in complaint(TWO, f"{key}=1")
    for value in ("[" * 5000, "{" + "a." * 5000 + "b = 1}", "9" * 5000, "\x00", "'''"):
        said = complaint(TWO, f"run.steps={value}")
        assert said.startswith(("run.steps must be a whole number of at least 0, not ", "run.steps is no TOML: "))


def test_stage_names(load, complaint, base):
    three = base() + "[[stage]]\nkind='sft'\n[[stage]]\n[[stage]]\n"
    assert [stage.name for stage in load(three).stages] == ["sft", "grpo-2", "grpo-3"]
    assert load(three, "grpo-3.run.steps=1").stages[2].run.steps == 1
    (only,) = load(base(), "kind=sft", "grpo.run.steps=4").stages
    assert (only.name, only.kind, only.run.steps) == ("sft", "sft", 4)
    assert "two stages are called 'a'" in complaint(base() + "[[stage]]\nname='a'\n[[stage]]\nname='a'\n")
    assert "two stages are called 'A'" in complaint(base() + "[[stage]]\nname='a'\n[[stage]]\nname='A'\n")
    assert "cannot be called 'run'" in complaint(base() + "[[stage]]\nname='run'\n")
    assert "has a dot" in complaint(base() + "[[stage]]\nname='a.b'\n")
    assert "'' (recipe.toml)" in complaint(base() + "[[stage]]\nname=''\n")
    assert "write [[stage]] with two brackets" in complaint(base() + "[stage]\nname='a'\n")
    assert "stage is an empty list" in complaint("stage = []\n" + base())
    assert "stage must be a table, not 3" in complaint("stage = [3]\n" + base())


def test_top_keys_in_a_stage_are_sent_to_the_top(complaint, base):
    assert complaint(base() + "[[stage]]\nseed=1\n") == (
        "'seed' belongs at the top of the recipe, before any table (recipe.toml)"
    )


def test_every_value_has_an_origin(load):
    origins = load(TWO, "rl.run.steps=7", "reward.think_format.weight=2").origins
    assert {
        path: origins[path]
        for path in (
            "name",
            "seed",
            "cold.kind",
            "rl.kind",
            "cold.run.steps",
            "rl.run.steps",
            "rl.rollout.group_size",
            "rl.rollout.max_tokens",
            "rl.rollout.temperature",
            "cold.policy.scratch.hidden_size",
            "cold.policy.scratch.layers",
            "rl.policy.scratch",
            "rl.objective.preset",
            "rl.objective.clip_low",
            "rl.objective.kl_coef",
            "rl.reward.exact_number.use",
            "rl.reward.exact_number.weight",
            "rl.reward.think_format.weight",
        )
    } == {
        "name": "default",
        "seed": "recipe.toml",
        "cold.kind": "recipe.toml",
        "rl.kind": "default",
        "cold.run.steps": "recipe.toml",
        "rl.run.steps": "command line",
        "rl.rollout.group_size": "recipe.toml",
        "rl.rollout.max_tokens": "recipe.toml, outside the stages",
        "rl.rollout.temperature": "default",
        "cold.policy.scratch.hidden_size": "recipe.toml, outside the stages",
        "cold.policy.scratch.layers": "default",
        "rl.policy.scratch": "the stage before",
        "rl.objective.preset": "recipe.toml, outside the stages",
        "rl.objective.clip_low": "preset",
        "rl.objective.kl_coef": "recipe.toml",
        "rl.reward.exact_number.use": "recipe.toml, outside the stages",
        "rl.reward.exact_number.weight": "default",
        "rl.reward.think_format.weight": "command line",
    }
