"""Words that every room needs: did you mean, one line of an error, a value cut short; and who "module:function" is."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
import reprlib
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any
from unicodedata import category

from cohort.types import UserError

_UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of characters that a terminal does not show, but may act on
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 160

_SHELL: ContextVar[bool] = ContextVar("shell", default=False)  # whether a command of the shell asks, not Python


@contextlib.contextmanager
def for_the_shell() -> Iterator[None]:
    """For as long as the context lasts, advice is for somebody at the command line, else for one in Python."""
    token = _SHELL.set(True)
    try:
        yield
    finally:
        _SHELL.reset(token)


def resuming() -> str:
    """How a run is resumed."""
    return "--resume" if _SHELL.get() else "resume=True"


def going_on(directory: Path) -> str:
    """What continues the run in this directory, as it is typed."""
    return f"cohort train {shlex.quote(str(directory))} --resume" if _SHELL.get() else "cohort.train(..., resume=True)"


def giving(key: str, value: str) -> str:
    """How a key of the recipe is given beside it, such as name=OTHER."""
    table, _, name = key.rpartition(".")
    if _SHELL.get():
        return f"{key}={value}"
    return f'{table}={{"{name}": "{value}"}}' if table else f'{name}="{value}"'


def another() -> str:
    """How another run is begun."""
    return giving("name", "OTHER")


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 prompt`, `1,234 prompts`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def magnitude(number: float) -> str:
    """`135M`, `1.5B`, `12.3k`: three digits."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def said_twice(names: Sequence[str]) -> list[str]:
    """The names that another one equals where case does not count, as in the file systems of Windows and macOS."""
    folded = [name.casefold() for name in names]
    return [name for name in dict.fromkeys(names) if folded.count(name.casefold()) > 1]


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `words` that is most like `word`; case and hyphens do not matter. None where none is close."""
    plain = {known.lower().replace("-", "_"): known for known in words}
    word = word.lower().replace("-", "_")
    swapped = [known for known in sorted(plain) if sorted(known) == sorted(word)]  # its letters in another order
    close = swapped or difflib.get_close_matches(word, sorted(plain), n=1, cutoff=cutoff)
    return plain[close[0]] if close else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where none of `words` is close."""
    near = nearest(word, words, cutoff=0.5)
    return f" (did you mean '{near}'?)" if near else ""


def shorten(value: object) -> str:
    """`repr(value)`, cut in the middle, on one line, safe for any value and any terminal."""
    try:
        return _REPR.repr(value)
    except Exception:  # a __repr__ that raises; an int of thousands of digits
        return f"<{type(value).__name__}>"


def visible(text: str) -> str:
    """The text with what would drive a terminal made visible, as \\x1b or \\u202e: control characters, marks of
    direction and others without a shape, separators of lines, halves of pairs. Line ends, tabs and joiners stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if c not in "\n\t\u200c\u200d" and category(c) in _UNSHOWN else c for c in text)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, cut if it is long, safe for any terminal."""
    try:
        text = visible(" ".join(str(error).split()))
    except Exception:
        return "(its message cannot be shown)"
    return text if len(text) <= 300 else text[:300] + "..."


def find(use: str, what: str) -> Any:
    """What "module:function" names; the current directory is on the import path. `what` it should be, "reward" for
    example, is for the messages.

    Raises `UserError`, one sentence for whatever goes wrong: no such form, no such module, a module that cannot be
    imported, no such name in it.
    """
    module, _, names = use.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module) or module.endswith(".py") or not names:
        stem = re.sub(r"[\\/]+", ".", re.sub(r"\.py$", "", module)).strip(".")
        raise UserError(f'{what} \'{use}\' is not of the form "module:function"; try "{stem}:{names or "function"}"')
    found: Any = _import(module, f"{what} '{use}'")
    for part in names.split("."):
        if not hasattr(found, part) and (module == "__main__" or "<" in names):
            raise UserError(
                f"{what} '{use}' is a function of the program or notebook that began the run, and nobody else can "
                "import it: go on there with resume=True, or write it into a module and name it as module:function"
            )
        if not hasattr(found, part):
            public = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            where = getattr(found, "__file__", None) or module
            raise UserError(f"{what} '{use}': {where} has no function '{part}'{did_you_mean(part, public)}")
        found = getattr(found, part)
    return found


def find_function(use: str, what: str) -> Any:
    """`find`, of something that can be called."""
    found = find(use, what)
    if not callable(found):
        raise UserError(f"{what} '{use}' is {type(found).__name__}, not a function")
    return found


def import_from_here() -> str:
    """Put the current directory on the import path, as `python -m` has it: the `cohort` command has only its own."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return here


def _import(name: str, wanted: str) -> ModuleType:
    here = import_from_here()
    if name not in sys.modules:
        importlib.invalidate_caches()  # it may have been written since its directory was looked at
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
    except BaseException as error:  # the module is the user's, and its code may do anything
        problem = f"module '{name}' cannot be imported: {type(error).__name__}: {one_line(error)}{_place(error)}"
    raise UserError(f"{wanted}: {problem}")


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return ""  # its message names the file and the line
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else ""


def refuse_pickled(where: str | Path) -> None:
    """Refuse a directory whose weights are all pickled: to read a pickle may run what is in it. Raises `UserError`."""
    files = [file.name for file in Path(where).glob("*.*")] if Path(where).is_dir() else []
    if any(file.endswith(".safetensors") for file in files):
        return
    for name, how in (
        ("pytorch_model", "CLASS.from_pretrained(DIR, use_safetensors=False).save_pretrained(NEW), by its own CLASS"),
        ("adapter_model", "PeftModel.from_pretrained(BASE, DIR).save_pretrained(NEW)"),
    ):
        if found := sorted(file for file in files if file.startswith(name) and file.endswith(".bin")):
            raise UserError(
                f"cannot load the model '{where}': {found[0]} is a pickle, which can run code when it is read. If you "
                f"trust it, convert it to safetensors once: {how}"
            )


def misfit(missing: Iterable[str], unexpected: Iterable[str] = (), misshapen: Iterable[tuple[Any, ...]] = ()) -> str:
    """What of a checkpoint's tensors does not fit its model, in words; empty where all of it does. The misshapen ones
    are (name, shape in the checkpoint, shape in the model).
    """
    shapes = [f"{name} ({list(found)}, not {list(wanted)})" for name, found, wanted in misshapen]
    kinds = {
        "it has no weights for": sorted(missing),
        "the model has no place for its": sorted(unexpected),
        "the model has another shape for its": sorted(shapes),
    }
    return "; ".join(f"{what} {_few(names)}" for what, names in kinds.items() if names)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
