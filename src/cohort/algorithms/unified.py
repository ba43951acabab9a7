"""DeepSeekMath's unified view of methods (2402.03300, section 5.2 and appendix A.1): what is learnt from, who says what
is right, and by how much each token's log-prob is moved.

Every method moves weights along E[ 1/|o| sum_t GC(q, o, t) grad log pi(o_t) ]: it has a data source, a reward function
and a gradient coefficient GC. Pure text; `loss` and `advantages` compute, and these words must say what they do.
"""

# ruff: noqa: RUF001 - coefficients are written with Greek letters and a real minus sign

from __future__ import annotations

from typing import NamedTuple

from cohort.algorithms.equation import FOUND_BY, Shape, advantage_rows, capped_at, token_weight
from cohort.algorithms.notation import Notation, number
from cohort.algorithms.objective import Objective
from cohort.algorithms.presets import preset

METHODS = ("grpo", "ppo", "rloo", "reinforce")  # presets that have a row each


class Row(NamedTuple):
    """One method: its `name` as `cohort compare --methods` takes it, and the three parts of its gradient."""

    name: str
    data: str
    reward: str
    coefficient: str


def rows(own: Objective, shape: Shape, rewards: str = "rule or model") -> list[Row]:
    """The row of an objective, then those of other methods with the same choices filled in; `rewards` is what is paid.
    q is a prompt, o a completion; π_start is the policy before training.
    """
    online = f"q, {shape.group_size or 'G'} o ~ π_θ"
    before, right = online.replace("π_θ", "π_start"), "1 where o is right, else 0"
    whole = online if shape.groups == "sample" else f"q, {FOUND_BY[shape.groups]} of π_θ"
    found = [Row("this recipe", whole, rewards, coefficient(own, shape))]
    found += [Row(name, online, rewards, coefficient(preset(name), shape)) for name in METHODS]
    return [
        *found,
        Row("online_rft", online, rewards, right),
        Row("rft", before, rewards, right),
        Row("dpo", f"{before}: o⁺, o⁻", rewards, "±β·σ(β·log π_θ/π_ref(o⁻) − β·log π_θ/π_ref(o⁺))"),
        Row("sft", "q, o of a data set", "none", "1"),
        Row("best of n", f"{before} or π_θ", rewards, "none: nothing is learnt, the best of the o is taken"),
    ]


def coefficient(o: Objective, shape: Shape) -> str:
    """GC of one token: its weight in the sum, times what the surrogate makes of the advantage, less the KL's pull."""
    n = Notation(latex=False)
    (A, meant), *others = advantage_rows(o, n)
    if o.surrogate == "label_contrast":
        P, tau = shape.update_prompts, number(o.contrast_temperature)
        side = f"1/(1 + Σ e^(∓s/{tau}))·e^(∓s/{tau})"
        return f"±1/({P}·L_i·{tau}) · {side}, Σ over the completions of its kind; + where A > 0; {A} = {meant}"
    moved = f"{_slope(o, shape)}{A}"
    moved += " (0 where clipped)" if o.surrogate in ("clipped", "geometric") and not o.has_mask and moved != A else ""
    moved += " (0 where masked)" if o.has_mask and moved != A else ""
    weight = f"{n.w}·" if o.correction != "off" else ""
    return f"{token_weight(o, shape)} · [{weight}{moved}{_pull(o)}]; " + ", ".join(
        f"{symbol} = {value}" for symbol, value in ((A, meant), *others)
    )


def _slope(o: Objective, shape: Shape) -> str:
    """What the advantage is multiplied by: the derivative of the surrogate's ratio by a token's log-prob. With one
    update of a batch the ratio is 1, and so is every surrogate's slope.
    """
    if o.surrogate == "reinforce" or (shape.updates == 1 and not shape.bypass):
        return ""
    ratio = {"token": "ρ", "sequence_product": "L_i·S"}.get(o.ratio_level, "s")
    if o.surrogate == "truncated":
        cap = capped_at(o.clip_high, o.ratio_max)
        return f"{ratio}·" if cap is None else f"min({ratio}, {number(cap)})·"
    if o.surrogate == "soft":
        return f"4·σ(z)·(1 − σ(z))·{ratio}·"
    if o.surrogate == "gamma":
        return "φ·"
    return "g·" if o.surrogate == "geometric" else f"{ratio}·"


def _pull(o: Objective) -> str:
    if not o.kl_coef or o.kl_place == "reward":
        return ""
    u = "log(π_θ/π_ref)"
    plain = {"k2": f"·{u}", "k3": "·(1 − π_ref/π_θ)"}
    weighted = {"k1": f"·ρ·(1 + {u})", "k2": f"·ρ·({u} + {u}²/2)", "k3": f"·ρ·{u}"}
    return f" − {number(o.kl_coef)}{(weighted if o.kl_gradient == 'weighted' else plain)[o.kl_estimator]}"
