"""Gold answers in the styles of public sets: each pays itself or is refused with a reason; others do not pay."""

import random
import re
import time

import pytest

from cohort.rewards.guarded import end_guards
from cohort.rewards.verifiers.math.answer import check_math, math_answer

STYLES = {
    "competition": (
        "@", "-@", "\\frac{@}{@@}", "@\\sqrt{@@}", "\\frac{@\\sqrt{@@}}{@}", "@\\pi", "\\frac{@\\pi}{@@}", "(@, -@@)",
        "[@, @@)", "(-\\infty, -@) \\cup (@@, \\infty)", "@^{@@}", "x^2 - @x + @@", "\\{@, @@\\}", "@, @@",
        "\\text{odd}", "@^\\circ", "@\\%", "\\begin{pmatrix} @ & @@ \\\\ -@ & 0 \\end{pmatrix}", "@ + @@i",
        "y = @x - @@", "\\binom{@@}{3}", "@!", "\\log_@ @@", "@_8", "@(x+@@)(x-@)", "\\frac{1}{@} - \\frac{1}{@@}",
        "\\$@.50", "\\left(\\frac{@}{@@}, @\\right)", "\\text{Evelyn}", "@\\frac{1}{3}",
    ),
    "grade school": (
        "@", "@,@@00", "$@", "@.5", "@%", "Some steps, 3*4=<<3*4=12>>12.\n#### @", "@/@@ ",
    ),
    "olympiad": (
        "$@$, $@@$", "$(@, @@), (@@, @)$", "$\\frac{@}{@@}$", "$n = @k + @@$", "$2^{@}-@@$", "$\\pm @$",
        "$x \\geq @$", "$f(x) = @x + @@$", "$a = @, b = @@$", "$\\{x \\mid x > @\\}$", "$\\sqrt[3]{@}$",
        "$@\\frac{1}{2}$", "$\\sin @^\\circ$", "$(@, @@, -@)$",
    ),
    "science": (
        "@ \\times 10^{-@@}", "@.@@ \\mathrm{~m} / \\mathrm{s}", "@e-@@", "\\frac{@ m g}{@@ k}", "@ \\text{ km}",
        "I = @", "E_@, E_@@", "m c^2 (\\gamma - @)", "\\frac{\\hbar \\omega}{@} - @@", "@ \\Omega",
        "\\arcsin{@.1/@@}", "\\frac{d y}{d x} = @ y + @@", "e^{-@t} \\cos @@t", "1-\\frac{1}{2^{@}}", "\\frac{1}{@!}",
    ),
    "college": (
        "\\mathbb{R} \\setminus \\{@\\}", "x < -@ \\text{ or } x > @@", "-@ \\le x < @@", "\\frac{x + @}{x - @@}",
        "x = @, y = @@", "\\ln(@ + x) + C", "y'' + @ y = @@", "\\frac{-@ \\pm \\sqrt{@@}}{2}",
        "@x^{2} + @@y^{2} = 36", "all real numbers except @", "\\text{no solution}", "infinitely many",
        "\\int_0^@ f(x) dx", "\\sum_{n=0}^{\\infty} \\frac{x^n}{@^n}", "\\langle @, @@ \\rangle",
        "\\vec{i} - @ \\vec{j}", "A' \\cup B_@", "\\lim_{x \\to @} f(x)", "@:@@0", "P(X \\le @) = 0.@@",
        "(@ x + @@)^{1/3}",
    ),
}  # fmt: skip
UNREADABLE = (
    "The set is closed, because every limit of it lies in it: $x_n \\to x$ and $x$ is in $A$",
    "@) the first one",
    "$x$ if $y > @$",
    "Take the derivative, then set it to @.",
)
STRANGE = ("\\frac{@}{0}", "@ 1 @@ 7", "\\frac{@", "@ +", "\\text{about } \\sqrt{@}")


@pytest.fixture(autouse=True, scope="module")
def no_process_is_left():
    yield
    end_guards()


def golds(style, each=5):
    """The patterns of a style with numbers in them: one digit for @, two for @@."""
    chance = random.Random(style)
    for pattern in STYLES[style]:
        for _ in range(each):
            text = re.sub("@@", lambda _: str(chance.randrange(11, 60)), pattern)
            yield re.sub("@", lambda _: str(chance.randrange(2, 10)), text)


@pytest.mark.parametrize("style", STYLES)
def test_every_gold_answer_pays_itself(style):
    for gold in golds(style):
        check_math(gold)
        scored = math_answer(gold if "####" in gold else f"<answer>{gold}</answer>", gold)
        assert (scored.value, scored.label) == (1.0, "right"), gold


@pytest.mark.parametrize("style", STYLES)
def test_a_gold_answer_with_another_number_in_it_is_wrong_and_costs_no_time(style):
    chance = random.Random(1)
    for gold in golds(style, 3):
        places = [
            match.span() for match in re.finditer(r"(?<![\d.<*=>])[1-9]\d*(?![\d<*=>])", gold.rpartition("####")[2])
        ]
        if not places:
            continue
        offset = len(gold) - len(gold.rpartition("####")[2])
        start, end = chance.choice(places)
        other = gold[: offset + start] + str(int(gold[offset + start : offset + end]) + 1) + gold[offset + end :]
        started = time.monotonic()
        scored = math_answer(other if "####" in other else f"<answer>{other}</answer>", gold)
        assert scored.value == 0, (gold, other)
        assert scored.label in ("wrong", "refused"), (gold, other)
        assert time.monotonic() - started < 1, (gold, other)


@pytest.mark.parametrize("gold", [*UNREADABLE, *STRANGE])
def test_a_gold_answer_that_is_no_mathematics_is_refused_with_a_reason(gold):
    with pytest.raises(ValueError, match=r"cannot be read as mathematics \(.{10,}\)|not one mathematical expression"):
        check_math(gold.replace("@@", "14").replace("@", "3"))
