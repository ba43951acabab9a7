"""The equation of an objective, in plain Unicode or LaTeX, with every divisor, bound and epsilon filled in."""

# ruff: noqa: RUF001 - equations are written with Greek letters and a real minus sign

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from cohort.algorithms.factors import Rows, entropy_rows, factors, own_terms
from cohort.algorithms.fields import GROUP_BASELINES, SURROGATE_READS, short
from cohort.algorithms.notation import Notation, bounds, in_ascii, number, powers_of_ten
from cohort.algorithms.objective import Objective

_ZERO_STD = {"drop": "dropped", "resample": "dropped, and other prompts sampled in their place"}
_KL_FORMS = {
    "k1": ("u", "u"),
    "k2": ("u²/2", "\\tfrac12u^2"),
    "k3": ("exp(−u) − 1 + u", "e^{-u}-1+u"),
}


_DIVERGENCES = {  # of the next word, given what the student wrote: plain, and LaTeX
    "reverse": ("KL(π_θ ‖ π_T), over the vocabulary", "\\mathrm{KL}(\\pi_\\theta\\,\\|\\,\\pi_T)"),
    "forward": ("KL(π_T ‖ π_θ), over the vocabulary", "\\mathrm{KL}(\\pi_T\\,\\|\\,\\pi_\\theta)"),
    "jsd": (
        "β·KL(π_T ‖ M) + (1 − β)·KL(π_θ ‖ M), M = β·π_T + (1 − β)·π_θ, over the vocabulary",
        "\\beta\\,\\mathrm{KL}(\\pi_T\\|M)+(1-\\beta)\\,\\mathrm{KL}(\\pi_\\theta\\|M),\\quad "
        "M=\\beta\\pi_T+(1-\\beta)\\pi_\\theta",
    ),
}


FOUND_BY = {  # `rollout.groups`: what its members are
    "beam": "beams",
    "diverse_beam": "diverse beams",
    "greedy_plus_sample": "the greedy one and draws",
}
NOT_DRAWN = (
    "completions: {} of π_θ. What was not drawn has no ratio: log-probs are raised or lowered by A, which is no policy "
    "gradient; what of it says the same as another one has A = 0, and is in no mean"
)


class Shape(NamedTuple):
    """The numbers of the recipe that stand in the equation; a number that is not known stays a letter."""

    prompts: int | None = None
    group_size: int | None = None
    max_tokens: int | None = None
    updates: int | None = None
    bypass: bool = False  # the ratio is taken against the sampler's own log-probs
    parts: int = 1  # mini-batches of a step; each has an update of its own, and divisors of its own
    drops: bool = False  # groups without signal leave the batch, so how many are left is not known
    divergence: str = ""  # from the teacher over the whole vocabulary, in place of its advantage
    groups: str = "sample"  # how the completions of a group are found, as `rollout.groups` says

    @property
    def step(self) -> int | None:
        """How many completions a step has, over which advantages are computed; None where that is not known."""
        return self.prompts * self.group_size if self.prompts and self.group_size and not self.drops else None

    @property
    def update_prompts(self) -> str:
        """How many prompts an optimizer update has."""
        known = self.prompts and not self.drops and self.prompts % self.parts == 0
        return str(self.prompts // self.parts) if known and self.prompts else "P"

    @property
    def batch(self) -> str:
        """How many completions an optimizer update has: what its loss is divided by."""
        P = self.update_prompts
        return str(int(P) * self.group_size) if P != "P" and self.group_size else "B"


def equation(objective: Objective, *, latex: bool = False, **known: Any) -> str:
    """What is maximised, then each symbol in it, one a line, with every divisor, bound and epsilon as a number.

    `known` are fields of `Shape`: `prompts`, `group_size`, `max_tokens` and `updates` (optimizer steps per batch) are
    filled in where they are given.
    A step is split into `parts` mini-batches of whole groups, and J is that of one of them: its divisors are its own.
    Where their number differs, or groups are dropped, they are letters, and a row says what they stand for.
    With `bypass` the ratio is one against the sampler. With `divergence`, such as "reverse" (`distill.kl`), that is
    differentiated in the place of the teacher's advantage. `groups` other than "sample" are no draws, as a note says.
    With `latex` the result is an `aligned` environment.
    """
    o, n = objective, Notation(latex)
    shape = Shape(drops=o.zero_std != "zero", **known)
    o = replace(o, teacher_coef=0.0) if shape.divergence else o
    surrogate, defined = SURROGATES[o.surrogate](o, n)
    correction = f"{n.w}{n.dot}" if o.correction != "off" and o.surrogate != "gamma" else ""
    factor, factor_rows = factors(o, _ratio(o, n), _old(o, shape, n), n)
    body = (
        f"{factor}{correction}{surrogate}{_kl_term(o, n)}{_divergence_term(objective, shape, n)}{_entropy_term(o, n)}"
    )
    J = f"{_sum(o, shape, n)} [ {body} ]" if body else ""
    if o.surrogate == "label_contrast":
        J = f"{_contrast_term(o, shape, n)}{J and n.minus}{J.replace(f'[ {n.minus}', '[ ')}"
    own, own_rows = own_terms(o, n)
    if o.blend:
        J = f"(1{n.minus}{n.mu}){n.dot}{{ {J} }}" if not latex else f"(1-{n.mu})\\{{ {J} \\}}"
    rows = [
        (n.J, f"{J}{own}"),
        *_ratio_rows(o, shape, n, defined),
        *factor_rows,
        *own_rows,
        *_teacher_rows(objective, shape, n),
        *advantage_rows(o, n),
        *_correction_rows(o, n),
        *_kl_rows(o, n),
        *entropy_rows(o, n),
        *(_divisor_rows(o, shape, n) if body else []),
    ]
    notes = _notes(o, shape)
    if latex:
        lines = [*(f"{left} &= {right}" for left, right in rows), *(f"&\\text{{{in_ascii(note)}}}" for note in notes)]
        return "\\begin{aligned}\n" + powers_of_ten(" \\\\\n".join(lines)) + "\n\\end{aligned}"
    width = max(len(left) for left, _ in rows)
    return "\n".join([*(f"{left:<{width}} = {right}" for left, right in rows), *notes])


def correction_bounds(o: Objective) -> str:
    """`0..3`; ∞ where there is no upper bound."""
    return bounds(o.correction_min, o.correction_max)


# ---- surrogates: each gives its term, and the symbols that it alone defines


def _clipped(o: Objective, n: Notation) -> tuple[str, Rows]:
    A, r = _advantage(o, n), _ratio(o, n)
    capped = f"{n.minimum}({r}, {number(o.ratio_max)})" if o.ratio_max is not None else r
    term = f"{capped}{n.dot}{A}"
    if o.clip_low is not None or o.clip_high is not None:
        term = f"{n.minimum}({term}, {_clip(r, o.clip_low, o.clip_high, None, n)}{n.dot}{A})"
    if o.dual_clip is not None:
        bounded = f"{n.maximum}({term}, {number(o.dual_clip)}{n.dot}{A})"
        term = n.pick(
            f"{{ {bounded} where A < 0, else {term} }}",
            f"\\begin{{cases}}{bounded} & A<0 \\\\ {term} & A\\ge 0\\end{{cases}}",
        )
    return term, []


def _truncated(o: Objective, n: Notation) -> tuple[str, Rows]:
    weight = _clip(_ratio(o, n), o.clip_low, o.clip_high, o.ratio_max, n)
    if o.positive_weight == "one":
        c = n.pick("c", "c_{i,t}")
        cases = n.pick(f"1 where A > 0, {weight} where A ≤ 0", f"1\\ [A>0];\\ {weight}\\ [A\\le 0]")
        return f"{n.detach}[{c}]{n.dot}{_advantage(o, n)}{n.dot}{n.log_pi}", [(c, cases)]
    return f"{n.detach}[{weight}]{n.dot}{_advantage(o, n)}{n.dot}{n.log_pi}", []


def _soft(o: Objective, n: Notation) -> tuple[str, Rows]:
    A, r = _advantage(o, n), _ratio(o, n)
    term = n.pick(f"(4/τ)·σ(τ·({r} − 1))·{A}", f"\\frac{{4}}{{\\tau}}\\sigma(\\tau({r}-1))\\,{A}")
    text = n.pick("{} where A > 0, else {}", "{} \\ [A>0];\\ {} \\ [A\\le 0]")
    return term, [(n.pick("τ", "\\tau"), text.format(number(o.soft_positive), number(o.soft_negative)))]


def _geometric(o: Objective, n: Notation) -> tuple[str, Rows]:
    upper = lower = n.log_rho
    if o.clip_high is not None:
        upper = f"{n.minimum}({n.log_rho}, {number(o.clip_high)})"
    if o.clip_low is not None:
        lower = f"{n.maximum}({n.log_rho}, {n.minus.strip()}{number(o.clip_low)})"
    g, c = n.pick("g", "g_i"), n.pick("c", "c_{i,t}")
    cases = n.pick(f"{upper} where A ≥ 0, {lower} where A < 0", f"{upper}\\ [A\\ge 0];\\ {lower}\\ [A<0]")
    return f"{_advantage(o, n)}{n.dot}{g}", [(g, f"{n.exp}({n.mean} {c})"), (c, cases)]


def _gamma(o: Objective, n: Notation) -> tuple[str, Rows]:
    phi, W = n.pick("φ", "\\varphi_i"), n.pick("W", "W_i")
    form = n.pick("W^{}·exp({}·(1 − W)) where {}", "W_i^{{{}}}e^{{{}(1-W_i)}}\\ [{}]")
    signs = n.pick("A ≥ 0", "A\\ge 0"), n.pick("A < 0", "A<0")
    parts = [form.format(*map(number, pair), sign) for pair, sign in zip((o.gamma_positive, o.gamma_negative), signs)]
    mismatch = f"{n.dot}{n.w}" if o.correction != "off" else ""
    return f"{n.detach}[{phi}]{n.dot}{_advantage(o, n)}{n.dot}{n.log_pi}", [
        (phi, n.pick(", ", "\\text{ or }").join(parts)),
        (W, n.pick("Π_t ", "\\prod_t ") + n.rho + mismatch),
    ]


def _label_contrast(o: Objective, n: Notation) -> tuple[str, Rows]:
    s = n.pick("s", "s_i")
    return "", [
        (n.rho, n.pick("π_θ(o_t) / π_old(o_t), per token", "\\pi_\\theta/\\pi_{\\mathrm{old}}")),
        (s, n.pick(f"1/L_i · Σ_t {n.log_rho}", f"\\frac{{1}}{{L_i}}\\sum_t {n.log_rho}")),
    ]


def _contrast_term(o: Objective, shape: Shape, n: Notation) -> str:
    """What label_contrast maximises of whole groups."""
    P, tau = shape.update_prompts, number(o.contrast_temperature)
    plain = f"−1/{P} · Σ_p [ ln(1 + Σ_(A>0) exp(−s/{tau})) + ln(1 + Σ_(A≤0) exp(s/{tau})) ]"
    sums = (f"\\ln(1+\\sum_{{A_i>0}}e^{{-s_i/{tau}}})", f"\\ln(1+\\sum_{{A_i\\le 0}}e^{{s_i/{tau}}})")
    return n.pick(plain, f"-\\frac{{1}}{{{P}}}\\sum_{{p=1}}^{{{P}}} [ {sums[0]} + {sums[1]} ]")


SURROGATES: dict[str, Callable[[Objective, Notation], tuple[str, Rows]]] = {
    "clipped": _clipped,
    "truncated": _truncated,
    "soft": _soft,
    "geometric": _geometric,
    "reinforce": lambda o, n: (f"{_advantage(o, n)}{n.dot}{n.log_pi}", []),
    "gamma": _gamma,
    "label_contrast": _label_contrast,
}


def _clip(r: str, clip_low: float | None, clip_high: float | None, ratio_max: float | None, n: Notation) -> str:
    cap = capped_at(clip_high, ratio_max)
    high = n.infinity if cap is None else number(cap)
    return f"{n.minimum}({r}, {high})" if clip_low is None else f"{n.clip}({r}, {number(1 - clip_low)}, {high})"


def capped_at(clip_high: float | None, ratio_max: float | None) -> float | None:
    """The upper bound of a ratio: the smaller one of two caps. None: there is none."""
    caps = (ratio_max, None if clip_high is None else 1 + clip_high)
    return min((cap for cap in caps if cap is not None), default=None)


def _ratio(o: Objective, n: Notation) -> str:
    return {
        "token": n.rho,
        "sequence": n.pick("s", "s_i"),
        "sequence_token": n.pick("s_t", "s_{i,t}"),
        "sequence_product": n.pick("S", "S_i"),
    }[o.ratio_level]


def _advantage(o: Objective, n: Notation) -> str:
    """What the surrogate is multiplied with: the advantage, or what a teacher has made of it."""
    return n.pick("Â", "\\hat A_{i,t}") if o.teacher_coef else _own_advantage(o, n)


def _old(o: Objective, shape: Shape, n: Notation) -> str:
    """Whose log-probs the policy's are compared with: the ratio's denominator."""
    return n.sampler if shape.bypass or o.old == "sampler" else n.old


def _own_advantage(o: Objective, n: Notation) -> str:
    return n.pick("A_t", "A_{i,t}") if o.baseline in ("critic", "token_optimal") else n.pick("A", "A_i")


# ---- the other terms


def token_weight(o: Objective, shape: Shape) -> str:
    """What every token's term is divided by, `1/(256·48)`."""
    B, P, L = shape.batch, shape.update_prompts, shape.max_tokens or "L_max"
    return {
        "token_mean": "1/N",
        "prompt_token_mean": f"1/({P}·N_p)",
        "sequence_mean": f"1/({B}·L_i)",
        "sequence_sum": f"1/{B}",
        "sequence_token_sum": f"1/{B}",
        "constant_length": f"1/({B}·{L})",
    }[o.aggregation]


def _sum(o: Objective, shape: Shape, n: Notation) -> str:
    B, P = shape.batch, shape.update_prompts
    L = str(shape.max_tokens or n.pick("L_max", "L_{\\max}"))
    over_i, over_t = f"\\sum_{{i=1}}^{{{B}}}", "\\sum_{t=1}^{L_i}"
    plain, latex = {
        "token_mean": ("1/N · Σ_i Σ_t", f"\\frac{{1}}{{N}}{over_i}{over_t}"),
        "prompt_token_mean": (
            f"1/{P} · Σ_p 1/N_p · Σ_(i in p) Σ_t",
            f"\\frac{{1}}{{{P}}}\\sum_{{p=1}}^{{{P}}}\\frac{{1}}{{N_p}}\\sum_{{i\\in p}}{over_t}",
        ),
        "sequence_mean": (f"1/{B} · Σ_i 1/L_i · Σ_t", f"\\frac{{1}}{{{B}}}{over_i}\\frac{{1}}{{L_i}}{over_t}"),
        "sequence_sum": (f"1/{B} · Σ_i Σ_t", f"\\frac{{1}}{{{B}}}{over_i}{over_t}"),
        "sequence_token_sum": (
            f"1/{B} · Σ_i L_i · 1/L_i · Σ_t",
            f"\\frac{{1}}{{{B}}}{over_i}L_i\\frac{{1}}{{L_i}}{over_t}",
        ),
        "constant_length": (f"1/({B}·{L}) · Σ_i Σ_t", f"\\frac{{1}}{{{B}\\cdot {L}}}{over_i}{over_t}"),
    }[o.aggregation]
    return n.pick(plain, latex)


def _kl_symbol(o: Objective, n: Notation) -> str:
    return n.pick(o.kl_estimator, f"k_{{{o.kl_estimator[1:]}}}")


def _kl_term(o: Objective, n: Notation) -> str:
    if not o.kl_coef or o.kl_place == "reward":
        return ""
    ratio = f"{n.rho}{n.dot}" if o.kl_gradient == "weighted" else ""
    return f"{n.minus}{number(o.kl_coef)}{n.dot}{ratio}{_kl_symbol(o, n)}"


def _divergence_term(o: Objective, shape: Shape, n: Notation) -> str:
    return f"{n.minus}{number(o.teacher_coef)}{n.dot}{n.pick('D_t', 'D_{i,t}')}" if shape.divergence else ""


def _entropy_term(o: Objective, n: Notation) -> str:
    if o.entropy_target is not None:
        return f" + {n.alpha}{n.dot}{n.pick('H', 'H_{i,t}')}"
    if not o.entropy_coef:
        return ""
    sign = " + " if o.entropy_coef > 0 else n.minus
    return f"{sign}{number(abs(o.entropy_coef))}{n.dot}{n.pick('H', 'H_{i,t}')}"


# ---- what the symbols mean


def _ratio_rows(o: Objective, shape: Shape, n: Notation, defined: Rows) -> Rows:
    """The ratio of a token, that of its completion, and what the surrogate itself defines."""
    old = _old(o, shape, n)
    token = (n.rho, n.pick(f"π_θ(o_t) / {old}(o_t), per token", f"\\pi_\\theta(o_{{i,t}})/{old}(o_{{i,t}})"))
    if "ratio_level" not in SURROGATE_READS[o.surrogate]:
        weighted = o.kl_coef and o.kl_place == "loss" and o.kl_gradient == "weighted"
        return [token, *defined] if weighted else defined
    symbol, mean = _ratio(o, n), f"{n.exp}({n.mean} {n.log_rho})"
    s = n.pick("s", "s_i")
    levels = {
        "token": [],
        "sequence": [(symbol, mean)],
        "sequence_token": [(symbol, f"{n.detach}[{s}]{n.rho}/{n.detach}[{n.rho}]"), (s, mean)],
        "sequence_product": [(symbol, n.pick("Π_t ", "\\prod_t ") + n.rho)],
    }
    return [token, *([] if o.surrogate == "geometric" else levels[o.ratio_level]), *defined]


def _teacher_rows(o: Objective, shape: Shape, n: Notation) -> Rows:
    """What a teacher says of a token, and how it enters."""
    if shape.divergence:
        return [(n.pick("D_t", "D_{i,t}"), n.pick(*_DIVERGENCES[shape.divergence]))]
    if not o.teacher_coef:
        return []
    A, a, coef, discount = _own_advantage(o, n), n.pick("a_t", "a_{i,t}"), o.teacher_coef, number(o.teacher_discount)
    c, old = number(coef), _old(o, shape, n)
    times = "" if coef == 1 else f"{c}{n.dot}"
    rows = [(a, n.pick(f"log π_T(o_t) − log {old}(o_t)", f"\\log\\pi_T(o_{{i,t}})-\\log {old}(o_{{i,t}})"))]
    if o.teacher_form == "reweight":
        bounded = n.pick(f"clip(exp(sign({A})·a_t), 0.8, 1.2)",
                         f"\\operatorname{{clip}}(\\exp(\\operatorname{{sign}}({A})\\,{a}), 0.8, 1.2)")  # fmt: skip
        return [(_advantage(o, n), f"{A}{n.dot}({number(1 - coef)} + {c}{n.dot}{bounded})"), *rows]
    if o.teacher_form == "position":
        w = n.pick("w_t", "w^T_{i,t}")
        sums = "\\sum_{j<t}|a_{i,j}|}{\\sum_j|a_{i,j}|"
        weight = n.pick(f"1 + {discount}·(1 − Σ_(j<t) |a_j| / Σ_j |a_j|)",
                        f"1+{discount}\\left(1-\\frac{{{sums}}}\\right)")  # fmt: skip
        return [(_advantage(o, n), f"{A} + {times}{w}{n.dot}{a}"), (w, weight), *rows]
    if o.teacher_discount:
        a = n.pick(f"Σ_(k≥t) {discount}^(k−t)·a_k", f"\\sum_{{k\\ge t}} {discount}^{{k-t}} a_{{i,k}}")
    return [(_advantage(o, n), f"{A} + {times}{a}"), *rows]


def advantage_rows(o: Objective, n: Notation) -> Rows:
    """What an advantage is made of, and the reward in it where that is more than the score."""
    A, coef = _own_advantage(o, n), number(o.kl_coef)
    kl_in_reward = o.kl_coef != 0 and o.kl_place == "reward"
    if o.baseline == "critic":
        whitened = "" if o.scale == "none" else f", whitened: (A − mean) / sqrt(var + {number(o.eps)})"
        penalty = f" of rewards less {coef} {o.kl_estimator} a token" if kl_in_reward else ""
        words = f"GAE from the critic{penalty}{whitened}"
        return [(A, n.words(words))]
    if o.baseline == "token_optimal":
        B = n.pick(
            "Σ_i G·W / Σ_i W over the group's completions with a token t",
            "\\frac{\\sum_i G_i W_{i,t}}{\\sum_i W_{i,t}}",
        )
        W = n.pick("Σ_(j≤t) (1 − 2·p_j + Σ_v p_v²), p of π_old; B is 0 where one completion is left",
                   "\\sum_{j\\le t}(1-2p_{i,j}+\\sum_v p_v^2)")  # fmt: skip
        return [(A, n.pick("G − B_t", "G_i-B_t")), (n.pick("B_t", "B_t"), B), (n.pick("W", "W_{i,t}"), W)]
    r = n.pick("r", "r_i")
    value = r if o.baseline == "none" else f"{r}{n.minus}{_statistic(o.baseline, n)}"
    if o.scale != "none":
        divisor = _statistic(o.scale, n) + (f" + {number(o.eps)}" if o.eps else "")
        value = n.pick(f"({value}) / ({divisor})", f"\\frac{{{value}}}{{{divisor}}}")
    if o.rewards == "normalise_then_sum":
        words = f"each reward normalised so, weighted and added, then whitened over the batch with + {number(o.eps)}"
        return [(A, value + n.pick(f"; {words}", f"\\ \\text{{({words})}}"))]
    if kl_in_reward:
        k = _kl_symbol(o, n)
        return [(A, value), (r, n.pick(f"score − {coef}·Σ_t {k}", f"R_i - {coef}\\sum_t {k}"))]
    return [(A, value)]


def _statistic(choice: str, n: Notation) -> str:
    """`std_group(r)` for group_std, `std_batch(r − baseline)` for centred_batch_std."""
    of_others = {"leave_one_out": "others_mean", "leave_one_out_std": "others_std"}
    name, over, *centred = reversed(of_others.get(choice, choice).split("_"))
    if n.latex:
        inner = "r-\\bar r" if centred else "r"
        return f"\\operatorname{{{name}}}_{{\\mathrm{{{over}}}}}({inner})"
    return f"{name}_{over}(r{' − baseline' if centred else ''})"


def _correction_rows(o: Objective, n: Notation) -> Rows:
    if o.correction == "off":
        return []
    level, kind = o.correction.rsplit("_", 1)
    ratio = n.pick("π_old(o_t) / μ(o_t)", "\\pi_{\\mathrm{old}}(o_{i,t})/\\mu(o_{i,t})")
    if level == "sequence":
        ratio = n.pick("Π_t ", "\\prod_t ") + ratio
    test = "geometric mean over the completion" if level == "geometric" else "it"
    bounds = correction_bounds(o)
    words = f"brought into {bounds}" if kind == "truncate" else f"0 where {test} is outside {bounds}"
    plain = f"{ratio}, {words}, detached; μ is the sampler"
    return [(n.w, n.pick(plain, f"{ratio}\\ \\text{{, {words.replace('∞', 'infinity')}, detached}}"))]


def _kl_rows(o: Objective, n: Notation) -> Rows:
    if not o.kl_coef:
        return []
    form = n.pick(*_KL_FORMS[o.kl_estimator])
    policy = n.pick("π_θ", "\\pi_{\\theta}") if o.kl_place == "loss" else n.old
    if n.latex:
        u = f"\\log{policy}(o_{{i,t}})-\\log\\pi_{{\\mathrm{{ref}}}}(o_{{i,t}})"
        return [(_kl_symbol(o, n), f"{form},\\quad u={u}")]
    return [(_kl_symbol(o, n), f"{form},  u = log {policy}(o_t) − log π_ref(o_t)")]


def _divisor_rows(o: Objective, shape: Shape, n: Notation) -> Rows:
    rows = []
    if o.aggregation == "token_mean":
        of = " of the update" if shape.parts > 1 else ""
        plain = f"Σ_i L_i, every unmasked token of the {shape.batch} completions{of}"
        rows.append(("N", n.pick(plain, "\\sum_{i} L_i")))
    if o.aggregation == "prompt_token_mean":
        rows.append(("N_p", n.pick("Σ_(i in p) L_i, every unmasked token of prompt p", "\\sum_{i\\in p} L_i")))
    times = n.pick("·", "\\cdot ")
    if shape.batch != "B":
        per, of = (f"P/{shape.parts}", ", one update's") if shape.parts > 1 else ("P", "")
        text = f"{per}{times}G = {shape.update_prompts}{times}{shape.group_size} = {shape.batch}"
        rows.append(("B", text + (of if not n.latex or not of else f"\\ \\text{{{of}}}")))
    elif shape.prompts and shape.group_size:
        rows += [("B", f"P{times}{shape.group_size}"), ("P", n.words(_prompts(shape)))]
    return rows


def _prompts(shape: Shape) -> str:
    """What P stands for where it is no one number."""
    assert shape.prompts is not None
    low, high = shape.prompts // shape.parts, -(-shape.prompts // shape.parts)
    of = "the step" if shape.parts == 1 else "the update"
    if shape.drops:
        split = "" if shape.parts == 1 else f", those of the step being split into {shape.parts} nearly equal parts"
        return f"the prompts of {of} whose groups are left, at most {high}{split}"
    return f"the prompts of {of}, {low} or {high}: {shape.prompts} split into {shape.parts} nearly equal parts"


def _notes(o: Objective, shape: Shape) -> list[str]:
    """Facts for which the equation has no symbol: the std, groups without signal, updates per batch."""
    notes = []
    if o.scale.endswith("std"):
        count = {"group_std": "G", "leave_one_out_std": "(G−1)"}.get(o.scale, "B")
        divisor = count if o.ddof == 0 else f"{count}−1"
        known = {"G": shape.group_size, "B": shape.step}.get(count)
        filled = f" = {known - o.ddof}" if known else ""
        filled += " over the whole step" if count == "B" and (shape.parts > 1 or shape.drops) else ""
        over = "over the batch's tokens" if o.baseline == "critic" else f"divisor {divisor}{filled}"
        notes.append(f"std: {short('ddof', o.ddof)}, {over}")
    if o.whiten_by == "token":
        notes.append("A is whitened over tokens: its mean over all tokens is taken off, and the std is theirs")
    if o.credit == "process":
        notes.append("rewards that score steps: a token has the sum over the steps that end at it or later")
    if o.credit == "states":
        weight, discount = number(o.state_weight), number(o.state_discount)
        notes.append(f"to A of a turn's tokens {weight} x its own is added: its return, discounted by {discount} a "
                     "turn, normalised among the turns of the group that were taken in the same state")  # fmt: skip
    if o.zero_std != "zero":
        notes.append(f"groups whose accuracy is constant: {_ZERO_STD[o.zero_std]}")
    elif o.baseline in GROUP_BASELINES:
        notes.append("groups whose rewards are all equal: advantage exactly 0, kept in the divisor")
    if o.truncated == "mask":
        notes.append("completions cut off at the token limit: out of the loss, their rewards stay in the baseline")
    if o.old == "interpolate":
        notes.append("π_old is read off between sampler and policy: log π_old = log μ + a (log π_θ − log μ), detached, "
                     "a = (age − 1) / age, age 1 for a token of the newest weights")  # fmt: skip
    if shape.groups != "sample":
        notes.append(NOT_DRAWN.format(FOUND_BY[shape.groups]))
    elif shape.bypass or o.old == "sampler":
        notes.append("μ is the policy that sampled; there is no π_old")
    elif shape.updates:
        same = "so π_old = π_θ: the ratio is 1 and no clip acts"
        once = same if shape.updates == 1 else "π_old is the policy before the first of them"
        notes.append(f"optimizer updates per batch: {shape.updates}, {once}")
    return notes
