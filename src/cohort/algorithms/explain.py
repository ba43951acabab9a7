"""An objective in words: its equation with every constant filled in, one line, one sentence per choice, a comparison.

Pure text, in plain Unicode or LaTeX. Nothing here computes; `policy` does, and these words must say what it does.
"""

# ruff: noqa: RUF001 - equations are written with Greek letters and a real minus sign

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

from cohort.algorithms.meanings import consequence, meaning
from cohort.algorithms.numbers import number
from cohort.algorithms.objectives import PRESETS, Objective, preset

__all__ = ["difference", "equation", "one_line", "sentences"]


class Shape(NamedTuple):
    """The numbers of the recipe that stand in the equation; a number that is not known stays a letter."""

    prompts: int | None = None
    group_size: int | None = None
    max_tokens: int | None = None
    updates: int | None = None

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
    latex: bool = False,
) -> str:
    """What is maximised, then each symbol in it, one a line, with every divisor, bound and epsilon as a number.

    `prompts`, `group_size`, `max_tokens` and `updates` (optimizer steps per batch) are filled in where they are given.
    With `latex` the result is an `aligned` environment.
    """
    shape = Shape(prompts, group_size, max_tokens, updates)
    body = [_surrogate(objective, latex), _kl_term(objective, latex), _entropy_term(objective, latex)]
    head = ("J(\\theta)" if latex else "J(θ)", f"{_sum(objective, shape, latex)} [ {''.join(body)} ]")
    rows = [head, *_definitions(objective, shape, latex)]
    notes = _notes(objective, shape)
    if latex:
        lines = [*(f"{left} &= {right}" for left, right in rows), *(f"&\\text{{{_ascii(note)}}}" for note in notes)]
        return "\\begin{aligned}\n" + _powers_of_ten(" \\\\\n".join(lines)) + "\n\\end{aligned}"
    width = max(len(left) for left, _ in rows)
    return "\n".join([*(f"{left:<{width}} = {right}" for left, right in rows), *notes])


def one_line(objective: Objective) -> str:
    """The nearest preset's name and the choices that matter, e.g. `DAPO: clipped token ratio 0.8..1.28, ..., no KL`."""
    o = objective
    parts = [_short_surrogate(o), _short_advantage(o), _SHORT_AGGREGATION[o.aggregation], _short_kl(o)]
    if o.correction != "off":
        parts.append(f"{o.correction.replace('_', ' ')} of the sampler mismatch in {_bounds(o)}")
    if o.entropy_coef:
        parts.append(f"entropy bonus {number(o.entropy_coef)}")
    if o.truncated == "mask":
        parts.append("truncated completions masked")
    return f"{_name(o)}: {', '.join(parts)}"


def sentences(objective: Objective) -> list[tuple[str, str]]:
    """Each choice that acts, as (`field=value`, one sentence on what it does)."""
    fields = [field.name for field in dataclasses.fields(objective)]
    said = [(field, meaning(objective, field)) for field in fields]
    return [(f"{field}={getattr(objective, field)}", sentence) for field, sentence in said if sentence]


def difference(a: Objective, b: Objective) -> list[tuple[str, object, object, str]]:
    """Where two objectives differ: (field, value in a, value in b, what going from a to b changes)."""
    return [
        (field.name, getattr(a, field.name), getattr(b, field.name), consequence(a, b, field.name))
        for field in dataclasses.fields(a)
        if getattr(a, field.name) != getattr(b, field.name)
    ]


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
    rows = [*_ratio_definitions(o, latex), *_advantage_definition(o, shape, latex)]
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
    words = f"brought into {_bounds(o)}" if kind == "truncate" else f"0 where {test} is outside {_bounds(o)}"
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
        notes.append(f"groups whose rewards are all equal: {_ZERO_STD[o.zero_std]}")
    elif o.baseline in ("group_mean", "leave_one_out"):
        notes.append("groups whose rewards are all equal: advantage exactly 0, kept in the divisor")
    if o.truncated == "mask":
        notes.append("completions cut off at the token limit: out of the loss, their rewards stay in the baseline")
    if shape.updates:
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
    return text.replace("−", "-").replace("π_old = π_θ", "old policy = policy").replace("π_old", "the old policy")


# ---- words


_BASELINE_WORDS = {"group_mean": "mean_group", "leave_one_out": "mean_others", "batch_mean": "mean_batch"}
_SCALE_WORDS = {
    "group_std": "std_group",
    "batch_std": "std_batch",
    "centred_batch_std": "std_batch_centred",
    "leave_one_out_std": "std_others",
    "group_mean": "mean_group",
}
_ZERO_STD = {"drop": "dropped", "resample": "dropped, and other prompts sampled in their place"}
_SHORT_AGGREGATION = {
    "token_mean": "mean over all tokens of the batch",
    "prompt_token_mean": "mean over the tokens of each prompt",
    "sequence_mean": "mean over tokens, then over completions",
    "sequence_sum": "sum over tokens, mean over completions",
    "sequence_token_sum": "completions weighted by their length",
    "constant_length": "sum over tokens divided by a constant length",
}


def _call(words: str, argument: str, latex: bool) -> str:
    """`std_group(r)`, or `std_batch(r − mean)` for the centred one."""
    name, over, *centred = words.split("_")
    if latex:
        inner = f"{argument}-\\bar {argument}" if centred else argument
        return f"\\operatorname{{{name}}}_{{\\mathrm{{{over}}}}}({inner})"
    return f"{name}_{over}({argument}{' − baseline' if centred else ''})"


def _bounds(o: Objective) -> str:
    low = number(o.correction_min) if o.correction_min is not None else "0"
    return f"{low}..{number(o.correction_max) if o.correction_max is not None else '∞'}"


def _name(o: Objective) -> str:
    """The title of the nearest preset, with the fields that differ from it."""
    changes = {name: [field for field, *_ in difference(preset(name), o)] for name in PRESETS}
    nearest = min(changes, key=lambda name: len(changes[name]))
    title = PRESETS[nearest].title
    if not changes[nearest]:
        return title
    if len(changes[nearest]) > 3:
        return f"Custom (nearest {title}, {len(changes[nearest])} fields differ)"
    return f"{title} with {', '.join(f'{field}={_plain(getattr(o, field))}' for field in changes[nearest])}"


def _plain(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _short_surrogate(o: Objective) -> str:
    if o.surrogate == "reinforce":
        return "plain policy gradient"
    level = {
        "token": "token ratio",
        "sequence": "sequence ratio (length-normalised)",
        "sequence_token": "sequence ratio with token gradients",
        "sequence_product": "full sequence ratio",
    }[o.ratio_level]
    if o.surrogate == "soft":
        return f"softly gated {level} (temperatures {number(o.soft_positive)} and {number(o.soft_negative)})"
    if o.surrogate == "geometric":
        low, high = ("off" if c is None else number(c) for c in (o.clip_low, o.clip_high))
        return f"geometric mean of token ratios clipped in log space by {low} and {high}"
    low = "0" if o.clip_low is None else number(max(1 - o.clip_low, 0))
    caps = [] if o.clip_high is None else [1 + o.clip_high]
    if o.surrogate == "truncated":
        caps += [] if o.ratio_max is None else [o.ratio_max]
    text = f"{o.surrogate} {level} {low}..{number(min(caps)) if caps else '∞'}"
    if o.dual_clip is not None:
        text += f", dual clip {number(o.dual_clip)}"
    if o.surrogate == "clipped" and o.ratio_max is not None:
        text += f", ratio at most {number(o.ratio_max)}"
    return text


def _short_advantage(o: Objective) -> str:
    baseline = {"none": "no baseline", "leave_one_out": "leave-one-out mean", "critic": "critic (GAE)"}.get(
        o.baseline, o.baseline.replace("_", " ")
    )
    if o.scale == "none":
        return f"{baseline}, no scaling"
    kind = "sample" if o.ddof else "population"
    scale = {
        "group_std": f"{kind} std",
        "batch_std": f"{kind} std of the batch",
        "centred_batch_std": f"{kind} std of the batch's centred rewards",
        "leave_one_out_std": f"{kind} std of the others",
        "group_mean": "group mean",
    }[o.scale]
    if o.baseline == "critic":
        scale = f"{kind} std of the batch's tokens"
    text = f"{baseline} / {scale}" + (f" + {number(o.eps)}" if o.eps else "")
    return f"each reward {text}, then summed and whitened" if o.rewards == "normalise_then_sum" else text


def _short_kl(o: Objective) -> str:
    if not o.kl_coef:
        return "no KL"
    weighted = "ratio x " if o.kl_gradient == "weighted" and o.kl_place == "loss" else ""
    return f"KL {number(o.kl_coef)} x {weighted}{o.kl_estimator} in the {o.kl_place}"
