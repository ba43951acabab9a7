"""The number verifier: what it pays, what it refuses, and what hostile text costs."""

import time
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from cohort.rewards.verifiers.number import exact_number, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        (" 72.\n", 72),
        ("72.0", 72),
        ("72.50", Fraction(145, 2)),
        (".5", Fraction(1, 2)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("1{,}234", 1234),
        ("1\\,234", 1234),
        ("$72", 72),
        ("$1,000.00", 1000),
        ("-$5", -5),
        ("$-5", -5),
        ("€7", 7),
        ("72%", 72),
        ("72\\%", 72),
        ("-3", -3),
        ("\u22123", -3),
        ("+3", 3),
        ("3/4", Fraction(3, 4)),
        ("-3 / 4", Fraction(-3, 4)),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("-\\dfrac{3}{4}", Fraction(-3, 4)),
        ("1.5e3", 1500),
        ("2E-1", Fraction(1, 5)),
        ("x = 72", 72),
        ("The answer is 72.", 72),
        ("Total: 72", 72),
        ("**72**", 72),
        ("$72$", 72),
        ("\\(72\\)", 72),
        ("72 apples", 72),
        ("72\\text{ cm}", 72),
        ("60 km/h", 60),
        ("007", 7),
        ("72,", 72),
        ("32,\\!348", 32348),
        ("11,\\! 111,\\! 100", 11111100),
        ("72\\,\\text{cm}", 72),
        ("72\\ \\text{km/h}", 72),
        ("72~\\mathrm{kg}", 72),
        ("\\$\\,72", 72),
        ("\\frac12", Fraction(1, 2)),
        ("-\\dfrac 5 9", Fraction(-5, 9)),
        ("90^\\circ", 90),
        ("90^{\\circ}", 90),
        ("72 cm^2", 72),
        ("72\\text{ cm}^{2}", 72),
        ("72 m²", 72),
        ("1\\frac12", Fraction(3, 2)),  # a mixed number is not 11/2
        ("72½", Fraction(145, 2)),
        ("1\\frac{1}{2}", Fraction(3, 2)),
        ("1 \\frac{1}{2}", Fraction(3, 2)),
        ("1 1/2", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("2 3/4 cups", Fraction(11, 4)),
        ("½", Fraction(1, 2)),
        ("\\frac{1}{-2}", Fraction(-1, 2)),
        ("1/-2", Fraction(-1, 2)),
        ("6.02 \\times 10^{23}", 602 * 10**21),
        ("6.02 \u00d7 10²³", 602 * 10**21),
        ("1.6 \\cdot 10^{-19}", Fraction(16, 10**20)),
        ("3 * 10^8", 3 * 10**8),
        ("minus 5", -5),
        ("negative 5", -5),
        ("1 234 567", 1234567),
        ("1\\;234", 1234),
        ("7\u202f200", 7200),
        ("7'200.5", Fraction(14401, 2)),
        ("\uff17\uff12", 72),
        ("٧٢", 72),
        ("\uff0872\uff09", 72),
        ("72\uff05", 72),
        ("￥72", 72),
        ("\u200b72", 72),
        ("x\uff1d72", 72),
        ("72元", 72),
        ("72。", 72),
        ("≈72", 72),
        ("USD 72", 72),
        ("₹72", 72),
        ("#72", 72),
        ("72;", 72),
        ("72?", 72),
        ("\u201372", -72),
    ],
)
def test_a_number_is_read(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "apples",
        "72 73",
        "72 or 73",
        "72, 73",
        "72,73",
        "1,23",
        "1 2 3 72",
        "36 + 36",
        "70+2",
        "3*24",
        "72 = 72",
        "5 thousand",
        "5k",
        "3 halves",
        "3 hundredths",
        "3 plus one",
        "3 point five",
        "3 crore",
        "3M",
        "3 dozen",
        "3 times",
        "3 percent of 10 to",
        "7xy",
        "7 t",
        "7e",
        "1 5/2",
        "1 1/2/3",
        "12 34",
        "1 23 456",
        "72!",
        "about 72",
        "— 72",
        "3 \u00d7 10^99999",
        "2\\pi",
        "2π",
        "2 pi",
        "\\sqrt{72}",
        "√72",
        "72^2",
        "72²",
        "72 a^2",
        "72ab^2",
        "72\\,73",
        "72~73",
        "1/0",
        "0/0",
        "1/2/3",
        "inf",
        "nan",
        "0x48",
        "7_2",
        "72.7.2",
        "1e999",
        "1e999999999",
        "1e-999999999",
        "9" * 61,
        "x" * 300 + "72",
        "not 72",
        "3 - 5",
        "(72",
        "{72}",
        "7 2",
        "--72",
        "\x0072",
        "\ud80072",
    ],
)
def test_anything_else_is_no_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("completion", "paid"),
    [
        ("<think> 70 + 2 </think><answer> 72 </answer>", 1),
        ("<answer>72</answer>", 1),
        ("<answer>\\boxed{72}</answer>", 1),
        ("<answer>73</answer>", 0),
        ("<answer>72</answer><answer>72</answer>", 0),  # two answers are none, right or wrong
        ("<answer>73</answer> <answer>72</answer>", 0),
        ("<answer>72</answer> </answer>", 0),
        ("<answer><answer>72</answer>", 0),
        ("<answer>72", 0),
        ("72</answer>", 0),
        ("</answer>72<answer>", 0),
        ("<answer></answer>72", 0),
        ("<answer>1 2 72</answer>", 0),
        ("<answer>73</answer> \\boxed{72} #### 72", 0),  # the first form decides
        ("<answer>?</answer> \\boxed{72}", 0),
        ("so \\boxed{72}.", 1),
        ("first \\boxed{71}, no: \\boxed{72}", 1),
        ("\\boxed{72} no: \\boxed{71}", 0),
        ("\\boxed{\\frac{144}{2}}", 1),
        ("\\boxed{\\text{72}}", 1),
        ("\\boxed{72", 0),
        ("\\boxed{}", 0),
        ("\\boxed{72} then \\boxed{", 0),
        ("reasoning\n#### 72", 1),
        ("#### 71\n#### 72\nbye", 1),
        ("#### 72\n#### 71", 0),
        ("####\n72", 0),
        ("#### ", 0),
        ("the answer is 72", 0),  # not marked, and last_number is off
        ("72", 0),
        ("", 0),
    ],
)
def test_where_the_answer_is_looked_for(completion, paid):
    assert exact_number(completion, "72") == paid


@pytest.mark.parametrize(
    ("completion", "paid"),
    [
        ("it is 71, no, 72.", 1),
        ("36 + 36 = 72", 1),
        ("144/2", 1),
        ("1, 72", 1),
        ("72 and then 5", 0),
        ("80-72", 1),  # a difference is not a minus sign
        ("it is -72", 0),
        ("70,72", 0),
        ("72²", 0),
        ("٣72", 0),
        ("nothing", 0),
        ("<answer>71</answer> 72", 0),
        ("\\boxed{} 72", 0),
    ],
)
def test_last_number_is_the_last_resort(completion, paid):
    assert exact_number(completion, 72, last_number=True) == paid


@pytest.mark.parametrize(
    "gold",
    [
        72,
        72.0,
        "72",
        " 72 ",
        "$72",
        "72.00",
        "Natalia sold 48+24 = 72 clips.\n#### 72",
        "\\boxed{72}",
        Fraction(72),
        np.int64(72),
    ],
)
def test_gold_answers_of_every_kind(gold):
    assert exact_number("<answer>72</answer>", gold) == 1
    assert exact_number("<answer>71</answer>", gold) == 0


def test_a_float_is_the_decimal_that_was_written():
    assert exact_number("<answer>1/10</answer>", 0.1) == 1
    assert exact_number("<answer>0.1000000000000000055511151231257827</answer>", 0.1) == 0
    assert exact_number("<answer>0.0001</answer>", 0) == 0


@pytest.mark.parametrize("gold", ["seventy-two", "", None, True, float("nan"), float("inf"), [72], Decimal(72), "1/0"])
def test_a_gold_answer_without_a_number_is_not_a_score(gold):
    with pytest.raises(ValueError, match="gold answer"):
        exact_number("<answer>72</answer>", gold)


HOSTILE = {
    "many digits": "9" * 1_000_000,
    "boxed digits": "\\boxed{" + "9" * 1_000_000 + "}",
    "digits in tags": "<answer>" + "9" * 1_000_000 + "</answer>",
    "commas": "1," * 500_000,
    "groups": "1" + ",222" * 250_000 + "2",
    "dots": "1." * 500_000,
    "slashes": "1/" * 500_000,
    "exponents": "1e" * 500_000,
    "minus": "-" * 1_000_000,
    "letters": "a" * 1_000_000,
    "spaces": "<answer>" + " " * 1_000_000 + "</answer>",
    "spaces after": "#### " + " " * 1_000_000,
    "tags": "<answer>" * 125_000,
    "boxes": "\\boxed{" * 140_000,
    "hashes": "#" * 1_000_000,
    "braces": "\\boxed{" + "{" * 1_000_000,
    "letters in tags": "<answer>" + "a " * 90 + "</answer>",
    "fractions": "<answer>" + "\\frac{" * 33 + "</answer>",
    "texts": "<answer>" + "\\text{" * 33 + "</answer>",
    "huge exponent": "<answer>1e999999999999</answer>",
    "tower": "<answer>1e300/1e-300</answer>",
    "nulls": "\x00" * 1_000_000,
    "surrogates": "\ud800" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("last_number", [False, True])
def test_hostile_text_costs_nothing_and_pays_nothing(name, last_number):
    started = time.process_time()
    assert exact_number(HOSTILE[name], 72, last_number=last_number) == 0
    assert time.process_time() - started < 2  # linear takes 0.1 s at most; quadratic would take hours
