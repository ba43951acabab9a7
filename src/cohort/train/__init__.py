"""Training: the loop, the stream of groups, supervised stages, and the run as a whole."""

import sys
from types import ModuleType
from typing import Any

from cohort.train.run import Run, train

__all__ = ["Run", "train"]


class _CallableModule(ModuleType):
    """`cohort.train` is this package once anything has imported it, and the public name of the function always: it is
    both.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Run:
        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
