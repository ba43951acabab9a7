"""Every detector speaks when its failure is there, says what to look at, and is quiet in a run that is well."""

from __future__ import annotations

import json
import math
from pathlib import Path

import injected
import numpy as np
import pytest
from injected import group
from scipy import stats

from cohort.monitor.behaviour import (
    acts_on_tests,
    behaviour,
    contradicts,
    final_word,
    is_bare,
    rank_correlation,
    repeats,
)
from cohort.monitor.doctor import CAUSES, answers, causes, paragraph
from cohort.monitor.watcher import Watcher
from cohort.rewards.combination import Combination, Gate
from cohort.settings import DETECTORS, Monitor, Stage, Task

HERE = Path(__file__).parent
STAGE = Stage(task=Task(source="word_problems"))


def found_in(steps):
    watcher = Watcher(Monitor())
    return [one for line, groups in steps for one in watcher.see(line, groups)]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_failure_is_found_within_the_window(name):
    found = [one for one in found_in(injected.steps(name)) if one.detector == name]
    assert found, "nothing was said"
    assert injected.START <= found[0].step < injected.START + Monitor().window
    assert "\n" not in found[0].said
    assert any(sign.isdigit() for sign in found[0].line) or name == "not_finite"
    assert len(found[0].look_at) > 20
    gaps = np.diff([one.step for one in found])
    assert (gaps >= Monitor().window).all(), "it repeats itself within its window"


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_is_well_is_left_alone(seed):
    assert found_in(injected.steps(None, seed)) == []


def test_what_a_detector_speaks_for_is_a_cause_and_all_are_injected():
    assert injected.INJECTED.keys() == DETECTORS.keys()
    speaks = {name for _, _, of in CAUSES.values() for name in of}
    assert speaks == DETECTORS.keys()


def test_a_learning_rate_that_is_too_high_is_said_within_five_steps():
    """The numbers of a real run: accuracy 40% to 0% after one update, completions of one tag until they are cut off."""
    lines = [json.loads(line) for line in (HERE / "rate_too_high.jsonl").read_text().splitlines()]
    found = found_in((line, ()) for line in lines)
    assert found[0].detector == "reward_collapse"
    assert found[0].step == 2
    assert "0.41 to 0.01" in found[0].line
    assert "learning_rate" in found[0].look_at
    likely = causes(found, STAGE)[0]
    assert likely.name == "step_size"
    assert "the updates are too large" in paragraph(likely)


def test_a_reward_that_was_0_from_the_start_has_not_collapsed():
    nothing = {"reward/mean": 0.0, "reward/std": 0.0, "groups/pass_rate": 0.0, "groups/signal": 0.0}
    found = found_in((line | nothing | {"groups/all_right": 0.0}, groups) for line, groups in injected.steps(None))
    assert {one.detector for one in found} == {"constant_reward"}
    assert causes(found, STAGE)[0].name == "blind_reward"


@pytest.mark.parametrize(("signal", "right"), [(0.3, 0.7), (0.0, 0.0)], ids=["solved", "taught without a reward"])
def test_low_entropy_alone_is_no_alarm(signal, right):
    def steps():
        for line, groups in injected.steps(None):
            sure = 0.5 * 0.8 ** line["step"]
            yield line | {"policy/entropy_sampled": sure, "groups/signal": signal, "groups/all_right": right}, groups

    assert "entropy_collapse" not in {one.detector for one in found_in(steps())}
    assert signal == 0 or found_in(steps()) == []


@pytest.mark.parametrize(("split", "says"), [
    ({"groups/all_wrong": 1.0, "groups/all_right": 0.0, "groups/partial": 0.0}, "100% all wrong"),
    ({"groups/all_wrong": 0.0, "groups/all_right": 0.0, "groups/partial": 1.0}, "100% equal in between"),
    ({"groups/all_wrong": 0.0, "groups/all_right": 1.0, "groups/partial": 0.0}, "100% are all right"),
])  # fmt: skip
def test_no_signal_says_which_kind_it_is(split, says):
    found = found_in((line | {"groups/signal": 0.0} | split, groups) for line, groups in injected.steps(None))
    assert found[0].detector == "no_signal"
    assert says in found[0].line
    wrong = split["groups/all_right"] == 0
    assert bool(causes(found, STAGE)) is wrong  # groups that are all right are no failure


def test_a_watcher_that_is_made_from_what_is_on_disk_goes_on_as_it_was():
    all_steps = list(injected.steps("truncation"))
    whole = found_in(all_steps)
    for cut in (3, 16, 20):
        first = Watcher(Monitor())
        before = [one for line, groups in all_steps[:cut] for one in first.see(line, groups)]
        on_disk = [json.loads(json.dumps(line)) for line, _ in all_steps[:cut]]
        second = Watcher(Monitor(), on_disk, before)
        after = [one for line, groups in all_steps[cut:] for one in second.see(line, groups)]
        assert before + after == whole


@pytest.mark.parametrize("name", ["truncation", "gradient_spike", "sparse_reward", "reward_conflict"])
def test_a_short_window_silences_nobody(name):
    watcher = Watcher(Monitor(window=1))
    found = {one.detector for line, groups in injected.steps(name) for one in watcher.see(line, groups)}
    assert name in found


def test_behaviour_of_crafted_groups():
    long_wrong = group(["a b c d 7", "x y z u v w s t 9", "a b c d 7", "k 8"], [1.0, 0.0, 1.0, 0.0])
    found = behaviour([long_wrong])
    assert found["groups/pass_rate"] == 0.5
    assert found["groups/similar"] == 0.5  # two are the same
    assert found["completions/right_tokens"] == 5
    assert found["completions/wrong_tokens"] == 5.5
    assert found["completions/same_answer"] == 0.5
    assert found["completions/bare"] == 0.25
    assert found["advantage/below_right"] == 0
    assert found["reward/std"] == 0.5
    assert not any("with_reward" in name for name in found)
    assert behaviour([]) == {}
    assert behaviour([long_wrong.with_(error="lost")]) == {}
    partial = behaviour([group(["a", "b"], [0.4, 0.4])])
    assert partial["groups/partial"] == 1
    assert math.isnan(partial["advantage/below_right"])
    bad = behaviour([group(["a", "b"], [0.4, 0.0])])
    assert bad["advantage/below_right"] == 1


def test_components_are_compared_inside_groups():
    exact, form = [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]
    found = behaviour([group(["a", "b", "c", "d"], exact, ticket=i, exact=exact, form=form) for i in range(3)])
    assert found["reward/form/with_accuracy"] == pytest.approx(-1)
    assert found["reward/exact/with_reward"] == pytest.approx(1)
    # Levels of whole groups do not matter: only who wins inside of one.
    high = group(["a", "b"], [1.0, 1.0], exact=[1.0, 1.0], form=[1.0, 1.0])
    assert behaviour([high, group(["a", "b"], exact[:2], exact=exact[:2], form=form[:2])])[
        "reward/form/with_accuracy"
    ] == pytest.approx(-1)


def test_a_reward_is_compared_as_it_is_paid_after_its_gate():
    gated = Combination({"exact": 1.0, "form": 1.0}, {"form": Gate("exact")})
    scores = {"exact": [1.0, 0.0, 1.0, 0.0], "form": [0.0, 1.0, 0.5, 1.0]}
    groups = [group(["a", "b", "c", "d"], gated.total(scores), **scores)]
    assert behaviour(groups)["reward/form/with_accuracy"] < -0.7
    assert behaviour(groups, gated)["reward/form/with_accuracy"] > 0.5  # wrong completions are paid nothing for it


def test_a_verifier_that_contradicts_itself_is_named():
    same = group(["it is 7", "it is 7", "no"], [1.0, 0.0, 0.0], exact=[1.0, 0.0, 0.0], form=[1.0, 1.0, 0.0])
    assert contradicts(same) == {"exact"}
    assert behaviour([same, *injected.plain_groups()[:3]])["groups/contradictions"] == 0.25
    nothing = same.with_(scores={"exact": (math.nan, 1.0, 0.0)})
    assert contradicts(nothing) == set()


@pytest.mark.parametrize("seed", range(20))
def test_rank_correlation_is_spearmans(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, 16).astype(float), rng.normal(size=16)
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    y[3] = math.nan
    known = ~np.isnan(y)
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x[known], y[known]).statistic)
    assert math.isnan(rank_correlation(np.ones(5), y[:5]))


@pytest.mark.parametrize("seed", range(10))
def test_repeated_is_what_counting_gives(seed):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(list("abc"), int(rng.integers(5, 30)))) for _ in range(6)]

    def counted(text):
        words = text.split()
        grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
        return 1 - len({*grams}) / len(grams)

    wanted = [counted(text) for text in texts]
    assert [repeats(injected.rollout(text)) for text in texts] == pytest.approx(wanted)
    assert behaviour([group(texts, [1.0] * 6)])["completions/repeated"] == pytest.approx(sum(wanted) / 6)


def test_texts_are_read_as_a_person_would():
    assert final_word("so <answer> 42 </answer>") == "42"
    assert final_word(r"thus \boxed{3/4}.") == "3/4"
    assert final_word("") == ""
    assert is_bare("<answer>42</answer>")
    assert not is_bare("6 times 7 is 42")
    assert acts_on_tests("```python\nimport sys\nsys.exit(0)\n```")
    assert acts_on_tests("class A:\n    def __eq__(self, other): return True")
    assert not acts_on_tests("def f(x):\n    return x + 1")
    assert not acts_on_tests("I quit (really)")


def test_classic_questions_are_answered():
    lines = [{"step": i, "loss": 1e-4, "grad_norm": 0.3, "groups/signal": 0.5, "policy/kl": None, "reward/mean": 0.5}
             for i in range(1, 12)]  # fmt: skip
    found = dict(answers(lines))
    assert found["The loss is 0, is it broken?"].startswith("No.")
    assert "kl_coef is 0" in found["policy/kl is null?"]
    still = dict(answers([line | {"grad_norm": 0.0} for line in lines]))
    assert "nothing was learnt" in still["The loss is 0, is it broken?"]
