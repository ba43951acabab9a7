"""The leaves of the tree over recorded rollouts: one a row, whose sensitive fields enter as salted commitments.

A commitment is SHA-256(salt || name || 0x00 || value), with the row's own 16 random bytes and the value as canonical
JSON (RFC 8785). The leaf is the canonical JSON of the whole row, with the commitments in hexadecimal in the place of
the sensitive fields; floating-point numbers, alone and in lists, are the hexadecimal of their little-endian IEEE 754
bytes, so that nothing is rounded; truth values in lists are 00 and 01. When the text and the salt of a row are erased,
its commitments take their place in a column, and the leaf stays what it was; without the salt nobody can try out
whether a guessed text was the one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Any

import orjson
import pyarrow as pa

from cohort.record.merkle import leaf_hash

SENSITIVE = ("answer", "prompt", "prompt_json", "prompt_tokens", "text", "tokens", "turns")  # token ids are text
SALT, COMMITMENTS, LEAF = "salt", "commitments", "leaf"
OWN = (SALT, COMMITMENTS, LEAF)  # columns that say something about the others
SALT_BYTES = 16
_WIDTH = 32
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def leaves(table: pa.Table) -> list[bytes]:
    """The leaf hash of every row of a table that has the column of salts."""
    salts, erased = table[SALT].to_pylist(), table[COMMITMENTS].to_pylist()
    names = sorted(set(table.column_names) - set(OWN))
    columns = []
    for name in names:
        values: Iterable[Any] = (value for chunk in table[name].chunks for value in _values(chunk))
        if name in SENSITIVE:
            start, suffix = SENSITIVE.index(name) * _WIDTH, name.encode() + b"\0"
            values = [
                sha256(salt + suffix + orjson.dumps(value, option=_NUMPY)).hexdigest()
                if salt is not None
                else (own or b"")[start : start + _WIDTH].hex()
                for salt, own, value in zip(salts, erased, values, strict=True)
            ]
        columns.append(values)
    # Of texts, integers and null orjson makes what RFC 8785 asks for; the names are sorted already.
    return [leaf_hash(orjson.dumps(dict(zip(names, row)), option=_NUMPY)) for row in zip(*columns, strict=True)]


def commitments(row: Mapping[str, Any]) -> bytes:
    """The commitments of one row, one after another in the order of `SENSITIVE`."""
    return b"".join(sha256(row[SALT] + f"{name}\0".encode() + orjson.dumps(row[name])).digest() for name in SENSITIVE)


def _values(chunk: pa.Array) -> Sequence[Any]:
    """The values of a column as a leaf has them: texts, integers, arrays of integers; of other numbers the bytes."""
    if chunk.null_count == len(chunk):
        return [None] * len(chunk)
    if pa.types.is_list(chunk.type):
        array, lengths = chunk.flatten().to_numpy(zero_copy_only=False), chunk.value_lengths().fill_null(0)
        ends = list(accumulate(lengths.to_pylist(), initial=0))
    elif pa.types.is_floating(chunk.type):
        array, ends = chunk.fill_null(0.0).to_numpy(zero_copy_only=False), list(range(len(chunk) + 1))
    else:
        return chunk.to_pylist()
    if array.dtype.kind == "i":
        found: list[Any] = [array[begin:end] for begin, end in pairwise(ends)]
    else:
        digits, width = array.astype(array.dtype.newbyteorder("<")).tobytes().hex(), 2 * array.itemsize
        found = [digits[begin * width : end * width] for begin, end in pairwise(ends)]
    if chunk.null_count:
        found = [value if valid else None for value, valid in zip(found, chunk.is_valid().to_pylist(), strict=True)]
    return found
