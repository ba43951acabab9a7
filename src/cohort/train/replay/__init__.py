"""A recorded run, recomputed: its rewards from the text, its advantages from the rewards, its updates from both.

    checks(Path("runs/mine"), 4)        # what `cohort record verify` adds to the chain: levels 2 to 4

Nothing of the run is written to. What a check needs and does not find is said by that check, which is then skipped.
"""

from __future__ import annotations

from cohort.train.replay.checks import checks

__all__ = ["checks"]
