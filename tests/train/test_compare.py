"""The arms of a comparison: what differs between their recipes, and what their held-out completions come to."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from cohort.evaluate.compare import paired
from cohort.recipe import Recipe
from cohort.record.rollouts import write_groups
from cohort.train.compare.arms import AS_IT_IS, Asked, _alone, _before, _of
from cohort.train.compare.arms import comparison as planned
from cohort.train.compare.controls import CONTROLS, controlled
from cohort.train.compare.outcome import conclusion, results
from cohort.train.compare.running import _within_budget
from cohort.train.directory import as_kept, flat_recipe, run_directory
from cohort.types import Group, Prompt, Rollout, UserError
from cohort.views.plan import SHOWN, not_shown


@pytest.fixture
def recipe(tables):
    """The small recipe with some tables changed, as it is read from a file."""

    def made(**changes):
        found = tables | {"name": "mine", "seed": 0, "run": tables["run"] | {"steps": 2}}
        for key, value in changes.items():
            found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
        return Recipe.from_tables(found)

    return made


def comparison(mine, controls=(), seeds=1, **asked):
    """The arms of a recipe that is read again with the overrides of each."""
    tables = tomllib.loads(as_kept(mine))
    return planned(
        lambda more: Recipe.from_tables(tables, more) if more else mine, Asked(controls, seeds=seeds, **asked)
    )


def test_arms_that_are_the_same_are_refused(recipe):
    for vary in (["optimizer.learning_rate=1e-3,0.001"], ['optimizer.schedule=constant,"constant"']):
        with pytest.raises(UserError, match=r"trains as optimizer\..* does: leave one of them out"):
            comparison(recipe(reward="exact_number"), vary=vary)


def test_the_plan_of_an_arm_shows_what_the_arms_before_it_do_not(monkeypatch, tmp_path):
    plan = {"task": "sums", "batch": "4 a step"}
    assert not_shown(plan) == plan
    monkeypatch.setenv(SHOWN, str(tmp_path / "shown.json"))
    assert not_shown(plan) == plan
    assert not_shown({**plan, "batch": "8 a step"}) == {"batch": "8 a step"}
    assert not_shown(plan) == {"plan": "as before"}


FORMATTED = [
    {"use": "exact_number"},
    {"use": "think_format", "weight": 0.2, "gate": "exact_number"},
    {"use": "one_answer", "weight": -0.1},
]


def pays(stage):
    return {one.name: one.weight for one in stage.reward if one.weight}


def test_a_control_pays_for_other_things_and_what_is_right_stays(recipe):
    stage = recipe(reward=FORMATTED).stages[0]
    for name in CONTROLS:
        other, _ = controlled(stage, name)
        assert other.evaluate.reward == "exact_number"
        (judge,) = (one for one in other.reward if one.name == "exact_number")
        assert (judge.weight, judge.gate) == (0.0, None)
        assert "exact_number" not in pays(other)
    other, says = controlled(stage, "format_only")
    assert pays(other) == {"think_format": 0.2}  # the penalty and the gate on a right answer are gone
    assert [one.gate for one in other.reward] == [None, None]
    assert "think_format" in says


def test_a_recipe_without_a_format_gets_the_one_that_answers_are_read_from(recipe):
    stage = recipe(reward="exact_number").stages[0]
    assert [one.use for one in controlled(stage, "format_only")[0].reward] == ["exact_number", "one_answer"]
    asks = stage.model_copy(update={"task": stage.task.model_copy(update={"template": "r1_zero"})})
    assert [one.use for one in controlled(asks, "format_only")[0].reward] == ["exact_number", "think_format"]


def test_a_verifier_that_is_no_reward_stays_the_verifier(recipe):
    stage = recipe(reward="one_answer", evaluate={"reward": "exact_number"}).stages[0]
    other, _ = controlled(stage, "random")
    assert (other.evaluate.reward, pays(other)) == ("exact_number", {"control_random": 1.0})
    assert len(other.reward) == 1
    with pytest.raises(UserError, match="'format_only' is the recipe itself"):
        controlled(stage, "format_only")


def test_verifiers_for_some_prompts_each_stay_so(recipe):
    two: list[dict[str, Any]] = [
        {"use": "choice", "when": {"kind": "letters"}},
        {"use": "exact_number"},
        {"use": "one_answer"},
    ]
    other, _ = controlled(recipe(reward=two).stages[0], "length")
    assert [(one.name, one.weight) for one in other.reward] == [
        ("choice", 0.0),
        ("exact_number", 0.0),
        ("control_length", 1.0),
    ]
    assert other.evaluate.reward is None
    two[1]["when"] = {"kind": "numbers"}
    with pytest.raises(UserError, match=r"set evaluate\.reward"):
        controlled(recipe(reward=two[:2]).stages[0], "length")


def test_the_recipes_of_the_arms_differ_in_their_rewards_alone(recipe):
    mine = recipe(reward="exact_number", run={"evaluate_every": 1, "keep_best": "eval/greedy", "directory": "here"})
    compared = comparison(mine, ["random", "length"], seeds=2)
    assert [[one.name for one in arm.recipes] for arm in compared.arms] == [
        ["as_it_is", "as_it_is-seed1"],
        ["random", "random-seed1"],
        ["length", "length-seed1"],
    ]
    first = flat_recipe(as_kept(compared.arms[0].recipes[0]))
    assert "run.keep_best" not in first
    for arm in compared.arms[1:]:
        for number, one in enumerate(arm.recipes):
            other = flat_recipe(as_kept(one))
            changed = {key.split(".")[0] for key in first | other if first.get(key) != other.get(key)} - {"reward"}
            assert changed == {"name", "run", "evaluate", "monitor"} | ({"seed"} if number else set())
            assert (other["run.gate"], other["evaluate.reward"]) == ("off", "exact_number")
            assert str(run_directory(one)) == f"here/mine-compare/{one.name}"


def test_the_stages_before_are_one_run_and_all_arms_begin_from_it(recipe):
    stages: list[dict[str, Any]] = [
        {"kind": "sft", "name": "cold", "task": {"completion": "solution"}},
        {"kind": "reward_model", "name": "taste", "task": {"source": "pairs.jsonl"}},
        {
            "kind": "grpo",
            "name": "rl",
            "reward": ["exact_number", {"use": "reward_model", "args": {"model": "stage:taste"}}],
        },
        {"kind": "sft", "name": "polish", "task": {"completion": "solution"}},
    ]
    mine = recipe(stage=stages)
    directory = run_directory(mine).parent / "mine-compare"
    before = _before(mine, 2, directory)
    assert [one.name for one in before.stages] == ["cold", "taste"]
    stage = _alone(mine, 2, before, directory)
    assert stage.policy.model == str(directory / "before/stages/cold/final")  # not the reward model's
    assert stage.reward[1].args["model"] == str(directory / "before/final")
    arm = _of(mine, "as_it_is", (stage,), 0)
    assert [one.name for one in arm.stages] == ["rl"]
    own = [*stages[:2], {**stages[2], "reward": "exact_number", "policy": {"model": "elsewhere"}}]
    assert _before(recipe(stage=own), 2, directory) is None  # it needs no stage before it


def plant(compared, label, before, after, lengths=(5, 5), seed=0):
    """The evaluations of an arm's run, as if it had been trained: right or not, problem by problem."""
    arm = next(one for one in compared.arms if one.label == label)
    run = run_directory(arm.recipes[seed])
    (run / "log").mkdir(parents=True)
    for step, right, length in ((0, before, lengths[0]), (compared.stage.run.steps, after, lengths[1])):
        groups = []
        for number, one in enumerate(right):
            prompt = Prompt(id=f"problem {number}", tokens=(1,), text=f"{number}?", answer="1")
            said = Rollout(tokens=(1,) * length, mask=(True,) * length, logprobs=(0.0,) * length, version=step,
                           finish="stop", text="1")  # fmt: skip
            groups.append(Group(number, prompt, (said,), {"right": (one,)}, rewards=(one,), accuracy=(one,)))
        write_groups(run / "log" / f"eval-{step:06d}-greedy.parquet", groups, step)
    lines = [{"step": 0, "version": 1}, {"step": 1, "time/step_s": 1.5}, {"step": 2, "time/step_s": 2.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def first(right, of=40):
    return [float(number < right) for number in range(of)]


def test_what_the_controls_gain_is_said(recipe):
    compared = comparison(recipe(reward="exact_number"), ["random", "format_only", "length"], 1)
    plant(compared, AS_IT_IS, first(10), first(30), (5, 9))
    plant(compared, "random", first(10), first(8))
    plant(compared, "format_only", first(10), first(20), (5, 6))
    plant(compared, "length", first(10), first(10), (5, 2))
    kind, found = results(compared)
    assert kind == "greedy"
    own, random, form, length = found
    assert (own.difference.mean, own.difference.verdict, own.behind) == (0.5, "improved", None)
    assert (own.tokens_before, own.tokens_after, own.seconds) == (5.0, 9.0, 3.5)
    assert random.difference.verdict == "inconclusive"
    assert form.behind.mean == 0.25
    right, wrong = ({str(number): one for number, one in enumerate(first(of))} for of in (30, 8))
    assert random.behind.p == paired(right, wrong).p
    assert random.behind.p_holm == 3 * random.behind.p  # of three controls
    assert form.behind.verdict == "improved"
    assert length.behind.mean == 0.5
    assert all(one.same_start for one in found)
    assert conclusion(compared, found) == (
        "the recipe gains +50.0 points; format_only +25.0; length +0.0; random -5.0: "
        "50% of the gain needs no right answers (format_only)"
    )
    assert conclusion(compared, [own, random, length]).endswith("no control gains for certain")


def test_a_recipe_that_gains_nothing_has_nothing_to_explain(recipe):
    compared = comparison(recipe(reward="exact_number"), ["random"], 1)
    plant(compared, AS_IT_IS, first(10), first(11))
    plant(compared, "random", first(11), first(11))
    _, found = results(compared)
    assert "the recipe changes by +2.5 points (inconclusive): no gain to explain" in conclusion(compared, found)
    assert [one.same_start for one in found] == [True, False]


def test_seeds_are_no_new_problems(recipe):
    compared = comparison(recipe(reward="exact_number"), ["random"], 3)
    for seed in range(3):
        plant(compared, AS_IT_IS, first(2, of=8), first(8 - seed, of=8), seed=seed)
        plant(compared, "random", first(2, of=8), first(2, of=8), seed=seed)
    _, (own, random) = results(compared)
    assert own.by_seed == {0: 0.75, 1: 0.625, 2: 0.5}
    assert own.difference.mean == pytest.approx(0.625)
    assert own.difference.problems == 24
    many = paired({str(i): float(i < 21) for i in range(24)}, {str(i): float(i < 6) for i in range(24)})
    assert own.difference.low < many.low  # eight problems are less than 24
    assert random.behind.p > many.p
    assert random.seconds == 3 * 3.5


def test_methods_and_values_are_arms_with_the_same_start(recipe):
    mine = recipe(
        reward="exact_number", rollout={"group_size": 4}, objective={"preset": "dr_grpo", "clip_high": 0.5},
        run={"steps": 30},
    )  # fmt: skip
    compared = comparison(
        mine, methods=["grpo", "ppo"], vary=["rollout.group_size=2,8"], typed=["objective.kl_coef=0.2"], seeds=2
    )
    labels = [f"{method}, rollout.group_size={size}" for method in ("grpo", "ppo") for size in (2, 8)]
    assert [arm.label for arm in compared.arms] == labels
    assert [one.name for one in compared.base.recipes] == [
        "grpo_rollout.group_size-2",
        "grpo_rollout.group_size-2-seed1",
    ]
    stages = [arm.recipes[0].stages[0] for arm in compared.arms]
    assert [one.rollout.group_size for one in stages] == [2, 8, 2, 8]
    assert [(one.objective.preset, one.objective.kl_coef, one.objective.clip_high) for one in stages] == [
        ("grpo", 0.2, None), ("grpo", 0.2, None), ("ppo", 0.2, None), ("ppo", 0.2, None),
    ]  # fmt: skip
    assert [one.critic.warmup_steps for one in stages] == [0, 0, 3, 3]
    assert {one.policy.model for one in stages} == {mine.stages[0].policy.model}
    own = comparison(recipe(reward="exact_number", critic={"warmup_steps": 1}), methods=["ppo", "rloo"])
    assert own.base.recipes[0].stages[0].critic.warmup_steps == 1  # what the recipe says stays


def test_methods_of_other_kinds_are_stages_of_their_own(recipe):
    compared = comparison(recipe(reward="exact_number", run={"steps": 9}), methods=["grpo", "rft", "online_rft", "dpo"])
    stages = [arm.recipes[0].stages for arm in compared.arms]
    assert [[one.kind for one in of] for of in stages] == [["grpo"], ["rft"], ["rft"], ["reject", "dpo"]]
    assert [(of[0].rft.mode, of[0].rft.sampling_steps) for of in stages[1:3]] == [("offline", 4), ("online", 1)]
    sampling, learning = stages[3]
    assert (sampling.run.steps, sampling.evaluate.problems, sampling.policy) == (9, 0, stages[0][0].policy)
    assert (learning.task.source, learning.policy.model) == (f"stage:{sampling.name}", None)  # where that one began
    assert learning.evaluate == stages[0][0].evaluate


def test_keys_can_change_together(recipe):
    vary = ["rollout.group_size&rollout.prompts_per_step=2&6,4&3"]
    compared = comparison(recipe(reward="exact_number"), vary=vary)
    rollouts = [arm.recipes[0].stages[0].rollout for arm in compared.arms]
    assert [(one.group_size, one.prompts_per_step) for one in rollouts] == [(2, 6), (4, 3)]
    assert compared.base.label == "rollout.group_size=2, rollout.prompts_per_step=6"


def test_values_with_commas_and_names_that_a_directory_cannot_have(recipe):
    vary = ["optimizer.betas=[0.9, 0.95],[0.9, 0.999]", "task.template=none,chat"]
    compared = comparison(recipe(reward="exact_number"), vary=vary)
    assert [arm.recipes[0].stages[0].optimizer.betas[1] for arm in compared.arms] == [0.95, 0.95, 0.999, 0.999]
    names = [arm.recipes[0].name for arm in compared.arms]
    assert len(set(names)) == 4
    assert names[0] == "optimizer.betas-0.9_0.95-_task.template-none"


def test_what_a_budget_buys_is_what_the_first_arm_used(recipe):
    mine = recipe(reward="exact_number", optimizer={"schedule": "cosine"})
    compared = comparison(mine, vary=["rollout.group_size=4,2"], budget="tokens")
    assert str(compared.directory).endswith("mine-compare-tokens")
    assert {arm.recipes[0].stages[0].optimizer.schedule for arm in compared.arms} == {"constant"}
    run = run_directory(compared.base.recipes[0])
    run.mkdir(parents=True)
    spent = [{"step": 0}, {"step": 1, "tokens/sampled": 40.0}, {"step": 2, "tokens/sampled": 41.5}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in spent))
    other = _within_budget(compared, compared.arms[1], 0).stages[0].run
    assert (other.stop.metric, other.stop.total, other.steps) == ("tokens/sampled", 81.5, 2000)


def test_what_methods_come_to_is_said(recipe):
    compared = comparison(recipe(reward="exact_number"), methods=["grpo", "rloo", "reinforce"])
    plant(compared, "grpo", first(20), first(30))
    plant(compared, "rloo", first(20), first(39))
    plant(compared, "reinforce", first(20), first(4))
    _, found = results(compared)
    assert [one.collapsed for one in found] == [[], [], [0]]  # it ended below where it began
    assert conclusion(compared, found) == "grpo ends at 75.0%; better than it: rloo (+22.5); worse: reinforce (-65.0)"
    assert [(p.step, p.seconds, p.mean) for p in found[0].curve] == [(0, 0, 0.5), (2, 3.5, 0.75)]
    assert found[1].differs["objective.baseline"] == "leave_one_out"
    assert not {"name", "run.directory", "objective.preset"} & set(found[1].differs)
    assert (found[0].steps, found[0].step_seconds) == (2, 1.75)


def test_numbers_that_are_no_longer_finite_are_a_result(recipe):
    compared = comparison(recipe(reward="exact_number"), vary=["optimizer.learning_rate=1e-3,1e9"])
    for label in ("optimizer.learning_rate=1e-3", "optimizer.learning_rate=1e9"):
        plant(compared, label, first(20), first(30))
    lost = run_directory(compared.arms[1].recipes[0])
    (lost / "log/eval-000002-greedy.parquet").unlink()
    (lost / "failed.txt").write_text("the gradient is not finite (norm nan), so no step was taken.\n")
    _, found = results(compared)
    assert [one.collapsed for one in found] == [[], [0]]
    assert found[1].difference.mean == 0  # the last that was measured


def test_what_is_lost_is_said(recipe):
    compared = comparison(recipe(reward="exact_number"), ["random"], 1)
    plant(compared, AS_IT_IS, first(1, of=2), first(1, of=2))
    with pytest.raises(UserError, match=r"eval-000000-greedy\.parquet is missing"):
        results(compared)


@pytest.mark.parametrize(
    ("changes", "controls", "said"),
    [
        ({}, ["lenght"], r"no control 'lenght' \(did you mean 'length'\?\); there are random"),
        ({"kind": "sft", "task": {"completion": "solution"}}, ["random"], "no grpo stage"),
        ({"reward": "random"}, ["random"], "'random' is the recipe itself"),
        ({"evaluate": {"problems": 0}}, ["random"], "evaluates nothing"),
        ({"task": {"held_out": None}}, ["random"], "no held-out problems to compare by"),
        ({"evaluate": {"greedy": False, "samples": 0}}, ["random"], "evaluates nothing"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_trained(recipe, tmp_path, changes, controls, said):
    with pytest.raises(UserError, match=said):
        comparison(recipe(**({"reward": "exact_number"} | changes)), controls, 1)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"methods": ["grpo", "poo"]}, r"no method 'poo' \(did you mean 'ppo'\?\); there are grpo"),
        ({"methods": ["grpo"]}, "takes two or more"),
        ({"methods": ["grpo", "ppo"], "controls": ["random"]}, "change the rewards alone"),
        ({"vary": ["rollout.group_sise=2,4"]}, "unknown key 'rollout.group_sise'; did you mean 'rollout.group_size'"),
        ({"vary": ["rollout.group_size=2,many"]}, r"rollout\.group_size must be .*'many'"),
        ({"vary": ["rollout.group_size=4"]}, "two values or more"),
        ({"vary": ["rollout.group_size&rollout.prompts_per_step=2&8,4"]}, "as many values together"),
        ({"methods": ["grpo", "dpo"], "budget": "tokens"}, "samples first and learns then"),
        (
            {"methods": ["grpo", "online_rft"], "vary": ["objective.kl_coef=0.0,0.1"]},
            r"online_rft, objective\.kl_coef=0\.0 would change nothing, .* do not read \[objective\]",
        ),
        ({"vary": ["rollout.group_size"]}, "two values or more"),
        ({"vary": ["rollout.group_size=4,4"]}, "the same thing twice"),
        ({"vary": ["seed=1,2"]}, "seed is the same for all arms of a comparison: use --seeds"),
        ({"vary": ["policy.model=a,b"]}, r"policy\.model is the same for all"),
        ({"vary": ["evaluate.problems=3,4"]}, "evaluate is the same for all"),
        (
            {"vary": ["objective.baseline=group_mean,critic"]},
            "scale='group_std' cannot go with baseline='critic'|critic",
        ),
        ({"vary": ["rollout.group_size=1,4"]}, r"rollout\.group_size is 1"),
        ({"methods": ["grpo", "ppo"], "budget": "token"}, r"no budget 'token' \(did you mean 'tokens'\?\)"),
    ],
)
def test_what_is_asked_for_wrongly_is_said_before_anything_is_trained(recipe, tmp_path, asked, said):
    with pytest.raises(UserError, match=said):
        comparison(recipe(reward="exact_number", objective={"preset": "grpo"}), **asked)
    assert not (tmp_path / "runs").exists()


def test_a_key_of_another_stage_and_a_reward_of_the_compared_one(recipe):
    stages: list[dict[str, Any]] = [
        {"kind": "sft", "name": "cold", "task": {"completion": "solution"}, "supervised": {"examples_per_step": 8}},
        {"kind": "grpo", "name": "rl", "reward": "exact_number"},
    ]
    mine = recipe(stage=stages)
    with pytest.raises(UserError, match=r"--vary cold\.run\.steps: the arms differ in the stage 'rl'"):
        comparison(mine, vary=["cold.run.steps=1,2"])
    compared = comparison(mine, vary=["rl.reward.exact_number.weight=1,2"])
    assert [arm.recipes[0].stages[0].reward[0].weight for arm in compared.arms] == [1, 2]
    assert compared.before.stages[0].optimizer == mine.stages[0].optimizer
