"""Language consistency: the formula, what counts as a word, what it can and cannot tell, hostile text."""

import pytest
from hostile import EMPTY, LARGE
from hypothesis import given
from hypothesis import strategies as st

from cohort.rewards import RewardTable, ScoringItem, resolve
from cohort.rewards.verifiers.language import check_language, language, language_share, prose

TEXTS = {
    "en": "First we compute the sum of the two numbers. Wait, that is not right. So the answer is five.",
    "fr": "Réfléchissons un instant. Soit x le nombre de pommes. Donc la réponse est cinq.",
    "de": "Zuerst berechnen wir die Summe. Warte, das ist falsch. Also ist die Antwort fünf.",
    "es": "Primero calculamos la suma. Espera, eso no es correcto. La respuesta es cinco.",
    "it": "Prima calcoliamo la somma. Aspetta, non è corretto. Allora la risposta è cinque.",
    "zh": "我们先计算总和。所以答案是五。",
    "ja": "まず合計を計算します。答えは五です。",
    "ko": "먼저 합계를 계산합니다. 답은 다섯입니다.",
    "ru": "Сначала вычислим сумму. Итак, ответ пять.",
    "ar": "أولا نحسب المجموع. الجواب هو خمسة.",
    "hi": "पहले हम योग की गणना करते हैं। उत्तर पाँच है।",
    "th": "ก่อนอื่นเราคำนวณผลรวม คำตอบคือห้า",
}


@pytest.mark.parametrize("spoken", TEXTS)
def test_each_language_is_itself_and_no_other(spoken):
    for target in TEXTS:
        share = language_share(TEXTS[spoken], target)
        assert share == 1 if target == spoken else share < 0.5


def test_the_formula_counts_words():
    assert language_share("one two three 四 five six seven eight 九 ten", "en") == 8 / 10
    assert language_share("我们 think 答案 is five", "zh") == 4 / 7
    assert language_share("Разность чисел and пять", "ru") == 3 / 4


def test_sentences_of_another_language_with_the_same_letters():
    mixed = f"{TEXTS['en']} {TEXTS['es']}"
    assert language_share(mixed, "en") == 19 / 32
    assert language_share("So the answer is correcto, five.", "en") == 1  # one word is too little to tell
    assert language_share("Sí, claro.", "en") == 1


def test_close_relatives_count_as_one():
    danish = "Først beregner vi summen af de to tal. Derefter er svaret fem."
    assert language_share(danish, "da") == language_share(danish, "no") == 1


@pytest.mark.parametrize(
    "text",
    [
        "We get $x^2 + \\text{abc def}$ here and now.",
        "We get \\(\\alpha\\beta\\) here \\[\\sum_i x_i\\] and now.",
        "We get ```python\nfor foo in bar: ...\n``` here and now `foo_bar`.",
        "We get <answer> here https://example.org/was/ist/das and now </answer>.",
        "We get x and y, n = 3, here and now.",
    ],
)
def test_formulas_code_and_variables_are_no_words(text):
    assert set(prose(text).split()).isdisjoint({"abc", "foo", "bar:", "alpha"})
    assert language_share(text, "en") == 1


def test_nothing_is_hidden_in_formulas_and_code():
    assert language_share("The answer is $\\text{我们先计算总和}$.", "en") == 3 / 10
    assert language_share("The answer is ```我们先计算总和```.", "en") == 3 / 10
    assert language_share("The answer is ```我们先计算总和", "en") == 3 / 10
    for text in ("Цена $ 5 and цена $ 6", "Цена $5 and цена $6", "Цена 5$ and цена 6$"):
        assert language_share(text, "ru") == 2 / 3


def test_the_chain_of_thought_is_what_counts():
    text = f"<think>{TEXTS['zh']}</think>{TEXTS['en']}"
    assert language(text, {}, "zh").value == 1
    assert language(text, {}, "zh", part="all").value < 0.5
    assert language(TEXTS["en"], {}, "en").value == 1
    assert language(f"{TEXTS['zh']}</think>5", {}, "zh").value == 1
    with pytest.raises(ValueError, match="part"):
        language("a", {}, "en", part="thoughts")


def test_each_row_may_have_its_own_language():
    assert language(TEXTS["fr"], {"lang": "fr"}, column="lang").value == 1
    assert language(TEXTS["fr"], {"lang": "de"}, column="lang").value < 0.2
    with pytest.raises(ValueError, match="no language in its column 'lang'"):
        check_language({"lang": None}, column="lang")


@pytest.mark.parametrize("code", ["english", "EN", "xx", "", 3, "zxx_", ["en"]])
def test_a_language_that_is_not_known_is_refused(code):
    with pytest.raises(ValueError, match="ISO 639-1"):
        check_language({}, code)


@pytest.mark.parametrize("text", ["", "72", "<think></think>", "$x$", "\x00", "\ud83d", "123 + 456"])
def test_a_text_without_words_gets_nothing(text):
    scored = language(text, {}, "en")
    assert (scored.value, scored.label) == (0, "no_words")


@pytest.mark.parametrize("name", LARGE)
def test_hostile_text_has_a_share_too(name):
    for target in ("en", "ja"):
        assert 0 <= language(LARGE[name], {}, target).value <= 1


@given(st.text(alphabet=st.sampled_from(list("ab$`\\()[]\n<>/我é. "))))
def test_prose_loses_no_foreign_letter_and_adds_none(text):
    assert prose(text).count("我") == text.count("我")
    assert len(prose(text).replace(" ", "")) <= len(text.replace(" ", ""))


def test_it_is_a_built_in_reward():
    reward = resolve(RewardTable(use="language", args={"language": "en"}))
    assert reward.score(ScoringItem("p", (TEXTS["en"], TEXTS["zh"], *EMPTY[:3]))) == (1, 0, 0, 0, 0)
