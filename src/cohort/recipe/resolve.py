"""From what was written to what will run: layers are merged into stages, and every value keeps its origin.

A stage is made of layers, later ones winning:

1. the defaults of the schema,
2. what stands outside the `[[stage]]` tables,
3. what stands in the stage,
4. overrides without a stage's name,
5. overrides with its name.

Tables are merged key by key. Four things are not:

* `reward` is one value: a layer that gives rewards replaces all of them.
* A layer that names another objective preset starts over from it. `clip_high = 0.28`, written for DAPO, would be a
  quiet disaster in a stage, or after an override, that says `preset = "gspo"`.
* One `source` and a `mixture` of several replace each other. A layer with a mixture adds to the one before it by name.
* `model` and `scratch` say where training starts. A layer that gives one of them replaces the other; and outside the
  stages they say where the *first* stage starts, because a later stage continues from the one before it unless it
  names a start of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.recipe.check import name_problem, stage_problems
from cohort.recipe.names import TOP_KEYS, reader
from cohort.recipe.overrides import ORIGIN, Override, override_layer, parse_overrides
from cohort.settings import Adapt, Source, Stage, Table
from cohort.settings.distill import OBJECTIVES, TEACHER_COEF
from cohort.settings.reward import reward_name
from cohort.settings.table import Flat, Path, Problems, Written
from cohort.settings.training import LORA_FACTOR, default_rate
from cohort.settings.words import missing, report, shown
from cohort.types import UserError
from cohort.wording import said_twice

LARGEST_SEED = 2**63 - 1
_START = (("policy", "model"), ("policy", "scratch"), ("policy", "revision"))


@dataclass(frozen=True)
class Resolved:
    """What a recipe comes to."""

    name: str
    seed: int
    stages: tuple[Stage, ...]
    own: tuple[frozenset[Path], ...]  # of every stage, the tables and keys that stand in it and not outside
    top: dict[str, Written]
    flats: tuple[Flat, ...]  # what was written for every stage

    def origins(self) -> dict[str, str]:
        """Where each value comes from, by dotted path; with several stages, the stage's name goes in front."""
        origins = {key: written.origin for key, written in self.top.items()}
        for index, (flat, stage) in enumerate(zip(self.flats, self.stages)):
            prefix = f"{stage.name}." if len(self.stages) > 1 else ""
            origins.update({prefix + path: _origin(path, value, flat, index) for path, value in flatten(stage).items()})
        return origins


def resolve(
    tables: Mapping[str, Any], origin: str, overrides: Sequence[str] = (), default_name: str = "run"
) -> Resolved:
    """Resolve the tables of a recipe. Every problem is in the one UserError that is raised."""
    problems = Problems()
    raw = _raw_stages(tables, origin, problems)
    names = _stage_names(raw, tables.get("kind"), problems)
    prefixes = [f"{name}." if len(raw) > 1 else "" for name in names]
    typed = parse_overrides(overrides, names, problems)

    outside_origin = f"{origin}, outside the stages" if "stage" in tables else origin
    outside = {key: value for key, value in tables.items() if key not in TOP_KEYS}
    shared = reader(problems, outside_origin).table(Stage, outside)
    flats, owns = [], []
    for index, (given, prefix) in enumerate(zip(raw, prefixes)):
        own = reader(problems, origin, prefix).table(Stage, given)
        owns.append({*(own if "stage" in tables else shared)})
        base = _without_start(shared) if index else shared
        flats.append(merge(base, own) if own else base)
    if typed:
        flats = _overridden(flats, names, typed, problems)
    flats = [_with_teaching(_without_steps(_with_rate(flat))) for flat in flats]
    for name, own_of in zip(names, owns):  # an override for all of several stages is, like theirs, their default
        mine = (o.path for o in typed if o.stage == name or len(names) == 1)
        own_of.update(path for path in mine if path[0] not in TOP_KEYS)
    top = _top(tables, origin, default_name, typed, problems)

    stages = []
    for index, (flat, name, prefix) in enumerate(zip(flats, names, prefixes)):
        if "stage" not in tables:
            name = _name_of(flat[("kind",)].value) if ("kind",) in flat else "grpo"
        nested = _nested(flat, prefix, problems)
        stages.append(Stage.model_validate({**nested, "name": name}))
        for sentence, paths in stage_problems(stages[-1], first=index == 0, at=prefix):
            if not problems.touch(*paths):
                problems.add(sentence)
    if problems.sentences:
        raise UserError(report(list(problems.sentences)))
    written = tuple(map(frozenset, owns))
    return Resolved(top["name"].value, top["seed"].value, tuple(stages), written, top, tuple(flats))


# --- stages and their names


def _raw_stages(tables: Mapping[str, Any], origin: str, problems: Problems) -> list[Any]:
    """The `[[stage]]` tables, or one empty table if there are none: then everything stands outside."""
    if "stage" not in tables:
        return [{}]
    given = tables["stage"]
    if isinstance(given, Mapping | Stage) or not isinstance(given, list | tuple):
        problems.add(f"stage must be a list of tables: write [[stage]] with two brackets ({origin})", ("stage",))
        return []
    if not given:
        problems.add(f"stage is an empty list: write one [[stage]] table or more, or leave it out ({origin})")
    return list(given)


def _stage_names(raw: Sequence[Any], outside_kind: Any, problems: Problems) -> list[str]:
    """A stage is called by its name, else after its kind, with its number where several would be called the same, or
    where a key is called so.
    """
    given = [name if isinstance(name, str) and name else None for name in (_get(stage, "name") for stage in raw)]
    kinds = [_name_of(_get(stage, "kind") or outside_kind or "grpo") for stage in raw]
    unnamed = [kind for name, kind in zip(given, kinds) if name is None]
    alone = {kind for kind in unnamed if unnamed.count(kind) == 1 and kind not in Stage.model_fields}
    numbered = [kind if kind in alone else f"{kind}-{n}" for n, kind in enumerate(kinds, start=1)]
    names = [name or other for name, other in zip(given, numbered)]
    twice = said_twice(names)
    for name in dict.fromkeys(name for name in given if name is not None):
        if name in twice:
            problems.add(f"two stages are called {name!r}: give each its own name")
        if name in Stage.model_fields or name in TOP_KEYS:
            problems.add(f"a stage cannot be called {name!r}, which is the name of a key: give it another name")
        elif problem := name_problem(name):
            problems.add(f"stage name {problem}")
        elif "." in name:  # it goes in front of keys
            problems.add(f"stage name {name!r} has a dot: use '-' or '_'")
    return names


def _name_of(kind: Any) -> str:
    """What a stage without a name is called: its kind, and of "module:name" the name."""
    return str(kind).rpartition(":")[2]


def _get(stage: Any, key: str) -> Any:
    if isinstance(stage, Stage):
        return getattr(stage, key) if key in stage.model_fields_set else None
    return stage.get(key) if isinstance(stage, Mapping) else None


# --- layers


def merge(base: Flat, layer: Flat) -> Flat:
    """`layer` over `base`, by the rules at the top of this file."""
    dropped: set[Path] = set()
    preset = layer.get(("objective", "preset"))
    before = base.get(("objective", "preset"))
    if preset and preset.value != (before.value if before else "grpo"):
        dropped.update(path for path in base if path[0] == "objective" and len(path) > 1)
    if any(path[:2] == ("task", "mixture") and len(path) > 2 for path in layer):
        dropped.add(("task", "source"))
    elif ("task", "source") in layer:
        dropped.update(path for path in base if path[:2] == ("task", "mixture"))
    if _given(layer, "model") and not _given(layer, "scratch"):
        dropped.update(path for path in base if path[:2] in (("policy", "scratch"), ("policy", "revision")))
    if _given(layer, "scratch") and not _given(layer, "model"):
        dropped.update(path for path in base if path[:2] in (("policy", "model"), ("policy", "revision")))
    for path, written in layer.items():
        if path[0] == "reward" or written.value is None:
            dropped.update(longer for longer in base if longer[: len(path)] == path)
    return {path: written for path, written in base.items() if path not in dropped} | layer


def _without_start(layer: Flat) -> Flat:
    """A layer without what it says about where training starts."""
    return {path: written for path, written in layer.items() if path[:2] not in _START}


def _given(flat: Flat, key: str) -> bool:
    return ("policy", key) in flat and flat["policy", key].value is not None


def _starts(flat: Flat) -> bool:
    """Whether a stage names a model to start from."""
    return _given(flat, "model") or _given(flat, "scratch")


def _with_rate(flat: Flat) -> Flat:
    """The stage with the learning rate that goes with adapters, where it has these and names none."""
    if not _given(flat, "lora") or ("optimizer", "learning_rate") in flat:
        return flat
    rate = Written(default_rate(lora=True), f"default with policy.lora: {LORA_FACTOR} times that of full training")
    return {("optimizer",): Written({}, "default"), **flat, ("optimizer", "learning_rate"): rate}


def _with_teaching(flat: Flat) -> Flat:
    """The stage with the objective of its kind, where that learns from a teacher: all of it where no preset is named,
    and the weight of the teacher where none is.
    """
    kind = str(flat["kind",].value) if ("kind",) in flat else ""
    if kind not in OBJECTIVES:
        return flat
    fields = {**({} if ("objective", "preset") in flat else OBJECTIVES[kind]), "teacher_coef": TEACHER_COEF}
    own: Flat = {("objective", name): Written(value, f"default of {kind} stages") for name, value in fields.items()}
    return {("objective",): Written({}, "default"), **own, **flat}


def _without_steps(flat: Flat) -> Flat:
    """An evaluate stage takes none, whatever stages that train are told outside of it."""
    if ("kind",) not in flat or flat["kind",].value != "evaluate":
        return flat
    return {("run",): Written({}, "default"), **flat, ("run", "steps"): Written(0, "kind evaluate takes no steps")}


def _overridden(flats: list[Flat], names: list[str], typed: list[Override], problems: Problems) -> list[Flat]:
    """The stages with the overrides for all of them, then with those for one of them."""
    everywhere = [o for o in typed if o.stage is None and o.path[0] not in TOP_KEYS]
    # The value of `reward` itself may be overridden too, and then it decides which rewards there are.
    whole = [o for o in everywhere if o.path == ("reward",)]
    flats = [merge(flat, override_layer(whole, (), problems)) for flat in flats]
    known = [name for flat in flats for name in _reward_names(flat)]
    layer = override_layer([o for o in everywhere if o not in whole], list(dict.fromkeys(known)), problems)
    result = []
    for index, (flat, name) in enumerate(zip(flats, names)):
        here = layer if index == 0 or _starts(flat) else _without_start(layer)
        own_rewards = _reward_names(flat)
        here = {p: w for p, w in here.items() if p[0] != "reward" or p[1] in own_rewards}
        flat = merge(flat, here)
        named = [o for o in typed if o.stage == name]
        flat = merge(flat, override_layer([o for o in named if o.path == ("reward",)], (), problems))
        rest = [o for o in named if o.path != ("reward",)]
        result.append(merge(flat, override_layer(rest, _reward_names(flat), problems)))
    return result


def _reward_names(flat: Flat) -> list[str]:
    items = flat[("reward",)].value if ("reward",) in flat else []
    return [item["name"] if item.get("name") is not None else reward_name(item["use"]) for item in items]


def _top(
    tables: Mapping[str, Any], origin: str, default_name: str, typed: list[Override], problems: Problems
) -> dict[str, Written]:
    """The recipe's name and seed."""
    top = {"name": Written(default_name, "default"), "seed": Written(0, "default")}
    top.update({key: Written(tables[key], origin) for key in top if key in tables})
    for override in typed:
        key = override.path[0]
        if override.stage is None and key in TOP_KEYS and len(override.path) > 1:
            problems.add(f"{key} is one value and no table: {'.'.join(override.path)!r} ({ORIGIN})")
        elif override.stage is None and key in TOP_KEYS:
            top[key] = Written(override.text if key == "name" else override.value, ORIGIN)
    name, seed = top["name"], top["seed"]
    if not isinstance(name.value, str):
        problems.add(f"name must be text, not {shown(name.value)} ({name.origin})")
    elif problem := name_problem(name.value):
        problems.add(f"name {problem} ({name.origin})")
    if type(seed.value) is not int or not 0 <= seed.value <= LARGEST_SEED:
        problems.add(f"seed must be a whole number from 0 to 2^63 - 1, not {shown(seed.value)} ({seed.origin})")
    return top


# --- from layers to a stage


def _nested(flat: Flat, prefix: str, problems: Problems) -> dict[str, Any]:
    """Tables inside tables; shorter paths first, because a table comes before what is in it. A source of prompts that
    nobody named is a problem.
    """
    nested: dict[str, Any] = {}
    for path in sorted(flat, key=len):
        value = flat[path].value
        if path == ("reward",):
            value = [dict(item) for item in value]
        if path[0] == "reward" and len(path) > 1:
            for item in (one for one, name in zip(nested["reward"], _reward_names(flat)) if name == path[1]):
                for key in path[2:-1]:  # a table of the reward's own, which stays as it was written
                    item[key] = item = dict(item.get(key) or {})
                item[path[-1]] = value
            continue
        place = nested
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = dict(value) if isinstance(value, dict) else value
    task = nested.setdefault("task", {})
    named: dict[Path, Any] = {("task", "mixture", name, "source"): of for name, of in task.get("mixture", {}).items()}
    for path, table in (named or {("task", "source"): task}).items():
        if table.get("source") is None:
            if not problems.touch(path, path if named else ("task", "mixture")):
                problems.add(missing(f"{prefix}{'.'.join(path)}", Source.model_fields["source"]), path)
            table["source"] = "missing"  # so that the rest can be checked
    for name, table in (nested.get("monitor", {}).get("adapt") or {}).items():
        for key, known in Adapt.model_fields.items():
            if key not in table:
                path = ("monitor", "adapt", name, key)
                if not problems.touch(path):
                    problems.add(missing(f"{prefix}{'.'.join(path)}", known), path)
                table[key] = "temperature" if key == "setting" else 1.0
    return nested


def _origin(path: str, value: Any, flat: Flat, index: int) -> str:
    """Where the value at a dotted path of a stage comes from."""
    parts = tuple(path.split("."))
    if parts[0] == "suite":
        items = {item.get("name") or item.get("kind", "performance"): item for item in flat[("suite",)].value}
        return flat[("suite",)].origin if parts[-1] in items[".".join(parts[1:-1])] else "default"
    if parts[0] == "reward":
        parts = ("reward", ".".join(parts[1:-1]), parts[-1])
        written = [path for path in flat if path[:3] == parts]  # or a key in a table of it
        if written:
            return flat[written[-1]].origin
        items = dict(zip(_reward_names(flat), flat[("reward",)].value)) if ("reward",) in flat else {}
        return flat[("reward",)].origin if parts[2] in items.get(parts[1], {}) else "default"
    if parts[0] == "objective" and value is None:
        return "preset"
    if index and path in ("policy.model", "policy.scratch") and not _starts(flat):
        return "the stage before"
    return flat[parts].origin if parts in flat else "default"


def flatten(table: Table, at: str = "") -> dict[str, Any]:
    """Every value of a stage by its dotted path; rewards and suites by their name, a table that is missing as None."""
    flat: dict[str, Any] = {}
    for name in type(table).model_fields:
        value, path = getattr(table, name), f"{at}{name}"
        if isinstance(value, Table):
            flat.update(flatten(value, f"{path}."))
        elif isinstance(value, dict) and value and all(isinstance(item, Table) for item in value.values()):
            for key, item in value.items():
                flat.update(flatten(item, f"{path}.{key}."))
        elif name in ("reward", "suite") and isinstance(value, tuple):
            for item in value:
                flat.update(flatten(item, f"{path}.{item.name}."))
        elif path != "name":
            flat[path] = value
    return flat
