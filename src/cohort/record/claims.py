"""record.json: every claim in an envelope that says what it rests on, whether it was looked at, and where to check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from cohort.record.files import write_bytes
from cohort.types import UnreadableError
from cohort.wording import one_line

NAME = "record.json"
SCHEMA = "urn:cohort:record:1"  # the version of the form: a record of another one is not read

Basis = Literal["measured", "derived", "declared", "imported"]
Status = Literal["evaluated", "not_evaluated", "not_applicable", "inconclusive", "failed", "withheld"]
BASES: tuple[Basis, ...] = get_args(Basis)
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Claim:
    """One fact. `basis`: the run measured it, it follows from what the run holds, a person declared it, or another
    tool found it; of a gap it is the basis that it would have. `reason` says why there is no value, or how it came
    about; `evidence` is where it stands, each a path inside the run with its SHA-256.
    """

    value: Any
    basis: Basis
    status: Status = "evaluated"
    reason: str | None = None
    evidence: tuple[Mapping[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The envelope as record.json has it."""
        return asdict(self)


def gap(basis: Basis, reason: str, status: Status = "not_evaluated") -> Claim:
    """A fact that is not there, and why."""
    return Claim(None, basis, status, reason)


def is_claim(value: Any) -> bool:
    """Whether a part of a record is an envelope."""
    return isinstance(value, Mapping) and {"value", "basis", "status"} <= value.keys()


def claims(part: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every envelope of a record with its dotted path; stages by their names."""
    if is_claim(part):
        yield at, part
    elif isinstance(part, Mapping):
        for name, inner in part.items():
            yield from claims(inner, f"{at}.{name}" if at else str(name))
    elif isinstance(part, list):
        for inner in part:
            if isinstance(inner, Mapping) and "name" in inner:
                yield from claims(inner, f"{at}.{inner['name']}")


def write_record(directory: Path, record: Mapping[str, Any]) -> None:
    """Replace the record of a run. What is not finite becomes null, what JSON has no form for its text."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
    write_bytes(directory / NAME, orjson.dumps(record, default=str, option=options))


def read_record(directory: Path) -> dict[str, Any] | None:
    """The record of a run; None where it has none. Raises `UnreadableError` for one that is damaged, or newer."""
    file = directory / NAME
    try:
        found = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise UnreadableError(f"{file} cannot be read ({one_line(error)}); {_AGAIN}") from None
    if not isinstance(found, dict) or not isinstance(found.get("stages"), list) or "completeness" not in found:
        raise UnreadableError(f"{file} is no record of a run; {_AGAIN}")
    if found.get("schema") != SCHEMA:
        raise UnreadableError(
            f"{file} has the form {found.get('schema')!r}, and this Cohort reads {SCHEMA!r}: read it with the version "
            "that wrote it"
        )
    return found


_AGAIN = "delete it: it is then made again from the other files of the run"
