"""TRL's GRPOConfig, with what its command line adds (model, data, rewards), as a recipe. Facts are of TRL 1.16.0."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cohort.integrations.configurations.base import TRUNCATES, Draft, Given, Imported
from cohort.recipe.loader import directory_name
from cohort.settings.table import as_list
from cohort.types import UserError
from cohort.wording import did_you_mean

ORDER = ("policy", "task", "rollout", "reward", "objective", "reference", "optimizer", "evaluate", "run")
AGGREGATIONS = {
    "grpo": "sequence_mean",
    "dapo": "token_mean",
    "bnpo": "token_mean",
    "dr_grpo": "constant_length",
    "cispo": "token_mean",
    "sapo": "sequence_mean",
    "luspo": "sequence_sum",
}
REWARDS: dict[str, dict[str, Any]] = {
    "accuracy_reward": {"use": "math"},
    "reasoning_accuracy_reward": {"use": "math"},
    "think_format_reward": {"use": "think_format"},
    "get_soft_overlong_punishment": {"use": "soft_overlong", "args": {"max_tokens": 1280, "buffer": 256}},
}
SCALES = {"group": "group_std", "batch": "batch_std", "none": "none", "true": "group_std", "false": "none"}
# Keys of GRPOConfig, ModelConfig and the arguments of its script; beside those of transformers' TrainingArguments.
KEYS = """
    attn_implementation beta bnb_4bit_quant_storage bnb_4bit_quant_type cache_implementation cast_lm_head_to_fp32
    chat_template_kwargs dataset_config dataset_name dataset_streaming dataset_test_split dataset_train_split datasets
    delta disable_dropout ds3_gather_for_generation dtype entropy_coef entropy_coef_delta entropy_coef_max
    entropy_coef_min entropy_target env epsilon epsilon_high generation_batch_size generation_kwargs
    ignore_bias_buffers importance_sampling_level load_in_4bit load_in_8bit log_completions log_completions_hub_repo
    log_multimodal log_unique_prompts lora_alpha lora_dropout lora_modules_to_save lora_r lora_target_modules
    lora_target_parameters lora_task_type loss_type mask_truncated_completions max_completion_length
    max_tool_calling_iterations min_p model_init_kwargs model_name_or_path model_revision multi_objective_aggregation
    num_completions_to_print num_generations num_generations_eval num_iterations off_policy_mask_threshold
    pad_to_multiple_of ref_model_mixup_alpha ref_model_sync_steps repetition_penalty reward_funcs
    reward_model_name_or_path reward_weights router_aux_loss_coef sapo_temperature_neg sapo_temperature_pos
    scale_rewards shuffle_dataset steps_per_generation streaming sync_ref_model temperature test_split_size
    top_entropy_quantile top_k top_p transformers_continuous_batching_config trust_remote_code use_adaptive_entropy
    use_bias_correction_kl use_bnb_nested_quant use_dora use_peft use_rslora use_transformers_continuous_batching
    use_transformers_paged use_vllm vespo_k_neg vespo_k_pos vespo_lambda_neg vespo_lambda_pos vllm_enable_sleep_mode
    vllm_gpu_memory_utilization vllm_group_port vllm_importance_sampling_cap vllm_importance_sampling_clip_max
    vllm_importance_sampling_clip_min vllm_importance_sampling_correction vllm_importance_sampling_mode
    vllm_max_model_length vllm_mode vllm_model_impl vllm_server_base_url vllm_server_host vllm_server_port
    vllm_server_timeout vllm_structured_outputs_regex vllm_tensor_parallel_size
"""


def read(given: Given, source: str) -> Imported:
    """The recipe with the same objective, batch arithmetic and sampling. Raises `UserError` for values that TRL would
    refuse, too.
    """
    draft = Draft(given)
    name = str(given.get("run_name") or Path(str(given.get("output_dir", "trl"))).name)
    draft.head = {"name": (directory_name(name), ""), "seed": (given.whole("seed", 42), "seed")}
    _policy(draft)
    _task(draft)
    updates = _batch(draft)
    _sampling(draft)
    _rewards(draft)
    _objective(draft, updates)
    _optimizer(draft, updates)
    draft.put_columns()
    _say_unknown(draft)
    return draft.done(source, ORDER)


def _say_unknown(draft: Draft) -> None:
    """Keys that nobody took and TRL does not have either are slips, as a rule."""
    if not (rest := draft.given.rest()):
        return
    from transformers import TrainingArguments

    known = [*KEYS.split(), *TrainingArguments.__dataclass_fields__]
    unknown = [key for key in rest if key.partition(".")[0] not in known]
    draft.open += [
        f"{key} = {draft.given.get(key)!r}: TRL 1.16 has no such key{did_you_mean(key, known)}" for key in unknown
    ]


def _policy(draft: Draft) -> None:
    given = draft.given
    inner = given.get("model_init_kwargs", {})
    options = dict(inner) if isinstance(inner, dict) else {}
    if not isinstance(inner, dict):
        draft.notes.append(f"no counterpart: model_init_kwargs = {inner!r}")
    dtype = given.get("dtype", given.get("torch_dtype", options.pop("dtype", options.pop("torch_dtype", None))))
    revision = given.get("model_revision", options.pop("revision", None))
    draft.put_model("model_name_or_path")
    if revision not in (None, "main"):
        draft.put("policy", "revision", str(revision), "model_revision")
    if str(dtype).removeprefix("torch.") == "bfloat16":
        draft.put("policy", "dtype", "bfloat16", "dtype")
    elif dtype not in (None, "auto") and str(dtype).removeprefix("torch.") != "float32":
        draft.notes.append(f"no counterpart: dtype = {dtype!r}; the recipe keeps float32 weights")
    if given.flag("fp16"):
        draft.notes.append("no counterpart: fp16 = True; policy.compute is float32 or bfloat16")
        draft.put("policy", "compute", "float32", "fp16 has no counterpart")
    elif given.flag("bf16", True):
        draft.put("policy", "compute", "bfloat16", "bf16" if "bf16" in given else "bf16 is TRL's default")
    if given.flag("trust_remote_code"):
        draft.put("policy", "trust_remote_code", True, "trust_remote_code")
    draft.notes += [f"no counterpart: model_init_kwargs.{key} = {value!r}" for key, value in options.items()]
    if given.flag("use_peft"):
        draft.put("policy.lora", "rank", given.whole("lora_r", 16), "lora_r")
        draft.put("policy.lora", "alpha", float(given.number("lora_alpha", 32)), "lora_alpha")
        targets = given.get("lora_target_modules")
        if targets in (None, "all-linear", ["all-linear"]):
            source = "lora_target_modules" if targets else "peft chooses by architecture where TRL is told nothing"
            draft.put("policy.lora", "targets", "all-linear", source)
        else:
            named = [str(target) for target in as_list(targets)]
            draft.put("policy.lora", "targets", named, "lora_target_modules")
        for flag, key in (("use_rslora", "rslora"), ("use_dora", "dora")):
            if given.flag(flag):
                draft.put("policy.lora", key, True, flag)
        if saved := as_list(given.get("lora_modules_to_save") or []):
            draft.put("policy.lora", "modules_to_save", [str(name) for name in saved], "lora_modules_to_save")
        if dropout := given.number("lora_dropout", 0.0):
            draft.notes.append(f"no counterpart: lora_dropout = {dropout:g}; adapters here have no dropout")


def _task(draft: Draft) -> None:
    given = draft.given
    data = given.get("dataset_name")
    draft.put_source(data, "dataset_name", "train.jsonl")
    draft.put_template_args("chat_template_kwargs")
    if (config := given.get("dataset_config")) is not None:
        draft.put("task", "config", str(config), "dataset_config")
    if (split := given.get("dataset_train_split", "train")) != "train":
        draft.put("task", "split", str(split), "dataset_train_split")
    if str(given.get("eval_strategy", "no")) != "no" and data is not None:
        draft.put("task", "held_out_split", str(given.get("dataset_test_split", "test")), "dataset_test_split")


def _batch(draft: Draft) -> int:
    """The batch arithmetic. Returns the optimizer updates of one training step, which TRL counts as its steps."""
    given = draft.given
    device, accumulated = given.count("per_device_train_batch_size", 8), given.count("gradient_accumulation_steps", 1)
    group, epochs = given.count("num_generations", 8), given.count("num_iterations", 1)
    micro, whole = given.whole("steps_per_generation"), given.whole("generation_batch_size")
    if micro is not None and whole is not None:
        raise UserError("generation_batch_size and steps_per_generation cannot both be given: TRL refuses it, too")
    if whole is not None:
        if whole % device:
            raise UserError(f"generation_batch_size = {whole} is no multiple of per_device_train_batch_size = {device}")
        micro = whole // device
    micro = accumulated if micro is None else micro
    if micro < 1:
        raise UserError("generation_batch_size and steps_per_generation must be at least 1: mend the configuration")
    completions = device * micro
    if completions % group:
        raise UserError(
            f"{completions} completions ({device} a device x {micro} steps a generation) are no multiple of "
            f"num_generations = {group}: TRL refuses it, too"
        )
    how = f"{device} a device x {micro} micro-batches / {group} completions, on one process"
    draft.put("rollout", "prompts_per_step", completions // group, how)
    draft.put("rollout", "group_size", group, "num_generations")
    draft.notes.append(
        f"one process is assumed: on N of them TRL samples N x {completions} completions, so multiply "
        "rollout.prompts_per_step by N"
    )
    updates = max(1, micro // accumulated)
    if micro % accumulated:
        draft.notes.append(f"{micro} micro-batches are no multiple of {accumulated}: {updates} updates a batch")
    if updates > 1:
        draft.put("optimizer", "updates_per_batch", updates, "steps_per_generation / gradient_accumulation_steps")
    if epochs > 1:
        draft.put("optimizer", "epochs", epochs, "num_iterations")
    return int(updates * epochs)


def _sampling(draft: Draft) -> None:
    given = draft.given
    draft.put("rollout", "max_tokens", given.whole("max_completion_length", 512), "max_completion_length")
    draft.put("rollout", "temperature", float(given.number("temperature", 1.0)), "temperature")
    draft.whole_distribution({key: given.number(key, plain) for key, plain in TRUNCATES.items()})
    if (longest := given.whole("max_prompt_length")) is not None:  # of TRL before 1.0
        draft.put("task", "max_prompt_tokens", longest, "max_prompt_length")
        draft.put("task", "too_long", "truncate_left", "as TRL did")
    if (penalty := given.number("repetition_penalty", 1.0)) != 1.0:
        draft.notes.append(f"no counterpart: repetition_penalty = {penalty:g}; sampling differs")


def _rewards(draft: Draft) -> None:
    given = draft.given
    names = [str(name) for name in as_list(given.get("reward_funcs", []))]
    weights = given.numbers("reward_weights")
    rewards: list[dict[str, Any]] = []
    if (model := given.get("reward_model_name_or_path")) is not None:
        rewards.append({"use": "reward_model", "args": {"model": str(model)}})
    for name in names:
        if name in REWARDS:
            rewards.append(dict(REWARDS[name]))
            if REWARDS[name]["use"] == "math":
                draft.put("task", "answer", "solution", f"{name} reads the column solution")
                draft.notes.append(f"{name}: the reward math stands for it, and reads answers by its own rules")
        elif "." in name:
            module, _, function = name.rpartition(".")
            rewards.append({"use": f"{module}:{function}", "style": "trl"})
        else:
            draft.notes.append(f"no counterpart: reward_funcs has {name!r}, which is no dotted name")
    if weights and len(weights) != len(rewards):
        draft.notes.append(f"reward_weights = {weights} for {len(rewards)} rewards: set each reward's weight")
    elif weights:
        rewards = [{**reward, "weight": weight} for reward, weight in zip(rewards, weights)]
    draft.rewards = rewards
    draft.tables["reward"] = {}
    if not rewards:
        draft.wanted(
            "reward", '[[reward]]\n# use = "module:function"\n# style = "trl"', "the configuration names no reward"
        )


def _objective(draft: Draft, updates: int) -> None:
    given = draft.given
    put = lambda key, value, source: draft.put("objective", key, value, source)  # noqa: E731
    put("preset", "trl", "TRL's defaults")
    loss = str(given.get("loss_type", "dapo"))
    if loss not in AGGREGATIONS:
        draft.notes.append(
            f"no counterpart: loss_type = {loss!r}; THE LOSS DIFFERS: the recipe has TRL's default, dapo"
        )
    elif loss != "dapo":
        put("aggregation", AGGREGATIONS[loss], f"loss_type = {loss}")
    if loss == "bnpo":
        draft.notes.append(
            "loss_type = bnpo divides by the tokens of each micro-batch; the recipe by those of an update"
        )
    low = float(given.number("epsilon", 0.2))
    high = float(given.number("epsilon_high", low))
    if loss == "cispo":
        put("surrogate", "truncated", "loss_type = cispo")
        put("ratio_max", max(high, 1.0), "epsilon_high, or epsilon")
        if high < 1:
            draft.notes.append(f"cispo with epsilon_high = {high:g} caps each ratio there: TRL means 5 or so; 1 here")
    if loss == "sapo":
        put("surrogate", "soft", "loss_type = sapo")
        for key, own, plain in (("soft_positive", "pos", 1.0), ("soft_negative", "neg", 1.05)):
            put(key, float(given.number(f"sapo_temperature_{own}", plain)), f"sapo_temperature_{own}")
    if loss in ("cispo", "sapo"):
        put("clip_low", "off", f"loss_type = {loss}")
        put("clip_high", "off", f"loss_type = {loss}")
    elif (low, high) != (0.2, 0.2):
        put("clip_low", low, "epsilon")
        put("clip_high", high, "epsilon_high" if "epsilon_high" in given else "epsilon")
    if (delta := given.number("delta")) is not None and loss in ("cispo", "sapo"):
        draft.notes.append(f"delta = {delta:g} does nothing in TRL where loss_type is {loss}")
    elif delta is not None:  # which caps the ratio of every token; the upper clip is nearer where A > 0, as a rule
        put("dual_clip" if delta >= 1 + high else "ratio_max", float(delta), "delta")
    if (level := str(given.get("importance_sampling_level", "token"))) != "token":
        put("ratio_level", level, "importance_sampling_level")
    scale = str(given.get("scale_rewards", "group")).lower()
    if scale not in SCALES:
        raise UserError(f"scale_rewards is group, batch or none, not {scale!r}")
    if SCALES[scale] != "group_std":
        put("scale", SCALES[scale], "scale_rewards")
    sums = str(given.get("multi_objective_aggregation", "sum_then_normalize"))
    if sums not in ("sum_then_normalize", "normalize_then_sum"):
        raise UserError(f"multi_objective_aggregation is sum_then_normalize or normalize_then_sum, not {sums!r}")
    if sums == "normalize_then_sum":
        put("rewards", "normalise_then_sum", "multi_objective_aggregation")
    beta, unbiased = float(given.number("beta", 0.0)), given.flag("use_bias_correction_kl", True)
    if beta:
        put("kl_coef", beta, "beta")
        put("kl_gradient", "weighted" if unbiased else "pathwise", "use_bias_correction_kl")
    if given.flag("mask_truncated_completions"):
        put("truncated", "mask", "mask_truncated_completions")
    if entropy := float(given.number("entropy_coef", 0.0)):
        put("entropy_coef", entropy, "entropy_coef")
    _correction(draft)
    if given.flag("sync_ref_model"):
        every = _steps(draft, given.count("ref_model_sync_steps", 512), updates, "ref_model_sync_steps")
        draft.put("reference", "update_every", every, f"ref_model_sync_steps{_of_updates(updates)}")
        share = round(1 - float(given.number("ref_model_mixup_alpha", 0.6)), 12)
        draft.put("reference", "ema", share, "1 - ref_model_mixup_alpha: the share of the old reference")


def _correction(draft: Draft) -> None:
    """TRL weighs by old policy / sampler only where vLLM samples."""
    given = draft.given
    vllm = given.flag("use_vllm")
    if not vllm or not given.flag("vllm_importance_sampling_correction", True):
        why = "vllm_importance_sampling_correction" if vllm else "TRL corrects only where vLLM samples"
        draft.put("objective", "correction", "off", why)
        return
    mode = str(given.get("vllm_importance_sampling_mode", "sequence_mask"))
    cap = given.number("vllm_importance_sampling_clip_max", given.number("vllm_importance_sampling_cap"))
    low = given.number("vllm_importance_sampling_clip_min")
    draft.notes.append("use_vllm: the recipe samples with the learner's own module, whose log-probs are the learner's")
    if mode != "sequence_mask":
        draft.put("objective", "correction", mode, "vllm_importance_sampling_mode")
    if cap is not None and cap != 3.0:
        draft.put("objective", "correction_max", float(cap), "vllm_importance_sampling_clip_max")
    if low is not None:
        draft.put("objective", "correction_min", float(low), "vllm_importance_sampling_clip_min")


def _optimizer(draft: Draft, updates: int) -> None:
    given = draft.given
    put = lambda key, value, source: draft.put("optimizer", key, value, source)  # noqa: E731
    put("learning_rate", float(given.number("learning_rate", 1e-6)), "learning_rate")
    schedule = str(given.get("lr_scheduler_type", "linear"))
    if schedule in ("linear", "cosine"):
        put("schedule", schedule, "lr_scheduler_type" if "lr_scheduler_type" in given else "TRL's default")
        draft.notes.append(f"lr_scheduler_type = {schedule} ends at 0 in TRL, at a tenth of the rate here")
    elif schedule not in ("constant", "constant_with_warmup"):
        draft.notes.append(f"no counterpart: lr_scheduler_type = {schedule!r}; the recipe has a constant rate")
    optimizer = str(given.get("optim", "adamw_torch_fused"))
    if not optimizer.startswith("adamw_torch"):
        draft.notes.append(f"no counterpart: optim = {optimizer!r}; the recipe has AdamW in 32 bits")
    betas = [float(given.number("adam_beta1", 0.9)), float(given.number("adam_beta2", 0.999))]
    if betas != [0.9, 0.999]:
        put("betas", betas, "adam_beta1, adam_beta2")
    for key, foreign, plain in (("eps", "adam_epsilon", 1e-8), ("weight_decay", "weight_decay", 0.0)):
        if (value := float(given.number(foreign, plain))) != plain:
            put(key, value, foreign)
    norm = 0.0 if given.is_null("max_grad_norm") else given.number("max_grad_norm", 1.0)
    put("gradient_clip", float(norm), "max_grad_norm")

    def steps(count: float, what: str) -> int:
        return _steps(draft, count, updates, what)

    each = _of_updates(updates)
    most = given.whole("max_steps", -1)
    if most > 0:
        draft.put("run", "steps", steps(most, "max_steps"), f"max_steps{each}")
        given.get("num_train_epochs")  # which max_steps overrides, in TRL too
    else:
        draft.want_steps(given.number("num_train_epochs", 3.0), "num_train_epochs")
    warm, ratio = given.number("warmup_steps", 0), float(given.number("warmup_ratio", 0.0))
    if 0 < warm < 1:  # which transformers takes as a share, too
        warm, ratio = 0, warm
    if not warm and ratio and most > 0:
        warm = math.ceil(ratio * most)
    elif ratio and not warm and schedule != "constant":
        draft.open.append(f"warmup_ratio = {ratio:g} of steps that are not known: set optimizer.warmup_steps")
    if warm and schedule == "constant":
        draft.notes.append("a warmup does nothing in TRL where lr_scheduler_type is constant: the recipe has none")
    elif warm:
        put("warmup_steps", steps(warm, "warmup_steps"), f"warmup_steps{each}")
    if "save_steps" in given and _by_steps(draft, "save_strategy", "steps"):
        draft.put("run", "save_every", steps(given.number("save_steps"), "save_steps"), "save_steps")
    if (keep := given.whole("save_total_limit")) is not None:
        draft.put("run", "keep_checkpoints", keep, "save_total_limit")
    if _by_steps(draft, "eval_strategy", "no") and "eval_steps" in given:
        draft.put("run", "evaluate_every", steps(given.number("eval_steps"), "eval_steps"), "eval_steps")
    draft.put_trackers("report_to", nowhere="none")
    place = Path(str(given.get("output_dir", "runs/trl"))).parent
    if str(place) not in (".", "runs"):
        draft.put("run", "directory", str(place), "output_dir")


def _of_updates(updates: int) -> str:
    return f", of {updates} updates each" if updates > 1 else ""


def _steps(draft: Draft, count: float, updates: int, what: str) -> int:
    """As many steps as hold `count` optimizer updates, which TRL counts as its steps."""
    if count % updates:
        draft.notes.append(f"{what} = {count:g} updates are no whole number of steps of {updates} updates: rounded up")
    return math.ceil(count / updates)


def _by_steps(draft: Draft, key: str, default: str) -> bool:
    """Whether something is done every so many steps; another rhythm than steps or never is said."""
    strategy = str(draft.given.get(key, default))
    if strategy not in ("steps", "no"):
        draft.notes.append(f"no counterpart: {key} = {strategy!r}; the recipe counts steps")
    return strategy == "steps"
