"""Near-duplicates: questions whose sets of 3-grams of words are alike, by their Jaccard index.

Few pairs are all compared. Of many, MinHash with locality-sensitive hashing (datasketch, the extra `contamination`)
says which training prompts are worth it, and these are compared as exactly: so nothing is found that is not there,
while a pair just at the threshold may be missed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cohort.preflight.contamination.index import Index, Pairs, by_row
from cohort.preflight.contamination.layers import Layer, shingles
from cohort.preflight.contamination.texts import Texts

ALIKE = 0.6  # Jaccard index
ALL_PAIRS = 20_000_000  # of a question and a training prompt, up to which all are compared
PERMUTATIONS = 128
LAYER = Layer(f"3-grams of words alike, Jaccard {ALIKE}", shingles, ALIKE)


class NearDuplicates:
    """The layer with a benchmark. With `minhash` MinHash chooses what is compared; ImportError without datasketch."""

    layer = LAYER

    def __init__(self, benchmark: Texts, minhash: bool) -> None:
        self._index = Index.of(shingles(benchmark), len(benchmark.lengths))
        self.looked_at = int(np.count_nonzero(self._index.sizes))
        self._search = _MinHashes(benchmark) if minhash else None

    def pairs(self, training: Texts) -> Pairs:
        """The pairs that are alike."""
        index, found = self._index, []
        for row, keys in by_row(shingles(training)):
            candidates = True if self._search is None else self._search.candidates(keys)
            if not candidates:
                continue
            _, at = index.matches((np.zeros(len(keys), np.int64), keys))
            shared = np.bincount(index.spread(at)[1], minlength=len(index.sizes))
            alike = shared / (len(keys) + index.sizes - shared)
            found += [(row, owner, alike[owner]) for owner in np.flatnonzero(alike >= ALIKE)]
        pairs = np.array(found, float).reshape(-1, 3)
        return pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64), pairs[:, 2]


class _MinHashes:
    """The MinHashes of a benchmark, in bands."""

    def __init__(self, benchmark: Texts) -> None:
        from datasketch import MinHash, MinHashLSH

        self._plain = MinHash(PERMUTATIONS, seed=1, hashfunc=int)
        self._lsh = MinHashLSH(threshold=ALIKE, num_perm=PERMUTATIONS)
        for row, keys in by_row(shingles(benchmark)):
            self._lsh.insert(row, self._of(keys))

    def candidates(self, keys: np.ndarray) -> bool:
        """Whether a question may be alike."""
        return bool(self._lsh.query(self._of(keys)))

    def _of(self, keys: np.ndarray) -> Any:
        found = self._plain.copy()
        found.update_batch((keys & np.uint64(0xFFFFFFFF)).tolist())
        return found
