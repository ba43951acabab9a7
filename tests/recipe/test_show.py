"""TOML that loads back to the same recipe, differences, hashes and the JSON Schema."""

from __future__ import annotations

import functools
import json
import math
import re
import tomllib
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohort.recipe import Recipe, against_defaults, canonical, differences, digest, json_schema, load, to_toml
from cohort.settings import Reward, Stage
from cohort.settings.table import OneOf, named_tables, table_of


def score(completion, prompt):
    return 1.0


# --- any recipe at all, made from the schema itself, so that a new field is tested without a new test

TEXT = st.text(max_size=8)
PLAIN = st.recursive(
    TEXT | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)


def values(annotation: Any, metadata: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Values that a type allows."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(args[0], (*metadata, *(m for a in args[1:] for m in getattr(a, "metadata", [a]))))
    if origin in (Union, types.UnionType):
        return st.one_of(*(values(part, metadata) for part in args))
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        item = values(args[0], ())
        least = max((m.min_length for m in metadata if hasattr(m, "min_length")), default=0)
        return st.lists(item, min_size=least, max_size=3) if args[-1] is ... else st.tuples(item, item)
    if origin is dict:
        keys = values(args[0], ()) if get_origin(args[0]) is Literal else st.integers(1, 9).map(str)
        return st.dictionaries(keys, values(args[1], ()), max_size=2)
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    limit = {
        key: getattr(m, key) for m in metadata for key in ("ge", "gt", "le", "lt", "min_length") if hasattr(m, key)
    }
    if annotation is int:
        return st.integers(limit.get("ge", -9), min(10**6, limit.get("le", 10**6)))
    if annotation is float:
        low, high = limit.get("ge", limit.get("gt", -1e9)), limit.get("le", limit.get("lt", 1e9))
        return st.floats(low, high, exclude_min="gt" in limit, exclude_max="lt" in limit)
    if annotation is str and (parts := [m.parts for m in metadata if isinstance(m, OneOf)]):
        return st.sampled_from([*parts[0], "module:part"])
    if annotation is str:
        return st.text(min_size=limit.get("min_length", 0), max_size=8)
    return st.just(score)  # a function


@st.composite
def tables(draw: Any, table: Any) -> dict[str, Any]:
    """Some keys of a table with values that they allow."""
    made: dict[str, Any] = {}
    for name, field in table.model_fields.items():
        inner, in_list = table_of(field)
        if in_list or name in ("kind", "name") or not (field.is_required() or draw(st.booleans())):
            continue
        if (table.__name__, name) in (("Reward", "args"), ("Environment", "args"), ("Task", "args")):
            made[name] = draw(st.dictionaries(TEXT, PLAIN, max_size=2))
        elif (table.__name__, name) == ("Reward", "when"):
            made[name] = draw(st.dictionaries(NAMES, TEXT | st.lists(TEXT, min_size=1, max_size=2), max_size=2))
        elif named := named_tables(field):
            made[name] = draw(st.dictionaries(st.integers(1, 9).map(str), tables(named), max_size=2))
        elif inner:
            made[name] = draw(tables(inner))
        elif name in ("use", "reward"):
            made[name] = draw(NAMES)
        elif name == "tools":
            made[name] = draw(st.lists(NAMES, max_size=2))
        else:
            made[name] = draw(values(field.annotation, tuple(field.metadata)))
    return made


@st.composite
def recipes(draw: Any) -> Recipe:
    stages = []
    for number in range(draw(st.integers(1, 3))):
        stage = draw(tables(Stage))
        stage["kind"] = draw(st.sampled_from(["grpo", "sft"]))
        if draw(st.booleans()):
            stage["name"] = f"s{number}"
        stage["reward"] = [{**draw(tables(Reward)), "name": f"r{n}"} for n in range(draw(st.integers(1, 2)))]
        stages.append(mended(stage, first=number == 0))
    name, seed = draw(NAMES), draw(st.integers(0, 2**63 - 1))
    if len(stages) == 1 and "name" not in stages[0]:
        return Recipe(**{**stages[0], "name": name, "seed": seed})
    return Recipe(name=name, seed=seed, stage=stages)


def mended(stage: dict[str, Any], first: bool) -> dict[str, Any]:
    """A stage without the combinations that are refused."""
    policy, task, rollout = (stage.setdefault(key, {}) for key in ("policy", "task", "rollout"))
    if policy.get("scratch") is not None:
        policy.update(model=None, revision=None)
        policy["scratch"].update(heads=4, kv_heads=2, head_dim=8)
    elif first and policy.get("model") is None:
        policy["model"] = "m"
    if stage.get("monitor"):
        stage["monitor"].pop("actions", None)  # their keys are names of detectors
        stage["monitor"].pop("adapt", None)
        if first:
            how = {"setting": "kl_coef", "factor": 0.5, "bound": 0.1}
            stage["monitor"]["adapt"] = {"kl_blow_up": how, "truncation": {**how, "setting": "temperature"}}
    if stage.get("run"):
        stage["run"].pop("threads", None)  # how many are allowed depends on the machine
    for key in ("state", "offload", "stochastic_rounding"):  # of one learner, of a GPU, of bfloat16 weights
        stage.setdefault("optimizer", {}).pop(key, None)
    if stage.get("critic"):
        stage["critic"].pop("warmup_steps", None)  # fewer than run.steps
    for key in ("held_out_split", "mixture", "curriculum", "adaptive", "args"):  # each needs or forbids others
        task.pop(key, None)
    beams = ("groups", "length_penalty", "beam_groups", "diversity_penalty")
    for key in (*beams, "over_sample", "replay", "replay_age", "precision", "in_flight"):
        rollout.pop(key, None)
    if stage.get("cluster"):
        stage["cluster"]["address"] = "auto"  # without one the others say nothing
    if stage.get("evaluate"):
        stage["evaluate"].pop("traces", None)  # of greedy answers
    if stage.get("preferences"):
        stage["preferences"].pop("replay", None)  # of a history
    task["levels"] = task.get("levels") or None
    rollout["stop"] = [text for text in rollout.get("stop", []) if text]
    acting = stage.setdefault("environment", {})
    acting.pop("agent", None)  # of use = "endpoint"
    acting["format"] = "auto" if task.get("template", "chat") != "chat" else acting.get("format", "auto")
    if acting.get("use"):
        acting.pop("tools", None)
    elif not acting.get("tools"):
        acting.pop("args", None)
    for reward in stage["reward"]:
        gates = {key: reward.pop(key, None) for key in ("gate", "gate_at", "gate_else")}
        if reward["name"] != "r0":  # a gate is another reward
            reward.update({key: value for key, value in {**gates, "gate": "r0"}.items() if value is not None})
    if stage["kind"] == "grpo":
        for key in ("top_p", "top_k", "min_p"):
            rollout.pop(key, None)
        stage.setdefault("optimizer", {})["updates_per_batch"] = 1
        rollout["group_size"] = max(2, rollout.get("group_size", 2))
        stage["reward"][0]["weight"] = 0.1
    return stage


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(recipe=recipes())
def test_a_recipe_written_as_toml_is_the_same_recipe(recipe, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "round.toml"
    for origins in (False, True):
        file.write_text(to_toml(recipe, origins=origins), encoding="utf-8", newline="\n")
        again = load(file)
        assert again == recipe
        assert differences(again, recipe) == []
        assert digest(again) == digest(recipe)


def test_functions_are_written_by_name_and_unimportable_ones_say_so(load, tmp_path):
    def local(completion, prompt):
        return 0.0

    rewards = [score, Reward(use=local, name="local"), Reward(use=functools.partial(score, prompt=1), name="part")]
    recipe = Recipe(policy={"model": "m"}, task={"source": "t"}, reward=rewards, evaluate={"reward": math.sqrt})
    text = to_toml(recipe)
    lines = text.splitlines()
    at = lines.index(f'use = "{__name__}:score"')
    assert lines[at - 1] == "[[reward]]"
    at = next(n for n, line in enumerate(lines) if line.endswith('<locals>.local"'))
    assert lines[at - 1] == "# a Python object that cannot be imported under this name"
    assert "# a partial function: its arguments are not written here" in lines
    assert 'reward = "math:sqrt"' in lines
    assert digest(load(text.replace('"recipe"', '"run"'))) == digest(recipe)


def test_origins_stand_behind_the_values(load, base):
    text = to_toml(load(base(rollout="group_size = 4"), "run.steps=3"), origins=True)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "group_size = 4 # recipe.toml",
        "steps = 3 # command line",
        "seed = 0 # default",
        'use = "exact_number" # recipe.toml',
        "weight = 1.0 # default",
    ):
        assert line in lines


def test_one_stage_is_written_flat_unless_it_has_a_name_of_its_own(load, base):
    assert "stage" not in to_toml(load(base()))
    named = to_toml(load(base() + "[[stage]]\nname = 'rl'\n"))
    assert '[[stage]]\nname = "rl"\nkind = "grpo"' in named


def test_differences_name_paths_and_both_values(load, base):
    a = load(base(rollout="group_size = 4"))
    b = load(base(policy="lora = { rank = 2 }", rollout="stop = ['x']"), "reward.exact_number.weight=2", "seed=1")
    found = {path: values for path, *values in differences(a, b)}
    assert found == {
        "seed": [0, 1],
        "policy.lora.rank": [None, 2],
        "policy.lora.alpha": [None, 32.0],
        "policy.lora.rslora": [None, False],
        "policy.lora.dora": [None, False],
        "policy.lora.targets": [None, "all-linear"],
        "policy.lora.modules_to_save": [None, ()],
        "policy.lora.existing": [None, "continue"],
        "optimizer.learning_rate": [1e-6, 1e-5],
        "rollout.group_size": [4, 8],
        "rollout.stop": [(), ("x",)],
        "reward.exact_number.weight": [1.0, 2.0],
    }
    two = load(base() + "[[stage]]\nkind='sft'\n[[stage]]\n")
    assert ("sft.kind", None, "sft") in differences(a, two)
    assert ("grpo.rollout.group_size", 4, 8) in differences(a, two)


def test_against_defaults_shows_what_was_chosen(load, base):
    recipe = load(base(run="steps = 3\nsave_every = 50"), "reward=[{use = 'random', weight = 2}]")
    assert against_defaults(recipe) == [
        ("policy.model", None, "some/model"),
        ("reward.random.weight", 1.0, 2.0),
        ("run.steps", 100, 3),
        ("task.source", None, "train.jsonl"),
        ("reward.random.use", None, "random"),
    ]


def test_the_digest_changes_with_what_changes_the_result_and_nothing_else(load, base):
    plain = digest(load(base()))
    assert len(plain) == 64
    assert int(plain, 16)
    same = ("run.directory=elsewhere", "name=other", "run.keep_checkpoints=9", "run.workers=2", "run.save_every=1")
    different = ("seed=1", "run.steps=3", "task.limit=5", "reward=random", "optimizer.eps=1e-9", "run.threads=2")
    assert {digest(load(base(), override)) for override in same} == {plain}
    assert len({plain, *(digest(load(base(), override)) for override in different)}) == len(different) + 1
    # A key that came later is not in it at its default: digests that were published stay.
    assert "groups" not in canonical(load(base()))["stages"][0]["rollout"]
    assert canonical(load(base(), "rollout.groups=beam"))["stages"][0]["rollout"]["groups"] == "beam"
    flat, staged = load(base()), load(base() + "[[stage]]\n")
    assert flat == staged.model_copy(update={"name": flat.name})
    assert digest(flat) == digest(staged)
    assert json.loads(json.dumps(canonical(flat))) == canonical(flat)
    assert "directory" not in canonical(flat)["stages"][0]["run"]


def test_the_digest_does_not_depend_on_the_order_of_keys(load):
    a = "policy.model='m'\ntask={source='t', limit=3}\nreward={use='a', args={x=1, y=2}}"
    b = "reward={args={y=2, x=1}, use='a'}\ntask={limit=3, source='t'}\npolicy.model='m'"
    assert digest(load(a)) == digest(load(b))


# --- JSON Schema


def valid(node: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """The part of JSON Schema that the recipe's schema uses; an unknown keyword is an error."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    sized = {"minimum": lambda n, b: n >= b, "maximum": lambda n, b: n <= b}
    sized |= {"exclusiveMinimum": lambda n, b: n > b, "exclusiveMaximum": lambda n, b: n < b}
    for word, rule in schema.items():
        if word == "$ref":
            good = valid(node, root["$defs"][rule.removeprefix("#/$defs/")], root)
        elif word == "type":
            good = isinstance(node, kinds[rule]) and (rule == "boolean" or not isinstance(node, bool))  # type: ignore[arg-type]
        elif word == "anyOf":
            good = any(valid(node, choice, root) for choice in rule)
        elif word in ("enum", "const"):
            good = node in rule if word == "enum" else node == rule
        elif word == "properties" and isinstance(node, dict):
            good = all(valid(node[key], inner, root) for key, inner in rule.items() if key in node)
        elif word == "propertyNames" and isinstance(node, dict):
            good = all(valid(key, rule, root) for key in node)
        elif word == "additionalProperties" and isinstance(node, dict):
            extra = [value for key, value in node.items() if key not in schema.get("properties", {})]
            good = rule is True or (not extra if rule is False else all(valid(value, rule, root) for value in extra))
        elif word == "required" and isinstance(node, dict):
            good = all(key in node for key in rule)
        elif word in ("items", "prefixItems") and isinstance(node, list):
            rules = rule if word == "prefixItems" else [rule] * len(node)
            good = all(valid(item, inner, root) for item, inner in zip(node, rules))
        elif word in ("minItems", "maxItems") and isinstance(node, list):
            good = len(node) >= rule if word == "minItems" else len(node) <= rule
        elif word == "minLength" and isinstance(node, str):
            good = len(node) >= rule
        elif word == "pattern" and isinstance(node, str):
            good = re.search(rule, node) is not None
        elif word in sized and isinstance(node, int | float):
            good = sized[word](node, rule)
        else:
            known = {"description", "default", "title", "$schema", "$defs", "properties", "additionalProperties"}
            known |= {
                "pattern",
                "required",
                "items",
                "prefixItems",
                "minItems",
                "maxItems",
                "minLength",
                "propertyNames",
                *sized,
            }
            assert word in known, word
            good = True
        if not good:
            return False
    return True


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(recipe=recipes())
def test_every_recipe_is_valid_under_the_json_schema(recipe):
    schema = json_schema()
    assert valid(tomllib.loads(to_toml(recipe)), schema, schema)


@pytest.mark.parametrize(
    "text",
    [
        "sed = 1",
        "seed = -1",
        "rollout.grup_size = 3",
        "rollout.group_size = 0",
        "rollout.group_size = '8'",
        "rollout.temperature = 0",
        "reward = 3",
        "reward = [{ weight = 1 }]",
        "objective.preset = 'gpro'",
        "policy.lora.rank = 0",
        "optimizer.betas = [0.9]",
        "stage = []",
        "[[stage]]\nrun.steps = -1",
        "[[stage]]\nseed = 1",
    ],
)
def test_the_json_schema_refuses_what_the_loader_refuses(text, complaint):
    assert complaint(text)
    assert not valid(tomllib.loads(text), json_schema(), json_schema())


def test_the_json_schema_takes_short_forms_and_defaults_outside_stages():
    for text in ("reward = 'random'", "reward = ['a', { use = 'b' }]", "task.limit = 3\n[[stage]]\ntask.source = 't'"):
        assert valid(tomllib.loads(text), json_schema(), json_schema())


def test_every_key_of_the_json_schema_has_a_description_and_a_default():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(schema)) == schema
    without_default = set()
    for where, table in (("", schema), *schema["$defs"].items()):
        for key, value in table["properties"].items():
            assert value["description"], (where, key)
            assert len(value["description"]) <= 120, (where, key)
            if "default" not in value:
                without_default.add((where, key))
    needed = {
        ("Task", "source"),
        ("Source", "source"),
        ("Suite", "source"),
        ("Reward", "use"),
        ("Stop", "metric"),
        ("Teacher", "model"),
    }
    assert without_default == needed | {("Adapt", key) for key in ("setting", "factor", "bound")}
    assert "null" not in json.dumps(schema["$defs"]["Policy"]["properties"]["model"].get("type"))
    assert {"name", "seed", "stage", "kind", "rollout", "reward"} <= set(schema["properties"])
