"""What the fields with several parts hold, read and checked: a wrong part is named, with what to write instead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cohort.algorithms.kinds import nearest

OFF = (None, "off")

# What a filter measures of old policy / sampler, and what is left out by it.
MEASURES: Mapping[str, str] = {
    "token": "tokens by their own ratio",
    "sequence": "completions by the product of their tokens' ratios",
    "geometric": "completions by the geometric mean of their tokens' ratios",
    "outlier": "completions with any token's ratio outside",
    "k3_mean": "completions by the mean of w - 1 - ln w",
    "second_moment": "the tokens furthest apart, until the mean of the others' squared log-ratios is below the bound",
}

Filter = tuple[str, float | None, float | None]


def filters(name: str, value: Any) -> tuple[Filter, ...]:
    """(measure, low, high) each; a bound may be "off" or None, not both."""
    return tuple(_filter(f"{name}[{at}]", part) for at, part in enumerate(_parts(name, value, "(measure, low, high)")))


def _filter(name: str, part: Any) -> Filter:
    measure, *given = _sized(name, part, (3,), "(measure, low, high)")
    if measure not in tuple(MEASURES):
        raise ValueError(f"{name}: {measure!r} is no measure{nearest(measure, MEASURES)}")
    low, high = (None if bound in OFF else number(name, bound) for bound in given)
    if low is None and high is None:
        raise ValueError(f"{name} has no bound, so {measure!r} leaves nothing out: set one, or remove it")
    if measure in ("k3_mean", "second_moment"):
        if low is not None or high is None or high <= 0:
            raise ValueError(f"{name}: {measure!r} is never negative: low must be off, and high greater than 0")
    elif not (low or 0.0) <= 1 <= (math.inf if high is None else high):
        raise ValueError(
            f"{name}: bounds {low} and {high} exclude 1: what sampler and learner agree on would be left out; choose "
            "bounds on old policy / sampler with low <= 1 <= high"
        )
    return measure, low, high


# The extra terms: what each is of a token, and of which tokens.
KINDS: Mapping[str, str] = {
    "drift_square": "squared log-ratio to the old policy",
    "drift_absolute": "absolute log-ratio to the old policy",
    "nll": "negative log-prob",
}
TOKENS: Mapping[str, str] = {
    "policy": "the policy's own tokens",
    "positive": "tokens of completions with a reward above 0",
    "top_covariance": "the share of its tokens whose log-prob and advantage vary most together",
    "expert": "tokens of expert rows",
    "observation": "tokens that the environment wrote",
}
FOCUSES = ("none", "uncertain")  # uncertain: times p (1 - p), detached
_VOCABULARY = ("forward_kl", "reverse_kl", "jsd")

Extra = tuple[str, str, float, str]


def extras(name: str, value: Any) -> tuple[Extra, ...]:
    """(kind, tokens, coef, focus) each; the focus may be left out. Tokens are a word of `TOKENS`, of top_covariance
    with its share: "top_covariance(0.002)".
    """
    form = "(kind, tokens, coef) or (kind, tokens, coef, focus)"
    found = tuple(_extra(f"{name}[{at}]", part, form) for at, part in enumerate(_parts(name, value, form)))
    for at, one in enumerate(found):
        if one[:2] in [other[:2] for other in found[:at]]:
            raise ValueError(
                f"{name}[{at}]: {one[0]!r} of {one[1]!r} is there already, and would count twice; add coefs"
            )
    return found


def _extra(name: str, part: Any, form: str) -> Extra:
    kind, tokens, coef, *rest = _sized(name, part, (3, 4), form)
    if str(kind).partition("(")[0] in _VOCABULARY:
        raise ValueError(f"{name}: {kind!r} is over the vocabulary: a stage of kind distill has it as its divergence")
    if kind not in tuple(KINDS):
        raise ValueError(f"{name}: {kind!r} is no kind of term{nearest(kind, KINDS)}")
    word, share = share_of(name, tokens)
    if word not in TOKENS:
        raise ValueError(f"{name}: {tokens!r} are no tokens{nearest(word, TOKENS)}")
    if word in ("expert", "observation") and kind != "nll":
        raise ValueError(f"{name}: {kind!r} needs an old policy, and nobody sampled {TOKENS[word]}; use 'nll'")
    coef = number(name, coef)
    if coef < 0:
        raise ValueError(f"{name}: coef {coef:g} must be at least 0")
    focus = rest[0] if rest else "none"
    if focus not in FOCUSES:
        raise ValueError(f"{name}: {focus!r} is no focus{nearest(focus, FOCUSES)}")
    return kind, word if share is None else f"{word}({share:.10g})", coef, focus


def share_of(name: str, tokens: Any) -> tuple[str, float | None]:
    """("top_covariance", 0.002) of "top_covariance(0.002)"; any other word and None."""
    if isinstance(tokens, list | tuple) and len(tokens) == 2:
        tokens = f"{tokens[0]}({tokens[1]})"
    word, opened, inner = str(tokens).partition("(")
    if (word == "top_covariance") != bool(opened):
        raise ValueError(f"{name}: {tokens!r} must be a word, or with its share 'top_covariance(0.002)'")
    if not opened:
        return word, None
    try:
        share = float(inner.removesuffix(")"))
    except ValueError:
        share = math.nan
    if not (inner.endswith(")") and 0 < share <= 1):
        raise ValueError(
            f"{name}: {tokens!r} must have a share of tokens above 0 and at most 1, 'top_covariance(0.002)'"
        )
    return word, share


def pair(name: str, value: Any) -> tuple[float, float]:
    """Two numbers of at least 0."""
    first, second = (number(name, one) for one in _sized(name, value, (2,), "(k, lambda)"))
    if first < 0 or second < 0:
        raise ValueError(f"{name}={value!r} must be two numbers of at least 0, (k, lambda)")
    return first, second


def blend(name: str, value: Any) -> tuple[float, ...]:
    """(warm-up, decay, peak, valley): two numbers of steps, two shares; or () for none."""
    if not _parts(name, value, "(warm-up, decay, peak, valley)"):
        return ()
    found = tuple(number(name, one) for one in _sized(name, value, (4,), "(warm-up, decay, peak, valley)"))
    if min(found) < 0 or max(found[2:]) > 1:
        raise ValueError(f"{name}={value!r} must be steps of at least 0, and shares from 0 to 1")
    return found


def blend_words(found: tuple[float, ...]) -> str:
    """How mu goes; "" without a blend."""
    if not found:
        return ""
    warm_up, decay, peak, valley = found
    if peak == valley and not warm_up:
        return f"{peak:g} at every step"
    return f"0 to {peak:.10g} over {warm_up:.10g} steps, then half a cosine to {valley:.10g} over {decay:.10g}"


def number(name: str, value: Any) -> float:
    """A finite number as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} must be a finite number")
    return float(value) + 0.0


def _parts(name: str, value: Any, form: str) -> tuple[Any, ...]:
    if value in OFF:
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}={value!r} must be a list of {form}, or () for none")
    return tuple(value)


def _sized(name: str, part: Any, sizes: tuple[int, ...], form: str) -> tuple[Any, ...]:
    if not isinstance(part, list | tuple) or len(part) not in sizes:
        raise ValueError(f"{name}={part!r} must be {form}")
    return tuple(part)
