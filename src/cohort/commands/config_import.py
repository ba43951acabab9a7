"""`cohort config import`: the configuration of another trainer as a recipe."""

from __future__ import annotations

import json
import os
import pkgutil
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cohort.types import UnreadableError
from cohort.views.console import Console, show_recipe

# A format -> "module:function" of (given, source) that returns what the configuration comes to, and some keys that only
# this format has. `given` is a `configurations.base.Given`.
FORMATS = {"verl": "cohort.integrations.configurations.verl:read", "trl": "cohort.integrations.configurations.trl:read"}
ONLY_VERL = ("actor_rollout_ref.", "algorithm.", "trainer.", "data.")


def import_recipe(path: Path) -> Any:
    """The recipe, and what has no counterpart. Raises `UnreadableError` for a file that is no configuration."""
    values = dict(_flat(_read(path)))
    if not values:
        raise UnreadableError(f"{path} has no settings: it must be a TRL or verl configuration")
    name = "verl" if any(key.startswith(ONLY_VERL) for key in values) else "trl"
    given = pkgutil.resolve_name("cohort.integrations.configurations.base:Given")(_without_references(values))
    try:
        return pkgutil.resolve_name(FORMATS[name])(given, path.name)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UnreadableError(f"{str(path)!r} has a value that {name} would not take: {error}") from None


def show(console: Console, found: Any) -> None:
    """The recipe on standard output; on standard error what differs, and what is still to be written."""
    show_recipe(console, found.recipe, {"note": found.notes, "[yellow]open[/]": found.open})


def _read(path: Path) -> Mapping[str, Any]:
    """The settings in a file: JSON, YAML, or a command line with its options."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        raise UnreadableError(f"cannot read the configuration {str(path)!r}: {reason}") from None
    import yaml

    try:
        found = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        found, problem = None, " ".join(str(error).split())
    else:
        problem = "it holds no keys with values"
    if isinstance(found, Mapping):
        return found
    if options := _options(text):
        return options
    raise UnreadableError(f"{str(path)!r} is no configuration of TRL (YAML, JSON, a command line) or verl: {problem}")


def _options(text: str) -> dict[str, Any]:
    """The options of a command line: `--beta 0.04 --use_vllm --reward_funcs a b`, and verl's `a.b=c`."""
    import yaml

    try:
        words = [os.path.expandvars(word) for word in shlex.split(text.replace("\\\n", " "), comments=True)]
    except ValueError:
        return {}
    found: dict[str, Any] = {}
    key = ""
    for word in words:
        name, equals, value = word.lstrip("+").partition("=")
        if word.startswith("--"):
            key = word[2:].partition("=")[0].replace("-", "_")
            if not equals and key.startswith("no_"):
                found[key.removeprefix("no_")] = False
                key = ""
            else:
                found[key] = yaml.safe_load(value) if equals else True
            key = "" if equals else key
        elif key:
            value = yaml.safe_load(word)
            before = found[key]
            found[key] = value if before is True else [*(before if isinstance(before, list) else [before]), value]
        elif equals and name.replace(".", "").replace("_", "").isalnum() and "." in name:
            found[name] = yaml.safe_load(value)
    return found


def _flat(values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its dotted name. A table that TRL takes as one value stays one."""
    for key, value in values.items():
        name = f"{at}{key}"
        if isinstance(value, Mapping) and not name.endswith("_kwargs"):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _without_references(values: dict[str, Any]) -> dict[str, Any]:
    """The values with `${other.key}` replaced by what stands there; one that leads nowhere counts as not given."""
    found = {}
    for key, value in values.items():
        for _ in range(len(values)):
            if not (isinstance(value, str) and value.startswith("${") and value.endswith("}")):
                break
            value = values.get(value[2:-1].removeprefix("oc.select:").partition(",")[0].strip())
        if key.rpartition(".")[2] not in ("_target_", "defaults"):
            found[key] = value
    return found
