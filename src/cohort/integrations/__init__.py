"""Other libraries, one folder each: its source of prompts, its reward and its environment together.

The libraries are extras. Nobody imports these folders: tables of names lead to them when a recipe names one.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version

from cohort.types import UserError

__all__ = ["require"]


def require(module: str, package: str, wanted: str, why: str) -> None:
    """Raise UserError unless `module` can be imported and its `package` has the version `wanted`; the extra of Cohort
    that installs it has the package's name. `why` says in the message what that version is.
    """
    try:
        import_module(module)
    except ImportError as error:
        needs = f"{package} needs a package that is not installed ({error})"
        raise UserError(f'{needs}: pip install "cohort[{package}]"') from None
    if (installed := version(package)) != wanted:
        raise UserError(f"{package} is {installed} here, and {why} {wanted}: pip install {package}=={wanted}")
