"""Benchmarks in training prompts: planted copies of every class are found, and clean sets are not."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from cohort.evaluate.compare import sign_test
from cohort.preflight.contamination import LAYERS, Question, look
from cohort.preflight.contamination.completion import completed, overlap
from cohort.preflight.contamination.looking import EVERY, NEAR
from cohort.preflight.contamination.texts import Hasher, grams, wholes
from cohort.rewards.verifiers.text import normal_text

LETTERS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst"]


def made(count, name, seed, words=30):
    """Questions of random words with two numbers, and an answer to each."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        text = rng.choices(LETTERS, k=words)
        text[3], text[20] = str(rng.randrange(10**6)), f"{rng.randrange(10**6)},"
        found.append(Question(f"{name}{number}", f"{name}:{number}", " ".join(text), f"the answer {number} of {name}"))
    return found


def changed(question, where, word):
    words = question.text.split()
    words[where] = word
    return " ".join(words)


@pytest.fixture(scope="module")
def benchmark():
    return made(40, "bench", 1)


@pytest.fixture(scope="module")
def training():
    return made(400, "train", 2)


def found(benchmark, training, **fields):
    report = look("bench", benchmark, training, len(training), **fields)
    return {name: set(one.ids) for name, one in report.layers.items()}, report


def planted(training, at, text, answer="another"):
    return [*training[:at], Question(f"planted{at}", f"planted:{at}", text, answer), *training[at + 1 :]]


def test_a_clean_set_is_not_found_by_any_layer(benchmark, training):
    layers, report = found(benchmark, training)
    assert not any(layers.values())
    assert report.flagged == ()
    assert report.found_in.tolist() == []
    assert [one.looked_at for one in report.layers.values()] == [40] * 7
    assert (report.questions, report.prompts) == (40, 400)


COPIES = {  # how a question is planted -> the layers that must find it, and those that must not
    "as it is": (lambda q: q.text, {"exact", "13_gram", "8_gram_coverage", NEAR}, {"exact_with_answer", "template"}),
    "in capitals, with signs and odd spaces": (
        lambda q: q.text.upper().replace(" ", " \u00a0\u200b") + "?!",
        {"exact", "13_gram", "8_gram_coverage", NEAR},
        {"template"},
    ),
    "in full-width letters": (
        lambda q: "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in q.text),
        {"exact", "13_gram"},
        {"template"},
    ),
    "13 words of it in other text": (
        lambda q: " ".join(["quite", "other", *q.text.split()[4:17], *["and", "so", "on"] * 30]),
        {"13_gram"},
        {"exact", "template", "8_gram_coverage", NEAR},
    ),
    "12 words of it in other text": (
        lambda q: " ".join(["quite", "other", *q.text.split()[4:16], *["and", "so", "on"] * 30]),
        set(),
        set(EVERY),
    ),
    "in a long text, with one word changed": (
        lambda q: " ".join(LETTERS[:60]) + " " + changed(q, 14, "another") + " and on",
        {"13_gram"},
        {"exact", "template", NEAR, "8_gram_coverage"},
    ),
    "with other numbers": (
        lambda q: changed(q, 3, "77").replace(q.text.split()[20], "-5.25,"),
        {"template"},
        {"exact", "exact_with_answer"},
    ),
    "with a word changed at two thirds": (
        lambda q: changed(q, 20, "another"),
        {NEAR, "13_gram"},
        {"exact", "template"},
    ),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_planted_copy_is_found_by_its_layers_and_no_other(benchmark, training, how):
    copy, must, never = COPIES[how]
    layers, report = found(benchmark, planted(training, 123, copy(benchmark[7])))
    for name in must:
        assert layers[name] == {"bench7"}, name
        assert report.layers[name].prompt_ids == ("planted123",)
        assert report.layers[name].examples[0].prompt == "planted:123"
    for name in never:
        assert layers[name] == set(), name
    strong = any(layers[name] for name in layers if name != "template")
    assert report.found_in.tolist() == ([123] if strong else [])
    assert report.flagged == (("bench7",) if strong else ())


def test_the_same_answer_counts_only_where_half_of_the_question_is_the_same(benchmark, training):
    question = benchmark[3]
    half = " ".join([*question.text.split()[:22], "and", "then", "something", "else"])
    assert found(benchmark, planted(training, 5, half, question.answer))[0]["same_answer"] == {"bench3"}
    assert found(benchmark, planted(training, 5, half, "42"))[0]["same_answer"] == set()
    assert found(benchmark, planted(training, 5, training[5].text, question.answer))[0]["same_answer"] == set()
    assert found(benchmark, planted(training, 5, question.text, question.answer))[0]["exact_with_answer"] == {"bench3"}


def test_coverage_is_the_share_of_a_question_that_one_prompt_has(benchmark, training):
    words = benchmark[9].text.split()  # 30 words, 23 8-grams
    for kept, flagged in ((24, True), (23, False)):  # 17 and 16 of 23: 74% and 69.6%
        layers, report = found(benchmark, planted(training, 0, " ".join(words[:kept])))
        assert bool(layers["8_gram_coverage"]) is flagged
        if flagged:
            assert report.layers["8_gram_coverage"].examples[0].share == round(17 / 23, 3)
    both = planted(planted(training, 0, " ".join(words[:19])), 1, " ".join(words[12:]))
    assert found(benchmark, both)[0]["8_gram_coverage"] == set()  # half each, in two prompts


def test_neither_order_nor_repetition_of_the_rows_changes_what_is_found(benchmark, training):
    copies = [Question(f"c{i}", f"c:{i}", changed(benchmark[i], i % 30, "new"), benchmark[i].answer) for i in range(40)]
    rows = [*training, *copies, *benchmark[:5]]
    first, report = found(benchmark, rows)
    mixed = rows * 3
    random.Random(0).shuffle(mixed)
    again, other = found(benchmark, mixed)
    assert first == again
    assert first["exact"] == {f"bench{i}" for i in range(5)}
    assert len(other.found_in) == 3 * len(report.found_in) == 3 * 45
    assert {name: one.prompts for name, one in other.layers.items()} == {
        name: 3 * one.prompts for name, one in report.layers.items()
    }


def test_the_training_set_as_its_own_benchmark_is_found_whole(training):
    layers, report = found(training, training)
    assert len(report.flagged) == len(report.found_in) == 400
    assert len(layers["exact_with_answer"]) == 400
    assert layers["template"] == set()  # copies are no weak finding


def test_a_form_that_many_questions_share_is_no_finding(training):
    form = "read the question below with care and write nothing but the final answer behind the last sign here "
    asked = [Question(one.id, one.place, form + one.text, one.answer) for one in made(40, "bench", 3)]
    trained = [Question(one.id, one.place, form + one.text, one.answer) for one in training]
    layers, report = found(asked, trained)
    assert not any(layers.values())
    few = found(asked[:4], trained)[0]
    assert few["13_gram"] == set()  # all four share it
    assert found(asked[:1], trained)[0]["13_gram"] == {"bench0"}  # of one question nothing is a form
    assert found([*asked, *asked], planted(trained, 1, asked[2].text))[0]["13_gram"] == {"bench2"}
    assert report.layers["13_gram"].looked_at == 40


def test_short_questions_are_counted_as_not_looked_at():
    asked = [Question("a", "a", "What is 2 + 2?", "4"), Question("b", "b", "Why?"), Question("c", "c", "\u200b ?!")]
    layers, report = found(asked, [Question("t", "t", "what is 2 plus 2", "4"), Question("u", "u", "WHY"), asked[2]])
    assert {name: one.looked_at for name, one in report.layers.items()} == {
        "exact": 2, "exact_with_answer": 1, "13_gram": 0, "8_gram_coverage": 0, "same_answer": 1, "template": 1, NEAR: 1
    }  # fmt: skip
    assert layers["exact"] == {"b"}


def test_nothing_against_nothing():
    for asked, trained in (([], made(3, "t", 1)), (made(3, "b", 1), []), ([], [])):
        layers, report = found(asked, trained)
        assert not any(layers.values())
        assert report.found_in.tolist() == []


def test_a_huge_row_is_read(benchmark):
    huge = " ".join(LETTERS * 4000) + " " + benchmark[0].text
    assert found(benchmark, [Question("huge", "huge", huge)])[0]["13_gram"] == {"bench0"}


def test_minhash_finds_near_duplicates_and_nothing_else(benchmark, training, monkeypatch):
    pytest.importorskip("datasketch")
    rows = [*training, *(Question(f"c{i}", f"c:{i}", changed(benchmark[i], 15, "new")) for i in range(20))]
    plain = found(benchmark, rows, layers=[NEAR])[0][NEAR]
    monkeypatch.setattr("cohort.preflight.contamination.looking.ALL_PAIRS", 0)
    assert found(benchmark, rows, layers=[NEAR])[0][NEAR] == plain == {f"bench{i}" for i in range(20)}


def test_without_datasketch_a_large_set_says_what_was_not_looked_at(benchmark, training, monkeypatch):
    monkeypatch.setattr("cohort.preflight.contamination.looking.ALL_PAIRS", 0)
    monkeypatch.setitem(sys.modules, "datasketch", None)
    report = found(benchmark, training)[1]
    assert NEAR not in report.layers
    assert "pip install 'cohort[contamination]'" in report.not_looked[NEAR]
    assert set(report.layers) == set(LAYERS)


def test_hashes_are_the_same_in_every_process():
    program = (
        "from cohort.preflight.contamination.texts import *;"
        "t = Hasher().texts([Question('', '', 'What is 2 + 2, now?', '4')]);"
        "print(t.words.tolist(), t.masked.tolist(), t.answers.tolist(), wholes(t.words, t.starts)[1].tolist())"
    )
    texts = Hasher().texts([Question("", "", "What is 2 + 2, now?", "4")])
    here = [texts.words.tolist(), texts.masked.tolist(), texts.answers.tolist()]
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert there.split() == " ".join(map(str, [*here, wholes(texts.words, texts.starts)[1].tolist()])).split()


@pytest.mark.parametrize("n", [1, 3, 13])
def test_grams_are_those_of_a_plain_loop(n):
    texts = [" ".join(random.Random(n * i).choices(["a1", "b", "c", "d"], k=i)) for i in range(0, 30, 3)]
    own = Hasher().texts([Question("", "", text) for text in texts])
    at, keys = grams(own, n)
    rows = own.rows[at]
    plain = [
        (row, tuple(w[i : i + n])) for row, t in enumerate(texts) for w in [t.split()] for i in range(len(w) - n + 1)
    ]
    assert rows.tolist() == [row for row, _ in plain]
    assert len({*plain}) == len({*zip(rows.tolist(), keys.tolist())})
    assert len({gram for _, gram in plain}) == len(np.unique(keys))


def test_a_model_that_knows_a_benchmark_by_heart_is_told_from_one_that_guesses(benchmark):
    known = {normal_text(one.text)[:20]: one.text for one in benchmark[:12]}

    def by_heart(asked):
        full = [known.get(normal_text(text)[:20], "") for text, _ in asked]
        return [text[len(first) :] for text, (first, _) in zip(full, asked)]

    report = completed(benchmark, 20, by_heart, seed=0)
    assert report.questions == 20
    assert report.verbatim == tuple(f"bench{i}" for i in range(0, 12, 2))
    assert report.overlap == 6 / 20
    assert report.control == 0
    assert report.p == 1 / 2**6
    guesses = completed(benchmark, 20, lambda asked: [rest for _, rest in asked], seed=0)  # control as good
    assert (guesses.overlap, guesses.control, guesses.p) == (1, 1, 1)
    assert completed([Question("s", "s", "too short to cut")], 5, by_heart, seed=0) is None


def test_overlap_and_sign_test_in_numbers():
    assert overlap("one two three four", "one two three five") == 0.5
    assert overlap("x", "one two") == 0
    assert sign_test(0, 0) == 1
    assert sign_test(3, 0) == 0.125
    assert sign_test(8, 2) == pytest.approx(56 / 1024)
