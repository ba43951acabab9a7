"""The equation of an objective, in plain Unicode or LaTeX, with every divisor, bound and epsilon filled in."""

# ruff: noqa: RUF001 - equations are written with Greek letters and a real minus sign

from __future__ import annotations

import re
from typing import NamedTuple

from cohort.algorithms.numbers import number
from cohort.algorithms.objectives import Objective

__all__ = ["correction_bounds", "equation"]

_BASELINE_WORDS = {"group_mean": "mean_group", "leave_one_out": "mean_others", "batch_mean": "mean_batch"}
_SCALE_WORDS = {
    "group_std": "std_group",
    "batch_std": "std_batch",
    "centred_batch_std": "std_batch_centred",
    "leave_one_out_std": "std_others",
    "group_mean": "mean_group",
}
_ZERO_STD = {"drop": "dropped", "resample": "dropped, and other prompts sampled in their place"}


class Shape(NamedTuple):
    """The numbers of the recipe that stand in the equation; a number that is not known stays a letter."""

    prompts: int | None = None
    group_size: int | None = None
    max_tokens: int | None = None
    updates: int | None = None
    bypass: bool = False  # the ratio is taken against the sampler's own log-probs

    @property
    def batch(self) -> str:
        return str(self.prompts * self.group_size) if self.prompts and self.group_size else "B"


def equation(
    objective: Objective,
    *,
    prompts: int | None = None,
    group_size: int | None = None,
    max_tokens: int | None = None,
    updates: int | None = None,
    bypass: bool = False,
    latex: bool = False,
) -> str:
    """What is maximised, then each symbol in it, one a line, with every divisor, bound and epsilon as a number.

    `prompts`, `group_size`, `max_tokens` and `updates` (optimizer steps per batch) are filled in where they are given.
    With `bypass` the ratio is one against the sampler. With `latex` the result is an `aligned` environment.
    """
    shape = Shape(prompts, group_size, max_tokens, updates, bypass)
    body = [_surrogate(objective, latex), _kl_term(objective, latex), _entropy_term(objective, latex)]
    head = ("J(\\theta)" if latex else "J(θ)", f"{_sum(objective, shape, latex)} [ {''.join(body)} ]")
    rows = [head, *_definitions(objective, shape, latex)]
    notes = _notes(objective, shape)
    if latex:
        lines = [*(f"{left} &= {right}" for left, right in rows), *(f"&\\text{{{_ascii(note)}}}" for note in notes)]
        return "\\begin{aligned}\n" + _powers_of_ten(" \\\\\n".join(lines)) + "\n\\end{aligned}"
    width = max(len(left) for left, _ in rows)
    return "\n".join([*(f"{left:<{width}} = {right}" for left, right in rows), *notes])


def correction_bounds(o: Objective) -> str:
    """`0..3`; ∞ where there is no upper bound."""
    low = number(o.correction_min) if o.correction_min is not None else "0"
    return f"{low}..{number(o.correction_max) if o.correction_max is not None else '∞'}"


# ---- the parts of the equation


def _sum(o: Objective, shape: Shape, latex: bool) -> str:
    B = shape.batch
    P = str(shape.prompts or "P")
    L = str(shape.max_tokens) if shape.max_tokens else ("L_{\\max}" if latex else "L_max")
    if latex:
        over_i, over_t = f"\\sum_{{i=1}}^{{{B}}}", "\\sum_{t=1}^{L_i}"
        return {
            "token_mean": f"\\frac{{1}}{{N}}{over_i}{over_t}",
            "prompt_token_mean": f"\\frac{{1}}{{{P}}}\\sum_{{p=1}}^{{{P}}}\\frac{{1}}{{N_p}}\\sum_{{i\\in p}}{over_t}",
            "sequence_mean": f"\\frac{{1}}{{{B}}}{over_i}\\frac{{1}}{{L_i}}{over_t}",
            "sequence_sum": f"\\frac{{1}}{{{B}}}{over_i}{over_t}",
            "sequence_token_sum": f"\\frac{{1}}{{{B}}}{over_i}L_i\\frac{{1}}{{L_i}}{over_t}",
            "constant_length": f"\\frac{{1}}{{{B}\\cdot {L}}}{over_i}{over_t}",
        }[o.aggregation]
    return {
        "token_mean": "1/N · Σ_i Σ_t",
        "prompt_token_mean": f"1/{P} · Σ_p 1/N_p · Σ_(i in p) Σ_t",
        "sequence_mean": f"1/{B} · Σ_i 1/L_i · Σ_t",
        "sequence_sum": f"1/{B} · Σ_i Σ_t",
        "sequence_token_sum": f"1/{B} · Σ_i L_i · 1/L_i · Σ_t",
        "constant_length": f"1/({B}·{L}) · Σ_i Σ_t",
    }[o.aggregation]


def _ratio_symbol(o: Objective, latex: bool) -> str:
    if o.ratio_level == "token":
        return "\\rho_{i,t}" if latex else "ρ"
    if o.ratio_level == "sequence_token":
        return "s_{i,t}" if latex else "s_t"
    return {"sequence": "s", "sequence_product": "S"}[o.ratio_level] + ("_i" if latex else "")


def _advantage_symbol(o: Objective, latex: bool) -> str:
    if o.baseline == "critic":
        return "A_{i,t}" if latex else "A_t"
    return "A_i" if latex else "A"


def _surrogate(o: Objective, latex: bool) -> str:
    A, r = _advantage_symbol(o, latex), _ratio_symbol(o, latex)
    log_pi = "\\log\\pi_\\theta(o_{i,t})" if latex else "log π_θ"
    dot, detach = ("\\,", "\\operatorname{sg}") if latex else ("·", "sg")
    w = ("w_{i,t}\\," if latex else "w·") if o.correction != "off" else ""
    if o.surrogate == "reinforce":
        return f"{w}{A}{dot}{log_pi}"
    if o.surrogate == "truncated":
        return f"{w}{detach}[{_clip(r, o.clip_low, o.clip_high, o.ratio_max, latex)}]{dot}{A}{dot}{log_pi}"
    if o.surrogate == "soft":
        return f"{w}\\frac{{4}}{{\\tau}}\\sigma(\\tau({r}-1)){dot}{A}" if latex else f"{w}(4/τ)·σ(τ·({r} − 1))·{A}"
    if o.surrogate == "geometric":
        return f"{w}{A}{dot}g_i" if latex else f"{w}{A}·g"
    return w + _clipped(o, r, A, latex)


def _clipped(o: Objective, r: str, A: str, latex: bool) -> str:
    dot = "\\," if latex else "·"
    minimum, maximum = ("\\min", "\\max") if latex else ("min", "max")
    capped = f"{minimum}({r}, {number(o.ratio_max)})" if o.ratio_max is not None else r
    term = f"{capped}{dot}{A}"
    if o.clip_low is not None or o.clip_high is not None:
        clip = _clip(r, o.clip_low, o.clip_high, None, latex)
        term = f"{minimum}({term}, {clip}{dot}{A})"
    if o.dual_clip is not None:
        bounded = f"{maximum}({term}, {number(o.dual_clip)}{dot}{A})"
        if latex:
            return f"\\begin{{cases}}{bounded} & A<0 \\\\ {term} & A\\ge 0\\end{{cases}}"
        return f"{{ {bounded} where A < 0, else {term} }}"
    return term


def _clip(r: str, clip_low: float | None, clip_high: float | None, ratio_max: float | None, latex: bool) -> str:
    caps = [cap for cap in (ratio_max, None if clip_high is None else 1 + clip_high) if cap is not None]
    high = number(min(caps)) if caps else ("\\infty" if latex else "∞")
    name = "\\operatorname{clip}" if latex else "clip"
    if clip_low is None:
        name = "\\min" if latex else "min"
        return f"{name}({r}, {high})"
    return f"{name}({r}, {number(1 - clip_low)}, {high})"


def _kl_term(o: Objective, latex: bool) -> str:
    if not o.kl_coef or o.kl_place == "reward":
        return ""
    estimator = f"k_{{{o.kl_estimator[1]}}}" if latex else o.kl_estimator
    dot = "\\," if latex else "·"
    ratio = ("\\rho_{i,t}\\," if latex else "ρ·") if o.kl_gradient == "weighted" else ""
    return f"{' - ' if latex else ' − '}{number(o.kl_coef)}{dot}{ratio}{estimator}"


def _entropy_term(o: Objective, latex: bool) -> str:
    if not o.entropy_coef:
        return ""
    sign = "+" if o.entropy_coef > 0 else ("-" if latex else "−")
    H = "\\,H_{i,t}" if latex else "·H"
    return f" {sign} {number(abs(o.entropy_coef))}{H}"


def _definitions(o: Objective, shape: Shape, latex: bool) -> list[tuple[str, str]]:
    ratios = _ratio_definitions(o, latex)
    if shape.bypass:
        old, sampler = ("\\pi_{\\mathrm{old}}", "\\mu") if latex else ("π_old", "μ")
        ratios = [(left, right.replace(old, sampler)) for left, right in ratios]
    rows = [*ratios, *_advantage_definition(o, shape, latex)]
    if o.correction != "off":
        rows.append(_correction_definition(o, latex))
    if o.kl_coef:
        rows.append(_kl_definition(o, latex))
    if o.aggregation == "token_mean":
        rows.append(
            ("N", "\\sum_{i} L_i" if latex else f"Σ_i L_i, every unmasked token of the {shape.batch} completions")
        )
    if o.aggregation == "prompt_token_mean":
        rows.append(("N_p", "\\sum_{i\\in p} L_i" if latex else "Σ_(i in p) L_i, every unmasked token of prompt p"))
    if shape.batch != "B":
        times = "\\cdot " if latex else "·"
        rows.append(("B", f"P{times}G = {shape.prompts}{times}{shape.group_size} = {shape.batch}"))
    return rows


def _ratio_definitions(o: Objective, latex: bool) -> list[tuple[str, str]]:
    token = (
        ("\\rho_{i,t}", "\\pi_\\theta(o_{i,t})/\\pi_{\\mathrm{old}}(o_{i,t})")
        if latex
        else ("ρ", "π_θ(o_t) / π_old(o_t), per token")
    )
    if o.surrogate == "reinforce":
        return [token] if o.kl_coef and o.kl_place == "loss" and o.kl_gradient == "weighted" else []
    rows = [token]
    rho = "\\rho_{i,t}" if latex else "ρ"
    mean = "\\frac{1}{L_i}\\sum_t" if latex else "1/L_i · Σ_t"
    exp, log = ("\\exp", "\\log") if latex else ("exp", "log ")
    if o.surrogate == "geometric":
        upper = f"\\min(\\log{rho}, {number(o.clip_high)})" if latex else f"min(log ρ, {number(o.clip_high)})"
        lower = f"\\max(\\log{rho}, -{number(o.clip_low)})" if latex else f"max(log ρ, −{number(o.clip_low)})"
        upper = upper if o.clip_high is not None else f"{log}{rho}"
        lower = lower if o.clip_low is not None else f"{log}{rho}"
        name, c = ("g_i", "c_{i,t}") if latex else ("g", "c")
        cases = f"{upper}\\ [A\\ge 0];\\ {lower}\\ [A<0]" if latex else f"{upper} where A ≥ 0, {lower} where A < 0"
        return [*rows, (name, f"{exp}({mean} {c})"), (c, cases)]
    symbol = _ratio_symbol(o, latex)
    if o.ratio_level == "sequence":
        rows.append((symbol, f"{exp}({mean} {log}{rho})"))
    elif o.ratio_level == "sequence_token":
        s, sg = ("s_i", "\\operatorname{sg}") if latex else ("s", "sg")
        rows += [(symbol, f"{sg}[{s}]{rho}/{sg}[{rho}]"), (s, f"{exp}({mean} {log}{rho})")]
    elif o.ratio_level == "sequence_product":
        rows.append((symbol, ("\\prod_t " if latex else "Π_t ") + rho))
    if o.surrogate == "soft":
        positive, negative = number(o.soft_positive), number(o.soft_negative)
        name, text = ("\\tau", "{} \\ [A>0];\\ {} \\ [A\\le 0]") if latex else ("τ", "{} where A > 0, else {}")
        rows.append((name, text.format(positive, negative)))
    return rows


def _advantage_definition(o: Objective, shape: Shape, latex: bool) -> list[tuple[str, str]]:
    A = _advantage_symbol(o, latex)
    if o.baseline == "critic":
        whitened = "" if o.scale == "none" else f", whitened: (A − mean) / sqrt(var + {number(o.eps)})"
        penalty = f" of rewards less {number(o.kl_coef)} {o.kl_estimator} a token" if _kl_in_reward(o) else ""
        words = f"GAE from the critic{penalty}{whitened}"
        return [(A, f"\\text{{{words.replace('−', '-')}}}" if latex else words)]
    r = "r_i" if latex else "r"
    centred = r
    if o.baseline != "none":
        centred = f"{r}{' - ' if latex else ' − '}{_call(_BASELINE_WORDS[o.baseline], 'r', latex)}"
    value = centred
    if o.scale != "none":
        divisor = _call(_SCALE_WORDS[o.scale], "r", latex) + (f" + {number(o.eps)}" if o.eps else "")
        value = f"\\frac{{{centred}}}{{{divisor}}}" if latex else f"({centred}) / ({divisor})"
    rows = [(A, value)]
    if o.rewards == "normalise_then_sum":
        words = f"each reward normalised so, weighted and added, then whitened over the batch with + {number(o.eps)}"
        rows[0] = (A, f"{value}\\ \\text{{({words})}}" if latex else f"{value}; {words}")
    elif _kl_in_reward(o):
        k = f"k_{{{o.kl_estimator[1]}}}" if latex else o.kl_estimator
        coef = number(o.kl_coef)
        rows.append((r, f"R_i - {coef}\\sum_t {k}" if latex else f"score − {coef}·Σ_t {k}"))
    return rows


def _correction_definition(o: Objective, latex: bool) -> tuple[str, str]:
    level, kind = o.correction.rsplit("_", 1)
    w = "\\pi_{\\mathrm{old}}(o_{i,t})/\\mu(o_{i,t})" if latex else "π_old(o_t) / μ(o_t)"
    if level == "sequence":
        w = f"\\prod_t {w}" if latex else f"Π_t {w}"
    test = "geometric mean over the completion" if level == "geometric" else "it"
    words = (
        f"brought into {correction_bounds(o)}"
        if kind == "truncate"
        else f"0 where {test} is outside {correction_bounds(o)}"
    )
    if latex:
        return "w_{i,t}", f"{w}\\ \\text{{, {words.replace('∞', 'infinity')}, detached}}"
    return "w", f"{w}, {words}, detached; μ is the sampler"


def _kl_definition(o: Objective, latex: bool) -> tuple[str, str]:
    if latex:
        form = {"k1": "u", "k2": "\\tfrac12u^2", "k3": "e^{-u}-1+u"}[o.kl_estimator]
        policy = "\\mathrm{old}" if o.kl_place == "reward" else "\\theta"
        u = f"\\log\\pi_{{{policy}}}(o_{{i,t}})-\\log\\pi_{{\\mathrm{{ref}}}}(o_{{i,t}})"
        return f"k_{{{o.kl_estimator[1]}}}", f"{form},\\quad u={u}"
    form = {"k1": "u", "k2": "u²/2", "k3": "exp(−u) − 1 + u"}[o.kl_estimator]
    policy = "π_old" if o.kl_place == "reward" else "π_θ"
    return o.kl_estimator, f"{form},  u = log {policy}(o_t) − log π_ref(o_t)"


def _kl_in_reward(o: Objective) -> bool:
    return o.kl_coef != 0 and o.kl_place == "reward"


def _notes(o: Objective, shape: Shape) -> list[str]:
    """What no symbol says: the kind of std, groups without signal, how often the batch is used."""
    notes = []
    if o.scale.endswith("std"):
        count = {"group_std": "G", "leave_one_out_std": "(G−1)"}.get(o.scale, "B")
        divisor = count if o.ddof == 0 else f"{count}−1"
        known = {"G": shape.group_size, "B": int(shape.batch) if shape.batch != "B" else None}.get(count)
        filled = f" = {known - o.ddof}" if known else ""
        kind = "sample" if o.ddof else "population"
        over = "over the batch's tokens" if o.baseline == "critic" else f"divisor {divisor}{filled}"
        notes.append(f"std: {kind}, {over}")
    if o.zero_std != "zero":
        notes.append(f"groups whose accuracy is constant: {_ZERO_STD[o.zero_std]}")
    elif o.baseline in ("group_mean", "leave_one_out"):
        notes.append("groups whose rewards are all equal: advantage exactly 0, kept in the divisor")
    if o.truncated == "mask":
        notes.append("completions cut off at the token limit: out of the loss, their rewards stay in the baseline")
    if shape.bypass:
        notes.append("μ is the policy that sampled; there is no π_old")
    elif shape.updates:
        same = "so π_old = π_θ: the ratio is 1 and no clip acts"
        once = same if shape.updates == 1 else "π_old is the policy before the first of them"
        notes.append(f"optimizer updates per batch: {shape.updates}, {once}")
    return notes


def _powers_of_ten(latex: str) -> str:
    """1e-6 as 10^{-6}, 3e-4 as 3\\cdot 10^{-4}; not inside \\text{...}, where ^ is no superscript."""
    if "\\text{" in latex:
        return "".join(
            part if part.startswith("\\text{") else _powers_of_ten(part)
            for part in re.split(r"(\\text\{[^}]*\})", latex)
        )
    with_factor = re.sub(r"(?<![\w.])([\d.]+)e(-?\d+)", r"\1\\cdot 10^{\2}", latex)
    return re.sub(r"(?<![\w.])1\\cdot 10\^", "10^", with_factor)


def _ascii(text: str) -> str:
    return (
        text.replace("μ", "mu")
        .replace("−", "-")
        .replace("π_old = π_θ", "old policy = policy")
        .replace("π_old", "the old policy")
    )


def _call(words: str, argument: str, latex: bool) -> str:
    """`std_group(r)`, or `std_batch(r − mean)` for the centred one."""
    name, over, *centred = words.split("_")
    if latex:
        inner = f"{argument}-\\bar {argument}" if centred else argument
        return f"\\operatorname{{{name}}}_{{\\mathrm{{{over}}}}}({inner})"
    return f"{name}_{over}({argument}{' − baseline' if centred else ''})"
