"""One member of the GRPO family as plain data: its fields, and which values and combinations make no sense.

Making and checking an objective needs no torch; only `Objective.advantages` computes, and loads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cohort.algorithms.fields import FIELDS, LATER, SURROGATE_READS, Choice, Number, Terms, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from cohort.algorithms.terms import Extra, Filter


@dataclass(frozen=True)
class Objective:
    """One member of the GRPO family. The defaults are plain GRPO as DeepSeekMath has it (`preset("grpo")`).

    `fields.FIELDS` says of each field what it decides, which values it may hold and what each of them does. None
    switches a bound off.

    Raises ValueError for a value or a combination that makes no sense, saying why. Warns about a field that was set and
    cannot act. Equal objectives have equal `hash`.
    """

    baseline: str = "group_mean"
    scale: str = "group_std"
    ddof: int = 1
    eps: float = 1e-6
    zero_std: str = "zero"
    rewards: str = "sum_then_normalise"

    surrogate: str = "clipped"
    ratio_level: str = "token"
    clip_low: float | None = 0.2  # offset below 1; in log space for the geometric surrogate
    clip_high: float | None = 0.2  # offset above 1; in log space for the geometric surrogate
    ratio_max: float | None = None
    dual_clip: float | None = None
    soft_positive: float = 1.0
    soft_negative: float = 1.05

    kl_coef: float = 0.04
    kl_estimator: str = "k3"
    kl_place: str = "loss"
    kl_gradient: str = "pathwise"

    aggregation: str = "sequence_mean"
    correction: str = "off"
    correction_min: float | None = None
    correction_max: float | None = None
    truncated: str = "keep"
    entropy_coef: float = 0.0

    teacher_coef: float = 0.0
    teacher_form: str = "add"
    teacher_discount: float = 0.0

    mask: str = "off"
    mask_low: float | None = None  # offset below 1 for a ratio, else how far down
    mask_high: float | None = None
    off_policy_delta: float | None = None
    filters: tuple[Filter, ...] = ()
    whiten_by: str = "completion"
    credit: str = "outcome"
    state_weight: float = 1.0
    state_discount: float = 0.95
    positive_weight: str = "ratio"
    gamma_positive: tuple[float, ...] = (2.0, 3.0)
    gamma_negative: tuple[float, ...] = (3.0, 2.0)
    contrast_temperature: float = 0.5
    future_kl_half_life: float | None = None
    future_kl_low: float = 1.0
    future_kl_high: float = 1.2
    future_kl_ratio_limit: float = 4.0
    focus: str = "all"
    focus_share: float | None = None
    focus_low: float | None = None
    focus_high: float | None = None
    entropy_target: float | None = None
    entropy_step: float = 0.005
    entropy_min: float = 0.0
    entropy_max: float = 1.0
    extras: tuple[Extra, ...] = ()
    blend: tuple[float, ...] = ()
    old: str = "recompute"

    def __post_init__(self) -> None:
        for name, field in FIELDS.items():
            object.__setattr__(self, name, _checked(name, field, getattr(self, name)))
        _check_combinations(self)
        _check_correction(self)
        _check_teacher(self)
        _check_trust(self)
        for remark in self.remarks():
            warnings.warn(remark, UserWarning, stacklevel=3)

    def remarks(self) -> list[str]:
        """Fields that are not at their default and cannot act here, one sentence each. Empty for every preset."""
        return [
            f"{field}={getattr(self, field)!r} has no effect: {reason}"
            for field, reason in inert_fields(self).items()
            if getattr(self, field) is not None and getattr(self, field) != getattr(Objective, field)
        ]

    def advantages(
        self, rewards: Tensor, weights: Sequence[float] | Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Rewards [P, G] to advantages [P, G] in float64; NaN marks a missing reward and gets advantage 0.

        Rewards may also be [P, G, K], K components with `weights` [K]: added first, or normalised first (GDPO), as
        the field `rewards` says. `zero_std` does not act here: a group without signal gets 0, and dropping it is left
        to the caller.

        `lengths` [P, G] are the tokens of each completion, for whiten_by='token'.

        Raises ValueError for a group of one with a group baseline or scale, and for baseline='critic' (use `gae`).
        """
        from cohort.algorithms import advantages  # it loads torch

        components = getattr(rewards, "ndim", 2) == 3
        if weights is not None and not components:
            raise ValueError("weights were given for rewards [P, G]; give rewards [P, G, K], one component per weight")
        if self.rewards == "normalise_then_sum":
            parts = rewards if components else rewards[..., None]
            return advantages.gdpo(parts, weights=weights, ddof=self.ddof, eps=self.eps)
        total = advantages.weighted_sum(rewards, weights) if components else rewards
        if self.whiten_by == "token" and lengths is None:
            raise ValueError("whiten_by='token' needs lengths [P, G], the tokens of each completion")
        return advantages.normalise(
            total,
            baseline=self.baseline,
            scale=self.scale,
            ddof=self.ddof,
            eps=self.eps,
            lengths=lengths if self.whiten_by == "token" else None,
        )

    @property
    def needs_reference(self) -> bool:
        """Whether log-probs of the reference policy are needed at all, in the loss or in the reward."""
        return self.kl_coef != 0

    @property
    def trains_without_signal(self) -> bool:
        """Whether a completion with advantage 0 still has a gradient: from the KL in the loss, the entropy bonus, an
        extra term, or a teacher.
        """
        taught = self.teacher_coef != 0 and self.teacher_form != "reweight"
        pulled = self.kl_coef != 0 and self.kl_place == "loss"
        return pulled or self.has_entropy_bonus or taught or bool(self.extras)

    @property
    def has_entropy_bonus(self) -> bool:
        """Whether the entropy is, or may come to be, a term of the loss."""
        return self.entropy_coef != 0 or self.entropy_target is not None

    @property
    def has_mask(self) -> bool:
        """Whether tokens leave the policy term for having moved too far."""
        return self.mask != "off" or self.off_policy_delta is not None

    @property
    def has_own_terms(self) -> bool:
        """Whether the loss has terms with divisors of their own."""
        return bool(self.extras) or self.surrogate == "label_contrast"

    @property
    def is_batchwide(self) -> bool:
        """Whether something is decided over the whole optimizer batch, from log-probs at the start of the update."""
        return bool(self.filters) or self.focus != "all" or self.has_own_terms

    def term_of(self, tokens: str) -> bool:
        """Whether an extra term is of these tokens."""
        return any(of.partition("(")[0] == tokens for _, of, _, _ in self.extras)

    def expert_share(self, step: int) -> float:
        """mu of CHORD at a step, counted from 0: linear to the peak, half a cosine to the valley. 0 without a blend."""
        if not self.blend:
            return 0.0
        warm_up, decay, peak, valley = self.blend
        if step < warm_up:
            return peak * step / warm_up
        if step >= warm_up + decay:
            return valley
        return valley + (peak - valley) * (1 + math.cos(math.pi * (step - warm_up) / decay)) / 2

    def to_dict(self) -> dict[str, Any]:
        """Every field with its value, ready for JSON; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Objective:
        """The objective with these fields, the rest at their defaults. Raises ValueError for an unknown field."""
        for name in fields:
            if name not in FIELDS:
                raise ValueError(f"{name!r} is not a field of an objective{nearest(name, FIELDS)}")
        return cls(**fields)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the fields as JSON with sorted keys: the same for equal objectives on every machine. Fields
        that came later are left out at their default, so that hashes that were published stay.
        """
        off = {name for name in LATER if getattr(self, name) == getattr(Objective, name)}
        fields = {name: value for name, value in self.to_dict().items() if name not in off}
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _checked(name: str, field: Choice | Number | Terms, value: Any) -> Any:
    """The value if its field may hold it. Numbers come back as floats, so that 1 and 1.0 are one objective."""
    if name == "ddof" and (isinstance(value, bool) or value not in (0, 1)):
        raise ValueError(f"ddof={value!r} must be 0 (population std) or 1 (sample std)")
    if isinstance(field, Choice):
        if value not in tuple(field.meanings):  # a tuple, as the value may be unhashable
            raise ValueError(f"{name}={value!r} is unknown{nearest(value, field.meanings)}")
        return value
    if isinstance(field, Terms):
        return field.read(name, value)
    if value is None and field.optional:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} must be a finite number{' or None (off)' if field.optional else ''}")
    off = ", or None (off)" if field.optional else ""
    if field.at_least is not None and value < field.at_least:
        raise ValueError(f"{name}={value!r} must be at least {field.at_least:g}{off}")
    if field.above is not None and value <= field.above:
        raise ValueError(f"{name}={value!r} must be greater than {field.above:g}{off}")
    return float(value) + 0.0  # + 0.0 turns -0.0 into 0.0


def _check_combinations(o: Objective) -> None:
    """Refuse fields that contradict each other, with the reason and what to change."""
    if o.surrogate == "geometric" and o.ratio_level in ("sequence_token", "sequence_product"):
        raise ValueError(
            f"ratio_level={o.ratio_level!r} cannot go with surrogate='geometric': GMPO clips each token's ratio and "
            "takes their geometric mean itself; use ratio_level='token'"
        )
    if o.surrogate == "truncated" and o.clip_high is None and o.ratio_max is None:
        raise ValueError(
            "surrogate='truncated' has no upper bound: clip_high and ratio_max are both None, so nothing is truncated; "
            "set ratio_max (CISPO: 5.0)"
        )
    if o.kl_coef and o.kl_place == "loss" and o.kl_estimator == "k1" and o.kl_gradient == "pathwise":
        raise ValueError(
            "kl_estimator='k1' in the loss with kl_gradient='pathwise' has a gradient of zero in expectation: it adds "
            "noise and no pull towards the reference; use kl_estimator='k2' or 'k3', kl_gradient='weighted', or "
            "kl_place='reward'"
        )
    if o.baseline == "critic" and o.scale not in ("none", "centred_batch_std"):
        raise ValueError(
            f"scale={o.scale!r} cannot go with baseline='critic': a critic gives advantages per token, not rewards of "
            "a group; use scale='centred_batch_std' (whitening over the batch's tokens) or 'none'"
        )
    if o.baseline == "token_optimal" and (o.scale != "none" or (o.kl_coef and o.kl_place == "reward")):
        raise ValueError(
            "baseline='token_optimal' compares rewards-to-go at each position, undivided: use scale='none', and a KL "
            "in the loss"
        )
    if o.whiten_by == "token" and o.scale != "centred_batch_std":
        raise ValueError(
            f"whiten_by='token' whitens over tokens, so scale={o.scale!r} cannot act: use centred_batch_std"
        )
    if o.credit == "states" and o.baseline in ("critic", "token_optimal"):
        raise ValueError(
            f"credit='states' compares steps of a group, and baseline={o.baseline!r} gives each token a baseline of "
            "its own: use group_mean"
        )
    if o.rewards == "normalise_then_sum" and (o.baseline, o.scale) != ("group_mean", "group_std"):
        raise ValueError(
            f"rewards='normalise_then_sum' cannot go with baseline={o.baseline!r} and scale={o.scale!r}: GDPO is "
            "defined as group mean and group std of each reward; use those, or rewards='sum_then_normalise'"
        )


def _check_correction(o: Objective) -> None:
    if o.correction == "off":
        return
    if o.correction_max is None and (o.correction_min is None or o.correction.endswith("truncate")):
        raise ValueError(
            f"correction={o.correction!r} needs correction_max: without it a mismatch weight is unbounded; "
            "usual values are 2 for truncation and 3 to 5 for masks"
        )
    low = 0.0 if o.correction_min is None else o.correction_min
    high = math.inf if o.correction_max is None else o.correction_max
    if not low <= 1 <= high:
        raise ValueError(
            f"correction_min={o.correction_min} and correction_max={o.correction_max} exclude 1: tokens on which "
            "sampler and learner agree would be changed; choose bounds on old policy / sampler with min <= 1 <= max"
        )


def _check_teacher(o: Objective) -> None:
    if not o.teacher_coef:
        return
    if o.teacher_form == "reweight":
        if o.teacher_coef > 1:
            raise ValueError(
                f"teacher_coef={o.teacher_coef:g} cannot go with teacher_form='reweight', where it is the share of the "
                "teacher in a factor: use at most 1 (RLSD: 0.5)"
            )
        return
    if o.teacher_form == "position" and not o.teacher_discount:
        raise ValueError(
            "teacher_form='position' needs teacher_discount, by which the first tokens count more: use 0.5 (IW-OPD), "
            "or teacher_form='add'"
        )
    if o.teacher_discount > 1:
        raise ValueError(f"teacher_discount={o.teacher_discount:g} must be at most 1")
    if o.zero_std != "zero":
        raise ValueError(
            f"zero_std={o.zero_std!r} cannot go with a teacher: its signal is there in groups of equal rewards, too, "
            "so they must not be left out; use zero_std='zero'"
        )


def _check_trust(o: Objective) -> None:
    """Two trust regions, and a mismatch that is counted twice."""
    if o.mask != "off" and o.mask_low is None and o.mask_high is None:
        raise ValueError(f"mask={o.mask!r} needs mask_low or mask_high: without a bound it takes no token")
    clips = [name for name in ("clip_low", "clip_high") if name in SURROGATE_READS[o.surrogate]]
    clips = [name for name in clips if getattr(o, name) is not None and o.surrogate != "truncated"]
    if o.mask != "off" and clips:
        raise ValueError(
            f"mask={o.mask!r} cannot go with {clips[0]}={getattr(o, clips[0]):g}: these are two trust regions; set "
            "clip_low and clip_high to None (off), or mask='off'"
        )
    if o.surrogate == "gamma" and o.correction not in ("off", "token_truncate", "token_mask"):
        raise ValueError(
            f"correction={o.correction!r} cannot go with surrogate='gamma', which takes the mismatch of tokens into "
            "its own weight: use token_truncate, token_mask or off"
        )
    acting = {
        "mask": o.mask != "off",
        "off_policy_delta": o.off_policy_delta is not None,
        "filters": bool(o.filters),
        "correction": o.correction != "off",
        "future_kl_half_life": o.future_kl_half_life is not None,
        "focus": o.focus != "all",
    }
    if o.surrogate == "label_contrast" and any(acting.values()):
        name = next(name for name, acts in acting.items() if acts)
        raise ValueError(
            f"{name} cannot go with surrogate='label_contrast': its loss is of whole groups, and there is no term of a "
            "token that could be left out or weighted"
        )
    if o.focus != "all" and (o.focus_share is None or o.focus_share > 1):
        raise ValueError(
            f"focus={o.focus!r} needs focus_share, above 0 and at most 1, not {o.focus_share}: the share that "
            + ("stays; 0.2 in 2506.01939" if o.focus == "top_entropy" else "leaves; 0.0002 in 2505.22617")
        )
    if o.entropy_target is not None and not o.entropy_min <= o.entropy_coef <= o.entropy_max:
        raise ValueError(
            f"entropy_coef={o.entropy_coef:g} must lie between entropy_min={o.entropy_min:g} and entropy_max="
            f"{o.entropy_max:g}, where entropy_target moves it from there"
        )
    if o.future_kl_low > 1:
        raise ValueError(f"future_kl_low={o.future_kl_low:g} must be at most 1: a token without a future has weight 1")
    if o.blend and not o.term_of("expert"):
        raise ValueError(
            "blend shares the loss with expert rows, and no term is of them: add ('nll', 'expert', 1.0) to extras"
        )
    if o.old == "sampler" and (o.correction != "off" or o.filters):
        what = f"correction={o.correction!r}" if o.correction != "off" else "filters"
        raise ValueError(
            f"{what} cannot go with old='sampler': the ratio to the sampler has the mismatch in it already, and it "
            "would count twice; use old='recompute', or leave the other out"
        )


_READS_NOT = {  # field: what is said of a surrogate that does not read it
    "clip_low": "does not clip",
    "clip_high": "does not clip",
    "ratio_max": "does not cap the ratio",
    "dual_clip": "has no dual clip",
    "ratio_level": "uses no ratio",
    "soft_positive": "has no temperatures",
    "soft_negative": "has no temperatures",
    "positive_weight": "is not truncated",
    "gamma_positive": "has no such weight",
    "gamma_negative": "has no such weight",
    "contrast_temperature": "has no scores",
}


def inert_fields(o: Objective) -> dict[str, str]:
    """Fields that cannot act in this objective, with the reason. Legal, and worth a warning if somebody set them."""
    reads, kl_is_paid = SURROGATE_READS[o.surrogate], o.kl_coef != 0 and o.kl_place == "reward"
    reweights, other = o.teacher_coef != 0 and o.teacher_form == "reweight", o.focus not in ("all", "low_covariance")
    stays = "entropy_target is off, so the coefficient never moves"
    of_future = "future_kl_low future_kl_high future_kl_ratio_limit"
    reasons: tuple[tuple[bool, str, str], ...] = (
        (o.scale == "none", "ddof eps", "scale='none' divides by nothing"),
        (o.scale == "group_mean", "ddof", "scale='group_mean' takes no std"),
        *((field not in reads, field, f"surrogate={o.surrogate!r} {why}") for field, why in _READS_NOT.items()),
        (kl_is_paid, "kl_gradient", "a KL in the reward is a number without a gradient"),
        (not o.teacher_coef, "teacher_form teacher_discount", "teacher_coef=0 asks no teacher"),
        (reweights, "teacher_discount", "teacher_form='reweight' has no discount"),
        (o.correction == "off", "correction_min correction_max", "correction='off' applies no bounds"),
        (o.credit != "states", "state_weight state_discount", f"credit={o.credit!r} looks at no states"),
        (o.focus == "all", "focus_low focus_high focus_share", "focus='all' takes every token"),
        (other, "focus_low focus_high", f"focus={o.focus!r} looks at no covariance"),
        (o.entropy_target is None, "entropy_step entropy_min entropy_max", stays),
        (o.future_kl_half_life is None, of_future, "future_kl_half_life is off"),
        (o.mask == "off", "mask_low mask_high", "mask='off' takes no token"),
    )
    return {field: why for inert, fields, why in reasons if inert for field in fields.split()}
