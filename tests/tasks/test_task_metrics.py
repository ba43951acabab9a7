"""The difficulty histogram and what is kept by level and domain."""

from __future__ import annotations

import math

import pytest

from cohort.monitor.tasks import task_metrics
from cohort.types import Group, Prompt


def group(accuracy, **tags):
    return Group(ticket=0, prompt=Prompt.make("?", tags=tags), rollouts=(), accuracy=tuple(accuracy))


def of_rate(right, size, **tags):
    return group([1.0] * right + [0.0] * (size - right), **tags)


def test_pass_rate_counts_as_evaluations_do():
    assert group([0.5, 0.49, 1.0, -3.0]).pass_rate == 0.5
    assert group([1.0, math.nan]).pass_rate == 1.0
    assert group([math.nan]).pass_rate is None
    assert group([]).pass_rate is None


def test_the_histogram_has_fifths_and_the_last_holds_one():
    rates = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    metrics = task_metrics([of_rate(right, 10) for right in rates])
    assert [metrics[f"task/pass_rate_{bucket}"] * 11 for bucket in range(5)] == pytest.approx([2, 2, 2, 2, 3])


def test_groups_without_scores_are_left_out():
    metrics = task_metrics([of_rate(1, 2, level=1), group([], level=2), group([math.nan], level=3)])
    assert metrics["task/level/1/share"] == 1.0
    assert not any(key.startswith(("task/level/2", "task/level/3")) for key in metrics)
    assert task_metrics([group([])]) == {}


def test_levels_and_domains():
    groups = [
        of_rate(2, 2, level=1, domain="a b"),
        of_rate(0, 2, level=1),
        of_rate(1, 2, level="Level 5", domain="a b"),
    ]
    metrics = task_metrics(groups)
    assert metrics["task/level/1/share"] == pytest.approx(2 / 3)
    assert metrics["task/level/1/pass_rate"] == 0.5
    assert metrics["task/level/Level_5/pass_rate"] == 0.5
    assert metrics["domain/a_b/share"] == pytest.approx(2 / 3)
    assert metrics["domain/a_b/pass_rate"] == 0.75


@pytest.mark.parametrize("value", [True, None, 1.5, "", "x" * 41, ["a"]])
def test_what_is_no_name_makes_no_metric(value):
    assert len(task_metrics([of_rate(1, 2, domain=value)])) == 5


def test_a_tag_with_a_value_for_every_row_is_no_domain():
    assert len(task_metrics([of_rate(1, 2, domain=f"row {number}") for number in range(31)])) == 5
    assert len(task_metrics([of_rate(1, 2, domain=f"row {number}") for number in range(30)])) == 65
