"""Whether two directories hold the same tensors, to the last bit."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open


def unlike(one: Path, other: Path) -> str | None:
    """The first tensor that `one` and `other` do not have alike, in all safetensors files below them; None: all are.

    Raises `OSError` where a file cannot be read.
    """
    files, others = ({file.relative_to(of).as_posix() for file in of.rglob("*.safetensors")} for of in (one, other))
    if files != others or not files:
        return f"{min(files ^ others, default='model.safetensors')} is in one of them only"
    try:
        return next((found for name in sorted(files) if (found := _unlike(one / name, other / name, name))), None)
    except SafetensorError as error:
        return str(error)


def _unlike(one: Path, other: Path, name: str) -> str | None:
    with safe_open(one, "pt") as ours, safe_open(other, "pt") as theirs:
        if set(ours.keys()) != set(theirs.keys()):
            return f"{name} has other tensors"
        for key in ours.keys():  # noqa: SIM118  (it is no dict)
            first, second = ours.get_tensor(key), theirs.get_tensor(key)
            if first.shape != second.shape or not torch.equal(first, second):
                return f"{key} in {name}"
    return None
