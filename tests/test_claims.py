"""The claims: what is decided follows from the evaluations, and each is a comparison that can begin."""

from __future__ import annotations

import json
from types import SimpleNamespace

import claims
import gradient_variance
import numpy as np
import pytest

from cohort.recipe import Recipe
from cohort.record.rollouts import write_groups
from cohort.rewards.verifiers.chance import _checked, noisy_number
from cohort.train.compare import arms
from cohort.types import Group, Prompt, Rollout


def arm(tmp_path, label, before, after, tokens=(5.0,)):
    """Runs of an arm, one a seed, which got so many of 40 problems right."""
    runs = []
    for seed, (first, last) in enumerate(zip(before, after, strict=True)):
        run = tmp_path / f"{label}-{seed}"
        (run / "log").mkdir(parents=True)
        for step, right in ((0, first), (60, last)):
            groups = []
            for number in range(40):
                prompt = Prompt(id=f"problem {number}", tokens=(1,), text=f"{number}?", answer="1")
                said = Rollout((1,), (True,), (0.0,), step, "stop", "1")
                score = float(number < right)
                groups.append(Group(number, prompt, (said,), {"r": (score,)}, rewards=(score,), accuracy=(score,)))
            write_groups(run / "log" / f"eval-{step:06d}-greedy.parquet", groups, step)
        lines = [{"step": step, "completions/wrong_tokens": tokens[seed % len(tokens)]} for step in range(61)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        runs.append(run)
    return SimpleNamespace(arm=label, runs=runs)


def test_a_contrast_is_decided_by_problems_and_by_every_seed(tmp_path):
    good = arm(tmp_path, "good", (10, 10, 10), (30, 32, 31), tokens=(9.0, 9.5, 9.2))
    poor = arm(tmp_path, "poor", (10, 10, 10), (20, 18, 19), tokens=(5.0, 5.1, 5.2))
    found = SimpleNamespace(arms=[good, poor], seeds=(0, 1, 2), measured="greedy")
    contrasts = [
        claims.Contrast("better", {"good": 1, "poor": -1}),
        claims.Contrast("better the other way", {"poor": 1, "good": -1}),
        claims.Contrast("no worse", {"poor": 1, "good": -1}, no_worse=True),
        claims.Contrast("a gain is left", {"poor": 1, claims.BEFORE: -1}),
        claims.Contrast("longer", {"good": 1, "poor": -1}, metric="completions/wrong_tokens"),
        claims.Contrast("half of the gain is left", {"poor": 1, "good": -0.5, claims.BEFORE: -0.5}),
    ]
    claim = claims.Claim("", "", (), contrasts, ())
    decided = claims.decide(claim, found)
    assert [one["verdict"] for one in decided] == ["holds", "refuted", "refuted", "holds", "holds", "open"]
    assert decided[0]["mean"] == pytest.approx(12 / 40)
    assert decided[0]["by_seed"] == pytest.approx([10 / 40, 14 / 40, 12 / 40])
    assert decided[4]["mean"] == pytest.approx(9.7 / 3 + 1 - 0.1)


def test_the_page_gets_the_verdicts_in_the_place_of_those_it_had(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "compare.png").write_bytes(b"png")
    page = tmp_path / "claims.md"
    page.write_text(f"before\n{claims.VERDICTS}\nverdicts of before\n\n{claims.AFTER_VERDICTS}behind\n")
    after = {"mean": 0.5, "low": 0.4, "high": 0.6}
    one = {"arm": "a=1", "before": after, "after": after, "by_seed": {0: 0.1, 1: -0.25}}
    points = {"says": "more is better", "mean": 0.1, "low": 0.05, "high": 0.15, "verdict": "holds", "margin": 0.0}
    tokens = {"says": "longer", "mean": 2.0, "low": -1.0, "high": 5.0, "verdict": "open", "metric": "tokens"}
    verdict = {"claim": "It helps", "directory": str(tmp_path), "arms": [one], "contrasts": [points, tokens]}
    claims.write_page({"help": verdict}, page)
    written = page.read_text()
    assert written.startswith(f"before\n{claims.VERDICTS}")
    assert written.endswith(f"{claims.AFTER_VERDICTS}behind\n")
    assert "verdicts of before" not in written
    assert "| `a=1` | 50.0% [40.0%, 60.0%] | +10.0, -25.0 |" in written
    assert "| **holds** | more is better | +10.0 [+5.0, +15.0] points |" in written
    assert "| **open** | longer | +2.0 [-1.0, +5.0] tokens |" in written
    assert "`python tools/claims.py help --seeds 2`" in written
    assert (tmp_path / "figures" / "claim_help.png").read_bytes() == b"png"


def test_a_page_of_some_claims_is_refused_before_anything_is_trained(monkeypatch, capsys):
    monkeypatch.setattr(claims, "run_claim", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit):
        claims.main(["kl", "--page"])
    assert "--page writes all claims" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(claims.CLAIMS))
def test_every_claim_is_a_comparison_of_the_arms_that_it_names(name):
    claim = claims.CLAIMS[name]

    def read(more):
        return Recipe.load(claims.RECIPE, [f"name=claim_{name}", *claim.overrides, *more])

    planned = arms.comparison(read, arms.Asked(vary=[claim.vary], seeds=3))
    labels = [one.label for one in planned.arms]
    assert len(labels) == len(claim.completions)
    for contrast in claim.contrasts:
        assert set(contrast.weights) <= {*labels, claims.BEFORE}
        assert sum(map(abs, contrast.weights.values())) == 2
        assert sum(contrast.weights.values()) == 0
    rollouts = [one.recipes[0].stages[0].rollout for one in planned.arms]
    sampled = [one.prompts_per_step * one.group_size for one in rollouts]
    assert sampled == [count if name != "kl" else 128 for count in claim.completions]  # a reference costs a pass more
    assert 1 < claim.minutes(3) < 30


def test_a_verifier_that_errs_does_so_as_often_as_it_is_told():
    scores = [noisy_number("#### 4", "4", seed, noise=0.2) for seed in range(2000)]
    assert 0.17 < scores.count(0.0) / 2000 < 0.23
    assert noisy_number("#### 5", "4", 1, noise=0.0) == 0.0
    assert noisy_number("#### 5", "4", 1, noise=1.0) == 1.0
    with pytest.raises(ValueError, match="from 0 to 1, not 2"):
        _checked("4", noise=2)


def test_the_variance_of_gradients_is_that_of_their_vectors():
    draws = np.random.default_rng(1)
    vectors = draws.normal(size=(40, 6))
    grams = {"mlp": vectors[:, :4] @ vectors[:, :4].T, "norms": vectors[:, 4:] @ vectors[:, 4:].T}
    assert gradient_variance.trace(grams["mlp"]) == pytest.approx(vectors[:, :4].var(0, ddof=1).sum())
    doubled = {kind: 4 * gram for kind, gram in grams.items()}
    found = gradient_variance.compared("twice", doubled, grams)
    assert (found.ratio, found.low, found.high) == pytest.approx((4, 4, 4))
    assert found.by_kind == pytest.approx({"mlp": 4, "norms": 4})
    assert found.variance == pytest.approx(4 * vectors.var(0, ddof=1).sum())
