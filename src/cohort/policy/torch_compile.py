"""Functions that torch compiles for a GPU, and what takes their place on a machine where it cannot."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from cohort.machine import is_out_of_memory
from cohort.wording import one_line

__all__ = ["Compiled"]


class Compiled:
    """A function of tensors: on a GPU compiled when it is first called there, for all shapes; elsewhere as it stands.
    If it does not run the first time, that is said, and `instead` is called from then on.
    """

    def __init__(self, function: Callable[..., Any], instead: Callable[..., Any], name: str):
        self.function, self.instead, self.name = function, instead, name
        self.broken = self._ran = False
        self._fast: Callable[..., Any] | None = None

    def __call__(self, device: torch.device, *args: Any, **named: Any) -> Any:
        """What the function answers; `device` is where its tensors are."""
        if self.broken:
            return self.instead(*args, **named)
        if device.type == "cuda" and self._fast is None:
            self._fast = torch.compile(self.function, dynamic=True)
        function = self.function if self._fast is None else self._fast
        if self._ran:  # what it raises now is its caller's, such as that a checkpoint has recomputed enough
            return function(*args, **named)
        try:
            result = function(*args, **named)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self.broken = True
            warnings.warn(f"{self.name} does not run here ({one_line(error)}): a slower way is taken", stacklevel=2)
            return self.instead(*args, **named)
        self._ran = True
        return result
