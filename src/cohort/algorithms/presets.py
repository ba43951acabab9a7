"""The named objectives, as data: what each changes from the defaults of `Objective` (`grpo`), and its source.

Where a source is silent, the choice is ours, and the line with the source says so. None of the papers prints the kind
of std or the number added to it, except GDPO's toy example (sample std) and GMPO's script (sample std + 1e-8); all
other presets take sample std + 1e-6.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from cohort.algorithms.fields import nearest
from cohort.algorithms.objective import Objective, inert_fields


class Preset(NamedTuple):
    """A named objective: its title, its source in one line, and the fields in which it differs from the defaults."""

    title: str
    source: str
    fields: Mapping[str, Any]
    bypass: bool = False  # the ratio is one against the sampler: its log-probs take the place of old_logprobs

    def value(self, field: str) -> Any:
        """What the preset, or else the defaults of `Objective`, set `field` to."""
        return self.fields.get(field, getattr(Objective, field))


NO_CLIP: Mapping[str, Any] = {"clip_low": None, "clip_high": None}
CAPPED_WEIGHT = {**NO_CLIP, "surrogate": "truncated", "ratio_max": 5.0, "kl_coef": 0.0}
WHOLE_COMPLETIONS = {**NO_CLIP, "surrogate": "reinforce", "aggregation": "sequence_sum"}
BY_TOKEN = {"kl_coef": 0.0, "aggregation": "token_mean"}
BY_SEQUENCE = {"kl_coef": 0.0, "ratio_level": "sequence"}
DPPO = {**BY_TOKEN, **NO_CLIP, "surrogate": "truncated", "ratio_max": 10.0, "old": "sampler"}
K1_IN_REWARD = {"kl_estimator": "k1", "kl_place": "reward"}

PRESETS: Mapping[str, Preset] = {
    "grpo": Preset(
        "GRPO",
        "DeepSeekMath 2402.03300 eq. 3-4, KL 0.04 from section 4.2; the clip's 0.2 is not printed there",
        {},
    ),
    "r1_zero": Preset(
        "R1-Zero",
        "DeepSeek-R1 (Nature) section on R1-Zero: KL 0.001; eq. 1-2 read per token; the clip is not printed, 0.2 is "
        "ours",
        {"kl_coef": 0.001},
    ),
    "r1": Preset(
        "R1",
        "DeepSeek-R1 (Nature), first RL stage: KL 0.001, clip epsilon 10, so only the cap at ratio 11 ever acts",
        {"kl_coef": 0.001, "clip_low": 10.0, "clip_high": 10.0},
    ),
    "dr_grpo": Preset(
        "Dr. GRPO",
        "2503.20783: no std, no 1/length, no KL; divided by the constant token budget as in its Listing 1",
        {"scale": "none", "kl_coef": 0.0, "aggregation": "constant_length"},
    ),
    "dapo": Preset(
        "DAPO",
        "2503.14476 eq. 8-12 with the divisor of its code (all tokens of the batch); overlong filtering is "
        "truncated='mask'",
        {**BY_TOKEN, "clip_high": 0.28, "zero_std": "resample"},
    ),
    "gspo": Preset(
        "GSPO",
        "2507.18071 eq. 5-7 and section 5.1: length-normalised sequence ratio, clip 3e-4 / 4e-4, no KL",
        {**BY_SEQUENCE, "clip_low": 3e-4, "clip_high": 4e-4},
    ),
    "gspo_token": Preset(
        "GSPO-token",
        "2507.18071 eq. 13-14: GSPO's ratio with a token's own gradient, for advantages that differ between tokens",
        {"kl_coef": 0.0, "ratio_level": "sequence_token", "clip_low": 3e-4, "clip_high": 4e-4},
    ),
    "gmpo": Preset(
        "GMPO",
        "2507.20673 and the authors' script: geometric mean, clip 0.4 in log space before it, sample std + 1e-8, no KL",
        {"surrogate": "geometric", "clip_low": 0.4, "clip_high": 0.4, "kl_coef": 0.0, "eps": 1e-8},
    ),
    "cispo": Preset(
        "CISPO",
        "MiniMax-M1 2506.13585 eq. 4-5, no lower bound; the cap is not printed, 5 is TRL's; divisor as in code, all "
        "tokens",
        {**CAPPED_WEIGHT, **BY_TOKEN, "zero_std": "resample"},
    ),
    "sapo": Preset(
        "SAPO",
        "2511.20347: soft gate, temperatures 1 and 1.05, no KL",
        {**NO_CLIP, "surrogate": "soft", "soft_positive": 1.0, "soft_negative": 1.05, "kl_coef": 0.0},
    ),
    "luspo": Preset(
        "LUSPO",
        "2602.05261: GSPO with each completion's loss times its length, clip 2e-3 / 2.5e-3, no KL",
        {**BY_SEQUENCE, "clip_low": 2e-3, "clip_high": 2.5e-3, "aggregation": "sequence_token_sum"},
    ),
    "lite_ppo": Preset(
        "Lite-PPO",
        "2508.08221: group mean, batch std (of the raw rewards, TRL's reading), token mean, plain clip, no KL",
        {**BY_TOKEN, "scale": "batch_std"},
    ),
    "scale_rl": Preset(
        "ScaleRL",
        "2510.13786: truncated ratio to the sampler (give its log-probs as old_logprobs), cap 5 from its range 4..8, "
        "std of centred rewards, prompt mean, zero-variance groups dropped, no KL",
        {**CAPPED_WEIGHT, "scale": "centred_batch_std", "zero_std": "drop", "aggregation": "prompt_token_mean"},
        bypass=True,
    ),
    "max_rl": Preset(
        "MaxRL",
        "2602.02710: (r - mean) / mean with 0/1 rewards, the plain policy gradient of whole completions, no KL",
        {**WHOLE_COMPLETIONS, "scale": "group_mean", "eps": 0.0, "kl_coef": 0.0},
    ),
    "rloo": Preset(
        "RLOO",
        "2402.14740: leave-one-out baseline, a completion is one action, k1 in the reward at 0.03 (its TL;DR setting)",
        {**WHOLE_COMPLETIONS, **K1_IN_REWARD, "baseline": "leave_one_out", "scale": "none", "kl_coef": 0.03},
    ),
    "reinforce": Preset(
        "REINFORCE",
        "Williams 1992 with the batch's mean reward as the baseline; a completion is one action, no KL",
        {**WHOLE_COMPLETIONS, "baseline": "batch_mean", "scale": "none", "kl_coef": 0.0},
    ),
    "reinforce_pp": Preset(
        "REINFORCE++",
        "2501.03262 eq. 1 and 10: whitened over the batch, k1 in the reward at 0.001; whitening per completion is ours",
        {**K1_IN_REWARD, "baseline": "batch_mean", "scale": "batch_std", "eps": 1e-8, "kl_coef": 0.001},
    ),
    "reinforce_pp_baseline": Preset(
        "REINFORCE++-baseline",
        "2501.03262: group mean, then whitened over the batch (per completion, ours), k2 in the loss, 0.001 carried "
        "over",
        {"scale": "centred_batch_std", "eps": 1e-8, "kl_coef": 0.001, "kl_estimator": "k2"},
    ),
    "ppo": Preset(
        "PPO",
        "1707.06347 eq. 7 with GAE; advantages whitened over tokens (sqrt(var + 1e-8)) and k1 at 0.05 in the reward "
        "as in TRL",
        {
            **K1_IN_REWARD,
            "baseline": "critic",
            "scale": "centred_batch_std",
            "eps": 1e-8,
            "kl_coef": 0.05,
            "aggregation": "token_mean",
        },
    ),
    "trl": Preset(
        "TRL 1.16",
        "GRPOConfig of TRL 1.16.0: loss_type dapo, std + 1e-4, beta 0 (ratio x k3 if on), sequence mask at 3 with vLLM",
        {**BY_TOKEN, "eps": 1e-4, "kl_gradient": "weighted", "correction": "sequence_mask", "correction_max": 3.0},
    ),
    "verl": Preset(
        "verl 0.9.1",
        "actor.yaml and core_algos.py of verl 0.9.1 with adv_estimator=grpo: token-mean, dual clip 3 always on, no KL",
        {**BY_TOKEN, "dual_clip": 3.0},
    ),
    "dppo_tv": Preset(
        "DPPO (TV)",
        "2602.04879 in its authors' form (Stable-RL c6af1d1): truncated ratio to the sampler, cap 10, tokens masked by "
        "probability; the bounds are verl's example, 0.15",
        {**DPPO, "mask": "probability", "mask_low": 0.15, "mask_high": 0.15},
    ),
    "dppo_kl": Preset(
        "DPPO (KL)",
        "2602.04879 in its authors' form (Stable-RL c6af1d1), masked by the KL of a token against all others; the "
        "bounds are verl's example, 0.05",
        {**DPPO, "mask": "bernoulli_kl", "mask_low": 0.05, "mask_high": 0.05},
    ),
    "opsm": Preset(
        "OPSM",
        "DeepSeek-V3.2 2512.02556 eq. 9 on GRPO with all tokens counted alike; delta is not disclosed, 0.5 is TRL's "
        "advice; no KL, ours",
        {**BY_TOKEN, "off_policy_delta": 0.5},
    ),
    "m2po": Preset(
        "M2PO",
        "2510.01161 in AReaL's form: tokens furthest from the sampler are left out until the mean square is below "
        "0.04, then PPO's clip",
        {**BY_TOKEN, "filters": (("second_moment", None, 0.04),)},
    ),
    "vespo": Preset(
        "VESPO",
        "2602.10693: the full ratio as a weight W^k exp(lambda (1 - W)), k and lambda 2 and 3 for A >= 0, 3 and 2 for "
        "A < 0 (TRL's defaults), no clip, no KL",
        {**BY_TOKEN, **NO_CLIP, "surrogate": "gamma"},
    ),
    "real": Preset(
        "REAL",
        "2602.05630 in ms-swift's form: length-normalised scores over a temperature of 0.5, labels by the sign of the "
        "advantage, no KL",
        {**NO_CLIP, "kl_coef": 0.0, "surrogate": "label_contrast"},
    ),
    "topr": Preset(
        "TOPR",
        "2503.14286 with ROLL's ratio of tokens (the paper's is of the completion: ratio_level='sequence_product'): "
        "weight 1 for A > 0, at most 1 for the others, no KL",
        {**BY_TOKEN, **NO_CLIP, "surrogate": "truncated", "ratio_max": 1.0, "positive_weight": "one"},
    ),
    "dro": Preset(
        "DRO",
        "named after 2405.19107, without its value model, and Kimi-k1.5 (2501.12599 eq. 3): a quadratic pull to the "
        "old policy, tau 0.1 as in ROLL",
        {**BY_TOKEN, **NO_CLIP, "surrogate": "reinforce", "extras": (("drift_square", "policy", 0.05, "none"),)},
    ),
    "fipo": Preset(
        "FIPO",
        "2603.19835 in ms-swift's form: tokens weighted by how their future has moved, half-life 32, weights 1..1.2, "
        "on DAPO's clip",
        {**BY_TOKEN, "clip_high": 0.28, "future_kl_half_life": 32.0},
    ),
    "echo": Preset(
        "ECHO",
        "prime-rl 559b447 (no paper is named there): a negative log-prob of what the environment wrote, 0.1, beside "
        "GRPO over tokens",
        {**BY_TOKEN, "extras": (("nll", "observation", 0.1, "none"),)},
    ),
    "chord": Preset(
        "CHORD",
        "2508.11408: expert rows beside the policy's own, weighted by p (1 - p); the blend, 10 steps "
        "up to 0.9 and 100 down to 0.05, is ours: its sources give no numbers",
        {**BY_TOKEN, "extras": (("nll", "expert", 1.0, "uncertain"),), "blend": (10.0, 100.0, 0.9, 0.05)},
    ),
    "clip_cov": Preset(
        "Clip-Cov",
        "2505.22617: 0.0002 of the tokens, drawn from those with a covariance of 1 to 5, leave the policy term; clip "
        "0.2, no KL",
        {**BY_TOKEN, "focus": "low_covariance", "focus_share": 2e-4, "focus_low": 1.0, "focus_high": 5.0},
    ),
    "kl_cov": Preset(
        "KL-Cov",
        "2505.22617: no clip; the absolute log-ratio to the old policy, coefficient 1, on the 0.002 of the tokens with "
        "the largest covariance (its authors' 7B setting)",
        {**BY_TOKEN, **NO_CLIP, "extras": (("drift_absolute", "top_covariance(0.002)", 1.0, "none"),)},
    ),
    "top_entropy": Preset(
        "80/20",
        "2506.01939: DAPO on the 0.2 of the tokens with the highest entropy; the divisor stays that of all tokens, as "
        "in TRL",
        {**BY_TOKEN, "clip_high": 0.28, "zero_std": "resample", "focus": "top_entropy", "focus_share": 0.2},
    ),
    "or1": Preset(
        "Skywork-OR1",
        "2505.22312, constants of its scripts (64e96af): an entropy bonus steered to 0.2, steps of 0.0001 up to 0.005, "
        "no KL; the clip of 0.2 is ours",
        {**BY_TOKEN, "entropy_target": 0.2, "entropy_step": 1e-4, "entropy_max": 0.005},
    ),
    "otb": Preset(
        "OTB",
        "2602.07078 as in verl 0.9.1: a baseline for each position, weighted by gathered gradient energy, no std, no "
        "KL; the clip of 0.2 is ours",
        {**BY_TOKEN, "baseline": "token_optimal", "scale": "none"},
    ),
    "gigpo": Preset(
        "GiGPO",
        "2505.10978 with ROLL's constants: groups of steps in the same state beside the group of episodes, weight 1, "
        "discount 0.95, std + 1e-6; clip 0.2 and no KL, ours",
        {**BY_TOKEN, "credit": "states"},
    ),
    "prorl_v2": Preset(
        "ProRL v2",
        "NeMo-RL 7ea279a, prorlv2.v2.yaml: clip 0.2 / 0.27, k2 at 0.0001, group mean whitened over tokens, IcePop "
        "0.5..5, dynamic sampling",
        {
            "scale": "centred_batch_std",
            "ddof": 0,
            "eps": 0.0,
            "zero_std": "resample",
            "clip_high": 0.27,
            "kl_coef": 1e-4,
            "kl_estimator": "k2",
            "aggregation": "token_mean",
            "correction": "token_mask",
            "correction_min": 0.5,
            "correction_max": 5.0,
            "whiten_by": "token",
        },
    ),
    "prime_rl": Preset(
        "prime-rl 559b447",
        "default loss of prime-rl 559b447: ratio to the sampler, tokens masked by probability at 0.2, 0.001 of the "
        "squared log-ratio, no std, zero-variance groups dropped",
        {
            **BY_TOKEN,
            **NO_CLIP,
            "scale": "none",
            "zero_std": "drop",
            "mask": "probability",
            "mask_low": 0.2,
            "mask_high": 0.2,
            "old": "sampler",
            "extras": (("drift_square", "policy", 0.001, "none"),),
        },
    ),
}


def preset(name: str, **fields: Any) -> Objective:
    """The objective called `name` (a key of `PRESETS`), with any field of `Objective` changed. A field that the preset
    sets and that can no longer act, such as the bound of a correction that is switched off, goes back to its default.

    Raises ValueError for an unknown name or field, with the nearest known one.
    """
    if name not in PRESETS:
        raise ValueError(f"{name!r} is not a preset{nearest(name, PRESETS)}")
    own = PRESETS[name].fields
    whole = {**own, **fields}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        switched_off = inert_fields(Objective.from_dict(whole)).keys() - inert_fields(Objective.from_dict(own)).keys()
    return Objective.from_dict({key: value for key, value in whole.items() if key in fields or key not in switched_off})
