"""The shapes in which datasets write tests, and the refusals."""

import json

import pytest

from cohort.rewards.verifiers.code.tests import Case, CodeTests, read_tests

PROGRAM = CodeTests((Case("1 2\n", "3\n"), Case("4 5\n", "9\n")))
FUNCTION = CodeTests((Case((1, 2), 3), Case((4, 5), 9)), "add")

CASES = [{"input": "1 2\n", "output": "3\n"}, {"input": "4 5\n", "output": "9\n"}]
PROGRAMS = [
    CASES,
    {"inputs": ["1 2\n", "4 5\n"], "outputs": ["3\n", "9\n"]},
    {"inputs": ["1 2\n", "4 5\n"], "outputs": ["3\n", "9\n"], "fn_name": None},
    {"inputs": [["1 2", ""], ["4 5", ""]], "outputs": [["3", ""], ["9", ""]]},  # lists of lines
    [
        {"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"},
        {"type": "stdin_stdout", "input": "4 5\n", "output": "9\n"},
    ],
    [
        {"testtype": "stdin", "input": "1 2\n", "output": "3\n"},
        {"testtype": "stdin", "input": "4 5\n", "output": "9\n"},
    ],
    {"tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "4 5\n", "output": "9\n"}]},
    {
        "language": "python",
        "test_cases": json.dumps([{"input": "1 2\n", "output": "3\n"}, {"input": "4 5\n", "output": "9\n"}]),
    },
]
FUNCTIONS = [
    {"fn_name": "add", "inputs": [[1, 2], [4, 5]], "outputs": [3, 9]},
    {"func_name": "add", "inputs": [[1, 2], [4, 5]], "outputs": [3, 9]},
    [{"fn_name": "add", "input": [1, 2], "output": 3}, {"fn_name": "add", "input": [4, 5], "output": 9}],
    [
        {"type": "function_call", "fn_name": "add", "input": [1, 2], "output": 3},
        {"type": "function_call", "fn_name": "add", "input": [4, 5], "output": 9},
    ],
    {
        "fn_name": "add",
        "tests": [
            {"input": "1\n2", "output": "3", "testtype": "functional"},
            {"input": "4\n5", "output": "9", "testtype": "functional"},
        ],
    },
]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(("tests", "wanted"), [*((t, PROGRAM) for t in PROGRAMS), *((t, FUNCTION) for t in FUNCTIONS)])
def test_the_shapes_of_datasets_mean_the_same(tests, wanted, as_text):
    assert read_tests(json.dumps(tests) if as_text else tests) == wanted


def test_results_in_lists_of_one_may_be_wrapped():
    assert read_tests({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[3], [9]]}).wrapped
    assert not read_tests({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[3], [9, 9]]}).wrapped
    assert not read_tests([{"fn_name": "f", "input": [1], "output": [3]}]).wrapped
    assert not read_tests({"inputs": ["1"], "outputs": [["3"]]}).wrapped


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ("assert add(1, 2) == 3", "assertions"),
        (["assert add(1, 2) == 3", "assert add(2, 2) == 4"], "assertions"),
        ("def check(candidate):\n    assert candidate(1) == 2", "assertions"),
        ("from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3", "assertions"),
        ("42", "list of cases"),
        ("eleven", "not JSON"),
        ("", "not JSON"),
        (None, "list of cases"),
        (42, "list of cases"),
        ([], "list of cases"),
        ({}, "inputs and outputs"),
        ({"inputs": ["1"]}, "inputs and outputs"),
        ({"inputs": ["1", "2"], "outputs": ["1"]}, "same length"),
        ({"inputs": [], "outputs": []}, "a case at least"),
        ({"inputs": [1], "outputs": [2]}, "texts"),
        ({"inputs": ["1"], "outputs": [2]}, "texts"),
        ({"fn_name": "f", "inputs": [5], "outputs": [2]}, "arguments"),
        ({"fn_name": "f", "inputs": ["5"], "outputs": [2]}, "arguments"),
        ({"fn_name": "f(x)", "inputs": [[5]], "outputs": [2]}, "name of a function"),
        ({"fn_name": 3, "inputs": [[5]], "outputs": [2]}, "name of a function"),
        ({"fn_name": "f", "inputs": [[object()]], "outputs": [2]}, "not a plain"),
        ({"fn_name": "f", "inputs": [[1]], "outputs": [object()]}, "not a plain"),
        ([{"input": "1"}], "has not"),
        ([["1", "2"]], "has not"),
        ([{"type": "function_call", "input": [1], "output": 2}], "fn_name"),
        ([{"testtype": "functional", "input": "1", "output": "2"}], "fn_name"),
        ([{"fn_name": "f", "input": [1], "output": 2}, {"fn_name": "g", "input": [1], "output": 2}], "different"),
        ([{"fn_name": "f", "input": [1], "output": 2}, {"input": "1", "output": "2"}], "different"),
        ({"fn_name": "f", "tests": [{"input": "x", "output": "2", "testtype": "functional"}]}, "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_tests_that_cannot_be_run_are_refused_with_the_reason(tests, words):
    with pytest.raises(ValueError, match=words):
        read_tests(tests)
