"""The structures of the C files."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_long, c_void_p
from typing import Any

from torch import Tensor

__all__ = ["Attention", "Cache", "Layer", "Linear", "Model"]


class _Fields(ctypes.Structure):
    """Filled by name. A tensor stands for the address of its first element, and must outlive the structure."""

    def __init__(self, **fields: Any):
        super().__init__(**{name: x.data_ptr() if isinstance(x, Tensor) else x for name, x in fields.items()})


class Attention(_Fields):
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


class Cache(_Fields):
    """decode.c"""

    _fields_ = [
        *((name, c_long) for name in ("heads", "kv_heads", "size", "slots", "prefix_capacity", "own_capacity")),
        *((name, c_void_p) for name in ("prefix_length", "cos", "sin", "query_norm", "key_norm")),
        *((name, c_float) for name in ("eps", "scale")),
        ("window", c_long),
        ("half", c_int),
        *((name, c_void_p) for name in ("prefix_keys", "prefix_values", "own_keys", "own_values")),
    ]


class Linear(_Fields):
    """decode.c"""

    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("inputs", c_long), ("outputs", c_long)]


class Layer(_Fields):
    """decode.c"""

    _fields_ = [
        ("cache", Cache),
        *((name, c_void_p) for name in ("first_norm", "second_norm")),
        ("eps", c_float),
        *((name, Linear) for name in ("qkv", "out", "gate_up", "down")),
    ]


class Model(_Fields):
    """decode.c"""

    _fields_ = [
        *((name, c_long) for name in ("layers", "hidden", "vocabulary")),
        *((name, c_void_p) for name in ("layer", "norm")),
        ("eps", c_float),
        ("head", Linear),
        ("half", c_int),
    ]
