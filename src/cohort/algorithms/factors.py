"""What multiplies the policy term (masks, and what is decided over the whole batch), and the terms beside it: their
rows of the equation, and their words.
"""

# ruff: noqa: RUF001 - equations are written with Greek letters and a real minus sign

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cohort.algorithms import terms
from cohort.algorithms.notation import Notation, bounds, number
from cohort.algorithms.objective import Objective

Rows = list[tuple[str, str]]  # a symbol, and what it is equal to


def factors(o: Objective, ratio: str, old: str, n: Notation) -> tuple[str, Rows]:
    """What the policy term is multiplied by, as it stands before it, and what each symbol is. Each part begins with its
    factor's own row.
    """
    parts = (
        (o.mask != "off", _mask_rows(o, ratio, old, n)),
        (o.off_policy_delta is not None, _off_policy_rows(o, n)),
        (bool(o.filters), _filter_rows(o, n)),
        (o.focus != "all", _focus_rows(o, n)),
        (o.future_kl_half_life is not None, _future_rows(o, n)),
    )
    found = [rows for acts, rows in parts if acts]
    return "".join(f"{rows[0][0]}{n.dot}" for rows in found), [row for rows in found for row in rows]


def _mask_rows(o: Objective, ratio: str, old: str, n: Notation) -> Rows:
    p, p_old = n.pick("π_θ", "\\pi_\\theta"), old
    up, down = {
        "ratio": (f"{ratio}{n.minus}1", f"1{n.minus}{ratio}"),
        "bernoulli_kl": (n.pick("k where p rose", "k^{+}_{i,t}"), n.pick("k where p fell", "k^{-}_{i,t}")),
    }.get(o.mask, (f"{p}{n.minus}{p_old}", f"{p_old}{n.minus}{p}"))
    both = o.mask == "probability_both"
    sides = [
        f"{'' if both else sign + ' and '}{measure} > {number(bound)}"
        for sign, measure, bound in (("A > 0", up, o.mask_high), ("A < 0", down, o.mask_low))
        if bound is not None
    ]
    where = " or ".join(sides)
    latex = where.replace(" or ", "\\ \\text{or}\\ ").replace(" and ", "\\ \\text{and}\\ ")
    rows = [
        (n.pick("M", "M_{i,t}"), n.pick(f"0 where {where}, else 1; detached", f"0\\ [{latex}],\\ \\text{{else 1}}"))
    ]
    if o.mask == "bernoulli_kl":
        plain = f"p_old·ln(p_old/p) + (1 − p_old)·ln((1 − p_old)/(1 − p)), p = {p}(o_t), p_old = {p_old}(o_t)"
        latex = f"\\mathrm{{KL}}(\\mathrm{{Bern}}({p_old})\\,\\|\\,\\mathrm{{Bern}}({p}))\\ " \
                "\\text{of the sampled token, where p rose (+) or fell (-)}"  # fmt: skip
        rows.append((n.pick("k", "k^{\\pm}_{i,t}"), n.pick(plain, latex)))
    return rows


def _off_policy_rows(o: Objective, n: Notation) -> Rows:
    delta = number(o.off_policy_delta)
    plain = f"0 where A < 0 and {n.mean} (log μ − log π_θ) > {delta}, else 1; μ is the sampler"
    latex = f"0\\ [A<0\\ \\text{{and}}\\ {n.mean}(\\log\\mu-\\log\\pi_\\theta) > {delta}],\\ \\text{{else 1}}"
    return [(n.pick("O", "O_i"), n.pick(plain, latex))]


def _filter_rows(o: Objective, n: Notation) -> Rows:
    words = f"0 where a filter leaves the token out: {', '.join(map(filter_words, o.filters))}; else 1"
    words += "; of old policy / sampler, over the whole batch"
    return [(n.pick("F", "F_{i,t}"), n.words(words))]


def _focus_rows(o: Objective, n: Notation) -> Rows:
    share = number(o.focus_share)
    if o.focus == "top_entropy":
        words = f"1 for the {share} of all tokens with the highest entropy, else 0"
    else:
        low, high = (number(o.focus_low), number(o.focus_high))
        words = f"0 for max(1, {share} of all tokens), drawn from those with a covariance of log-prob and advantage " \
                f"between {low} and {high}, else 1"  # fmt: skip
    words += "; over the whole batch, before the update"
    return [(n.pick("K", "K_{i,t}"), n.words(words))]


def entropy_rows(o: Objective, n: Notation) -> Rows:
    """What the coefficient of the entropy bonus is where it is steered."""
    if o.entropy_target is None:
        return []
    target, step = number(o.entropy_target), number(o.entropy_step)
    words = f"the coefficient c where the last mean entropy was at most {target}, else 0; c begins at " \
            f"{number(o.entropy_coef)} and moves by {step} an update, up where the entropy is at most {target}, else " \
            f"down, inside {bounds(o.entropy_min, o.entropy_max)}"  # fmt: skip
    return [(n.alpha, n.words(words))]


def _future_rows(o: Objective, n: Notation) -> Rows:
    f, low, high = n.pick("f_t", "f_{i,t}"), number(o.future_kl_low), number(o.future_kl_high)
    gamma, safe = f"2^(−1/{number(o.future_kl_half_life)})", number(2 - o.future_kl_high)
    limit = f"where A < 0 and {n.rho} > {number(o.future_kl_ratio_limit)}: inside {safe}..1"
    plain = f"clip(exp(Σ_(k≥t) γ^(k−t)·{n.log_rho}_k), {low}, {high}), γ = {gamma}, detached; {limit}"
    latex = f"{n.clip}(\\exp(\\sum_{{k\\ge t}}\\gamma^{{k-t}}\\log\\rho_{{i,k}}), {low}, {high}),\\ " \
            f"\\gamma=2^{{-1/{number(o.future_kl_half_life)}}};\\ [{safe}, 1]\\ \\text{{where}}\\ A<0,\\ " \
            f"{n.rho} > {number(o.future_kl_ratio_limit)}"  # fmt: skip
    return [(f, n.pick(plain, latex))]


_TERM_FORMS = {  # of a token: plain, and LaTeX
    "drift_square": ("(log π_θ − log π_old)²", "(\\log\\pi_\\theta-\\log\\pi_{\\mathrm{old}})^2"),
    "drift_absolute": ("|log π_θ − log π_old|", "|\\log\\pi_\\theta-\\log\\pi_{\\mathrm{old}}|"),
    "nll": ("(−log π_θ)", "(-\\log\\pi_\\theta)"),
}
_UNCERTAIN = ("p·(1 − p)·", "p(1-p)\\,")


def own_terms(o: Objective, n: Notation) -> tuple[str, Rows]:
    """What the loss has beside the sum over tokens, as it stands behind it, and what each symbol is."""
    text, rows = "", Rows()
    for at, (kind, tokens, coef, focus) in enumerate(o.extras, 1):
        word, share = terms.share_of("extras", tokens)
        symbol = n.pick(f"E{at}", f"E_{{{at}}}")
        mu = f"{n.mu}{n.dot}" if o.blend and word == "expert" else ""
        text += f"{n.minus}{mu}{'' if coef == 1 else number(coef) + n.dot}{symbol}"
        form = n.pick(*_UNCERTAIN) * (focus == "uncertain") + n.pick(*_TERM_FORMS[kind])
        of = terms.TOKENS[word].replace("the share", f"the {number(share)}")
        mean = f"sum over {of}, weighted as the policy's" if share is not None else f"mean over {of}"
        rows.append((symbol, n.pick(f"{form}, {mean}", f"{form},\\ \\text{{{mean}}}")))
    if o.blend:
        rows.append((n.mu, n.words(terms.blend_words(o.blend))))
    return text, rows


def extra_words(extra: terms.Extra) -> str:
    """`0.1 x nll over tokens of completions with a reward above 0`."""
    kind, tokens, coef, focus = extra
    word, share = terms.share_of("extras", tokens)
    of = terms.TOKENS[word] + ("" if share is None else f" ({number(share)})")
    return f"{number(coef)} x {terms.KINDS[kind]} over {of}" + (" times p (1 - p)" if focus == "uncertain" else "")


def filter_words(term: terms.Filter) -> str:
    """`geometric 0.99..1.01`."""
    measure, low, high = term
    if measure in ("k3_mean", "second_moment"):
        return f"{measure.replace('_', ' ')} up to {number(high)}"
    return f"{measure} {bounds(low, high)}"


# What a field of terms holds, in words.
TERM_WORDS: dict[str, Callable[[Any], str]] = {
    "filters": lambda found: "; ".join(map(filter_words, found)),
    "extras": lambda found: "; ".join(map(extra_words, found)),
    "blend": terms.blend_words,
    "gamma_positive": lambda found: ", ".join(map(number, found)),
    "gamma_negative": lambda found: ", ".join(map(number, found)),
}
