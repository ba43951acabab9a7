"""What stages beside GRPO minimise, in DeepSeekMath's unified view (2402.03300, section 5.2): where the data come from,
what rewards them, and the gradient coefficient, the number that the gradient of each log-prob is multiplied by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cohort.settings import Stage
from cohort.views.plan import keeps_line, rewards_line


class View(NamedTuple):
    """One row of the unified view, with the loss as a line, as text and in LaTeX."""

    line: str
    equation: str
    latex: str
    data: str
    reward: str
    coefficient: str


_LOG_RATIOS = "h = log pi(w|q)/pi_ref(w|q) - log pi(l|q)/pi_ref(l|q), w the chosen and l the rejected answer"
_KEPT = "L = -(1/N) sum over the N tokens of kept samples of log pi(o_t | q, o_<t)"
_KEPT_LATEX = r"L = -\frac{1}{N} \sum_{i \in \mathrm{kept}} \sum_t \log \pi_\theta(o_{i,t} \mid q, o_{i,<t})"
_H_LATEX = (
    r"h = \log\frac{\pi_\theta(w \mid q)}{\pi_\mathrm{ref}(w \mid q)}"
    r" - \log\frac{\pi_\theta(l \mid q)}{\pi_\mathrm{ref}(l \mid q)}"
)


def _rft(stage: Stage) -> View:
    whose = "of the policy as it is"
    if stage.rft.mode == "offline":
        whose = f"of the policy the stage starts with, in {stage.rft.sampling_steps} steps"
    return View(
        f"RFT, {stage.rft.mode}: supervised training on its own right samples",
        _KEPT,
        _KEPT_LATEX,
        f"samples {whose}",
        rewards_line(stage),
        f"1 for what is kept, else 0; kept: {keeps_line(stage)}",
    )


def _reject(stage: Stage) -> View:
    return View(
        "rejection sampling: no weight moves",
        "no loss",
        "",
        "samples of the policy the stage starts with",
        rewards_line(stage),
        f"none; kept as data: {keeps_line(stage)}",
    )


def _dpo(stage: Stage) -> View:
    beta, e = stage.dpo.beta, stage.dpo.label_smoothing
    if stage.dpo.loss == "ipo":
        return View(
            f"IPO, tau {beta:g}",
            f"L = mean of (h - {1 / (2 * beta):g})^2, {_LOG_RATIOS}",
            rf"L = \frac{{1}}{{n}} \sum \left(h - \frac{{1}}{{2 \cdot {beta:g}}}\right)^2, \quad {_H_LATEX}",
            f"pairs of {stage.task.source}",
            "which of two answers is the better one",
            f"2 ({1 / (2 * beta):g} - h) for the chosen answer, its negative for the rejected one",
        )
    line, loss = f"DPO, beta {beta:g}", f"-log sigmoid({beta:g} h)"
    latex, coefficient = rf"-\log\sigma({beta:g}\, h)", f"{beta:g} sigmoid(-{beta:g} h)"
    if e:
        line += f", label smoothing {e:g}"
        loss = f"-{1 - e:g} log sigmoid({beta:g} h) - {e:g} log sigmoid(-{beta:g} h)"
        latex = rf"-{1 - e:g} \log\sigma({beta:g}\, h) - {e:g} \log\sigma(-{beta:g}\, h)"
        coefficient = f"{beta:g} ({1 - e:g} sigmoid(-{beta:g} h) - {e:g} sigmoid({beta:g} h))"
    return View(
        line,
        f"L = mean of {loss}, {_LOG_RATIOS}",
        rf"L = \frac{{1}}{{n}} \sum \left({latex}\right), \quad {_H_LATEX}",
        f"pairs of {stage.task.source}",
        "which of two answers is the better one",
        f"{coefficient} for the chosen answer, its negative for the rejected one",
    )


VIEWS: Mapping[str, Callable[[Stage], View]] = {"reject": _reject, "rft": _rft, "dpo": _dpo}
