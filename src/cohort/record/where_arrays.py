"""Conditions on recorded rollouts over columns of Arrow: what `record.where` says of a row, of all rows at once."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Columns = Mapping[str, Any]
_ORDER = {ast.Lt: pc.less, ast.LtE: pc.less_equal, ast.Gt: pc.greater, ast.GtE: pc.greater_equal}
_EQUAL = {ast.Eq: pc.equal, ast.NotEq: pc.not_equal}


class _ByRowError(Exception):
    """Arrow has no such comparison."""


def truth(tree: ast.AST, columns: Columns, holds: Callable[[Mapping[str, Any]], bool]) -> Bools:
    """For which rows a condition holds; `holds` is the same of one row."""
    count = len(next(iter(columns.values())))
    try:
        return _truth(tree, columns, count)
    except (_ByRowError, pa.ArrowException):
        named = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
        lists = {name: columns[name].to_pylist() for name in named}
        return np.array([holds({name: of[row] for name, of in lists.items()}) for row in range(count)], bool)


def _truth(node: ast.AST, columns: Columns, count: int) -> Bools:
    if isinstance(node, ast.BoolOp):
        parts = [_truth(part, columns, count) for part in node.values]
        return np.logical_and.reduce(parts) if isinstance(node.op, ast.And) else np.logical_or.reduce(parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_truth(node.operand, columns, count)
    if isinstance(node, ast.Compare):
        found, left = np.ones(count, bool), node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            found &= _holds(op, left, right, columns, count)
            left = right
        return found
    value = _value(node, columns)
    if not _is_column(value):
        return np.full(count, bool(value))
    if pa.types.is_null(value.type):
        return np.zeros(count, bool)
    full = pc.binary_length(value) if _is_text(value) else value
    return _bools(pc.not_equal(full, 0), count)


def _holds(op: ast.cmpop, left: ast.AST, right: ast.AST, columns: Columns, count: int) -> Bools:
    a, b = _value(left, columns), _value(right, columns)
    if isinstance(op, ast.Is | ast.IsNot) or (isinstance(op, ast.Eq | ast.NotEq) and b is None):
        if b is not None:
            raise _ByRowError
        missing = _is_null(a, count)
        return missing if isinstance(op, ast.Is | ast.Eq) else ~missing
    if a is None or b is None or any(_is_column(x) and pa.types.is_null(x.type) for x in (a, b)):
        return np.zeros(count, bool)
    if isinstance(op, ast.In | ast.NotIn):
        inside = _inside(a, b, count)
        return inside if isinstance(op, ast.In) else ~inside & ~_is_null(a, count) & ~_is_null(b, count)
    if not (_is_column(a) or _is_column(b)) or isinstance(a, list) or isinstance(b, list):
        raise _ByRowError
    if _is_text(a) != _is_text(b):  # a number is no text: different, and neither is the larger
        both = ~_is_null(a, count) & ~_is_null(b, count)
        return both if isinstance(op, ast.NotEq) else np.zeros(count, bool)
    compare = _ORDER.get(type(op)) or _EQUAL[type(op)]
    return _bools(compare(a, b), count)


def _inside(a: Any, b: Any, count: int) -> Bools:
    """a in b: a part of a text, or one of a list."""
    if isinstance(a, str) and _is_column(b) and _is_text(b):
        return _bools(pc.match_substring(b, a), count)
    if _is_column(a) and isinstance(b, list) and b and all(isinstance(x, str) for x in b) and _is_text(a):
        return _bools(pc.is_in(a, value_set=pa.array(b)), count) & ~_is_null(a, count)
    raise _ByRowError


def _value(node: ast.AST, columns: Columns) -> Any:
    if isinstance(node, ast.Constant):
        return int(node.value) if isinstance(node.value, bool) else node.value
    if isinstance(node, ast.Name):
        found = columns[node.id]
        if pa.types.is_dictionary(found.type):
            found = found.cast(found.type.value_type)
        return found.cast(pa.int64()) if pa.types.is_boolean(found.type) else found
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(item, columns) for item in node.elts]
        if any(map(_is_column, values)):
            raise _ByRowError
        return values
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, columns)
        if not _is_column(inner) and isinstance(inner, int | float):
            return -inner
    raise _ByRowError


def _is_column(value: Any) -> bool:
    return isinstance(value, pa.Array | pa.ChunkedArray)


def _is_text(value: Any) -> bool:
    return pa.types.is_string(value.type) if _is_column(value) else isinstance(value, str)


def _is_null(value: Any, count: int) -> Bools:
    return _bools(value.is_null(), count) if _is_column(value) else np.full(count, value is None)


def _bools(found: Any, count: int) -> Bools:
    """An Arrow array of bools as NumPy has it; what is null is false."""
    filled = pc.fill_null(found, False)
    chunks = filled.chunks if isinstance(filled, pa.ChunkedArray) else [filled]
    flat = [np.asarray(chunk.to_numpy(zero_copy_only=False), bool) for chunk in chunks]
    return np.concatenate(flat) if flat else np.zeros(count, bool)
