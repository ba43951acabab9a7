"""verl's trainer configuration (YAML, or the overrides of its command line) as a recipe. Facts are of verl 0.9.1."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cohort.integrations.configurations.base import Draft, Given, Imported
from cohort.recipe.loader import directory_name

ORDER = ("policy", "task", "rollout", "reward", "objective", "critic", "optimizer", "evaluate", "run")
MODEL, ACTOR, ROLLOUT = "actor_rollout_ref.model", "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
AGGREGATIONS = {
    "token-mean": "token_mean",
    "seq-mean-token-sum": "sequence_sum",
    "seq-mean-token-mean": "sequence_mean",
    "seq-mean-token-sum-norm": "constant_length",
}
# What an estimator of advantages is here. Whitening is over tokens in verl, over completions here.
ESTIMATORS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "grpo_vectorized": {},
    "gdpo": {"rewards": "normalise_then_sum"},
    "rloo": {"baseline": "leave_one_out", "scale": "none"},
    "rloo_vectorized": {"baseline": "leave_one_out", "scale": "none"},
    "reinforce_plus_plus": {"baseline": "none", "scale": "batch_std", "eps": 1e-8},
    "reinforce_plus_plus_baseline": {"scale": "centred_batch_std", "eps": 1e-8},
    "gae": {"baseline": "critic", "scale": "centred_batch_std", "eps": 1e-8},
}
KL = {"kl": "k1", "k1": "k1", "mse": "k2", "k2": "k2", "low_var_kl": "k3", "k3": "k3"}
OFF = {"clip_low": "off", "clip_high": "off", "dual_clip": "off"}


def read(given: Given, source: str) -> Imported:
    """The recipe with the same objective, batch arithmetic and sampling."""
    draft = Draft(given)
    name = str(given.get("trainer.experiment_name", "verl"))
    draft.head = {"name": (directory_name(name), ""), "seed": (given.whole("data.seed", 0), "data.seed")}
    _policy(draft)
    _task(draft)
    _rollout(draft)
    _rewards(draft)
    _objective(draft)
    _kl(draft)
    _optimizer(draft)
    _run(draft)
    draft.put_columns()
    return draft.done(source, ORDER)


def _policy(draft: Draft) -> None:
    given = draft.given
    draft.put_model(f"{MODEL}.path")
    draft.put("policy", "compute", "bfloat16", "verl computes in bfloat16 on float32 weights")
    if given.flag(f"{MODEL}.trust_remote_code") or given.flag("data.trust_remote_code"):
        draft.put("policy", "trust_remote_code", True, "trust_remote_code")
    if rank := given.whole(f"{MODEL}.lora_rank", given.whole(f"{MODEL}.lora.rank", 0)):
        alpha = given.number(f"{MODEL}.lora_alpha", given.number(f"{MODEL}.lora.alpha", 16))
        targets = given.get(f"{MODEL}.target_modules", "all-linear")
        draft.put("policy.lora", "rank", rank, "lora_rank")
        draft.put("policy.lora", "alpha", float(alpha), "lora_alpha")
        draft.put("policy.lora", "targets", targets, "target_modules")


def _task(draft: Draft) -> None:
    given = draft.given
    for key, foreign in (("source", "data.train_files"), ("held_out", "data.val_files")):
        files = given.get(foreign)
        first, *others = files if isinstance(files, list) and files else [files]
        if key == "source":
            draft.put_source(first, foreign, "train.parquet")
        elif first is not None:
            draft.put("task", key, str(first), foreign)
        if others:
            draft.notes.append(f"no counterpart: {foreign} has {len(others)} more files; see task.mixture")
    draft.put("task", "prompt", str(given.get("data.prompt_key", "prompt")), "data.prompt_key, a column of messages")
    draft.put("task", "answer", "reward_model.ground_truth", "verl's layout of rows")
    draft.put("task", "max_prompt_tokens", given.whole("data.max_prompt_length", 512), "data.max_prompt_length")
    draft.put_template_args("data.apply_chat_template_kwargs")
    rule = str(given.get("data.truncation", "error"))
    if given.flag("data.filter_overlong_prompts"):
        draft.put("task", "too_long", "drop", "data.filter_overlong_prompts")
    elif rule == "left":
        draft.put("task", "too_long", "truncate_left", "data.truncation")
    elif rule != "error":
        draft.notes.append(f"no counterpart: data.truncation = {rule!r}; the recipe refuses prompts that are too long")
    if (limit := given.whole("data.train_max_samples", -1)) > 0:
        draft.put("task", "limit", limit, "data.train_max_samples")


def _rollout(draft: Draft) -> None:
    given = draft.given
    prompts, group = given.count("data.train_batch_size", 1024), given.count(f"{ROLLOUT}.n", 1)
    draft.put("rollout", "prompts_per_step", prompts, "data.train_batch_size")
    draft.put("rollout", "group_size", group, "rollout.n")
    draft.put("rollout", "max_tokens", given.whole("data.max_response_length", 512), "data.max_response_length")
    draft.put("rollout", "temperature", float(given.number(f"{ROLLOUT}.temperature", 1.0)), "rollout.temperature")
    truncated = {"top_p": given.number(f"{ROLLOUT}.top_p", 1), "top_k": given.whole(f"{ROLLOUT}.top_k", -1)}
    draft.whole_distribution(truncated)
    mini = given.count(f"{ACTOR}.ppo_mini_batch_size", 256)
    updates = max(1, prompts // mini)
    if prompts % mini and prompts > mini:
        draft.notes.append(f"ppo_mini_batch_size = {mini} does not divide {prompts} prompts: {updates} updates a batch")
    if updates > 1:
        draft.put("optimizer", "updates_per_batch", updates, f"train_batch_size / ppo_mini_batch_size ({mini})")
    if (epochs := given.whole(f"{ACTOR}.ppo_epochs", 1)) > 1:
        draft.put("optimizer", "epochs", epochs, "ppo_epochs")
    if (samples := given.whole(f"{ROLLOUT}.val_kwargs.n", 1)) > 1:
        draft.put("evaluate", "samples", samples, "val_kwargs.n")
        draft.put("evaluate", "temperature", float(given.number(f"{ROLLOUT}.val_kwargs.temperature", 0)), "val_kwargs")


def _rewards(draft: Draft) -> None:
    given = draft.given
    draft.tables["reward"] = {}
    at = "reward.custom_reward_function" if "reward.custom_reward_function.path" in given else "custom_reward_function"
    path, name = given.get(f"{at}.path"), given.get(f"{at}.name", "compute_score")
    line = '[[reward]]\n# use = "exact_number"  # or math, or module:function'
    if path is None:
        draft.wanted("reward", line, "verl chooses a reward by the column data_source: name one with [[reward]]")
    else:
        draft.wanted(
            "reward",
            f'[[reward]]\n# use = "{Path(str(path)).stem}:{name}"',
            f"{path}:{name} takes (data_source, solution_str, ground_truth, extra_info): write a reward that takes "
            "(completion, answer) and calls it",
        )


def _objective(draft: Draft) -> None:
    given = draft.given
    put = lambda key, value, source: draft.put("objective", key, value, source)  # noqa: E731
    put("preset", "verl", "verl's defaults")
    estimator = str(given.get("algorithm.adv_estimator", "gae"))
    if estimator not in ESTIMATORS:
        draft.notes.append(f"no counterpart: algorithm.adv_estimator = {estimator!r}; THE ADVANTAGES DIFFER: grpo's")
    for key, value in ESTIMATORS.get(estimator, {}).items():
        put(key, value, f"algorithm.adv_estimator = {estimator}")
    if estimator == "gae":
        draft.put("critic", "gamma", float(given.number("algorithm.gamma", 1.0)), "algorithm.gamma")
        draft.put("critic", "lam", float(given.number("algorithm.lam", 1.0)), "algorithm.lam")
        draft.put("critic", "learning_rate", float(given.number("critic.optim.lr", 1e-5)), "critic.optim.lr")
        draft.put("critic", "value_clip", float(given.number("critic.cliprange_value", 0.5)), "critic.cliprange_value")
    elif estimator.startswith("grpo") and not given.flag("algorithm.norm_adv_by_std_in_grpo", True):
        put("scale", "none", "norm_adv_by_std_in_grpo")
    if estimator.startswith("reinforce"):
        draft.notes.append(f"{estimator} whitens over tokens in verl, over completions here")
    if given.flag("algorithm.filter_groups.enable"):
        put("zero_std", "resample", "filter_groups.enable")
        if (most := given.whole("algorithm.filter_groups.max_num_gen_batches", 0)) > 0:
            draft.put("rollout", "resample_cap", most, "max_num_gen_batches")
    loss = str(given.get(f"{ACTOR}.policy_loss.loss_mode", "vanilla"))
    plain = given.number(f"{ACTOR}.clip_ratio", 0.2)
    # verl's own files set both bounds to 0.2, so clip_ratio alone changes nothing there unless they are null.
    nulls = {side: given.is_null(f"{ACTOR}.clip_ratio_{side}") for side in ("low", "high")}
    low, high = (
        float(given.number(f"{ACTOR}.clip_ratio_{side}", plain if null else 0.2)) for side, null in nulls.items()
    )
    if plain != 0.2 and (low, high) == (0.2, 0.2):
        draft.notes.append(f"clip_ratio = {plain:g} does nothing in verl beside clip_ratio_low and _high = 0.2")
    clips = {} if (low, high) == (0.2, 0.2) else {"clip_low": low, "clip_high": high}
    cap = float(given.number(f"{ACTOR}.clip_ratio_c", 3.0))
    own: dict[str, Any]
    if loss == "vanilla":
        own = {**clips, **({"dual_clip": cap} if cap != 3.0 else {})}
    elif loss == "gspo":
        own = {"ratio_level": "sequence_token", "clip_low": low, "clip_high": high, "dual_clip": "off"}
    elif loss == "geo_mean":
        own = {"surrogate": "geometric", "clip_low": low, "clip_high": high, "dual_clip": "off"}
    elif loss == "cispo":
        own = {"surrogate": "truncated", **OFF, "ratio_max": 1 + high}
        draft.notes.append(f"cispo has no lower bound here; verl bounds the ratio by {1 - low:g} from below")
    elif loss == "sapo":
        taus = {"soft_positive": ("tau_pos", 1.0), "soft_negative": ("tau_neg", 1.05)}
        own = {"surrogate": "soft", **OFF}
        own |= {key: float(given.number(f"{ACTOR}.{name}", value)) for key, (name, value) in taus.items()}
    elif loss == "gpg":
        own = {"surrogate": "reinforce", **OFF}
    else:
        own = clips
        draft.notes.append(f"no counterpart: policy_loss.loss_mode = {loss!r}; THE LOSS DIFFERS: it is vanilla here")
    for key, value in own.items():
        put(key, value, "clip_ratio" if loss == "vanilla" else f"loss_mode = {loss}")
    mode = str(given.get(f"{ACTOR}.loss_agg_mode", "token-mean"))
    if mode not in AGGREGATIONS:
        draft.notes.append(f"no counterpart: loss_agg_mode = {mode!r}; THE DIVISOR DIFFERS: token-mean here")
    elif mode != "token-mean":
        put("aggregation", AGGREGATIONS[mode], f"loss_agg_mode = {mode}")
    if (factor := given.number(f"{ACTOR}.loss_scale_factor")) is not None:
        draft.notes.append(f"no counterpart: loss_scale_factor = {factor:g}; constant_length divides by max_tokens")
    if entropy := float(given.number(f"{ACTOR}.entropy_coeff", 0)):
        put("entropy_coef", entropy, "entropy_coeff")
    weighed = given.get("algorithm.rollout_correction.rollout_is")
    if weighed in ("token", "sequence"):
        put("correction", f"{weighed}_truncate", "rollout_correction.rollout_is")
        most = float(given.number("algorithm.rollout_correction.rollout_is_threshold", 2.0))
        put("correction_max", most, "rollout_is_threshold")
    elif weighed is not None:
        draft.notes.append(f"no counterpart: rollout_correction.rollout_is = {weighed!r}")
    if given.flag("algorithm.rollout_correction.bypass_mode"):
        put("bypass", True, "rollout_correction.bypass_mode")


def _kl(draft: Draft) -> None:
    """verl has a KL in the loss, in the reward, both, or none; a recipe has one."""
    given = draft.given
    in_loss, in_reward = given.flag(f"{ACTOR}.use_kl_loss"), given.flag("algorithm.use_kl_in_reward")
    if in_loss and in_reward:
        draft.notes.append("no counterpart: use_kl_in_reward beside use_kl_loss; the recipe has the one in the loss")
    if in_loss:
        kind, place, at = str(given.get(f"{ACTOR}.kl_loss_type", "low_var_kl")), "loss", "kl_loss_coef"
        coefficient = float(given.number(f"{ACTOR}.kl_loss_coef", 0.001))
    elif in_reward:
        kind, place, at = str(given.get("algorithm.kl_penalty", "kl")), "reward", "kl_ctrl.kl_coef"
        coefficient = float(given.number("algorithm.kl_ctrl.kl_coef", 0.001))
        if (control := str(given.get("algorithm.kl_ctrl.type", "fixed"))) != "fixed":
            draft.notes.append(f"no counterpart: kl_ctrl.type = {control!r}; the coefficient stays as it is")
    else:
        return
    estimator = KL.get(kind)
    if estimator is None:
        draft.notes.append(f"no counterpart: the KL {kind!r}; THE LOSS DIFFERS: k3 here")
    draft.put("objective", "kl_coef", coefficient, at)
    draft.put("objective", "kl_estimator", estimator or "k3", kind)
    draft.put("objective", "kl_place", place, f"use_kl_{'loss' if in_loss else 'in_reward'}")


def _optimizer(draft: Draft) -> None:
    given = draft.given
    at = f"{ACTOR}.optim"
    draft.put("optimizer", "learning_rate", float(given.number(f"{at}.lr", 1e-6)), "optim.lr")
    draft.put("optimizer", "weight_decay", float(given.number(f"{at}.weight_decay", 0.01)), "optim.weight_decay")
    clip = given.number(f"{ACTOR}.grad_clip", given.number(f"{at}.clip_grad", 1.0))
    draft.put("optimizer", "gradient_clip", float(clip), "grad_clip")
    if (betas := given.numbers(f"{at}.betas", [0.9, 0.999])) != [0.9, 0.999]:
        draft.put("optimizer", "betas", betas, "optim.betas")
    schedule = str(given.get(f"{at}.lr_scheduler_type", given.get(f"{at}.warmup_style", "constant")))
    if schedule in ("cosine", "linear"):
        draft.put("optimizer", "schedule", schedule, "optim.lr_scheduler_type")
        least = float(given.number(f"{at}.min_lr_ratio", 0.0))
        draft.notes.append(f"{schedule} ends at {least:g} of the rate in verl, at a tenth of it here")
    elif schedule != "constant":
        draft.notes.append(f"no counterpart: lr_scheduler_type = {schedule!r}; the recipe has a constant rate")


def _run(draft: Draft) -> None:
    given = draft.given
    steps = given.whole("trainer.total_training_steps")
    passes = given.number("trainer.total_epochs", 30)
    if steps is None:
        draft.want_steps(passes, "trainer.total_epochs")
    else:
        draft.put("run", "steps", steps, "trainer.total_training_steps")
    warm = given.whole(f"{ACTOR}.optim.lr_warmup_steps", -1)
    ratio = float(given.number(f"{ACTOR}.optim.lr_warmup_steps_ratio", 0.0))
    if warm <= 0 and ratio and steps is not None:
        warm = math.floor(ratio * steps)
    elif warm <= 0 and ratio:
        draft.open.append(f"lr_warmup_steps_ratio = {ratio:g} of steps that are not known: set optimizer.warmup_steps")
    if warm > 0:
        draft.put("optimizer", "warmup_steps", warm, "optim.lr_warmup_steps")
    for key, foreign in (("save_every", "trainer.save_freq"), ("evaluate_every", "trainer.test_freq")):
        if (every := given.whole(foreign, -1)) > 0:
            draft.put("run", key, every, foreign)
    if (keep := given.whole("trainer.max_actor_ckpt_to_keep")) is not None:
        draft.put("run", "keep_checkpoints", keep, "max_actor_ckpt_to_keep")
    draft.put_trackers("trainer.logger", nowhere="console")
