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
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["built", "kernels", "why_not"]

SOURCES = ("layer.c", "attention.c", "decode.c", "head.c", "gradient.c")
HEADERS = ("vector.h", "heads.h")
# Sums keep their order (no -ffast-math), so results do not depend on what the compiler makes of them.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared")
HERE = Path(__file__).parent

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
    "half_products": "",
    "pack": "llpillp",
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
        return ctypes.c_void_p.from_param(x.data_ptr() if isinstance(x, torch.Tensor) else x)


TYPES: dict[str, Any] = {"l": ctypes.c_long, "i": ctypes.c_int, "f": ctypes.c_float, "p": _Pointer}


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
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"{compiler} could not build them: {error}"
    for name, parameters in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [TYPES[letter] for letter in parameters], None
    library.tile_width.restype = ctypes.c_long
    library.half_products.restype = ctypes.c_int
    return library, None


def _compile(compiler: str) -> Path:
    """The shared library's path, building it if this machine has not before."""
    sources = [HERE / name for name in SOURCES]
    identity = hashlib.sha256()
    for file in (*sources, *(HERE / name for name in HEADERS)):
        identity.update(file.read_bytes())
    for fact in (*FLAGS, _version(compiler), _processor()):
        identity.update(fact.encode())
    directory = _cache()
    path = directory / f"kernels-{identity.hexdigest()[:20]}.so"
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        built = Path(scratch, "kernels.so")
        common = [compiler, *FLAGS, *map(str, sources), "-o", str(built), "-lm"]
        if platform.system() == "Linux":
            common.insert(1, "-fopenmp")  # elsewhere the compiler's own runtime would be a second one
        subprocess.run(common, check=True, capture_output=True, text=True, timeout=300)
        os.replace(built, path)  # two processes may build at once: either file is whole
    return path


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cohort"


def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.partition("\n")[0]


def _processor() -> str:
    """What decides which instructions may be used: a home directory can be shared by different machines."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    return platform.machine()


def _first_error(text: str) -> str:
    return next((line for line in text.splitlines() if "error" in line), text.strip()[:200])
