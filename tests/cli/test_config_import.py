"""`cohort config import`: configurations of TRL and verl become recipes with the same objective, batch and sampling."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
import yaml

from cohort.commands.config_import import import_recipe
from cohort.integrations.configurations import trl, verl
from cohort.preflight.objective import settled_objective
from cohort.recipe import Recipe
from cohort.types import UserError

TRL: dict[str, Any] = {
    "model_name_or_path": "Qwen/Qwen3-0.6B",
    "dataset_name": "trl-lib/DeepMath-103K",
    "reward_funcs": ["accuracy_reward", "my.lib.short"],
    "reward_weights": [1.0, 0.2],
    "learning_rate": "1e-6",
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 8,
    "num_generations": 16,
    "max_steps": 400,
    "warmup_ratio": 0.1,
    "output_dir": "out/qwen",
}
VERL: dict[str, Any] = {
    "actor_rollout_ref": {
        "model": {"path": "Qwen/Qwen3-8B"},
        "actor": {"ppo_mini_batch_size": 256, "optim": {"lr": "1e-6"}, "loss_agg_mode": "token-mean"},
        "rollout": {"n": 5, "temperature": 1.0, "prompt_length": "${data.max_prompt_length}"},
    },
    "algorithm": {"adv_estimator": "grpo"},
    "data": {"train_files": "train.parquet", "train_batch_size": 1024, "max_prompt_length": 512},
    "trainer": {"total_training_steps": 100, "logger": ["console"]},
}
REWARD = '\n[[reward]]\nuse = "exact_number"\n'


@pytest.fixture
def imported(tmp_path):
    """The recipe of a configuration (with a reward, where it had none), its only stage, and what was said."""

    def read(values, name="config.yaml"):
        file = tmp_path / name
        file.write_text(yaml.safe_dump(values) if name.endswith("yaml") else values)
        found = import_recipe(file)
        tables = tomllib.loads(found.recipe)
        recipe = Recipe.from_tables({**tables, "reward": tables.get("reward", [{"use": "exact_number"}])})
        return recipe, recipe.stages[0], [*found.notes, *found.open]

    return read


def test_the_columns_of_data_that_are_here_are_looked_at(imported, tmp_path):
    data = tmp_path / "sums.jsonl"
    data.write_text('{"problem": "1 + 1", "solution": "2"}\n{"problem": "1 + 2", "solution": "3"}\n')
    trl = {key: value for key, value in TRL.items() if not key.startswith("reward")}
    _, stage, said = imported({**trl, "dataset_name": str(data)})
    assert (stage.task.prompt, stage.task.answer) == ("problem", "solution")
    assert "of the data, a first reward would be exact_number, as the answers are numbers" in said
    verl = VERL | {"data": VERL["data"] | {"train_files": str(data)}}
    _, stage, said = imported(verl)
    assert (stage.task.prompt, stage.task.answer) == ("problem", "solution")
    assert f"{data} has no column 'prompt'; it has problem, solution" in said
    assert f"{data} has no column 'reward_model.ground_truth'; it has problem, solution" in said
    data.write_text('{"prompt": "1 + 1", "reward_model": {"ground_truth": "2"}}\n')
    assert imported(verl)[1].task.answer == "reward_model.ground_truth"
    data.write_text("{")
    assert any("cannot be read" in sentence for sentence in imported(verl)[2])
    data.write_text('{"a": 1}\n')
    assert any("Name the column of the questions" in sentence for sentence in imported(verl)[2])


def with_actor(**keys):
    actor = VERL["actor_rollout_ref"]["actor"] | keys
    return VERL | {"actor_rollout_ref": VERL["actor_rollout_ref"] | {"actor": actor}}


def test_trl_keeps_its_own_rate_and_kind_of_adapter(imported):
    lora = {"use_peft": True, "use_dora": True, "use_rslora": True, "lora_modules_to_save": ["lm_head"]}
    stage = imported(TRL | lora)[1]
    assert (stage.policy.lora.dora, stage.policy.lora.rslora) == (True, True)
    assert stage.policy.lora.modules_to_save == ("lm_head",)
    assert stage.optimizer.learning_rate == 1e-6


def test_a_slip_is_told_apart_from_what_has_no_counterpart(imported):
    *_, said = imported({**TRL, "lerning_rate": 1e-5, "logging_steps": 5, "foo": 1})
    assert "lerning_rate = 1e-05: TRL 1.16 has no such key (did you mean 'learning_rate'?)" in said
    assert "foo = 1: TRL 1.16 has no such key" in said
    assert "no counterpart: logging_steps = 5" in said


def test_trl_counts_completions_and_updates_cohort_prompts_and_steps(imported):
    recipe, stage, said = imported(TRL)
    assert (recipe.name, recipe.seed) == ("qwen", 42)
    assert (stage.rollout.prompts_per_step, stage.rollout.group_size) == (4, 16)
    assert (stage.optimizer.updates_per_batch, stage.optimizer.epochs) == (4, 1)
    assert (stage.run.steps, stage.optimizer.warmup_steps) == (100, 10)
    assert (stage.optimizer.learning_rate, stage.optimizer.schedule) == (1e-6, "linear")
    assert [(one.use, one.style, one.weight) for one in stage.reward] == [
        ("math", "cohort", 1.0),
        ("my.lib:short", "trl", 0.2),
    ]
    assert any("one process is assumed" in line for line in said)


@pytest.mark.parametrize(
    ("given", "objective"),
    [
        ({}, {"aggregation": "token_mean", "eps": 1e-4, "kl_coef": 0.0, "correction": "off"}),
        ({"loss_type": "grpo"}, {"aggregation": "sequence_mean"}),
        ({"loss_type": "bnpo"}, {"aggregation": "token_mean"}),
        ({"loss_type": "dr_grpo", "scale_rewards": False}, {"aggregation": "constant_length", "scale": "none"}),
        ({"loss_type": "luspo", "importance_sampling_level": "sequence"}, {"aggregation": "sequence_sum"}),
        ({"loss_type": "cispo", "epsilon_high": 5.0}, {"surrogate": "truncated", "ratio_max": 5.0, "clip_low": None}),
        ({"loss_type": "sapo"}, {"surrogate": "soft", "soft_negative": 1.05, "aggregation": "sequence_mean"}),
        ({"epsilon": 0.1}, {"clip_low": 0.1, "clip_high": 0.1}),
        ({"epsilon_high": "2.8e-1"}, {"clip_low": 0.2, "clip_high": 0.28}),
        ({"delta": 4.0}, {"dual_clip": 4.0, "ratio_max": None}),
        ({"delta": 1.1}, {"dual_clip": None, "ratio_max": 1.1}),  # nearer than the upper clip
        ({"delta": 4.0, "loss_type": "cispo", "epsilon_high": 5.0}, {"dual_clip": None, "ratio_max": 5.0}),
        ({"delta": 4.0, "loss_type": "sapo"}, {"dual_clip": None}),
        ({"importance_sampling_level": "sequence"}, {"ratio_level": "sequence"}),
        ({"scale_rewards": "batch"}, {"scale": "batch_std"}),
        ({"beta": 0.04}, {"kl_coef": 0.04, "kl_gradient": "weighted", "kl_estimator": "k3"}),
        ({"beta": 0.04, "use_bias_correction_kl": False}, {"kl_gradient": "pathwise"}),
        ({"mask_truncated_completions": True}, {"truncated": "mask"}),
        ({"multi_objective_aggregation": "normalize_then_sum"}, {"rewards": "normalise_then_sum"}),
        ({"use_vllm": True}, {"correction": "sequence_mask", "correction_max": 3.0}),
        ({"use_vllm": True, "vllm_importance_sampling_mode": "token_truncate"}, {"correction": "token_truncate"}),
        ({"use_vllm": True, "vllm_importance_sampling_correction": False}, {"correction": "off"}),
    ],
)
def test_trls_loss_is_the_recipes(imported, given, objective):
    found = settled_objective(imported(TRL | given)[1])
    assert {key: getattr(found, key) for key in objective} == objective


@pytest.mark.parametrize(
    ("given", "objective"),
    [
        ({}, {"aggregation": "token_mean", "dual_clip": 3.0, "kl_coef": 0.0}),
        ({"loss_agg_mode": "seq-mean-token-mean"}, {"aggregation": "sequence_mean"}),
        ({"loss_agg_mode": "seq-mean-token-sum"}, {"aggregation": "sequence_sum"}),
        ({"loss_agg_mode": "seq-mean-token-sum-norm"}, {"aggregation": "constant_length"}),
        ({"clip_ratio_high": 0.28}, {"clip_low": 0.2, "clip_high": 0.28}),
        ({"clip_ratio_c": 10.0}, {"dual_clip": 10.0}),
        ({"clip_ratio": 0.1, "clip_ratio_low": None, "clip_ratio_high": None}, {"clip_low": 0.1, "clip_high": 0.1}),
        ({"clip_ratio": 0.1, "clip_ratio_high": None}, {"clip_low": 0.2, "clip_high": 0.1}),
        ({"entropy_coeff": 0.001}, {"entropy_coef": 0.001}),
        (
            {"use_kl_loss": True, "kl_loss_coef": 0.01, "kl_loss_type": "mse"},
            {"kl_coef": 0.01, "kl_estimator": "k2", "kl_place": "loss"},
        ),
        ({"policy_loss": {"loss_mode": "gspo"}, "clip_ratio_low": 3e-4}, {"ratio_level": "sequence_token"}),
        ({"policy_loss": {"loss_mode": "geo_mean"}}, {"surrogate": "geometric"}),
        ({"policy_loss": {"loss_mode": "cispo"}, "clip_ratio_high": 4.0}, {"surrogate": "truncated", "ratio_max": 5.0}),
        ({"policy_loss": {"loss_mode": "sapo"}}, {"surrogate": "soft"}),
    ],
)
def test_verls_loss_is_the_recipes(imported, given, objective):
    found = settled_objective(imported(with_actor(**given))[1])
    assert {key: getattr(found, key) for key in objective} == objective


@pytest.mark.parametrize("estimator", verl.ESTIMATORS)
def test_every_estimator_of_verl_that_is_known_makes_a_recipe(imported, estimator):
    _, stage, said = imported(VERL | {"algorithm": {"adv_estimator": estimator}})
    settled_objective(stage)
    assert not any("ADVANTAGES DIFFER" in line for line in said)


@pytest.mark.parametrize("loss", trl.AGGREGATIONS)
def test_every_loss_of_trl_that_is_known_makes_a_recipe(imported, loss):
    _, stage, said = imported(TRL | {"loss_type": loss, "beta": 0.01, "delta": None})
    settled_objective(stage)
    assert not any("LOSS DIFFERS" in line for line in said)


def test_trls_reference_is_synced_after_as_many_updates(imported):
    given = {"beta": 0.04, "sync_ref_model": True, "ref_model_sync_steps": 64}
    for more, steps in (({}, 16), ({"num_iterations": 2}, 8), ({"steps_per_generation": 2}, 64)):
        assert imported(TRL | given | more)[1].reference.update_every == steps, more


def test_what_trl_does_not_do_is_not_done(imported):
    assert imported(TRL | {"lr_scheduler_type": "constant"})[1].optimizer.warmup_steps == 0
    assert imported(TRL | {"max_grad_norm": None})[1].optimizer.gradient_clip == 0


def test_verls_critic_has_its_own_clip(imported):
    for given, clip in (({}, 0.5), ({"critic": {"cliprange_value": 0.3}}, 0.3)):
        _, stage, _ = imported(VERL | {"algorithm": {"adv_estimator": "gae"}} | given)
        assert stage.critic.value_clip == clip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (TRL | {"num_generations": 0}, "num_generations must be at least 1"),
        (TRL | {"per_device_train_batch_size": -8}, "at least 1, not -8"),
        (TRL | {"gradient_accumulation_steps": 0}, "at least 1"),
        (TRL | {"num_iterations": 0}, "at least 1"),
        (TRL | {"generation_batch_size": 0, "steps_per_generation": None}, "at least 1"),
        (TRL | {"beta": True}, "beta must be a number"),
        (TRL | {"max_completion_length": float("inf")}, "max_completion_length must be a number, not inf"),
        (TRL | {"reward_weights": [1, "half"]}, "reward_weights must be a number, not 'half'"),
        (with_actor(optim={"betas": ["a", 0.9]}), "betas must be a number, not 'a'"),
        (TRL | {"multi_objective_aggregation": "sum"}, "not 'sum'"),
        (with_actor(ppo_mini_batch_size=0), "at least 1"),
    ],
)
def test_what_the_other_trainer_would_refuse_is_a_sentence(imported, given, said):
    with pytest.raises(UserError, match=said):
        imported(given)


def test_verls_batch_is_counted_in_prompts(imported):
    _, stage, said = imported(VERL)
    assert (stage.rollout.prompts_per_step, stage.rollout.group_size) == (1024, 5)
    assert (stage.optimizer.updates_per_batch, stage.run.steps) == (4, 100)
    assert (stage.optimizer.weight_decay, stage.task.answer) == (0.01, "reward_model.ground_truth")
    assert any("name one with [[reward]]" in line for line in said)
    assert "no counterpart: actor_rollout_ref.rollout: prompt_length = 512" in said  # the reference was followed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (TRL | {"loss_type": "vespo"}, "THE LOSS DIFFERS"),
        (TRL | {"top_entropy_quantile": 0.2}, "top_entropy_quantile = 0.2"),
        (TRL | {"lr_scheduler_type": "polynomial"}, "lr_scheduler_type = 'polynomial'"),
        (TRL | {"report_to": ["mlflow"]}, "report_to = 'mlflow'"),
        (TRL | {"report_to": [{"wandb": 1}]}, "report_to = {'wandb': 1}"),
        (TRL | {"chat_template_kwargs": ["thinking"]}, "chat_template_kwargs = ['thinking']"),
        (TRL | {"top_p": 0.95}, "top_p = 0.95 is left out"),
        (TRL | {"top_k": 20, "min_p": 0.1}, "top_k = 20 is left out"),
        (TRL | {"loss_type": "sapo", "delta": 4.0}, "delta = 4 does nothing in TRL"),
        (TRL | {"lr_scheduler_type": "constant"}, "a warmup does nothing in TRL"),
        (TRL | {"eval_strategy": "epoch"}, "eval_strategy = 'epoch'"),
        (TRL | {"lora_r": 8}, "lora_r = 8"),  # use_peft is not given, so TRL ignores it, too
        (VERL | {"algorithm": {"adv_estimator": "remax"}}, "THE ADVANTAGES DIFFER"),
        (with_actor(policy_loss={"loss_mode": "clip_cov"}), "THE LOSS DIFFERS"),
        (with_actor(clip_ratio=0.1), "clip_ratio = 0.1 does nothing in verl"),
        (VERL | {"trainer": {"n_gpus_per_node": 8}}, "n_gpus_per_node = 8"),
    ],
)
def test_what_has_no_counterpart_is_said(imported, given, said):
    assert any(said in line for line in imported(given)[2])


def test_trackers_that_are_known_here_come_along(imported):
    _, stage, said = imported(TRL | {"report_to": ["wandb", "trackio"]})
    assert stage.run.trackers == ("wandb", "trackio")
    assert not any("report_to" in line for line in said)


def test_a_command_line_is_a_configuration_too(imported):
    line = (
        "accelerate launch grpo.py --model_name_or_path base \\\n  --beta 0.04 --num_generations=4 --use_vllm "
        "--reward_funcs a.b c.d --no_bf16\n"
    )
    _, stage, _ = imported(line, "run.sh")
    assert stage.objective.kl_coef == 0.04
    assert stage.rollout.group_size == 4
    assert [reward.use for reward in stage.reward] == ["a:b", "c:d"]
    assert stage.policy.compute == "float32"
    line = "python -m verl.trainer.main_ppo actor_rollout_ref.model.path=base algorithm.adv_estimator=rloo "
    line += "+data.seed=3 actor_rollout_ref.rollout.n=4 $@"
    recipe, stage, _ = imported(line, "verl.sh")
    assert (recipe.seed, stage.rollout.group_size, stage.objective.baseline) == (3, 4, "leave_one_out")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "a: b: c",
        "{",
        "\x00",
        "beta: [1",
        "num_generations: many",
        "num_generations: .inf",
        "beta: [1, 2]",
    ],
)
def test_what_is_no_configuration_is_one_sentence(tmp_path, text):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(UserError, match=r"broken|number"):
        import_recipe(tmp_path / "broken.yaml")
    with pytest.raises(UserError, match="cannot read"):
        import_recipe(tmp_path / "absent.yaml")


def test_the_recipe_goes_to_standard_output_and_explain_takes_it(desk, cohort):
    (desk / "trl.json").write_text(json.dumps({"model_name_or_path": "base", "max_steps": 5, "beta": 0.01}))
    code, out, err = cohort("config", "import", "trl.json")
    assert code == 0
    assert tomllib.loads(out)["run"] == {"steps": 5}
    assert "# [[reward]]" in out
    assert "the configuration names no reward" in err
    (desk / "trl.toml").write_text(out + REWARD)
    code, out, err = cohort("explain", "trl.toml", "--diff", "trl")
    assert code == 0, err
    assert "kl_coef" in out
    code, out, _ = cohort("config", "import", "trl.json", "--json")
    assert json.loads(out)["recipe"].startswith("# From trl.json")


def test_arguments_of_the_chat_template_come_along(imported):
    _, stage, said = imported(TRL | {"chat_template_kwargs": {"enable_thinking": False, "documents": [{"a": 1}]}})
    assert stage.task.template_args == {"enable_thinking": False}
    assert any("chat_template_kwargs.documents" in line for line in said)
    data = VERL["data"] | {"apply_chat_template_kwargs": {"enable_thinking": False}}
    assert imported(VERL | {"data": data})[1].task.template_args == {"enable_thinking": False}


@pytest.mark.parametrize("given", [{"top_p": 0.9}, {"top_k": 50}, {"min_p": 0.05}, {"top_k": -1, "top_p": 1.0}])
def test_a_truncated_distribution_is_no_recipe_that_cohort_refuses(imported, given):
    _, stage, _ = imported(TRL | given)
    assert (stage.rollout.top_p, stage.rollout.top_k, stage.rollout.min_p) == (1.0, 0, 0.0)
