"""Training: the loop, the stream of groups, supervised stages, and the run as a whole."""

import inspect
import sys
from types import ModuleType

from cohort.train.call import train
from cohort.train.run import Run

__all__ = ["Run", "train"]


class _CallableModule(ModuleType):
    """`cohort.train` is this package once anything has imported it, and the public name of the function always: it is
    both.
    """

    __call__ = staticmethod(train)
    __signature__ = inspect.signature(train)


sys.modules[__name__].__class__ = _CallableModule
