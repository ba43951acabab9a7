"""The Merkle tree hash of RFC 6962, section 2.1: SHA-256, leaves and inner nodes told apart by their first byte."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

EMPTY = sha256().hexdigest()  # the root of a tree without leaves


def leaf_hash(data: bytes) -> bytes:
    """MTH({d}) = SHA-256(0x00 || d)."""
    return sha256(b"\0" + data).digest()


class Tree:
    """The root of leaves that come one after another; of them it keeps the roots of whole subtrees, log2(n) of them.

    A tree of n leaves is the largest whole subtree that fits, beside the tree of the rest: so the whole subtrees are
    those of the binary digits of n, and the root joins them from the right.
    """

    def __init__(self, leaves: Iterable[bytes] = ()):
        self.size = 0
        self._whole: list[bytes] = []  # the largest first
        for leaf in leaves:
            self.add(leaf)

    def add(self, leaf: bytes) -> None:
        """Append a leaf by its hash."""
        self.size += 1
        self._whole.append(leaf)
        for _ in range((self.size & -self.size).bit_length() - 1):  # as many carries as adding 1 to the size had
            right = self._whole.pop()
            self._whole.append(_node(self._whole.pop(), right))

    def root(self) -> str:
        """The Merkle tree hash, in hexadecimal."""
        if not self._whole:
            return EMPTY
        root = self._whole[-1]
        for left in reversed(self._whole[:-1]):
            root = _node(left, root)
        return root.hex()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()
