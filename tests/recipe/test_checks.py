"""Values that are right alone and wrong together."""

from __future__ import annotations

import pytest

from cohort.algorithms.presets import PRESETS
from cohort.recipe import Recipe
from cohort.types import UserError


@pytest.mark.parametrize(
    ("table", "line", "says"),
    [
        ("policy", "scratch = {}", "policy has both 'model' and 'scratch': keep the one to start from"),
        ("task", "held_out = 'a'\nheld_out_split = 'test'", "task has both 'held_out' and 'held_out_split'"),
        ("task", "careful = { two = 0.5 }", "'two' is no number of steps"),
        ("task", "levels = []", "task.levels is empty"),
        ("rollout", "stop = ['a', '']", "rollout.stop has an empty text"),
        ("rollout", "top_p = 0.9", "rollout.top_p must stay 1 in a grpo stage"),
        ("rollout", "top_k = 5", "rollout.top_k must stay 0 in a grpo stage"),
        ("rollout", "min_p = 0.1", "rollout.min_p must stay 0 in a grpo stage"),
        ("rollout", "group_size = 1", "rollout.group_size is 1, but preset 'grpo' compares the completions"),
        ("optimizer", "updates_per_batch = 17", "(17) is more than rollout.prompts_per_step (16)"),
        ("evaluate", "traces = 9\ngreedy = false", "evaluate.traces changes the traces of greedy answers"),
        ("environment", "tools = ['calculator']\n[evaluate]\ntraces = 9", "evaluate.traces is for answers of one turn"),
        ("evaluate", "reward = 'my_rewards.py'", "evaluate.reward names a function as module:function"),
    ],
)
def test_refused_together(complaint, base, table, line, says):
    said = complaint(base(**{table: line}))
    assert says in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("groups", "override", "says"),
    [
        ("beam", "rollout.temperature=0.7", "rollout.temperature must stay 1"),
        ("beam", "rollout.top_p=0.9", "rollout.top_p must stay 1"),
        ("greedy_plus_sample", "monitor.adapt.no_signal={setting='temperature', factor=2, bound=3}", "must stay 1"),
        ("beam", "rollout.group_size=1", "use a rollout.group_size of 2 or more"),
        ("beam", "rollout.max_staleness=1", "set rollout.max_staleness = 0"),
        ("greedy_plus_sample", "optimizer.epochs=2", "no ratio that bounds a second update"),
        ("beam", "optimizer.updates_per_batch=2", "set optimizer.updates_per_batch = 1"),
        ("beam", "rollout.sampler=mine:open", 'set rollout.sampler = "local"'),
        ("beam", "environment.tools=['calculator']", "remove [environment]"),
        ("beam", "objective.preset=ppo", "use another objective.baseline"),
        ("beam", "objective.preset=sapo", "objective.surrogate = 'soft'"),
        ("greedy_plus_sample", "objective.preset=gspo", "objective.ratio_level = 'sequence'"),
        ("beam", "objective.bypass=true", "set objective.bypass = false"),
        ("beam", "objective.kl_gradient=weighted", 'set objective.kl_gradient = "pathwise"'),
        ("beam", "objective.zero_std=resample", 'set objective.zero_std = "drop"'),
        ("beam", "objective.pass_at_k=2", "about k draws"),
        ("beam", "kind=rft", "a rft stage needs draws from the policy"),
        ("diverse_beam", "rollout.beam_groups=3", "rollout.beam_groups (3) must divide rollout.group_size (8)"),
        (
            "beam",
            "rollout.diversity_penalty=1.0",
            "rollout.diversity_penalty has no effect with rollout.groups = 'beam'",
        ),
        ("sample", "rollout.length_penalty=0.0", "rollout.length_penalty has no effect with rollout.groups = 'sample'"),
        ("beams", "seed=1", "rollout.groups must be"),
    ],
)
def test_what_is_no_draw_from_the_policy_is_learnt_from_without_a_ratio(complaint, base, groups, override, says):
    said = complaint(base(), f"rollout.groups={groups}", override)
    assert says in said
    assert said.count("rollout.groups is") <= 1 or "preset" in override  # of a preset several things may be wrong


@pytest.mark.parametrize(
    ("kind", "override", "says"),
    [
        ("distill", "distillation.beta=0.3", "beta has no effect with distillation.divergence = 'sampled'"),
        ("distill", "distillation.top_k=3", "top_k has no effect with distillation.divergence = 'sampled'"),
        ("distill", "distillation.rest=none", "distillation.rest has no effect without distillation.top_k"),
        ("self_distill", "self_distillation.column=hint", "has no effect with self_distillation.context = 'sibling'"),
        ("self_distill", "self_distillation.show_feedback={}!", "no effect with self_distillation.feedback = false"),
    ],
)
def test_a_key_that_does_nothing_beside_another_one_is_refused(complaint, base, kind, override, says):
    assert says in complaint(base(), f"kind={kind}", "distillation.teacher.big.model=big", override)


@pytest.mark.parametrize(
    "lines",
    [
        {"rollout": "groups = 'beam'\nlength_penalty = 0.0", "objective": "preset = 'dr_grpo'"},
        {"rollout": "groups = 'diverse_beam'\nbeam_groups = 4", "objective": "preset = 'dapo'\nzero_std = 'drop'"},
        {"rollout": "groups = 'greedy_plus_sample'", "objective": "preset = 'dapo'"},
        {"evaluate": "top_p = 0.9\ntop_k = 5\nmin_p = 0.1"},
        {"rollout": "prompts_per_step = 16", "optimizer": "updates_per_batch = 16"},
        {"rollout": "group_size = 2"},
        {"rollout": "group_size = 1", "objective": "preset = 'reinforce'"},
        {"rollout": "group_size = 1", "objective": "preset = 'ppo'"},
        {"rollout": "group_size = 1", "objective": "preset = 'reinforce_pp'"},
        {"rollout": "group_size = 1", "objective": "baseline = 'batch_mean'\nscale = 'batch_std'"},
        {
            "rollout": "group_size = 1",
            "objective": "preset = 'dapo'\nbaseline = 'batch_mean'\nscale = 'batch_std'\nzero_std = 'zero'",
        },
        {"objective": "preset = 'dapo'"},
        {"objective": "preset = 'r1'"},  # its clip_low is 10, by publication
        {"task": "held_out = 0.1"},
        {"run": "steps = 0"},
    ],
)
def test_allowed_together(load, base, lines):
    assert load(base(**lines)).stages


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        ("baseline = 'leave_one_out'", "baseline 'leave_one_out' compares"),
        ("preset = 'reinforce'\nbaseline = 'group_mean'", "baseline 'group_mean' compares"),
        ("preset = 'rloo'", "preset 'rloo' compares"),
        ("preset = 'reinforce_pp_baseline'", "preset 'reinforce_pp_baseline' compares"),
        ("preset = 'reinforce'\nscale = 'group_std'", "objective.scale = 'group_std' needs several"),
        ("preset = 'dapo'", 'objective.baseline = "batch_mean" and objective.zero_std = "zero"'),
        ("preset = 'scale_rl'\nbaseline = 'batch_mean'", "preset 'scale_rl' leaves out every group"),
        ("preset = 'cispo'\nbaseline = 'batch_mean'\nscale = 'none'", "preset 'cispo' leaves out every group"),
        ("preset = 'reinforce'\nzero_std = 'drop'", "objective.zero_std = 'drop' leaves out every group"),
        ("preset = 'reinforce'\nzero_std = 'resample'", 'use a larger group, or objective.zero_std = "zero"'),
    ],
)
def test_a_group_of_one_needs_a_baseline_from_elsewhere(complaint, base, objective, says):
    assert says in complaint(base(rollout="group_size = 1", objective=objective))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_that_leaves_groups_out_cannot_have_groups_of_one(load, complaint, base, name):
    table = f"preset = '{name}'\nbaseline = 'batch_mean'\nscale = 'batch_std'"
    recipe = base(rollout="group_size = 1", objective=table)
    if PRESETS[name].fields.get("zero_std"):
        assert f"preset '{name}' leaves out every group" in complaint(recipe)
    else:
        load(recipe)


def test_the_scale_that_a_preset_brings_is_checked_too(complaint, base):
    said = complaint(base(rollout="group_size = 1", objective="preset = 'grpo'\nbaseline = 'batch_mean'"))
    assert "objective.scale = 'group_std' needs several" in said


def test_more_threads_than_the_machine_can_use(complaint, load, base, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    said = complaint(base(run="threads = 9"))
    assert said == 'run.threads is 9, but this machine has 2 cores: use at most 8, or "auto"'
    assert load(base(run="threads = 8")).stages[0].run.threads == 8


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (None, 'reward is missing: a grpo stage needs one, such as reward = "exact_number"'),
        ([], "reward is missing"),
        (["a", {"use": "a", "weight": 2}], "two rewards are called 'a': give one of them another 'name'"),
        ({"use": "a", "weight": 0}, "every weight is 0"),
        (
            "my_rewards.py",
            "reward.use names a function as module:function, such as my_rewards:score, not 'my_rewards.py'",
        ),
        ("my/rewards:f", "reward.use names a function as module:function"),
        ("module:", "reward.use names a function as module:function"),
        ({"use": "a", "name": "a/b"}, "reward name 'a/b' cannot name a directory"),
        ({"use": "a", "args": {"x": float("nan")}}, "args.x must be a finite number, not nan"),
        ({"use": "a", "args": {"x": {"y": [object]}}}, "args.x.y holds builtins:object: use text, numbers"),
        ({"use": "a", "args": {"x": None}}, "args.x holds nothing: use text, numbers"),
        ({"use": "a", "args": {"x": {1: 2}}}, "args.x has the key 1: keys are text"),
    ],
)
def test_rewards_that_are_refused(reward, says):
    given = {} if reward is None else {"reward": reward}
    with pytest.raises(UserError) as raised:
        Recipe(policy={"model": "m"}, task={"source": "t"}, **given)
    assert says in str(raised.value)


def test_a_domain_that_the_mixture_does_not_have_is_refused():
    mixture = {"sums": {"source": "arithmetic"}, "stories": {"source": "word_problems"}}
    rewards = [{"use": "a", "when": {"domain": ["sums", "storys"]}}, {"use": "b", "when": {"domain": "stories"}}]
    with pytest.raises(UserError, match=r"'a': when.domain is 'storys', which is no source .*; did you mean"):
        Recipe(policy={"model": "m"}, task={"mixture": mixture}, reward=rewards)
    of_rows = Recipe(policy={"model": "m"}, task={"source": "t"}, reward=rewards)  # a column of the rows, then
    assert len(of_rows.stages[0].reward) == 2


def test_penalties_and_measured_rewards_are_allowed():
    rewards = [{"use": "a", "weight": -1}, {"use": "b", "weight": 0}]
    recipe = Recipe(policy={"model": "m"}, task={"source": "t"}, reward=rewards)
    assert [reward.weight for reward in recipe.stages[0].reward] == [-1.0, 0.0]


def test_a_supervised_stage_needs_no_reward_and_may_truncate():
    recipe = Recipe(kind="sft", policy={"scratch": {}}, task={"source": "t"}, rollout={"top_p": 0.9, "group_size": 1})
    assert recipe.stages[0].reward == ()


@pytest.mark.parametrize(
    ("scratch", "says"),
    [
        ({"kv_heads": 3}, "policy.scratch.kv_heads (3) must divide policy.scratch.heads (4)"),
        ({"head_dim": 25}, "policy.scratch.head_dim must be even"),
    ],
)
def test_scratch_policies_that_cannot_be_built(scratch, says):
    with pytest.raises(UserError) as raised:
        Recipe(policy={"scratch": scratch}, task={"source": "t"}, reward="a")
    assert says in str(raised.value)


def test_a_policy_from_scratch_has_no_revision():
    with pytest.raises(UserError, match=r"^policy.revision belongs to a hub model, but this stage makes its own"):
        Recipe(policy={"scratch": {}, "revision": "v1"}, task={"source": "t"}, reward="a")


def test_the_first_stage_needs_a_start_and_each_stage_is_checked(complaint):
    text = "reward='a'\ntask.source='t'\n[[stage]]\nname='x'\n[[stage]]\nname='y'\nrollout.group_size=1\n"
    first, second, third = complaint(text).splitlines()
    assert first == "the recipe has 2 problems:"
    assert second.startswith("  - x.policy.model is missing: give a hub id or a directory")
    assert third.startswith("  - y.rollout.group_size is 1, but preset 'grpo'")


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("rollout", "temperature = 1e300"),
        ("optimizer", "learning_rate = 1e39"),
        ("objective", "clip_high = 1e300"),
        ("objective", "kl_coef = 4e38"),
        ("optimizer", "betas = [0.9, 0.999]\ngradient_clip = 1e300"),
    ],
)
def test_a_number_that_the_arithmetic_cannot_hold_is_a_sentence(complaint, base, table, line):
    assert "must be a number that 32 bits hold (at most 3e+38), not " in complaint(base(**{table: line}))
