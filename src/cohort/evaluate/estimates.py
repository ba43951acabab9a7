"""What k samples of a problem would do, estimated without bias from n: pass@k, the vote of k, the best of k.

Each is the mean over all C(n, k) choices of k of the n samples, counted and not drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, ... up to n."""
    return [1 << exponent for exponent in range(n.bit_length())]


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of "at least one of k samples is right" from n samples of which c are right.

    1 - C(n-c, k) / C(n, k), as the product 1 - prod_{j=n-c+1..n} (1 - k/j) (Chen et al. 2021, "Evaluating Large
    Language Models Trained on Code", section 2.1). Raises `ValueError` unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / j for j in range(n - c + 1, n + 1))


def majority_at_k(answers: Sequence[Hashable | None], right: Sequence[float], k: int) -> float:
    """The expected accuracy of the answer that most of k samples give; answers with equally many votes share it.

    `answers[i]` is what sample i answers (None: nothing, which is no vote) and `right[i]` its accuracy; the accuracy of
    an answer is the mean of its samples'. With votes c_a among n samples, answer a wins k draws with j votes, and t
    others have as many, in

        C(c_a, j) [x^(k-j) y^t] (1 + x)^(c_none) prod_{b != a} (sum_{i<j} C(c_b, i) x^i + y C(c_b, j) x^j)

    of C(n, k) cases; 1 / (1 + t) = integral of y^t over [0, 1] is summed exactly by Gauss's points. Raises `ValueError`
    unless 1 <= k <= n.
    """
    n = len(answers)
    if not 1 <= k <= n:
        raise ValueError(f"maj@k needs 1 <= k <= n, not n={n}, k={k}")
    votes = Counter(answer for answer in answers if answer is not None)
    accuracy = {a: math.fsum(r for b, r in zip(answers, right, strict=True) if b == a) / votes[a] for a in votes}
    points, weights = np.polynomial.legendre.leggauss(k // 2 + 1)
    total = 0.0
    for size in {votes[a] for a in votes if accuracy[a]}:  # answers with as many votes have the same chance
        others = Counter(votes.values())
        others[size] -= 1
        chance = 0.0
        for j in range(1, min(size, k) + 1):
            for y, weight in zip((points + 1) / 2, weights / 2, strict=True):
                chance += weight * math.comb(size, j) * _coefficient(others, n - votes.total(), j, float(y), k - j)
        total += chance / math.comb(n, k) * math.fsum(accuracy[a] for a in votes if votes[a] == size)
    return total


def _coefficient(others: Counter[int], free: int, j: int, y: float, degree: int) -> float:
    """[x^degree] of (1 + x)^free prod_b (sum_{i<j} C(c_b, i) x^i + y C(c_b, j) x^j), for `others` = {c_b: how many}."""
    product = np.array([math.comb(free, i) for i in range(min(free, degree) + 1)], float)
    for size, many in others.items():
        one = np.array([math.comb(size, i) * (y if i == j else 1.0) for i in range(min(size, j) + 1)])
        for _ in range(many):
            product = np.convolve(product, one)[: degree + 1]
    return float(product[degree]) if degree < len(product) else 0.0


def best_of_k(rewards: Sequence[float], values: Sequence[float], k: int) -> float:
    """The expected value of that one of k samples which has the highest reward; samples of equal reward share it.

    Of the C(n, k) choices, C(m, k) - C(m - s, k) have their highest reward among the s samples of that reward, where m
    samples have no higher one. Raises `ValueError` unless 1 <= k <= n.
    """
    n = len(rewards)
    if not 1 <= k <= n:
        raise ValueError(f"best-of-k needs 1 <= k <= n, not n={n}, k={k}")
    left, total = n, 0.0
    for reward in sorted(set(rewards), reverse=True):
        same = [value for one, value in zip(rewards, values, strict=True) if one == reward]
        share = (math.comb(left, k) - math.comb(left - len(same), k)) / math.comb(n, k)
        total += share * math.fsum(same) / len(same)
        left -= len(same)
    return total
