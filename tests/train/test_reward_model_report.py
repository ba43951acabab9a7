"""The measures of a reward model, by hand."""

from __future__ import annotations

import math

import orjson
import pytest

from cohort.evaluate.pairs import report_pairs


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_accuracy_is_strict_and_the_loss_is_bradley_terrys():
    report = report_pairs([1.2, 0.3, -0.5], [0.4, 0.9, -0.5], [1, 1, 1], [1, 1, 1])
    assert report.accuracy == pytest.approx(1 / 3)
    assert report.loss == pytest.approx(0.700578599, abs=1e-9)
    assert report.accuracy_low < 1 / 3 < report.accuracy_high
    assert report.score_mean == pytest.approx((1.2 + 0.3 - 0.5 + 0.4 + 0.9 - 0.5) / 6)


def test_calibration_error_by_hand():
    """Ten pairs at confidence 0.62 of which 5 are right, ten at 0.92 of which 9 are: (0.12 * 10 + 0.02 * 10) / 20."""
    low, high = math.log(0.62 / 0.38), math.log(0.92 / 0.08)
    gaps = [low] * 5 + [-low] * 5 + [high] * 9 + [-high]
    report = report_pairs(gaps, [0.0] * 20, [1] * 20, [1] * 20)
    assert report.calibration_error == pytest.approx(0.07)
    assert report.accuracy == pytest.approx(14 / 20)
    (first, second) = report.bins
    assert (first.low, first.high, first.pairs, first.accuracy) == (pytest.approx(0.6), pytest.approx(0.65), 10, 0.5)
    assert (second.pairs, second.confidence, second.accuracy) == (10, pytest.approx(0.92), pytest.approx(0.9))


def test_a_model_without_an_opinion_is_calibrated():
    report = report_pairs([0.5] * 4, [0.5] * 4, [3, 4, 5, 6], [1, 1, 1, 1])
    assert (report.accuracy, report.calibration_error) == (0.0, 0.0)
    assert report.loss == pytest.approx(math.log(2))
    assert math.isnan(report.length_correlation)
    assert report.as_dict()["length_correlation"] is None


def test_length_correlation_does_not_depend_on_which_answer_is_first():
    scores = ([2.0, 1.0, -1.0, 0.3], [0.5, 3.0, 0.0, 0.3])
    lengths = ([9, 2, 5, 7], [4, 8, 5, 6])
    report = report_pairs(*scores, *lengths)
    gaps, extra = [1.5, -2.0, -1.0, 0.0], [5, -6, 0, 1]
    by_hand = sum(a * b for a, b in zip(gaps, extra))
    by_hand /= math.sqrt(sum(a * a for a in gaps) * sum(b * b for b in extra))
    assert report.length_correlation == pytest.approx(by_hand)
    swapped = report_pairs(scores[1], scores[0], lengths[1], lengths[0])
    assert swapped.length_correlation == pytest.approx(by_hand)
    assert report.longer_chosen == pytest.approx(2 / 3)  # of the three pairs of unequal length
    assert report.longer_preferred == pytest.approx(2 / 3)


def test_a_model_that_pays_for_length_alone_is_found_out():
    lengths = ([5, 9, 3, 7], [8, 2, 6, 1])
    report = report_pairs([0.1 * n for n in lengths[0]], [0.1 * n for n in lengths[1]], *lengths)
    assert report.length_correlation == pytest.approx(1.0)
    assert (report.longer_preferred, report.longer_chosen) == (1.0, 0.5)


def test_extremes():
    report = report_pairs([1e4, -1e4], [-1e4, 1e4], [1, 1], [2, 2])
    assert report.loss == pytest.approx(1e4)
    assert [item.confidence for item in report.bins] == [1.0]
    orjson.dumps(report.as_dict())
    empty = report_pairs([], [], [], [])
    assert empty.pairs == 0
    assert math.isnan(empty.accuracy)
    assert empty.bins == ()


def test_metrics_have_public_names():
    metrics = report_pairs([1.0], [0.0], [2], [1]).metrics()
    assert metrics["eval/accuracy"] == 1.0
    assert metrics["eval/calibration_error"] == pytest.approx(1 - sigmoid(1.0))
    assert all(isinstance(value, float) for value in metrics.values())
