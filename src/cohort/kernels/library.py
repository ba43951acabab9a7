"""Compiled CPU kernels: a few C files, built once with the system's C compiler for this very processor.

They are an optimisation and nothing else: everything they do has a plain PyTorch path that gives the same numbers, and
that runs where there is no compiler. `COHORT_KERNELS=off` in the environment switches them off.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from ctypes import c_float, c_int, c_long, c_void_p
from pathlib import Path
from typing import Any

import torch

SOURCES = ("layer.c", "attention.c", "decode.c", "head.c", "gradient.c")
HEADERS = ("vector.h", "heads.h")
# Sums keep their order (no -ffast-math), so results do not depend on what the compiler makes of them.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared")
HERE = Path(__file__).parent
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
LARGEST_KEPT = 1 << 30  # bytes; a larger block still is mapped and unmapped on its own

# Parameters of every function: l long, i int, f float, p pointer (a tensor, an address, or None).
SIGNATURES = {
    "norm_forward": "llfppipppip",
    "norm_backward": "llpppppippip",
    "swiglu_forward": "llpplip",
    "swiglu_backward": "llpplippp",
    "attention_forward": "plpp",
    "attention_backward": "plpppppppp",
    "attention_store": "pplpp",
    "decode_step": "plppppp",
    "decode_apart": "l",
    "half_products": "",
    "byte_products": "",
    "pack": "llpillppp",
    "logprob_forward": "llppfppp",
    "logprob_backward": "llppfpp",
    "append_tokens": "lllpplpppppplp",
    "weight_gradient": "lllppp",
    "weight_gradient_half": "lllppp",
    "tile_width": "",
}


class _Pointer:
    """A pointer parameter that takes a tensor for the address of its first element."""

    @staticmethod
    def from_param(x: Any) -> Any:
        return c_void_p.from_param(x.data_ptr() if isinstance(x, torch.Tensor) else x)


TYPES: dict[str, Any] = {"l": c_long, "i": c_int, "f": c_float, "p": _Pointer}


def kernels() -> ctypes.CDLL | None:
    """The compiled library, or None where it is switched off or cannot be built."""
    return _load()[0]


def built() -> ctypes.CDLL:
    """The compiled library, where it has been seen that there is one."""
    library = kernels()
    assert library is not None, "the fused path was chosen without kernels"
    return library


def why_not() -> str | None:
    """One sentence: why there are no compiled kernels here. None when there are."""
    return _load()[1]


@functools.cache
def keep_freed_memory() -> bool:
    """Tell malloc to keep freed memory, once for this process. Returns False where malloc is not glibc's.

    glibc gives large blocks back to the system as soon as they are freed, and every new page costs a fault and 4 KiB of
    zeros: for activations that come and go with every micro-batch that is an eighth of the time.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_THRESHOLD, LARGEST_KEPT), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 1 << 26))
    return all(mallopt(ctypes.c_int(what), ctypes.c_int(value)) == 1 for what, value in settings)


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    if os.environ.get("COHORT_KERNELS", "").lower() in ("off", "0", "plain"):
        return None, "COHORT_KERNELS switches them off"
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        return None, "no C compiler is installed (for example: apt install gcc)"
    try:
        path = _compile(compiler)
        torch.get_num_threads()  # torch's OpenMP runtime is loaded first, and the kernels share it
        library = ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        return None, f"{compiler} could not build them: {_first_error(error.stderr)}"
    except subprocess.SubprocessError as error:
        return None, f"{compiler} could not build them: {error}"
    except OSError as error:
        return None, f"they cannot be built or loaded: {error}"
    for name, parameters in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [TYPES[letter] for letter in parameters], None
    library.tile_width.restype = c_long
    library.half_products.restype = library.byte_products.restype = c_int
    return library, None


def _compile(compiler: str) -> Path:
    """The shared library's path, building it if this machine has not before."""
    sources = [HERE / name for name in SOURCES]
    identity = hashlib.sha256()
    for file in (*sources, *(HERE / name for name in HEADERS)):
        identity.update(file.read_bytes())
    for fact in (*FLAGS, _version(compiler), _processor()):
        identity.update(fact.encode())
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cohort"
    path = directory / f"kernels-{identity.hexdigest()[:20]}.so"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_private(directory)
    if path.exists() and _is_ours(path.lstat()):
        return path
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        built = Path(scratch, "kernels.so")
        common = [compiler, *FLAGS, *map(str, sources), "-o", str(built), "-lm"]
        if platform.system() == "Linux":
            common.insert(1, "-fopenmp")  # elsewhere the compiler's own runtime would be a second one
        subprocess.run(common, check=True, capture_output=True, encoding="utf-8", errors="replace", timeout=300)
        built.chmod(0o700)
        os.replace(built, path)  # two processes may build at once: either file is whole
    return path


def _make_private(directory: Path) -> None:
    """Close the cache to others; what is loaded from it runs as this user. Raises `OSError` where that cannot be."""
    place = directory.resolve()
    if place.stat().st_uid != os.geteuid():
        raise OSError(f"their cache {place} belongs to somebody else; set XDG_CACHE_HOME to a directory of your own")
    for parent in place.parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise OSError(
                f"everybody can write to {parent}, above their cache; set XDG_CACHE_HOME to another directory"
            )
    if place.stat().st_mode & OTHERS_WRITE:
        place.chmod(0o700)


def _is_ours(file: os.stat_result) -> bool:
    """Whether a library was written by this user, and by nobody since. Another one is built again."""
    return stat.S_ISREG(file.st_mode) and file.st_uid == os.geteuid() and not file.st_mode & OTHERS_WRITE


def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=60)
    return done.stdout.decode("utf-8", "replace").partition("\n")[0]


def _processor() -> str:
    """What decides which instructions may be used: a home directory can be shared by different machines."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    return platform.machine()


def _first_error(text: str) -> str:
    return next((line for line in text.splitlines() if "error" in line), text.strip()[:200])


class _Fields(ctypes.Structure):
    """Filled by name. A tensor stands for the address of its first element, and must outlive the structure."""

    def __init__(self, **fields: Any):
        super().__init__(**{name: x.data_ptr() if isinstance(x, torch.Tensor) else x for name, x in fields.items()})


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

    _fields_ = [
        *((name, c_void_p) for name in ("weight", "bias", "scale", "shift")),
        *((name, c_long) for name in ("inputs", "outputs")),
    ]


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
