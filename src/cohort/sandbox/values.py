"""Plain values as bytes: what a candidate's function returns, and the arguments that it gets.

Only exact built-in types exist in the format, so what arrives has no behaviour of its own: an `__eq__` that always
agrees stays behind. A tag, then a length or count, then the content; decoding costs time and memory in proportion to
the bytes, whatever they say.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any

DEEPEST = 100  # levels of nesting
_MOST_ALIKE = 16  # keys of one hash in a dict or set; more are an attack on the hash table
_COUNT = struct.Struct("!I")
_DOUBLE = struct.Struct("!d")
_COMPLEX = struct.Struct("!dd")
_CONSTANTS = {b"n": None, b"t": True, b"f": False}
_COLLECTIONS = {b"l": list, b"u": tuple, b"e": set, b"z": frozenset}


def encode(value: Any, most: int) -> bytes:
    """`value` in at most `most` bytes. A subclass of a built-in type (a defaultdict, a namedtuple) becomes that type.

    Raises ValueError for other types, too much nesting and too many bytes.
    """
    out = bytearray()
    _write(out, value, most, 0)
    return bytes(out)


def _write(out: bytearray, value: Any, most: int, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"a value nested more than {DEEPEST} deep")
    match value:
        case None:
            out += b"n"
        case bool():
            out += b"t" if value else b"f"
        case int():
            _sized(out, b"i", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
        case float():
            out += b"d" + _DOUBLE.pack(value)
        case complex():
            out += b"c" + _COMPLEX.pack(value.real, value.imag)
        case str():
            _sized(out, b"s", value.encode("utf-8", "surrogatepass"))
        case bytes() | bytearray():
            _sized(out, b"b", bytes(value))
        case dict():
            _many(out, b"m", len(value), (x for pair in value.items() for x in pair), most, depth)
        case list() | tuple() | set() | frozenset():
            tag = next(tag for tag, kind in _COLLECTIONS.items() if isinstance(value, kind))
            _many(out, tag, len(value), value, most, depth)
        case _:
            raise ValueError(f"a value of type {type(value).__name__}, not a plain built-in one")
    if len(out) > most:
        raise ValueError(f"a value of more than {most} bytes")


def _sized(out: bytearray, tag: bytes, content: bytes) -> None:
    out += tag + _COUNT.pack(len(content)) + content


def _many(out: bytearray, tag: bytes, count: int, items: Iterable[Any], most: int, depth: int) -> None:
    out += tag + _COUNT.pack(count)
    for item in items:
        _write(out, item, most, depth + 1)


def decode(data: bytes) -> Any:
    """The value. Raises ValueError for anything that `encode` does not write."""
    value, end = _read(memoryview(data), 0, 0)
    if end != len(data):
        raise ValueError("bytes after the value")
    return value


def _read(data: memoryview, at: int, depth: int) -> tuple[Any, int]:
    if depth > DEEPEST:
        raise ValueError("nested too deep")
    tag, at = bytes(_take(data, at, 1)), at + 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag == b"d":
        return _DOUBLE.unpack(_take(data, at, 8))[0], at + 8
    if tag == b"c":
        return complex(*_COMPLEX.unpack(_take(data, at, 16))), at + 16
    if tag not in b"isblumez":
        raise ValueError("an unknown tag")
    (count,) = _COUNT.unpack(_take(data, at, 4))
    at += 4
    if tag in b"isb":
        content = bytes(_take(data, at, count))
        if tag == b"i":
            return int.from_bytes(content, "big", signed=True), at + count
        return content.decode("utf-8", "surrogatepass") if tag == b"s" else content, at + count
    wanted = count * 2 if tag == b"m" else count
    if wanted > len(data) - at:  # every item has a byte at least
        raise ValueError("fewer items than announced")
    items = []
    for _ in range(wanted):
        item, at = _read(data, at, depth + 1)
        items.append(item)
    return _collection(tag, items), at


def _take(data: memoryview, at: int, count: int) -> memoryview:
    if count > len(data) - at:
        raise ValueError("cut short")
    return data[at : at + count]


def _collection(tag: bytes, items: list[Any]) -> Any:
    if tag in (b"l", b"u"):
        return _COLLECTIONS[tag](items)
    keys = items[::2] if tag == b"m" else items
    try:
        alike = Counter(map(hash, keys)).most_common(1)
    except TypeError:
        raise ValueError("a key that has no hash") from None
    if alike and alike[0][1] > _MOST_ALIKE:
        raise ValueError("keys made to collide")
    return dict(zip(keys, items[1::2])) if tag == b"m" else _COLLECTIONS[tag](items)
