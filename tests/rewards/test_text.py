"""Text against text: exact, similar, sharing words."""

import pytest
from hostile import EMPTY, LARGE
from hypothesis import given
from hypothesis import strategies as st

from cohort.rewards import RewardTable, ScoringItem, resolve
from cohort.rewards.verifiers.text import check_texts, exact_text, f1, f1_text, fuzzy_text, normal_text


@pytest.mark.parametrize(
    ("completion", "gold", "paid"),
    [
        ("Paris", "Paris", 1),
        (" paris. ", "Paris", 1),
        ("<think>London?</think><answer>PARIS</answer>", "Paris", 1),
        ("\\boxed{Paris}", "Paris", 1),
        ("so\n#### Paris", "Paris", 1),
        ("\uff30aris", "Paris", 1),
        ("New  York\nCity", "new york-city", 1),
        ("stra\u00dfe", "STRASSE", 1),
        ("7", 7, 1),
        ("B", ["A", "B"], 1),
        ("C", ["A", "B"], 0),
        ("It is Paris", "Paris", 0),
        ("Paris London Rome", "Paris", 0),
        ("Par is", "Paris", 0),
        ("<answer>Paris</answer><answer>London</answer>", "Paris", 0),
        ("The Paris", "Paris", 0),
        ("", "Paris", 0),
        ("", "The", 0),
        ("the", "The", 1),
        ("5", "-5", 0),
        ("-5", "5", 0),
        ("-5", -5, 1),
        ("\u22125", "-5", 1),
        ("(-5)", "-5", 1),
        ("-0.5", 0.5, 0),
        ("-.5", "-.5", 1),
        ("3-5", "3 5", 1),
        ("3 5", "3.5", 0),
        ("3,5", "3.5", 0),
        ("5", ".5", 0),
        ("5", "-.5", 0),
        ("v 2 0", "v2.0", 0),
        ("V2.0.", "v2.0", 1),
        ("No 5", "No.5", 1),
        ("1234", "1,234", 1),
        ("1,234", "1234", 1),
        ("1 234", "1,234", 0),
        ("1, 2, 3", "1,2,3", 1),
        ("C", "C#", 0),
        ("c#", "C#", 1),
    ],
)
def test_exact(completion, gold, paid):
    assert exact_text(completion, gold) == paid


def test_the_other_two_know_a_minus_too():
    assert fuzzy_text("5", "-5", threshold=0.0).value < 1
    assert f1_text("5", "-5") == 0
    assert f1_text("-5", -5) == 1


def test_a_point_makes_one_number_of_two():
    assert f1_text("5.3", "3.5") == f1_text("it is 5", "0.5") == 0
    assert f1_text("3.5 kg", "3.5 kg") == 1


def test_articles_by_option():
    assert exact_text("The Beatles", "beatles", articles=True) == 1
    assert exact_text("The Beatles", "beatles") == 0
    assert exact_text("", "The", articles=True) == exact_text("a", "The", articles=True) == 0
    assert normal_text("The end of a story", articles=True) == "end of story"


def test_similar():
    assert fuzzy_text("Paris", "paris!").value == 1
    assert fuzzy_text("Pariss", "Paris").value == pytest.approx(10 / 11)
    assert fuzzy_text("London", "Paris").value == 0
    assert fuzzy_text("Pa", "Paris", threshold=0.9).value == 0
    assert fuzzy_text("Pa", "Paris").value == pytest.approx(4 / 7)
    assert fuzzy_text("Rome", ["Paris", "Roma"]).value == pytest.approx(6 / 8)
    assert fuzzy_text("x" * 30_000, "x" * 30_000).label == "too_long"


def test_f1_is_squads():
    assert f1_text("the cat sat on the mat", "a cat on a mat") == pytest.approx(2 * 3 / (4 + 3))
    assert f1_text("<answer>Paris</answer>", "Paris, France") == pytest.approx(2 / 3)
    assert f1_text("Paris Paris Paris", "Paris") == pytest.approx(2 / 4)
    assert f1_text("London", "Paris") == 0
    assert f1_text("Rome", ["Paris", "Rome"]) == 1


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
def test_f1_is_the_harmonic_mean(said, gold):
    shared = sum(min(said.count(word), gold.count(word)) for word in set(said))
    precision, recall = (shared / len(said) if said else 0), shared / len(gold)
    expected = 2 * precision * recall / (precision + recall) if shared else 0
    assert f1(said, gold) == pytest.approx(expected)


@given(st.text())
def test_normalising_twice_is_normalising_once(text):
    assert normal_text(normal_text(text)) == normal_text(text)


@pytest.mark.parametrize("gold", ["", " . ", None, True, [], ["Paris", ""], {"a": 1}, [["Paris"]]])
def test_a_gold_answer_without_words_is_refused(gold):
    with pytest.raises(ValueError, match="gold answer"):
        check_texts(gold)
    for reward in (exact_text, fuzzy_text, f1_text):
        with pytest.raises(ValueError, match="gold answer"):
            reward("Paris", gold)


@pytest.mark.parametrize("text", EMPTY)
def test_empty_shells_and_openers_do_not_pay(text):
    assert exact_text(text, "Paris") == f1_text(text, "Paris") == fuzzy_text(text, "Paris").value == 0


@pytest.mark.parametrize("name", LARGE)
def test_hostile_text_does_not_pay(name):
    text = LARGE[name]
    assert exact_text(text, "Paris") == f1_text(text, "Paris") == fuzzy_text(text, "Paris").value == 0


def test_echoing_the_prompt_does_not_pay_in_full():
    prompt = "Which city, Paris or London, is the capital of France?"
    assert exact_text(prompt, "Paris") == fuzzy_text(prompt, "Paris").value == 0
    assert f1_text(prompt, "Paris") < 0.25


def test_they_are_built_in_rewards():
    item = ScoringItem("p", ("Paris", "Pariss", "no"), answer="Paris")
    assert resolve(RewardTable(use="exact_text")).score(item) == (1, 0, 0)
    assert resolve(RewardTable(use="fuzzy_text", args={"threshold": 0.8})).score(item) == (1, 10 / 11, 0)
    assert resolve(RewardTable(use="f1_text")).score(item) == (1, 0, 0)
