"""What counts as equal. A mistake here is a reward for a wrong answer."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.rewards.verifiers.code.grade import same_text, same_value

T = 1e-6


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (3, 3),
        (3.0, 3),
        (3, 3.0),
        (0.1 + 0.2, 0.3),
        (-0.0, 0.0),
        (1e-16, 0.0),
        (1e300 * 1.0000001, 1e300),
        (math.inf, math.inf),
        (math.nan, math.nan),
        ((1, (2,)), [1, [2]]),
        ([1, 2], (1, 2)),
        ({"a": [0.30000000001]}, {"a": [0.3]}),
        ({2, 1}, {1, 2}),
        (frozenset({1}), {1}),
        (None, None),
        (True, True),
        ("é", "é"),
        (b"x", b"x"),
        ({}, {}),
        ([], ()),
        (10**400, 10**400),
    ],
)
def test_equal(found, wanted):
    assert same_value(found, wanted, T)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (True, 1),
        (1, True),
        (False, 0),
        (0, False),
        ([True], [1]),
        ({True: 1}, {1: 1}),
        ({1: 1}, {True: 1}),
        ({True}, {1}),
        (0.0, 0.0001),
        (0, 1e-9),
        (0.0001, 0.0),
        (1e-6, 0),
        (1.00001, 1.0),
        (3.0000001, 3),
        (float(10**17), 10**17 + 1),
        (10**400, 1e300),
        (10**400, math.inf),
        (10**400, math.nan),
        (-(10**400), 0.5),
        (math.inf, -math.inf),
        (math.nan, 1.0),
        (1.0, math.nan),
        ("3", 3),
        (3, "3"),
        ("3", b"3"),
        (None, 0),
        (0, None),
        (None, False),
        ([], None),
        ([], {}),
        ([1, 2], [1]),
        ([1], [1, 2]),
        ([1, 2], {1, 2}),
        ({1, 2}, [1, 2]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"1": 1}, {1: 1}),
        ("ab", ["a", "b"]),
        ("", []),
        (1j, 1),
    ],
)
def test_different(found, wanted):
    assert not same_value(found, wanted, T)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


@given(values)
def test_every_value_equals_itself(value):
    assert same_value(value, value, T)


@given(values, values)
def test_what_differs_as_text_and_is_no_number_differs(found, wanted):
    if repr(found) != repr(wanted) and not any(isinstance(x, (int, float)) for x in _leaves(found) + _leaves(wanted)):
        assert not same_value(found, wanted, T)


def _leaves(value):
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    return [value]


def test_the_tolerance_is_relative_and_can_be_none():
    assert same_value(1000.4, 1000.0, 1e-3)
    assert not same_value(0.0014, 0.0010, 1e-3)
    assert not same_value(0.1 + 0.2, 0.3, 0.0)
    assert same_value(0.3, 0.3, 0.0)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (b"3\n", "3"),
        (b"3", "3\n"),
        (b"3 \n\n\n", "3"),
        (b"1  2\t3\n", "1 2 3\n"),
        (b"1 2\r\n3\r\n", "1 2\n3\n"),
        (b"", ""),
        (b"\n \n", ""),
        (b"0.30000000001", "0.3"),
        (b"1e-3", "0.001"),
        (b"5", "5.0"),
        (b"-0.0", "0.0"),
        (b"a\n\nb", "a\n\nb"),
        ("é".encode(), "é"),
        (b"1.5e3", "1500.0"),
    ],
)
def test_equal_texts(found, wanted):
    assert same_text(found, wanted, T)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (b"0", "0.0001"),
        (b"0.0", "0.0001"),
        (b"0.0001", "0.0"),
        (b"5.0", "5"),
        (b"05", "5"),
        (b"+5", "5"),
        (b"1_0", "10"),
        (b"Yes", "YES"),
        (b"1 2 3", "1\n2\n3"),
        (b"1\n2\n3", "1 2 3"),
        (b"a\nb", "a\n\nb"),
        (b"\n3", "3"),
        (b"", "0"),
        (b"3 3", "3"),
        (b"\xff", "\ufffd"),
        (b"\xff\xfe", ""),
        (b"nan", "0.5"),
        (b"inf", "1e400"),
        (b"1e400", "1e300"),
        (b"\xd9\xa3.0", "3.0"),  # an Arabic digit
        (b"0." + b"3" * 500, "0.3"),
        (b"0x1p0", "1.0"),
    ],
)
def test_different_texts(found, wanted):
    assert not same_text(found, wanted, T)


@given(st.binary(max_size=100), st.text(max_size=100))
def test_no_bytes_break_it(found, wanted):
    assert isinstance(same_text(found, wanted, T), bool)
    encoded = wanted.encode(
        "utf-8", "surrogateescape" if not any("\ud800" <= c < "\udc80" for c in wanted) else "replace"
    )
    if not any("\ud800" <= c <= "\udfff" for c in wanted):
        assert same_text(encoded, wanted, T)
