"""manifest.json: the digest of every file of a directory, written last, so that damage is noticed before it is used."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from cohort.record.files import new_directory
from cohort.types import UserError
from cohort.wording import resuming

NAME = "manifest.json"
FREE = {NAME, "README.md"}  # a card may be edited
EVALS = "evals"  # of a run: what `cohort eval` has measured since, which is none of its record
EVALUATIONS = ".eval_results"  # a directory of what the card says, for the hub


@contextlib.contextmanager
def sealed_directory(path: Path, announce: Callable[[dict[str, str]], None] = lambda _: None) -> Iterator[Path]:
    """A `new_directory` that gets a manifest of what the block has written. Before it takes its place `announce` gets
    the digests of its files.
    """
    with new_directory(path, lambda new: announce({**digests, NAME: sha256_of(new / NAME)})) as new:
        yield new
        digests = {name: sha256_of(file) for name, file in _files(new).items()}
        (new / NAME).write_bytes(orjson.dumps({"sha256": digests}, option=orjson.OPT_INDENT_2))


def damage(directory: Path, *, more_allowed: bool = False) -> str | None:
    """What a directory that was sealed has no longer as it was written; None where all is well. A file that was added
    is damage, too, unless `more_allowed`.
    """
    try:
        listed = orjson.loads((directory / NAME).read_bytes())["sha256"]
        found = _files(directory)
        lost, added = sorted(listed.keys() - found.keys()), sorted(found.keys() - listed.keys())
        if lost or (added and not more_allowed):
            return f"{(lost or added)[0]} {'is missing' if lost else 'was added to it'}"
        changed = next((name for name, digest in listed.items() if sha256_of(found[name]) != digest), None)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        return f"{NAME} cannot be read"
    return None if changed is None else f"{changed} is not as it was written"


def damage_of_model(model: Path) -> str | None:
    """`damage` of a final model. What was added to it is let be, and so is one without a manifest, from elsewhere."""
    return damage(model, more_allowed=True) if (model / NAME).exists() else None


def refuse_damaged(model: Path) -> None:
    """Raise `UserError` for a model of a run that is no longer as it was written."""
    if (problem := damage_of_model(model)) is not None:
        raise UserError(
            f"the model in {model} is damaged ({problem}). Restore it, or train with {resuming()}, which writes a "
            f"damaged final model again; after a change of your own delete {NAME} in it."
        )


def digests_in(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file of a sealed directory that counts, and of its manifest, by their names there."""
    files = _files(directory) | {NAME: directory / NAME}
    return {name: sha256_of(file) for name, file in files.items() if file.is_file()}


def _files(directory: Path) -> dict[str, Path]:
    """The files that count, by their names in the directory. Hidden ones are left out: systems put some everywhere."""
    files = {path.relative_to(directory): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): file
        for name, file in files.items()
        if name.as_posix() not in FREE and not name.name.startswith(".") and name.parts[0] != EVALUATIONS
    }


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
