"""The math verifier: what it pays, what it refuses, the traps of the library below it, and hostile answers."""

import threading

import pytest
from hostile import EMPTY, LARGE
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.rewards import RewardPool, RewardTable, ScoringItem, resolve, resolve_all
from cohort.rewards.guarded import end_guards, guarded
from cohort.rewards.verifiers.math.answer import check_math, math_answer
from cohort.rewards.workers.process import limit_s


@pytest.fixture(autouse=True, scope="module")
def no_process_is_left():
    yield
    end_guards()


def boxed(answer, gold, prompt="", **options):
    """`(score, label)` of an answer in a box."""
    scored = math_answer(f"So \\boxed{{{answer}}}.", gold, prompt, **options)
    return scored.value, scored.label


RIGHT = (1.0, "right")


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("72", "72"),
        (72, "72.0"),
        (0.5, "\\frac{1}{2}"),
        ("1,234", "1234"),
        ("1234", "1{,}234"),
        ("\\frac{1}{2}", "0.5"),
        ("\\frac12", "\\dfrac{2}{4}"),
        ("3/4", "\\frac{3}{4}"),
        ("1 1/2", "\\frac{3}{2}"),
        ("1\\frac{1}{2}", "1.5"),
        ("\\sqrt{3}", "\\sqrt{3}"),
        ("$\\sqrt{3}$", "√3"),
        ("\\sqrt{12}", "2\\sqrt{3}"),
        ("2\\pi", "2\\pi"),
        ("2\\pi", "2π"),
        ("2pi", "\\pi \\cdot 2"),
        ("2\\pi", "6.283185"),
        ("\\frac{1}{3}", "0.333333"),
        ("\\frac{1}{6}", "0.1\\overline{6}"),
        ("0.\\overline{3}", "1/3"),
        ("1024", "2^{10}"),
        ("720", "6!"),
        ("1500", "1.5 \\times 10^{3}"),
        ("1e-5", "10^{-5}"),
        (1e-05, "0.00001"),
        ("-7", "\u22127"),
        ("50\\%", "50"),
        ("90", "90^\\circ"),
        ("7", "7\\text{ cm}"),
        ("$7", "\\$7"),
        ("5", "x = 5"),
        ("5", "f(2) = 5"),
        ("x = 5", "5"),
        ("2x+1", "y = 2x + 1"),
        ("y = 2x + 1", "2x - y + 1 = 0"),
        ("x^2+2x+1", "(x+1)^2"),
        ("\\frac{x}{2}+1", "\\frac{x+2}{2}"),
        ("\\sin^2 x", "1-\\cos^2 x"),
        ("(1, 2)", "(1,2)"),
        ("(1,1000)", "(1, 1000)"),
        ("\\{1,2,3\\}", "3, 2, 1"),
        ("2, 3", "x = 3 \\text{ or } x = 2"),
        ("\\pm 2", "2, -2"),
        ("[0,1)", "\\left[0, 1\\right)"),
        ("(-\\infty,1)\\cup(2,\\infty)", "(-\\infty, 1) \u222a (2, \\infty)"),
        ("x < 3", "x<3"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\2\\end{bmatrix}"),
        ("3+4i", "4i+3"),
        ("\\emptyset", "∅"),
        ("12_8", "12_{8}"),
        ("12_8", "12\u2088"),
        ("12_8", "12"),
        ("\\text{east}", "East"),
        ("no solution", "\\text{No solution}"),
        ("A", "\\text{(A)}"),
        ("\\text{(A)}", "(A)"),
        ("\\langle 1, 2 \\rangle", "(1, 2)"),
        ("15", "15\\,\\mathrm{cm^2}"),
        ("\\int_0^1 f(x)\\,dx", "\\int_0^1 f(x) dx"),
        ("Natalia sold 48+24 clips.\n#### 72", "72"),
        ("32348", "32,\\!348"),
        ("11,\\! 111,\\! 100", "11111100"),
        ("\\$32,\\!348.50", "32348.5"),
        ("-5", "-$5"),
        ("25", "025"),
        ("72", "72\\,\\text{cm}"),
        ("72", "72~\\mathrm{km}/\\mathrm{h}"),
        ("15", "15\\text{ cm}^{2}"),
        ("15\\mbox{ cm}^2", "15"),
        ("6\\pi", "6\\pi\\text{ square feet}"),
        ("2\\sqrt{3}", "2\\sqrt{3} cm"),
        ("2\\pi", "2\\,\\pi"),
        ("100000", "1 \\times 10^{5}"),
        ("\\sqrt{x}", "x^{1/2}"),
        ("e^{x+1}", "e^{1+x}"),
        ("\\frac{5}{9}", "\\frac 59"),
        ("\\frac{5}{9}", "\\dfrac 5 9"),
        ("5.5", "5½"),
        ("x^{10}", "x¹⁰"),
        ("\\begin{pmatrix}1 & 2\\\\3 & 4\\end{pmatrix}", "\\begin{pmatrix}\n1 & 2 \\\\\n3 & 4\n\\end{pmatrix}"),
        ("(1,2)", "(x, y) = (1, 2)"),
        ("25\\pi", "\\text{Area} = 25\\pi"),
        ("113", "m + n = 113"),
        ("2ab", "2ba"),
        ("3t", "t \\cdot 3"),
        ("(2,\\infty)", "x > 2"),
        ("[0,1]", "0 \\le x \\le 1"),
        ("\\lfloor x \\rfloor", "\\lfloor x\\rfloor"),
    ],
)
def test_equal_answers_pay(gold, answer):
    check_math(gold)
    assert boxed(answer, gold) == RIGHT


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("72", "73"),
        ("72", "-72"),
        ("72", "72.5"),
        ("2\\pi", "2"),
        ("2\\pi", "6.28"),
        ("\\frac{1}{3}", "0.33"),
        ("0.0000001", "0"),
        ("0.0000001", "0.0000002"),
        ("0", "0.0000001"),
        ("10^{20}", "10^{20}+1"),
        ("1000000", "1000000.0000001"),
        ("x^2+2x+1", "x^2+2x"),
        ("x", "x+0.0000001"),
        ("(1,2)", "(2,1)"),
        ("\\{1,2\\}", "\\{1,2,3\\}"),
        ("[0,1)", "[0,1]"),
        ("x < 3", "x \\le 3"),
        ("x = 5", "7 = 5"),
        ("12_8", "12_9"),
        ("12", "12_8"),
        ("\\text{listen}", "silent"),
        ("even", "odd"),
        ("5", "\\text{six}"),
        ("2ab", "2"),  # math-verify alone takes the last letters of these for units
        ("3t", "3"),
        ("2bc", "2"),
        ("5", "5\\text{ million}"),
        ("\\sqrt{2}", "\\sqrt{2}\\text{ thousand}"),
        ("x", "x^{12}"),
        ("(2,\\infty)", "x \\ge 2"),
        ("[0,1]", "0 < x \\le 1"),
        ("9" * 400, "\\sqrt{2}"),
        ("x = 5", "x^2 = 25"),
        ("y = 2x + 1", "0 = 0"),
        ("y = 2x + 1", "(y-2x-1)(x-3) = 0"),
        ("2, 3", "2"),
        ("2, 3", "2, 3, 4"),
        ("5", "\\frac{0}{0}"),
        ("\\sqrt{2}", "\\frac{0}{0}"),
    ],
)
def test_other_answers_are_wrong(gold, answer):
    check_math(gold)
    assert boxed(answer, gold) == (0.0, "wrong")


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("0.5", "\\int_0^1 x dx"),
        ("55", "\\sum_{k=1}^{10} k"),
        ("6", "\\prod_{k=1}^{3} k"),
        ("1", "\\lim_{x\\to 0} \\frac{\\sin x}{x}"),
        ("2x", "\\frac{d}{dx} x^2"),
        ("5", "7 = 5"),
        ("x = 5", "x = 7 = 5"),
        ("5", "x > 5"),
        ("5", "\\pm 5"),
        ("5", "5, 5"),
        ("5", "5, 6"),
        ("5", "5 \\text{ or } 7"),
        ("5", "\\max(5, 3)"),
        ("5", "\\gcd(10, 15)"),
        ("4", "2 + 2"),
        ("6", "2 \\cdot 3"),
        ("6", "12 \\div 2"),
        ("1024", "2^{9+1}"),
        ("8", "\\sqrt{2^{6}}"),
        ("1", "x^0"),
        ("1", "\\sin^2 x + \\cos^2 x"),
        ("2", "\\frac{2\\pi}{\\pi}"),
        ("x^2", "x^2 + 0"),
        ("x^2", "1 \\cdot x^2"),
        ("x^2", "\\frac{x^2}{1}"),
        ("x", "x + y - y"),
        ("5", "\\lfloor 5.3 \\rfloor"),
        ("5", "⌊5.3⌋"),
        ("x = 5", "(x-5)(x-6) = 0"),
        ("5", "5\\text{ or 7}"),
        ("\\sqrt{2}", "\\sqrt{2}\\text{ 7}"),
        ("5", "|-5|"),
        ("5", "5\\text{ perhaps }7"),
        ("5", "5\\text{ unless it is }{7}"),
        ("\\sqrt{2}", "\\sqrt{2}\\text{ maybe }\\sqrt{3}"),
        ("(2,\\infty)", "x > 2 > 1 > 0"),
    ],
)
def test_work_left_undone_is_refused(gold, answer):
    assert boxed(answer, gold) == (0.0, "refused")


@pytest.mark.parametrize(
    ("prompt", "gold", "answer", "paid"),
    [
        ("Simplify 6/4.", "3/2", "6/4", False),
        ("Simplify $\\dfrac{6}{4}$.", "3/2", "6/4", False),
        ("Expand $(x+1)^2$.", "x^2+2x+1", "(x+1)^2", False),
        ("Expand $(x+1)^2$.", "x^2+2x+1", "\\left(1+x\\right)^{2}", False),
        ("What is $\\log_2 8$?", "3", "\\log_2 8", False),
        ("Find sin(30) in degrees", "0.5", "\\sin(30)", False),
        ("Evaluate \\(\\binom{5}{2}\\)", "10", "\\binom{5}{2}", False),
        ("Compute 2^10", "1024", "2^{10}", False),
        ("What is 12 ÷ 4?", "3", "\\frac{12}{4}", False),
        ("What is 12 divided by 4?", "3", "12/4", False),
        ("How many times does 4 go into 12?", "3", "12/4", True),
        ("Find √144.", "12", "\\sqrt{144}", False),
        ("What is the square root of 144?", "12", "\\sqrt{144}", False),
        ("What is the cube root of 8?", "2", "\\sqrt[3]{8}", False),
        ("What is 12 squared?", "144", "12^2", False),
        ("What is 12²?", "144", "12^{2}", False),
        ("Raise 2 to the 10th power.", "1024", "2^{10}", False),
        ("What is 2 raised to the power of 10?", "1024", "2^{10}", False),
        ("What is 5 factorial?", "120", "5!", False),
        ("How many subsets have 10 things?", "1024", "2^{10}", True),
        ("Which is larger, 3/2 or 4/3?", "3/2", "\\frac{3}{2}", True),
        ("Is it $x^2+1$ or $x^2-1$?", "x^2+1", "x^2+1", True),
        ("Which is smaller, -5 or 3?", "-5.0", "-5", True),
    ],
)
def test_restating_the_problem_does_not_pay(prompt, gold, answer, paid):
    assert boxed(answer, gold, prompt) == (RIGHT if paid else (0.0, "refused"))
    assert boxed(gold, gold, prompt) == RIGHT


@pytest.mark.parametrize(
    ("gold", "answer", "label"),
    [
        ("x^2+2x+1", "(x+1)(x+1)", "refused"),
        ("x^2+2x+1", "1+2x+x^2", "right"),
        ("(x-1)(x+1)", "x^2-1", "refused"),
        ("(x-1)(x+1)", "(1+x)(x-1)", "right"),
        ("\\{1,2\\}", "2,1", "right"),
    ],
)
def test_the_same_form_may_be_asked_for(gold, answer, label):
    assert boxed(answer, gold)[1] == "right"
    assert boxed(answer, gold, same_form=True)[1] == label


@pytest.mark.parametrize(
    ("gold", "answer", "paid", "with_units"),
    [
        ("5\\text{ hours}", "5\\text{ minutes}", True, False),
        ("5\\text{ hours}", "5", True, False),
        ("5\\text{ hours}", "5 hours", True, True),
        ("5\\text{ m/s}", "5\\text{ metres per second}", True, True),
        ("5\\text{ cm}^2", "5\\text{ cm}", True, False),
        ("5\\text{ cm}^2", "5\\text{ square cm}", True, True),
        ("5", "5\\text{ cm}", True, True),
    ],
)
def test_units_are_compared_if_that_is_asked_for(gold, answer, paid, with_units):
    assert boxed(answer, gold)[0] == paid
    assert boxed(answer, gold, units=True)[0] == with_units


@pytest.mark.parametrize(
    ("answer", "ordered", "free"), [("(1,2)", 1, 1), ("(2,1)", 0, 1), ("\\{1,2\\}", 0, 1), ("(1,3)", 0, 0)]
)
def test_the_order_of_a_pair_may_be_left_out(answer, ordered, free):
    assert boxed(answer, "(1,2)")[0] == ordered
    assert boxed(answer, "(1,2)", ordered=False)[0] == free


@pytest.mark.parametrize(
    ("completion", "score", "label"),
    [
        ("<think> 70 + 2 </think><answer> 72 </answer>", 1, "right"),
        ("<answer>72</answer>", 1, "right"),
        ("<answer>$72$</answer>", 1, "right"),
        ("<answer>The answer is $72$.</answer>", 1, "right"),
        ("<answer>\\(72\\)</answer>", 1, "right"),
        ("<answer>\\boxed{72}</answer>", 1, "right"),
        ("reasoning\n#### 72", 1, "right"),
        ("first \\boxed{71}, no: \\boxed{72}", 1, "right"),
        ("first \\boxed{72}, no: \\boxed{71}", 0, "wrong"),
        ("\\boxed{71} \\boxed{72} <answer>71</answer>", 0, "wrong"),
        ("<answer>71</answer><answer>72</answer>", 0, "unparsed"),
        ("<answer>72</answer><answer>72</answer>", 0, "unparsed"),
        ("<answer>$71$ or $72$</answer>", 0, "unparsed"),
        ("<answer>71 72</answer>", 0, "unparsed"),
        ("<answer>?</answer>", 0, "unparsed"),
        ("<answer>72", 0, "unparsed"),
        ("\\boxed{7\u0662}", 1, "right"),
        ("\\boxed{72\x00}", 0, "unparsed"),
        ("\\boxed{\ud80072}", 0, "unparsed"),
        ("\\boxed{72\u2460}", 0, "unparsed"),  # a circled 1, a raised letter, a stroke, a picture
        ("\\boxed{72\u2081}", 0, "wrong"),
        ("\\boxed{72\u1d43}", 0, "unparsed"),
        ("\\boxed{72\u0338}", 0, "unparsed"),
        ("\\boxed{72\U0001f600}", 0, "unparsed"),
        ("\\boxed{72\u207b\u00b9}", 0, "wrong"),
        ("\\boxed{72½}", 0, "wrong"),
        ("\\boxed{72\\,73}", 0, "unparsed"),
        ("\\boxed{71 \\fbox{72}}", 0, "unparsed"),
        ("the answer is 72", 0, "no_answer"),
        ("$72$", 0, "no_answer"),
        ("", 0, "no_answer"),
    ],
)
def test_one_answer_is_taken_and_unparsed_is_not_wrong(completion, score, label):
    scored = math_answer(completion, "72")
    assert (scored.value, scored.label) == (score, label)


@pytest.mark.parametrize(
    ("gold", "answer", "options", "label"),
    [
        ("12 \\text{ apples}", "2pi", {}, "refused"),
        ("5 ft 6 in", "5 ft tinyn", {}, "wrong"),
        ("4 or 5", "5\\text{ units left}", {}, "wrong"),
        ("72", "\\sin(3,4)", {}, "wrong"),
        ("72", "\\frac{1}{0}", {"same_form": True}, "refused"),
    ],
)
def test_an_answer_beside_which_something_cannot_be_worked_out_costs_no_run(gold, answer, options, label):
    check_math(gold)
    assert boxed(answer, gold, **options) == (0.0, label)


def test_the_last_number_by_option():
    assert math_answer("36 + 36 = 72", "72").label == "no_answer"
    assert math_answer("36 + 36 = 72", "72", last_number=True).label == "right"
    assert math_answer("72 and then 5", "72", last_number=True).label == "wrong"
    assert math_answer("<answer>71</answer> 72", "72", last_number=True).label == "wrong"


@pytest.mark.parametrize("text", EMPTY)
def test_empty_shells_and_openers_do_not_pay(text):
    for gold in ("72", "x^2+1", "\\text{east}", "0"):
        assert math_answer(text, gold, last_number=True).value == 0


@pytest.mark.parametrize(
    "gold",
    ["", " ", "?", None, True, float("nan"), float("inf"), [72], "1 2 3", "$1$ or $2$", "#### ", "\\frac{", "\x00"],
)
def test_an_unreadable_gold_answer_is_refused(gold):
    with pytest.raises(ValueError):
        check_math(gold)
    with pytest.raises(ValueError):
        math_answer("\\boxed{72}", gold)


@pytest.mark.parametrize(
    ("completion", "gold"),
    [
        ("\\boxed{1} and \\boxed{2}", "\\{1,2\\}"),
        ("\\boxed{\\int_0^1 x dx}", "0.5"),
        ("\\boxed{7=5}", "5"),
        ("\\boxed{72 73}", "145"),
        ("\\boxed{0.0000002}", "0.0000001"),
        ("\\boxed{2}", "2\\pi"),
    ],
)
def test_what_a_library_for_evaluation_takes_for_equal_is_not_paid(completion, gold):
    """math-verify 0.9 pays each of these; see docs/decisions.md."""
    assert math_answer(completion, gold).value == 0


def test_it_works_in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(boxed("x+1", "1+x")))
    thread.start()
    thread.join()
    assert found == [RIGHT]


TOWER = "9^{9^{9}}"


@pytest.mark.parametrize("answer", [f"{TOWER}+\\sqrt{{2}}", f"\\sqrt{{2+{TOWER}}}", f"{TOWER}!"])
def test_a_tower_costs_no_time_and_does_not_pay(answer):
    value, label = boxed(answer, "\\sqrt{2}", timeout_s=0.3)
    assert value == 0
    assert label in ("wrong", "refused")
    assert boxed("\\sqrt{2}", "\\sqrt{2}") == RIGHT


LONG = {
    "signs": "-" * 900 + "1",
    "powers": "x" + "^x" * 400,
    "brackets": "(" * 400 + "1" + ")" * 400,
    "roots": "\\sqrt" * 150 + "2",
    "a factorial": "(10^{9})!",
    "a factorial that is read": "(4000!)^{100}",
    "a binomial": "\\binom{10^9}{10^8}",
    "an exponential": "e^{e^{e^{10}}}",
    "a sine": "\\sin(10^{100000})",
    "small": "10^{-10^{10}}",
    "limits": "(1+\\frac{1}{10^{9}})^{10^{9}}",
    "unions": "[0,1]\\cup" * 100 + "[0,2]",
    "choices": "\\pm 1" * 10,
    "a list": ",".join(["1"] * 400),
    "relations": "1<" * 400 + "2",
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("gold", ["\\sqrt{2}", "x^2+1", "[0,1]", "x<2"])
def test_what_is_long_or_large_costs_little(name, gold):
    scored = math_answer(f"\\boxed{{{LONG[name]}}}", gold, timeout_s=0.5)
    assert scored.value == 0
    assert scored.label in ("wrong", "refused", "unparsed")


def test_a_hostile_completion_costs_neither_its_group_nor_its_worker():
    hostile = f"\\boxed{{{TOWER}+\\sqrt{{2}}}}"
    texts = ("\\boxed{\\sqrt{2}}", hostile, "\\boxed{\\sqrt{3}}", hostile, "nothing", "\\boxed{\\frac{2}{\\sqrt{2}}}")
    item = ScoringItem("Which number?", texts, answer="\\sqrt{2}")
    rewards = resolve_all([RewardTable(use="math", timeout_s=1.0, args={"timeout_s": 0.3})])
    assert limit_s(rewards[0], 6) > 6 * 0.3
    with RewardPool(rewards, workers=1, retries=0) as pool:
        for _ in range(2):
            scored = pool.submit(item).result(timeout=60)
            assert scored.scores["math"] == (1, 0, 0, 0, 0, 1)
            assert scored.labels["math"] == ("right", "wrong", "wrong", "wrong", "no_answer", "right")


@pytest.mark.parametrize("name", LARGE)
def test_long_hostile_text_does_not_pay(name):
    for text in (LARGE[name], f"\\boxed{{{LARGE[name]}}}", f"<answer>{LARGE[name][:900]}</answer>"):
        assert math_answer(text, "x^2+72", timeout_s=0.5).value == 0


def test_nothing_that_a_model_writes_is_run_as_python(tmp_path):
    mark = tmp_path / "mark"
    call = f"__import__('os').system('touch {mark}')"
    for text in (
        call,
        f"\\text{{{call}}}",
        f"x_{{{call}}}",
        f"\\variable{{{call}}}",
        f"\\operatorname{{{call}}}(1)",
        f"[[{call}]]",
    ):
        assert boxed(text, "x")[0] == 0
        assert guarded("cohort.rewards.verifiers.math.compare:compare", 5.0, gold="x+1", answer=text) != "right"
    assert not mark.exists()


ALPHABET = st.sampled_from(
    [*"0123456789xyπ.,;:=+-*/^_!%$(){}[]|<> ", "\\frac", "\\sqrt", "\\text", "\\pi", "{1}", "\n"]
)


@given(st.lists(ALPHABET, max_size=25).map("".join))
@settings(max_examples=150)
def test_whatever_is_written_gets_a_score_and_a_label(text):
    first = math_answer(f"\\boxed{{{text}}}", "\\sqrt{2}", timeout_s=1.0)
    assert first.label in ("right", "wrong", "unparsed", "refused", "timeout", "memory")
    assert first.value == float(first.label == "right")


@given(st.integers(-(10**6), 10**6), st.integers(1, 1000))
@settings(max_examples=60)
def test_fractions_equal_themselves_and_nothing_else(top, bottom):
    answer = f"\\frac{{{top}}}{{{bottom}}}"
    assert boxed(answer, f"{top}/{bottom}") == RIGHT
    assert boxed(f"\\frac{{{top + 1}}}{{{bottom}}}", answer) == (0.0, "wrong")


def test_it_is_a_built_in_reward():
    reward = resolve(RewardTable(use="math"))
    item = ScoringItem("p", ("\\boxed{1}", "no"), answer=1)
    assert reward.score(item) == (1, 0)
    assert [scored.label for scored in reward.judge(item)] == ["right", "no_answer"]
    assert reward.completion_timeout_s == 2.0
