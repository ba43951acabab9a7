"""Tables from a name to "module:thing", imported when asked for: everything in them is there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import cohort
from cohort.backends.base import BACKENDS
from cohort.environments.world import ENVIRONMENTS, TOOLS
from cohort.rewards.built_in import BUILT_IN
from cohort.settings import DETECTORS, KINDS, SAMPLERS, SINKS, Stage, Task
from cohort.settings.stage import EVERY_KIND
from cohort.train.stage import kind_of
from cohort.wording import find

SOURCE = Path(cohort.__file__).parent
TABLES: dict[str, Mapping[str, str]] = {
    "BACKENDS": BACKENDS,
    "BUILT_IN": {name: built_in.function for name, built_in in BUILT_IN.items()},
    "DETECTORS": DETECTORS,
    "ENVIRONMENTS": ENVIRONMENTS,
    "KINDS": KINDS,
    "SAMPLERS": SAMPLERS,
    "SINKS": SINKS,
    "TOOLS": TOOLS,
}
EXTRAS = {"verifiers", "reasoning_gym"}  # libraries that are not installed everywhere


def found(where: str) -> Any:
    """What "module:thing" is; the test is skipped where its library is missing."""
    for library in EXTRAS:
        if where.startswith(f"cohort.integrations.{library}."):
            pytest.importorskip(library)
    return find(where, "part")


@pytest.mark.parametrize(("table", "name"), [(table, name) for table, names in TABLES.items() for name in names])
def test_everything_in_a_table_is_there(table, name):
    assert callable(found(TABLES[table][name]))


def test_no_name_of_a_part_leads_nowhere():
    """Wherever the source names a part, in a table that this file knows or not."""
    named = {
        where
        for file in SOURCE.rglob("*.py")
        for where in re.findall(r'"(cohort(?:\.\w+)+:[A-Za-z_][\w.]*)"', file.read_text())
    }
    assert named >= {*KINDS.values(), *SAMPLERS.values(), *BACKENDS.values(), *SINKS.values()}
    for where in sorted(named):
        module, _, names = where.partition(":")
        if not any(where.startswith(f"cohort.integrations.{library}.") for library in EXTRAS):
            thing: Any = importlib.import_module(module)
            for part in names.split("."):
                thing = getattr(thing, part)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_reads_tables_that_there_are(name):
    kind = kind_of(Stage(kind=name, task=Task(source="word_problems")))
    members: list[Callable[..., Any]] = [kind.prepare, kind.plan, kind.open]
    assert all(map(callable, members))
    assert {*kind.tables} <= Stage.model_fields.keys() - {"kind", "name"}
    assert len({*kind.tables}) == len(kind.tables)
    assert {"policy", "task", "run"} <= {*kind.tables}
    assert kind.columns


def test_every_table_of_a_stage_is_read_by_a_kind():
    kinds = [kind_of(Stage(kind=name, task=Task(source="word_problems"))) for name in KINDS]
    assert {*EVERY_KIND, *(table for kind in kinds for table in kind.tables)} == Stage.model_fields.keys() - {
        "kind",
        "name",
    }


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_has_the_name_of_its_line_and_a_version(name):
    detector = found(DETECTORS[name])
    assert detector.name == name
    assert detector.version >= 1
    assert detector.look.__doc__
