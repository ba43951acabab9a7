"""The tests of a coding task, in the shapes that datasets have.

A program is tested with texts: what it reads, and what it must print.

    [{"input": "1 2", "output": "3"}, ...]                          a list of cases
    {"inputs": ["1 2", ...], "outputs": ["3", ...]}                 APPS, TACO

A function is tested with values: its arguments, and what it must return.

    {"fn_name": "add", "inputs": [[1, 2], ...], "outputs": [3, ...]}
    [{"fn_name": "add", "input": [1, 2], "output": 3}, ...]         DeepCoder, PrimeIntellect
    {"fn_name": "add", "tests": [{"input": "1\\n2", "output": "3", "testtype": "functional"}, ...]}     LiveCodeBench

All of them may be JSON texts. Assertions are refused: they compare where the candidate can see and change them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.sandbox.values import encode

_LARGEST = 1 << 28  # bytes of one value
_ASSERTIONS = re.compile(r"\s*(assert\b|def\s+(test|check)|import\s|from\s+\w+\s+import\b)|.*\bassert\b", re.DOTALL)
_LISTS = ("tests", "test_cases")


@dataclass(frozen=True, slots=True)
class Case:
    """`given` is the standard input of a program, or the arguments of a function; `wanted` what must come out."""

    given: Any
    wanted: Any


@dataclass(frozen=True, slots=True)
class CodeTests:
    """Cases for a program, or for the function called `function`.

    `wrapped` says that every wanted value is a list of one: some datasets write results so, others mean such lists, and
    no one can tell, so both are right.
    """

    cases: tuple[Case, ...]
    function: str | None = None
    wrapped: bool = False


def read_tests(answer: Any) -> CodeTests:
    """The tests in a task's answer column. Raises ValueError with the reason when they are none that can be run."""
    if isinstance(answer, str):
        answer = _from_json(answer)
    name: str | None = None
    if isinstance(answer, Mapping):
        name = _name(answer)
        if "inputs" in answer and "outputs" in answer:
            return _columns(answer["inputs"], answer["outputs"], name)
        found = [key for key in _LISTS if key in answer]
        if len(found) != 1:
            raise ValueError(
                f"tests are a list, or have the keys inputs and outputs, not {', '.join(map(str, answer))}"
            )
        answer = _from_json(answer[found[0]]) if isinstance(answer[found[0]], str) else answer[found[0]]
    if not isinstance(answer, Sequence) or not answer:
        raise ValueError(f"tests are a list of cases, not {str(answer)[:60]!r}")
    if any(isinstance(case, str) for case in answer):
        raise ValueError(_no_assertions(str(answer[0])))
    return _rows(answer, name)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if _ASSERTIONS.match(text[:10_000]):
            raise ValueError(_no_assertions(text)) from None
        raise ValueError(f"the tests {text[:60]!r} are not JSON ({error})") from None


def _no_assertions(text: str) -> str:
    return (
        f"the tests {text[:60]!r} are assertions; they would compare inside the candidate's process, which can see and "
        'change them. Write the calls as values instead: {"fn_name": ..., "inputs": [[...], ...], "outputs": [...]}'
    )


def _name(table: Mapping[str, Any]) -> str | None:
    for key in ("fn_name", "func_name"):
        name = table.get(key)
        if name:
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"{key} is the name of a function, not {name!r}")
            return name
    return None


def _columns(inputs: Any, outputs: Any, name: str | None) -> CodeTests:
    are_lists = isinstance(inputs, Sequence) and isinstance(outputs, Sequence)
    if not are_lists or len(inputs) != len(outputs) or not inputs:
        raise ValueError("inputs and outputs are two lists of the same length, with a case at least")
    if name is None:
        return CodeTests(tuple(Case(_text(given), _text(wanted)) for given, wanted in zip(inputs, outputs)))
    wrapped = all(isinstance(wanted, list) and len(wanted) == 1 for wanted in outputs)
    return CodeTests(tuple(_call(given, wanted) for given, wanted in zip(inputs, outputs)), name, wrapped)


def _rows(rows: Sequence[Any], name: str | None) -> CodeTests:
    cases: list[Case] = []
    names: set[str | None] = set()
    for row in rows:
        if not isinstance(row, Mapping) or "input" not in row or "output" not in row:
            raise ValueError(f'a case has an "input" and an "output"; {str(row)[:60]!r} has not')
        own = _name(row) or name
        kind = row.get("testtype", row.get("type"))
        if kind in ("functional", "function_call") and own is None:
            raise ValueError("a case calls a function but does not name it; add fn_name")
        if own is None or kind in ("stdin", "stdin_stdout"):
            names.add(None)
            cases.append(Case(_text(row["input"]), _text(row["output"])))
        else:
            names.add(own)
            lines = kind == "functional" and isinstance(row["input"], str)  # one JSON value a line
            given = [_from_json(line) for line in row["input"].splitlines()] if lines else row["input"]
            cases.append(_call(given, _from_json(row["output"]) if lines else row["output"]))
    if len(names) > 1:
        raise ValueError("the cases of one task call different functions, or mix functions and programs")
    return CodeTests(tuple(cases), names.pop())


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    raise ValueError(f"the input and output of a program are texts, not {str(value)[:60]!r}; a function needs fn_name")


def _call(given: Any, wanted: Any) -> Case:
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"the arguments of a function are a list, not {str(given)[:60]!r}")
    for value in (given, wanted):
        encode(value, _LARGEST)  # ValueError: no plain value
    return Case(tuple(given), wanted)
