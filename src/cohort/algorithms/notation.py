"""How numbers and symbols are written: 1.28, 3e-4, 1e-6; ρ or \\rho_{i,t}."""

# ruff: noqa: RUF001 - equations are written with Greek letters and a real minus sign

from __future__ import annotations

import re


class Notation:
    """The symbols of an equation, in plain Unicode or in LaTeX."""

    def __init__(self, latex: bool) -> None:
        self.latex = latex
        self.J = self.pick("J(θ)", "J(\\theta)")
        self.rho = self.pick("ρ", "\\rho_{i,t}")
        self.log_rho = self.pick("log ρ", "\\log\\rho_{i,t}")
        self.log_pi = self.pick("log π_θ", "\\log\\pi_\\theta(o_{i,t})")
        self.old = self.pick("π_old", "\\pi_{\\mathrm{old}}")
        self.sampler = self.pick("μ", "\\mu")
        self.alpha = self.pick("α", "\\alpha")
        self.mu = self.pick("μ_k", "\\mu_k")  # of a blend at step k
        self.w = self.pick("w", "w_{i,t}")
        self.dot = self.pick("·", "\\,")
        self.minus = self.pick(" − ", " - ")
        self.minimum = self.pick("min", "\\min")
        self.maximum = self.pick("max", "\\max")
        self.clip = self.pick("clip", "\\operatorname{clip}")
        self.detach = self.pick("sg", "\\operatorname{sg}")
        self.exp = self.pick("exp", "\\exp")
        self.mean = self.pick("1/L_i · Σ_t", "\\frac{1}{L_i}\\sum_t")  # over the completion's tokens
        self.infinity = self.pick("∞", "\\infty")

    def pick(self, plain: str, latex: str) -> str:
        """The one of the two that belongs to this notation."""
        return latex if self.latex else plain

    def words(self, text: str) -> str:
        """A text in the place of a formula, without the signs that LaTeX text does not have."""
        return self.pick(text, f"\\text{{{text.replace('−', '-').replace('∞', 'infinity')}}}")


def number(value: float | None) -> str:
    """`value` to ten digits without noise (1 + 0.28 is 1.28) and without padding (1e-6, not 1e-06); None is "off"."""
    if value is None:
        return "off"
    text = f"{value:.10g}" if value == 0 or 1e-3 <= abs(value) < 1e9 else f"{value:.9e}"
    if "e" not in text:
        return text
    digits, exponent = text.split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def bounds(low: float | None, high: float | None) -> str:
    """`0.5..2`, `0..3`; ∞ where there is no upper bound."""
    return f"{'0' if low is None else number(low)}..{'∞' if high is None else number(high)}"


def powers_of_ten(latex: str) -> str:
    """1e-6 as 10^{-6}, 3e-4 as 3\\cdot 10^{-4}; not inside \\text{...}, where ^ is no superscript."""
    if "\\text{" in latex:
        return "".join(
            part if part.startswith("\\text{") else powers_of_ten(part)
            for part in re.split(r"(\\text\{[^}]*\})", latex)
        )
    with_factor = re.sub(r"(?<![\w.])([\d.]+)e(-?\d+)", r"\1\\cdot 10^{\2}", latex)
    return re.sub(r"(?<![\w.])1\\cdot 10\^", "10^", with_factor)


def in_ascii(text: str) -> str:
    """A note of an equation without the letters that LaTeX text does not have."""
    return (
        text.replace("μ", "mu")
        .replace("−", "-")
        .replace("π_old = π_θ", "old policy = policy")
        .replace("π_old", "the old policy")
    )
