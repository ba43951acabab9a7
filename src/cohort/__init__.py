"""Cohort trains language models with GRPO and its family.

    import cohort
    cohort.train(cohort.Recipe.load("recipes/quickstart.toml"))

Names are imported on first use, so that a reward worker that needs `cohort.rewards` never pays for torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Recipe", "UserError", "__version__", "objectives", "rewards", "train", "view"]

# Threads that wait for each other sleep after a tenth of a millisecond, and not after several: where others work on the
# same cores, a thread that is awake keeps off the one that it waits for. OpenMP reads this when torch loads it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "8000")

if TYPE_CHECKING:
    from cohort import rewards
    from cohort.algorithms import objectives
    from cohort.recipe import Recipe
    from cohort.train import train
    from cohort.types import UserError
    from cohort.views.dashboard.notebook import view

_WHERE = {
    "Recipe": ("cohort.recipe", "Recipe"),
    "UserError": ("cohort.types", "UserError"),
    "objectives": ("cohort.algorithms.objectives", None),
    "rewards": ("cohort.rewards", None),
    "train": ("cohort.train", "train"),
    "view": ("cohort.views.dashboard.notebook", "view"),
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'cohort' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    loaded = importlib.import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value
