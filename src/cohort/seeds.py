"""Seeds are derived by hashing a path, never by adding numbers.

`seed + step` collides (step 1 of seed 0 is step 0 of seed 1); a hash of the whole path does not. Every random
choice of a run, from the shuffle to the uniform numbers of one rollout, gets its own seed this way, so nothing
depends on the order in which things happen and nothing has to be saved to resume.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(run_seed: int, *path: int | str) -> int:
    """A 63-bit seed for `path` under `run_seed`, e.g. `derive_seed(0, "rollout", ticket, member)`.

    The path is hashed with the type of each part, so `("1",)` and `(1,)` differ, as do `("a", "b")` and `("ab",)`.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (run_seed, *path):
        if isinstance(part, bool) or not isinstance(part, (int, str)):
            raise TypeError(f"seed paths are made of int and str, not {type(part).__name__}: {part!r}")
        encoded = str(part).encode()
        digest.update(f"{type(part).__name__}{len(encoded)}:".encode() + encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(seed: int) -> np.random.Generator:
    """A NumPy generator whose stream is fixed by NumPy's compatibility policy (PCG64 with a plain integer seed)."""
    return np.random.Generator(np.random.PCG64(seed))


def unit_uniforms(seed: int, count: int) -> np.ndarray:
    """`count` float64 numbers in [0, 1): the only randomness that one rollout uses, one number a token."""
    return generator(seed).random(count)
