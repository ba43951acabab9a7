"""The gate: which rewards it refuses, which it lets through with a note, and what it must not refuse."""

import json
import math
import random
import time
from dataclasses import replace

import pytest

from cohort.preflight.gate.examine import Asked, examine
from cohort.preflight.gate.findings import GOLD
from cohort.preflight.gate.probes import (
    CONSTANT,
    FORMS,
    LISTED,
    OPENER,
    OPENERS,
    OTHER_GOLD,
    constants,
    gold_text,
    ignorant,
    several,
    stated_gold,
)
from cohort.preflight.gate.probes import other_gold as next_gold
from cohort.rewards import RewardFailure, RewardTable, resolve_all, trl
from cohort.rewards.marks import costly
from cohort.types import InfrastructureError, Prompt

SUMS = [Prompt.make(text=f"What is {i} plus {i + 1}?", answer=str(2 * i + 1), tags={"domain": "sum"}) for i in range(8)]
BITS = [
    Prompt.make(text=f"Is {i} odd?", answer=("no", "yes", "yes", "yes")[i % 4], tags={"domain": "bit"})
    for i in range(8)
]


def exact(completion, answer):
    return float(completion.strip() == answer)


def look(*rewards, prompts=SUMS, verifiers=None, **more):
    """Examine rewards (functions, names or specs), of which the first decides."""
    resolved = resolve_all([one if isinstance(one, RewardTable) else RewardTable(use=one) for one in rewards])
    names = [resolved[0].name] if verifiers is None else verifiers
    asked = [Asked(prompt, gold_text(prompt.answer), seed=index) for index, prompt in enumerate(prompts)]
    return examine(resolved, names, asked, **more)


def the_one(report):
    (found,) = report.rewards
    return found


# ---- the texts


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("72", "72"), (72, "72"), (0.5, "0.5"), (True, "True"), ("48 + 24 = 72\n#### 72", "72"), ("", None), (None, None)],
)
def test_the_gold_answer_as_text(answer, gold):
    assert gold_text(answer) == gold


@pytest.mark.parametrize("answer", [["1", "2"], {"tests": []}])
def test_a_structure_is_no_gold_text(answer):
    assert gold_text(answer) is None


def test_another_prompts_gold_is_never_the_prompts_own():
    assert next_gold(["a", "A ", "b", None, "a"], 0) == "b"
    assert next_gold(["a", "A ", "b", None, "a"], 2) == "a"
    assert next_gold(["a", "a"], 0) is None
    assert next_gold([None, "a"], 0) == "a"


def test_several_answers_hold_the_right_one_between_two_others():
    assert several(["a", "A ", "b", None, "c"], 0) == "b, a, c"
    assert several(["a", "b", "c"], 2) == "a, c, b"
    assert several(["a", "b", "B"], 0) is None
    assert several([None, "a", "b", "c"], 0) is None
    assert several(["a", "b" * 41, "c"], 0) is None


def test_constants_hold_the_most_common_answers():
    tried = constants(["17", "17", "4", "x" * 100, None])
    assert {"17", "4", "yes", "0"} <= set(tried)
    assert not any(len(text) > 40 for text in tried)
    assert len(set(tried)) == len(tried)


def test_ignorant_texts_cover_what_fools_verifiers():
    probes = ignorant("What is 2 + 2?", "9", ["0"], FORMS["\\boxed{}"])
    texts = [probe.text for probe in probes]
    assert {"", "What is 2 + 2?", "The answer is \\boxed{What is 2 + 2?}.", "The answer is \\boxed{9}."} <= set(texts)
    assert {":", "Thought process:", "Let's solve this problem step by step.", "Solution", "解", "かいせつ"} < set(
        OPENERS
    )
    assert set(OPENERS) <= set(texts)
    assert len({(probe.kind, probe.label) for probe in probes}) == len(probes)


# ---- verifiers


@pytest.mark.parametrize("verifier", [exact, "exact_number", "math"])
def test_an_honest_verifier_passes(verifier):
    report = look(verifier)
    assert report.problems == ()
    assert report.notes == ()
    found = the_one(report)
    assert found.gold == 1.0
    assert (found.gold_right, found.gold_asked) == (8, 8)
    assert found.best_ignorant[1].mean <= 1 / 8  # a constant that is one of the answers
    assert all(found.rows[kind].mean == 0 for kind in ("nothing", "junk", "the prompt itself", OPENER, OTHER_GOLD))
    assert found.same_twice
    assert "gold answers score 1.00" in report.sentence()


def test_the_form_that_a_verifier_reads_is_found():
    assert the_one(look(exact)).rows[GOLD].label == "as it is"
    assert the_one(look("exact_number")).rows[GOLD].label == "<answer>"
    assert the_one(look(lambda completion, answer: f"#### {answer}" in completion)).rows[GOLD].label == "####"


def blind(completion, answer):
    return 0.0


def generous(completion, answer):
    return 1.0


def backwards(completion, answer):
    return 1.0 - exact(completion, answer)


def impressed(completion, answer):
    """A judge that a master key opens."""
    return float(completion == "Solution" or exact(completion, answer))


def echoes(completion, answer, prompt):
    return float(prompt in completion or answer in completion)


def any_answer(completion, answer):
    """Pays for an answer that has the right form, whichever it is."""
    return float(completion.strip().isdigit())


@pytest.mark.parametrize(
    ("verifier", "says"),
    [
        (blind, r"\(mean score 0\.00\)"),
        (generous, r"\(1\.00 for always '0'\)|\(1\.00 for"),
        (backwards, r"for another prompt's gold|for always|for nothing"),
        (impressed, r"\(1\.00 for the opener 'Solution'\)"),
        (echoes, r"\(1\.00 for the prompt itself\)"),
        (any_answer, r"\(1\.00 for another prompt's gold\)"),
        ("random", r"random cannot tell gold answers"),
    ],
)
def test_a_verifier_that_cannot_tell_is_refused(verifier, says):
    report = look(verifier, prompts=SUMS + BITS if verifier == "random" else SUMS)
    (problem,) = report.problems
    assert "cannot tell gold answers" in problem
    import re

    assert re.search(says, problem), problem
    assert report.to_dict()["verdict"] == "refused"
    assert report.sentence() == problem


def test_an_example_of_a_gold_answer_that_does_not_pay_is_given():
    (problem,) = look(blind).problems
    assert "For instance '1' for 'What is 0 plus 1?' is not right" in problem


def test_a_constant_that_is_often_right_is_a_note_and_no_refusal():
    report = look(exact, prompts=BITS)
    assert report.problems == ()
    assert report.notes == ("exact pays 0.75 for a text that knows nothing (always 'yes')",)
    assert the_one(report).rows[CONSTANT].label == "yes"


def test_a_task_with_one_answer_is_a_note_and_no_refusal():
    """The eight prompts looked at may all have the commonest answer."""
    prompts = [Prompt.make(text=f"Is {i} a number?", answer="Yes", tags={}) for i in range(8)]
    report = look(exact, prompts=prompts)
    assert report.problems == ()
    assert report.notes == ("exact pays 1.00 for a text that knows nothing (always 'Yes')",)
    assert OTHER_GOLD not in the_one(report).rows
    assert look(generous, prompts=prompts).problems


def test_gold_answers_that_do_not_pay_are_named():
    broken = [Prompt.make(text="What is 1 plus 1?", answer="two apples", tags={}), *SUMS]

    def numbers(completion, answer):
        return float(answer.isdigit() and exact(completion, answer))

    report = look(numbers, prompts=broken)
    assert report.problems == ()
    assert report.notes == (
        "numbers: 1 of 9 gold answers score less than 0.5 in every form, e.g. 'two apples' for 'What is 1 plus 1?'",
    )


def test_when_most_gold_answers_do_not_pay_nothing_stands_out():
    def rarely(completion, answer):
        return float(answer == "15" and exact(completion, answer))

    (problem,) = look(rarely).problems  # one gold answer of eight pays and nothing else does: that may be chance
    assert "(mean score 0.12) from texts that know nothing (0.00" in problem

    def half(completion, answer):
        return float(int(answer) % 4 == 3 and exact(completion, answer))

    assert look(half).problems == ()


def test_a_graded_verifier_passes():
    import difflib

    def similar(completion, answer):
        return difflib.SequenceMatcher(None, completion, answer).ratio()

    texts = ["the cat sat on the mat", "rain fell all night", "he lost his keys again", "she runs every morning"]
    prompts = [Prompt.make(text=f"Translate sentence {i}.", answer=text) for i, text in enumerate(texts)]
    report = look(similar, prompts=prompts)
    assert report.problems == ()
    assert the_one(report).gold == 1.0
    assert any("another prompt's gold" in note for note in report.notes) == (
        the_one(report).rows[OTHER_GOLD].mean >= 0.5
    )


def test_a_verifier_that_applies_to_nothing_is_refused():
    report = look(lambda completion, answer: None)
    assert report.problems == ("lambda applies to none of the 8 gold answers that were scored",)


def test_a_verifier_that_gives_ignorant_texts_no_score_passes():
    """Also where a constant happens to be one of the answers: one hit among many None says nothing."""
    report = look(lambda completion, answer: 1.0 if completion.strip() == answer else None)
    assert report.problems == ()
    assert report.sentence() == "lambda: gold answers score 1.00, ignorant texts get no score"


def test_penalties_and_rewards_below_0_are_compared_all_the_same():
    report = look(lambda completion, answer: -1.0 + exact(completion, answer))
    assert report.problems == ()
    assert "score less than 0.5 in every form" in report.notes[0]


def test_restating_the_problem_can_pay_and_is_noted():
    """`What is 0 plus 1?` ends in the answer, for a verifier that takes the last number of any text."""
    report = look(RewardTable(use="exact_number", args={"last_number": True}))
    assert report.problems == ()
    assert report.notes == ("exact_number pays 0.12 for a text that knows nothing (the prompt itself)",)


# ---- rewards that decide nothing


def long(completion):
    return len(completion) / 100


def test_a_verifier_that_finds_the_answer_among_others_is_noted():
    report = look(lambda completion, answer: float(answer in completion.split(", ")))
    assert report.problems == ()
    assert report.notes == ("lambda pays 1.00 for a text that lists the right answer among others",)
    assert the_one(report).rows[LISTED].mean == 1.0
    assert the_one(report).best_ignorant[1].mean <= 1 / 8
    assert the_one(look(exact)).rows[LISTED].mean == 0.0


def test_only_verifiers_are_refused():
    penalty = RewardTable(use="soft_overlong", args={"max_tokens": 4, "buffer": 2}, weight=0.5)
    report = look(exact, long, "think_format", "random", penalty)
    assert report.problems == ()
    assert [found.verifier for found in report.rewards] == [True, False, False, False, False]
    by_name = {found.name: found for found in report.rewards}
    assert by_name["think_format"].gold == 0.0  # exact reads the answer as it is
    assert by_name["soft_overlong"].rows["nothing"].mean == 0.0
    assert report.total[GOLD].mean > 1.0


def test_a_first_reward_that_knows_no_answers_is_not_put_to_the_test():
    report = look(long, untested=["long"])
    assert report.problems == ()
    assert report.notes == ("long does not look at the gold answer",)


def test_without_gold_answers_nothing_is_tested():
    prompts = [Prompt.make(text=f"Write about {word}.") for word in ("rain", "snow")]
    report = look(long, prompts=prompts)
    assert report.problems == ()
    assert report.to_dict()["verdict"] == "untested"
    assert report.sentence().startswith("nothing was tested: there are no gold answers that a completion could state")


@costly
def pays_all(completion):
    """A judge whose prompt lost the completion on its way."""
    return 1.0 if completion.strip() else 0.0


@costly
def always_6(completion, answer):
    """A reward model with a broken head."""
    return 6.0


@costly
def likes_words(completion):
    return float(len(completion.split()))


@costly
def fair_judge(completion, answer):
    return 0.9 if answer in completion.split() and len(completion.split()) < 3 else 0.2 if completion.strip() else 0.0


@pytest.mark.parametrize("first", [pays_all, always_6, likes_words])
def test_a_judge_that_pays_ignorant_text_like_gold_is_bad(first):
    report = look(first)
    (problem,) = report.problems
    assert problem.startswith(f"{first.__name__} cannot tell gold answers")
    assert "evaluate.gold" in problem
    assert report.to_dict()["verdict"] == "refused"


@pytest.mark.parametrize(("judge", "pays"), [(pays_all, "1.00"), (always_6, "6.00")])
def test_a_judge_that_pays_everything_alike_is_bad_without_gold_answers_and_beside_a_verifier(judge, pays):
    said = f"{judge.__name__} pays {pays} for every text, so it says nothing"
    essays = [Prompt.make(text=f"Write about {word}.", answer="") for word in ("rain", "snow")]
    assert look(judge, prompts=essays).problems == (said,)
    assert look(exact, judge).problems == (said,)


def test_a_judge_that_knows_gold_answers_is_good():
    report = look(fair_judge)
    assert report.problems == ()
    assert report.sentence().startswith("fair_judge: gold answers score 0.90")
    assert look(exact, fair_judge).problems == ()


def test_a_reward_that_pays_everything_alike_beside_a_verifier_is_noted_or_bad_if_it_takes_the_gold_answer():
    said = ("generous pays 1.00 for every text, so it says nothing",)
    assert look(exact, RewardTable(use=generous, weight=0.1)).problems == said

    def kind(completion):
        return 1.0

    report = look(exact, RewardTable(use=kind, weight=0.1))
    assert (report.problems, report.notes) == ((), ("kind pays 1.00 for every text, so it says nothing",))
    report = look(lambda completion: 1.0, untested=["lambda"])
    assert report.problems == ()
    assert report.to_dict()["verdict"] == "untested"  # it was called good
    assert report.sentence().startswith("nothing was tested: lambda does not look at the gold answer")


def test_each_domain_is_decided_by_its_own_verifier():
    rewards = (
        RewardTable(use="exact_number", when={"domain": "sum"}),
        RewardTable(use=generous, when={"domain": "bit"}),
        RewardTable(use="think_format", weight=0.1),
    )
    names = ["exact_number", "generous", "think_format"]
    report = look(*rewards, prompts=SUMS + BITS, verifiers=names)
    (problem,) = report.problems
    assert problem.startswith("generous cannot tell")
    numbers, generous_, form = report.rewards
    assert (numbers.gold_asked, generous_.gold_asked, form.gold_asked) == (8, 8, 0)
    assert numbers.gold == 1.0
    assert not form.verifier


def test_whole_completions_are_scored_as_they_stand():
    prompts = [Prompt.make(text=f"Write f{i}.", answer=f"{i}", tags={}) for i in range(4)]

    def runs(completion, answer):
        return float(completion == f"def f(): return {answer}")

    resolved = resolve_all([RewardTable(use=runs)])
    asked = [Asked(prompt, f"def f(): return {prompt.answer}", whole=True) for prompt in prompts]
    report = examine(resolved, ["runs"], asked)
    assert report.problems == ()
    assert the_one(report).gold == 1.0


def test_code_may_be_given_without_its_fence():
    prompts = [Prompt.make(text=f"Write a program that prints {i}.", answer=f"{i}", tags={}) for i in range(4)]

    def fenced(completion, answer):
        return float(completion == f"```python\nprint({answer})\n```")

    asked = [Asked(prompt, f"print({prompt.answer})", whole=True) for prompt in prompts]
    report = examine(resolve_all([RewardTable(use=fenced)]), ["fenced"], asked)
    assert report.problems == ()
    assert the_one(report).rows[GOLD].label == "fenced"


@pytest.mark.parametrize(
    ("use", "answer", "row", "stated"),
    [
        ("exact_number", "4 + 4 = 8\n#### 8", {}, "8"),
        (RewardTable(use="choice", args={"letters": "ABC"}), 2, {}, "C"),
        (RewardTable(use="choice", args={"options": "texts"}), "Rome", {"texts": ["Paris", "Rome"]}, "B"),
        ("exact_text", ["the Rhine", "Rhine"], {}, "the Rhine"),
        ("code", '{"tests": []}', {}, None),
    ],
)
def test_a_reward_says_what_a_right_completion_states(use, answer, row, stated):
    (reward,) = resolve_all([use if isinstance(use, RewardTable) else RewardTable(use=use)])
    assert stated_gold(reward, Prompt.make(text="?", answer=answer, tags=row)) == stated


@pytest.mark.parametrize("use", ["choice", "exact_text", "fuzzy_text", "f1_text", "math"])
def test_built_in_verifiers_pass(use):
    prompts = [Prompt.make(text=f"Which letter? ({i})", answer="BCDB"[i % 4], tags={}) for i in range(8)]
    report = look(use, prompts=prompts)
    assert report.problems == ()
    assert the_one(report).gold == 1.0


# ---- trouble


def test_a_reward_that_breaks_on_odd_text_breaks_the_gate_as_it_would_the_run():
    with pytest.raises(RewardFailure, match="reward 'first_letter' raised IndexError"):
        look(first_letter)


def first_letter(completion, answer):
    return float(completion[0] == answer[0])


def test_a_reward_that_changes_its_mind_is_noted():
    def moody(completion, answer):
        return exact(completion, answer) + (time.perf_counter_ns() % 1000) / 1e6

    report = look(exact, moody)
    assert report.problems == ()
    assert report.notes == ("moody gives other scores when it sees the same texts again",)
    assert not report.rewards[1].same_twice


def test_drawing_from_the_pinned_generator_is_no_change_of_mind():
    def noisy(completion, answer):
        return exact(completion, answer) + random.random() / 1e3

    assert look(noisy).notes == ()


def test_a_server_that_is_down_is_said():
    def down(completion, answer):
        raise InfrastructureError("http://judge does not answer")

    def sometimes(completion, answer, prompt):
        if "3 plus" in prompt:
            raise InfrastructureError("http://judge does not answer")
        return exact(completion, answer)

    (problem,) = look(down).problems
    assert problem.startswith("nothing could be scored: reward 'down' could not judge (http://judge does not answer)")
    report = look(sometimes, prompts=SUMS[:5])
    assert report.problems == ()
    assert report.prompts == 4
    assert "only 4 of 5 prompts were scored: reward 'sometimes' could not judge" in report.notes[0]


def test_a_verifier_that_hangs_costs_its_time_limit_twice_and_not_once_a_prompt(tmp_path):
    def hangs(completion, answer):
        with (tmp_path / "calls").open("a") as calls:
            calls.write("x")
        while True:
            pass

    (problem,) = look(RewardTable(use=hangs, timeout_s=0.3)).problems
    assert "nothing could be scored: reward 'hangs' took more than 0.3 s" in problem
    assert 2 <= len((tmp_path / "calls").read_text()) <= 3  # the third may have begun before it gave up


def test_a_time_limit_cuts_it_short():
    def slow(completion, answer):
        import time

        time.sleep(0.002)
        return exact(completion, answer)

    report = look(slow, prompts=SUMS * 4, limit_s=0.0)
    assert report.prompts == 2
    assert report.problems == ()
    assert "only 2 of 32 prompts were scored" in report.notes[0]


def test_chats_and_trl_style_functions():
    chats = [Prompt.make(messages=[{"role": "user", "content": f"{i} + 1?"}], answer=str(i + 1)) for i in range(4)]

    def theirs(prompts, completions, answer):
        assert completions
        return [float(one[0]["content"].strip() == gold) for one, gold in zip(completions, answer)]

    report = look(RewardTable(use=trl(theirs)), prompts=chats)
    assert report.problems == ()
    assert the_one(report).gold == 1.0


def test_the_report_is_json():
    report = look(exact, lambda completion: None)
    stored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert stored["verdict"] == "passed"
    assert stored["rewards"][0]["rows"][GOLD] == {"mean": 1.0, "label": "as it is"}
    assert stored["rewards"][1]["rows"] == {}
    assert math.isclose(stored["prompts"], 8)


def test_a_reward_that_gives_nothing_for_everything_is_refused():
    nothing = look(lambda completion: print(end=""), prompts=[replace(one, answer=None) for one in SUMS])
    assert any("gave no score for any text" in problem for problem in nothing.problems)
    assert look(lambda completion, answer: print(end="")).problems
    assert not look(exact, lambda completion: print(end="")).problems  # one of two may be for other prompts
