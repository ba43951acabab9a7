"""How a command ends: in words or as one JSON object, and with an exit code.

    0    done, or the check holds
    1    something that a person can mend, or a check that fails
    2    a wrong option or argument, or one that cannot be read: no such recipe, no such file, no TOML
    3    a run that one of its detectors has paused; it is saved
    130  stopped by Ctrl-C (SIGINT)
    143  stopped by SIGTERM

With `--json` standard output gets one JSON object on one line, whatever happens: what the command found, or
`{"error": "...", "exit": 1}`. All words go to standard error then, those of user code and of worker processes too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer
from typer.exceptions import TyperException

from cohort.types import PausedError, UnreadableError, UserError
from cohort.views.output import Output, silence
from cohort.wording import for_the_shell, visible

if TYPE_CHECKING:
    from cohort.views.console import Console

PAUSED = 3
INTERRUPTED = 130  # what typer makes of Ctrl-C, as shells do
TERMINATED = 143
OWN = Path(__file__).parents[1]
STOPPED = "stopped; `cohort train` continues with --resume"


@dataclass(frozen=True)
class Answer:
    """What a command found: `value` as JSON takes it (dataclasses and paths too), and a function that says it in words
    where these have not been printed on the way. `holds` is False for a check that fails.
    """

    value: Any
    words: Callable[[Console, Any], None] | None = None
    holds: bool = True


@contextlib.contextmanager
def argument() -> Iterator[None]:
    """Around what reads an argument of the command line: one that cannot be read is a wrong argument, exit code 2."""
    try:
        yield
    except UserError as error:
        raise UnreadableError(str(error)) from None


def run(app: typer.Typer) -> None:
    """Run the command line and leave the process. What a person can mend is one message, never a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    warnings.showwarning = partial(_noted, warnings.showwarning)
    if "--json" not in sys.argv[1:]:
        code = _call(app, None)[1]
    else:
        with contextlib.suppress(BrokenPipeError), _words_to_stderr() as out:
            value, code = _call(app, out)
            out.write(_json(value))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads it any more, or its disk is full: the outcome is what it was
            silence(stream)
    sys.exit(code)


def _call(app: typer.Typer, json: IO[bytes] | None) -> tuple[Any, int]:
    """What the command found, or what became of it; and the exit code."""
    try:
        with for_the_shell():
            found = app(standalone_mode=False)
        if not isinstance(found, Answer):  # help, the version; or typer has caught Ctrl-C
            return _failed(STOPPED, found) if found == INTERRUPTED else ({}, found or 0)
        if found.words is not None and json is None:
            from cohort.views.console import Console

            found.words(Console(), found.value)
        return found.value, 0 if found.holds else 1
    except UserError as error:
        return _failed(
            str(error), 2 if isinstance(error, UnreadableError) else PAUSED if isinstance(error, PausedError) else 1
        )
    except TyperException as error:  # a wrong option or argument
        return _failed(error.format_message(), 2)
    except BrokenPipeError:  # `cohort explain ... | head`
        silence(sys.stdout)
        return {}, 0
    except SystemExit as error:
        if error.code != TERMINATED:
            raise
        return _failed(STOPPED, TERMINATED)
    except Exception as error:
        if json is None:
            raise
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "exit": 1}, 1


def _noted(otherwise: Callable[..., None], said: Warning | str, kind: type[Warning], file: str, *more: Any) -> None:
    """A warning of Cohort's own is a note, without the line of source that Python shows; others are shown as ever."""
    if kind is not UserWarning or not Path(file).is_relative_to(OWN):
        otherwise(said, kind, file, *more)
        return
    from cohort.views.console import Console

    Console(file=sys.stderr).warn(str(said))


def _failed(message: str, code: int) -> tuple[dict[str, Any], int]:
    words = Output(sys.stderr)
    for line in visible(message).splitlines():
        words.write(line + "\n" if message.startswith((STOPPED, "Usage:")) else f"error: {line}\n")
    return {"error": message, "exit": code}, code


@contextlib.contextmanager
def _words_to_stderr() -> Iterator[IO[bytes]]:
    """What is printed goes to standard error, from other processes too. Gives the standard output that was there."""
    sys.stdout.flush()
    before = sys.stdout
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        try:
            yield out
        finally:
            sys.stdout = before
            out.flush()
            os.dup2(out.fileno(), 1)


def _json(value: Any) -> bytes:
    """One line. What is not finite becomes null; what JSON has no form for, such as a path, its text."""
    import orjson

    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
