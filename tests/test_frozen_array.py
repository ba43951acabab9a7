"""Token data: read as an array by the learner, and as a tuple by everybody else."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from cohort.frozen_array import FrozenArray
from cohort.types import Completion

TOKENS = FrozenArray([3, 1, 2], np.int64)


def test_it_is_compared_and_hashed_as_a_tuple():
    assert TOKENS == (3, 1, 2)
    assert (3, 1, 2) == TOKENS  # noqa: SIM300
    assert FrozenArray((3, 1, 2)) == TOKENS
    assert TOKENS != (3, 1)
    assert TOKENS != [3, 1, 2]
    assert {TOKENS, (3, 1, 2)} == {TOKENS}
    assert Completion(TOKENS, (0.0,) * 3, "stop", 1) == Completion((3, 1, 2), (0.0,) * 3, "stop", 1)


def test_its_items_are_python_numbers():
    assert [type(x) for x in TOKENS] == [int] * 3
    assert type(TOKENS[-1]) is int
    assert type(FrozenArray([True])[0]) is bool
    assert FrozenArray([0.1], np.float32)[0] == float(np.float32(0.1))
    assert TOKENS[1:] == (1, 2)
    assert (TOKENS.count(1), TOKENS.index(2), 3 in TOKENS, len(TOKENS)) == (1, 2, True, 3)


def test_it_is_joined_in_its_own_type():
    assert TOKENS + (5,) == (3, 1, 2, 5)  # noqa: RUF005
    assert (5,) + TOKENS == (5, 3, 1, 2)  # noqa: RUF005
    assert (FrozenArray((), np.float32) + [0.1]).array.dtype == np.float32  # noqa: RUF005


def test_nobody_can_change_it():
    made_of = np.arange(3)
    frozen = FrozenArray(made_of)
    made_of[0] = 9
    assert frozen == (0, 1, 2)
    with pytest.raises(ValueError, match="read-only"):
        frozen.array[0] = 9
    again = pickle.loads(pickle.dumps(frozen))
    assert again == frozen
    assert not again.array.flags.writeable


def test_numpy_reads_it_without_a_copy_and_torch_as_numbers():
    assert np.shares_memory(np.asarray(TOKENS), TOKENS.array)
    assert torch.equal(torch.tensor(TOKENS), torch.tensor([3, 1, 2]))
    assert np.concatenate([TOKENS, (4,), torch.tensor([5])]).tolist() == [3, 1, 2, 4, 5]
