"""Fingerprints of a person's own functions, so that a continued run notices when their code has changed.

Of a function in a module they are those of the module and of the person's other modules that it imports; of one that
was written in a script or a notebook, of the function and what it refers to there: the rest of a script may change,
such as its `resume=True`. Comments and layout do not count. What is installed counts by its version, elsewhere.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

_INSTALLED = (*{Path(path).resolve() for path in sysconfig.get_paths().values()}, Path(__file__).resolve().parents[1])
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis))


def code_of(thing: Any) -> str:
    """The fingerprint of a function, a class, an object that is called, or a part of a function."""
    digest, seen = hashlib.blake2b(digest_size=16), set[Any]()
    for part in _parts(thing, seen):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def files_of(thing: Any) -> set[Path]:
    """The person's own files that a function or a class is written in: of its module, and of those that it imports."""
    found, waiting = set[Path](), [sys.modules.get(getattr(inspect.unwrap(thing), "__module__", None) or "")]
    while waiting:
        module = waiting.pop()
        if module is not None and _is_own(module) and (file := Path(str(module.__file__)).resolve()) not in found:
            found.add(file)
            waiting += _imported(module, ast.parse(file.read_bytes()))
    return found


def _parts(thing: Any, seen: set[Any]) -> Iterator[str]:
    """Everything about `thing` that decides what it does, as text; `seen` is what has been said already."""
    if isinstance(thing, _PLAIN):
        yield repr(thing)
    elif isinstance(thing, tuple):
        for item in thing:
            yield from _parts(item, seen)
    elif isinstance(thing, frozenset):
        yield from sorted("\0".join(_parts(item, seen)) for item in thing)
    elif isinstance(thing, functools.partial):
        yield from _parts((thing.func, thing.args, *sorted(thing.keywords.items())), seen)
    elif id(thing) not in seen:
        seen.add(id(thing))
        yield from _of_object(thing, seen)


def _of_object(thing: Any, seen: set[Any]) -> Iterator[str]:
    if isinstance(thing, CodeType):
        yield thing.co_code.hex()
        yield from _parts((thing.co_names, thing.co_varnames, thing.co_consts), seen)
    elif isinstance(thing, ModuleType):
        yield from _of_module(thing, seen)
    elif inspect.ismethod(thing):
        yield from _parts((thing.__func__, thing.__self__), seen)
    elif isinstance(thing, FunctionType):
        yield thing.__qualname__
        if not _is_own(module := sys.modules.get(thing.__module__)):
            names = _names(thing.__code__)
            yield from _assigned(thing, names)
            yield from _parts((thing.__code__, *(thing.__globals__.get(name) for name in names)), seen)
        else:
            yield from _parts(module, seen)
        cells = (cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell))
        named = sorted((thing.__kwdefaults__ or {}).items())
        yield from _parts((thing.__defaults__, *named, *cells), seen)
    elif isinstance(thing, type):
        yield thing.__qualname__
        if _is_own(module := sys.modules.get(thing.__module__)):
            yield from _parts(module, seen)
        elif thing.__module__ == "__main__":
            own = sorted(name for name, value in vars(thing).items() if not name.startswith("__") or callable(value))
            yield from _parts((*((name, vars(thing)[name]) for name in own), thing.__bases__), seen)
    elif hasattr(thing, "__wrapped__"):  # of functools.cache, for example
        yield from _parts(thing.__wrapped__, seen)
    else:  # an object, a list or a dict by its class: what it holds may change while it works
        yield from _parts(type(thing), seen)


def _of_module(module: ModuleType, seen: set[Any]) -> Iterator[str]:
    yield module.__name__
    if not _is_own(module):
        return
    tree = ast.parse(Path(str(module.__file__)).read_bytes())
    yield ast.unparse(tree)
    for imported in _imported(module, tree):
        yield from _parts(imported, seen)


def _imported(module: ModuleType, tree: ast.Module) -> Iterator[ModuleType]:
    """The modules that the source of a module imports, in its order."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = resolve_name("." * node.level + (node.module or ""), module.__package__ or None)
            names = [above, *(f"{above}.{alias.name}" for alias in node.names)]
        for name in names:
            if name in sys.modules:
                yield sys.modules[name]


def _assigned(function: FunctionType, names: list[str]) -> Iterator[str]:
    """What the script of a function assigns to names that it looks up, as it is written there."""
    file = getattr(sys.modules.get(function.__module__), "__file__", None)
    if file and Path(file).is_file():
        for node in ast.parse(Path(file).read_bytes()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id in names for target in targets):
                yield ast.unparse(node)


def _is_own(module: ModuleType | None) -> bool:
    """Whether a module is a file of the person's own, and not the script that runs."""
    file = getattr(module, "__file__", None)
    if module is None or module.__name__ == "__main__" or not file or not file.endswith(".py"):
        return False
    path = Path(file).resolve()
    installed = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)  # of another environment on the path
    return path.is_file() and not installed and not any(path.is_relative_to(place) for place in _INSTALLED)


def _names(code: CodeType) -> list[str]:
    """The names that a function and those inside it look up."""
    inside = (one for constant in code.co_consts if isinstance(constant, CodeType) for one in _names(constant))
    return sorted({*code.co_names, *inside})


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # nothing was put in yet
        return False
