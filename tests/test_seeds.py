from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from cohort.seeds import derive_seed, unit_uniforms


def test_paths_do_not_collide():
    paths = [(), (1,), ("1",), (1, 2), (12,), ("a", "b"), ("ab",), ("a", 1), ("a1",), (1, "a")]
    seeds = {derive_seed(s, *path) for s in (0, 1) for path in paths}  # type: ignore[arg-type]
    assert len(seeds) == 2 * len(paths)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_in_every_process():
    code = "from cohort.seeds import derive_seed; print(derive_seed(3, 'rollout', 17, 2))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == derive_seed(3, "rollout", 17, 2)


def test_uniforms_are_uniform_and_a_longer_draw_begins_with_a_shorter():
    drawn = unit_uniforms(5, 10_000)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.02
    assert np.array_equal(drawn[:7], unit_uniforms(5, 7))


@pytest.mark.parametrize("part", [1.0, None, True, ("a",)])
def test_only_integers_and_text_make_paths(part):
    with pytest.raises(TypeError, match="seed paths"):
        derive_seed(0, part)
