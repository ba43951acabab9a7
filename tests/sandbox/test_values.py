"""The bytes in which values travel: nothing but plain types gets through, and no bytes can make the reader suffer."""

import collections
import enum
import math
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.sandbox.values import DEEPEST, decode, encode

MOST = 1 << 20

keys = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
plain = st.recursive(
    keys | st.floats() | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(keys)
        | st.frozensets(keys)
    ),
    max_leaves=20,
)


def same(a, b):
    """Equal in type and content, NaN included, True unlike 1."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, (set, frozenset)):
        return {(type(x), x) for x in a} == {(type(x), x) for x in b}
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    return a == b


@given(plain)
def test_every_plain_value_comes_back_as_it_was(value):
    assert same(decode(encode(value, MOST)), value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_refused(data):
    try:
        value = decode(data)
    except (ValueError, UnicodeDecodeError):
        return
    assert same(decode(encode(value, MOST)), value)


@given(plain, st.data())
def test_a_value_cut_short_is_refused(value, data):
    whole = encode(value, MOST)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError):
        decode(whole[:cut])
    with pytest.raises(ValueError):
        decode(whole + b"n")


class Colour(enum.IntEnum):
    RED = 3


class Liar(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


def test_subclasses_become_what_they_derive_from():
    point = collections.namedtuple("point", "x y")
    got = decode(encode([Colour.RED, point(1, 2), collections.Counter("aab"), collections.OrderedDict(a=1)], MOST))
    assert same(got, [3, (1, 2), {"a": 2, "b": 1}, {"a": 1}])
    (lied,) = decode(encode([Liar(7)], MOST))
    assert type(lied) is int
    assert lied != 8


@pytest.mark.parametrize("value", [object(), range(3), (x for x in ()), {}.keys(), int, Ellipsis, [object()]])
def test_other_types_are_refused_by_name(value):
    with pytest.raises(ValueError, match="not a plain built-in one"):
        encode(value, MOST)


def test_depth_and_size_are_limited_on_both_sides():
    deep = []
    for _ in range(DEEPEST - 1):
        deep = [deep]
    assert same(decode(encode(deep, MOST)), deep)
    with pytest.raises(ValueError, match="nested"):
        encode([[deep]], MOST)
    with pytest.raises(ValueError, match="nested"):
        decode(b"l\0\0\0\1" * (DEEPEST + 2) + b"n")
    with pytest.raises(ValueError, match="more than 10 bytes"):
        encode("x" * 10, 10)
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested"):
        encode(endless, MOST)


def test_a_count_beyond_the_bytes_costs_nothing():
    with pytest.raises(ValueError):
        decode(b"l\xff\xff\xff\xff" + b"n" * 100)
    with pytest.raises(ValueError):
        decode(b"s\xff\xff\xff\xff")


@pytest.mark.parametrize("tag", [b"m", b"e", b"z"])
def test_keys_made_to_collide_are_refused_before_they_cost_anything(tag):
    collide = 2**61 - 1  # hash(n) is n modulo this prime
    items = [encode(index * collide, MOST) + (b"n" if tag == b"m" else b"") for index in range(30_000)]
    began = time.process_time()
    with pytest.raises(ValueError, match="collide"):
        decode(tag + struct.pack("!I", 30_000) + b"".join(items))
    assert time.process_time() - began < 5  # a dict of them takes a minute


def test_a_key_without_a_hash_is_refused():
    with pytest.raises(ValueError, match="hash"):
        decode(b"m\0\0\0\1" + b"l\0\0\0\0" + b"n")
