"""What the C files call Attention and Cache, and pointers into tensors."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_long, c_void_p

from torch import Tensor

__all__ = ["Attention", "Cache", "Layer", "Linear", "Model", "address"]


class Attention(ctypes.Structure):
    """attention.c"""

    _fields_ = [
        *((name, c_long) for name in ("heads", "kv_heads", "size", "groups")),
        *((name, c_void_p) for name in ("first", "start", "length", "cos", "sin", "query_norm", "key_norm")),
        *((name, c_float) for name in ("eps", "scale")),
        ("window", c_long),
        *((name, c_void_p) for name in ("query", "key", "value")),
        *((name, c_long) for name in ("query_row", "key_row", "value_row")),
        ("half", c_int),
    ]


class Cache(ctypes.Structure):
    """decode.c"""

    _fields_ = [
        *((name, c_long) for name in ("heads", "kv_heads", "size", "slots", "prefix_capacity", "own_capacity")),
        *((name, c_void_p) for name in ("prefix_length", "cos", "sin", "query_norm", "key_norm")),
        *((name, c_float) for name in ("eps", "scale")),
        ("window", c_long),
        ("half", c_int),
        *((name, c_void_p) for name in ("prefix_keys", "prefix_values", "own_keys", "own_values")),
    ]


class Linear(ctypes.Structure):
    """decode.c"""

    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("inputs", c_long), ("outputs", c_long)]


class Layer(ctypes.Structure):
    """decode.c"""

    _fields_ = [
        ("cache", Cache),
        *((name, c_void_p) for name in ("first_norm", "second_norm")),
        ("eps", c_float),
        *((name, Linear) for name in ("qkv", "out", "gate_up", "down")),
    ]


class Model(ctypes.Structure):
    """decode.c"""

    _fields_ = [
        *((name, c_long) for name in ("layers", "hidden", "vocabulary")),
        *((name, c_void_p) for name in ("layer", "norm")),
        ("eps", c_float),
        ("head", Linear),
        ("half", c_int),
    ]


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous tensor's first element lies; None for none."""
    return None if tensor is None else tensor.data_ptr()
