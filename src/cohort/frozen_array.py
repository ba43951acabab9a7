"""Token ids, masks and log-probs on their way from the engine to the learner: arrays that behave as tuples do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class FrozenArray(Sequence[Any]):
    """A read-only array `[n]` that is compared, hashed, sliced and joined with `+` as a tuple of Python numbers is.

    numpy reads `array` as a whole (`np.asarray` copies nothing); everybody else reads Python numbers.
    """

    __slots__ = ("array",)

    def __init__(self, values: Sequence[Any] | np.ndarray, dtype: Any = None):
        self.array = np.array(values, dtype)  # a copy: whoever made the values may go on changing them
        self.array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        found = self.array[index]
        return FrozenArray(found) if isinstance(index, slice) else found.item()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array.tolist())

    def count(self, value: Any) -> int:
        """How often the value is in it."""
        return self.array.tolist().count(value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenArray):
            return np.array_equal(self.array, other.array)
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __add__(self, other: Sequence[Any]) -> FrozenArray:
        return FrozenArray(np.concatenate([self.array, np.asarray(other, self.array.dtype)]))

    def __radd__(self, other: Sequence[Any]) -> FrozenArray:
        return FrozenArray(np.concatenate([np.asarray(other, self.array.dtype), self.array]))

    def __repr__(self) -> str:
        return f"FrozenArray({self.array.tolist()})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array.astype(dtype or self.array.dtype, copy=bool(copy))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenArray, (self.array,)
