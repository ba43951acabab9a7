"""Conditions on recorded rollouts, such as `reward < 0.5 and finish == "length"`: a little Python, read but not run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from cohort.types import UserError
from cohort.wording import did_you_mean

_COMPARE: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_READ = (
    *(ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, *_COMPARE, ast.Is, ast.IsNot),
    *(ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple),
)
_PLAIN = (str, int, float, type(None))
HINT = 'write for example `reward < 0.5 and finish == "length"`, `"sorry" in text` or `not exact_number`'


def condition(text: str) -> Callable[[Mapping[str, Any]], bool]:
    """A function of a row's values by name. A comparison with something that is not there is false.

    Raises `UserError` for anything but comparisons of names, numbers and texts, joined by `and`, `or` and `not`; and
    then for a name that the row has not.
    """
    try:
        tree = ast.parse(text, mode="eval").body
        _check(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"{text!r} is no condition: {HINT}") from None
    return lambda row: bool(_value(tree, row))


def _check(node: ast.AST) -> None:
    """Refuse whatever `_value` does not read."""
    if not isinstance(node, _READ) or (isinstance(node, ast.Constant) and not isinstance(node.value, _PLAIN)):
        raise ValueError
    for part in ast.iter_child_nodes(node):
        _check(part)


def _value(node: ast.AST, row: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in row:
            raise UserError(f"rollouts have no {node.id!r}{did_you_mean(node.id, row)}; they have {', '.join(row)}")
        return row[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, row) for item in node.elts]
    if isinstance(node, ast.BoolOp):
        values = (_value(item, row) for item in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, row)
        if isinstance(node.op, ast.Not):
            return not value
        return -value if isinstance(value, int | float) else None
    assert isinstance(node, ast.Compare)
    left = _value(node.left, row)
    for op, other in zip(node.ops, node.comparators, strict=True):
        right = _value(other, row)
        if isinstance(other, ast.Constant) and other.value is None:  # == None asks what `is None` does
            op = ast.IsNot() if isinstance(op, ast.NotEq) else ast.Is() if isinstance(op, ast.Eq) else op
        if not _holds(op, left, right):
            return False
        left = right
    return True


def _holds(op: ast.cmpop, left: Any, right: Any) -> bool:
    if isinstance(op, ast.Is | ast.IsNot):
        return (left is right) == isinstance(op, ast.Is)
    if left is None or right is None:
        return False
    try:
        return bool(_COMPARE[type(op)](left, right))
    except TypeError:  # an order between a number and nothing, or a text in a number
        return False


def names_in(text: str) -> set[str]:
    """The names that a condition uses. Raises `UserError` as `condition` does."""
    condition(text)
    return {node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)}


def selection(text: str) -> Callable[[Mapping[str, Any]], Any]:
    """`condition` of many rows at once: a function of Arrow arrays by name, all as long, that returns which rows hold
    as a NumPy array of bools. What arrays cannot compare is compared row by row.
    """
    holds, tree = condition(text), ast.parse(text, mode="eval").body

    def of(columns: Mapping[str, Any]) -> Any:
        from cohort.record.where_arrays import truth  # with pyarrow, which a command line that checks a name need not

        unknown = sorted(names_in(text) - set(columns))
        if unknown:
            raise UserError(
                f"rollouts have no {unknown[0]!r}{did_you_mean(unknown[0], columns)}; they have {', '.join(columns)}"
            )
        return truth(tree, columns, holds)

    return of
