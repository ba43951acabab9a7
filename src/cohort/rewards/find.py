"""From "module:function" to the function, with one clear sentence for whatever goes wrong."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from cohort.rewards.failure import one_line
from cohort.rewards.parameters import did_you_mean
from cohort.types import UserError

__all__ = ["find_function"]


def find_function(use: str) -> Callable[..., Any]:
    """Import what `use`, "module:function", names; the current directory is on the import path. Raises UserError."""
    module_name, _, attribute = use.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or module_name.endswith(".py") or not attribute:
        stem = re.sub(r"[\\/]+", ".", re.sub(r"\.py$", "", module_name)).strip(".")
        raise UserError(
            f'reward \'{use}\' is not of the form "module:function"; try "{stem}:{attribute or "function"}"'
        )
    found: Any = _import(module_name, use)
    for part in attribute.split("."):
        if not hasattr(found, part):
            functions = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            where = getattr(found, "__file__", None) or module_name
            raise UserError(f"reward '{use}': {where} has no function '{part}'{did_you_mean(part, functions)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"reward '{use}' is {type(found).__name__}, not a function")
    return found


def _import(name: str, use: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it; the `cohort` command has only its own directory
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            near = did_you_mean(name, (path.stem for path in Path(here).glob("*.py")))
            problem = f"there is no module '{name}'{near} in {here} or among the installed packages"
        else:
            problem = f"module '{name}' needs the package '{error.name}', which is not installed"
    except KeyboardInterrupt:  # Ctrl-C
        raise
    except BaseException as error:
        problem = f"module '{name}' cannot be imported: {type(error).__name__}: {one_line(error)}{_place(error)}"
    raise UserError(f"reward '{use}': {problem}")


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return ""  # its message names the file and the line
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else ""
