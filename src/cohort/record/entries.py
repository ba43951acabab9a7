"""What an entry of the chain is: eleven fields, eight kinds, one line of canonical JSON (RFC 8785)."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

import orjson
import rfc8785

FORMAT = 1  # of the chain; the genesis of every stage says it
FIELDS = frozenset(
    ("seq", "kind", "prev", "merkle_root", "n", "shards", "policy", "verifiers", "recipe", "metrics", "time")
)
KINDS = frozenset(("genesis", "step", "checkpoint", "evaluation", "incident", "resume", "amend", "close"))
UNSIGNED = frozenset(("step", "evaluation"))  # the next entry of another kind signs them with itself
FIRST = "0" * 64  # what the first entry has before it
_TABLES = ("policy", "verifiers", "recipe", "metrics")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def written(entry: Mapping[str, Any]) -> bytes:
    """The line of an entry, without its end. Numbers that are not finite become null: JSON has no word for them."""
    return rfc8785.dumps(_finite(entry))


def digest_of(line: bytes) -> str:
    """What the next entry has as `prev`, and what a head is."""
    return sha256(line).hexdigest()


def parsed(line: bytes) -> dict[str, Any]:
    """The entry of a line. Raises `ValueError` for a line that is no JSON object."""
    found = orjson.loads(line)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def problem(entry: Mapping[str, Any]) -> str | None:
    """What is wrong with the form of an entry, its kind apart; None where nothing is."""
    if differs := sorted(FIELDS ^ entry.keys()):
        return f"{differs[0]} is {'missing' if differs[0] in FIELDS else 'no field of an entry'}"
    wrong = [name for name in _TABLES if not isinstance(entry[name], dict)]
    wrong += [name for name in ("seq", "n") if type(entry[name]) is not int or entry[name] < 0]
    wrong += [name for name in ("prev", "merkle_root") if not is_digest(entry[name])]
    wrong += [] if isinstance(entry["kind"], str) else ["kind"]
    wrong += [] if isinstance(entry["shards"], list) and all(map(_is_shard, entry["shards"])) else ["shards"]
    try:
        datetime.fromisoformat(entry["time"])
    except (TypeError, ValueError):
        wrong.append("time")
    recipe, policy, metrics = entry["recipe"], entry["policy"], entry["metrics"]
    if not wrong:
        numbers = (policy.get("step", 0), policy.get("after", 0), metrics.get("step", 0), recipe.get("format", 1))
        wrong += [] if all(type(number) is int for number in numbers) else ["step"]
        wrong += [] if all(_is_files(table.get("files", {})) for table in (recipe, policy)) else ["files"]
        wrong += [] if all(_is_files(table.get("inputs", {}), False) for table in (recipe, policy)) else ["inputs"]
        wrong += [] if _is_files(entry["verifiers"].get("inputs", {}), False) else ["inputs"]
        wrong += [] if "path" not in policy or is_inside(policy["path"]) else ["policy"]
        wrong += [] if all(map(is_inside, _list(policy.get("kept", [])))) else ["policy"]
        wrong += [] if all(map(is_digest, _list(metrics.get("abandoned", [])))) else ["metrics"]
        wrong += [] if is_digest(metrics.get("sha256", FIRST)) else ["metrics"]
        wrong += [] if recipe.get("key") is None or _is_key(recipe["key"]) else ["key"]
        wrong += [] if isinstance(recipe.get("stage", ""), str) and _is_place(recipe.get("place", "")) else ["recipe"]
    return f"{wrong[0]} is not what it is in an entry" if wrong else None


def version_of(entry: Mapping[str, Any]) -> int:
    """The format that a genesis says; of all others the own."""
    found = entry["recipe"].get("format", FORMAT) if isinstance(entry.get("recipe"), dict) else FORMAT
    return found if type(found) is int else FORMAT


def is_digest(value: Any) -> bool:
    """Whether a value is a SHA-256 in hexadecimal."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def is_inside(path: Any) -> bool:
    """Whether a path names something inside of the run, as the chain writes it."""
    if not isinstance(path, str) or not path or "\\" in path or "\0" in path:
        return False
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and str(pure) == path and path != "."


def _is_key(text: Any) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (TypeError, ValueError):
        return False


def _is_place(path: Any) -> bool:
    return path == "" or is_inside(path)


def _is_shard(shard: Any) -> bool:
    return (
        isinstance(shard, dict)
        and shard.keys() == {"path", "sha256", "rows"}
        and is_inside(shard["path"])
        and is_digest(shard["sha256"])
        and (shard["rows"] is None or (type(shard["rows"]) is int and shard["rows"] >= 0))
    )


def _is_files(files: Any, inside: bool = True) -> bool:
    return isinstance(files, dict) and all(
        is_digest(digest) and (is_inside(path) or not inside) for path, digest in files.items()
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
