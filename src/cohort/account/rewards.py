"""Where rewards come from: their sources, code, domains and kinds, how they are normalised, where they are brittle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from cohort.account.sources import StageFiles
from cohort.algorithms.explain import meaning
from cohort.record.claims import Claim, gap
from cohort.rewards.built_in import BUILT_IN, BuiltIn
from cohort.settings import Reward
from cohort.settings.words import plain

Kind = Literal["verifiable", "judged", "learned"]
_KINDS: Mapping[str, Kind] = {  # the first part of a built-in's module that fits says what kind it is
    "cohort.rewards.judge.": "judged",
    "cohort.rewards.models.": "learned",
    "cohort.rewards.verifiers.": "verifiable",
    "cohort.integrations.reasoning_gym.": "verifiable",
}
NONE = "the stage trains without a reward"


def kind_of_reward(reward: Reward) -> Kind | None:
    """Whether a rule decides, a judge or a trained model; None for code of one's own, which may be any of them."""
    built_in = _built_in(reward)
    function = "" if built_in is None else built_in.function
    return next((kind for start, kind in _KINDS.items() if function.startswith(start)), None)


def _built_in(reward: Reward) -> BuiltIn | None:
    return BUILT_IN.get(reward.use) if isinstance(reward.use, str) else None


def sources(files: StageFiles) -> Claim:
    """Every reward with its weight and its place in the sum."""
    if not files.stage.reward:
        return gap("derived", NONE, "not_applicable")
    kept = ("weight", "when", "gate", "split", "fold", "args")
    rows = [
        {"name": one.name, "use": plain(one.use), "kind": kind_of_reward(one), "domain": one.domain}
        | {name: value for name in kept if (value := getattr(one, name)) not in (None, {})}
        for one in files.stage.reward
    ]
    return files.set_by(rows)


def verifier(files: StageFiles) -> Claim:
    """The code that scores: of a built-in its version, what it says, and the code that came with its model and was run;
    of one's own a fingerprint of the source.
    """
    code = files.run.environment.get("code", {})
    ran = files.run.environment.get("remote_code_of_rewards", {}).get(files.stage.name, {})
    version = files.run.environment.get("packages", {}).get("cohort")
    rows: list[dict[str, Any]] = []
    for one in files.stage.reward:
        if (built_in := _built_in(one)) is not None:
            came = {"came": {name: digest for digest, name in ran.items()}} if one.args.get("trust_remote_code") else {}
            rows.append({"name": one.name, "code": built_in.function, "cohort": version, "says": built_in.line, **came})
        else:
            found = code.get(f"reward {one.name} of stage {files.stage.name}")
            rows.append({"name": one.name, "code": plain(one.use), "blake2b": found})
    if not rows:
        return gap("measured", NONE, "not_applicable")
    unknown = [row["name"] for row in rows if "blake2b" in row and row["blake2b"] is None]
    why = f"no fingerprint of {', '.join(unknown)}: its source could not be read" if unknown else None
    return files.run.claim("measured", rows, "environment.json", reason=why)


def domains(files: StageFiles) -> Claim:
    """Which domains supplied rewards, by domain; the recipe says so under `domain`."""
    if not files.stage.reward:
        return gap("declared", NONE, "not_applicable")
    unnamed = [one.name for one in files.stage.reward if one.domain is None]
    found: dict[str, list[str]] = {}
    for one in files.stage.reward:
        if one.domain is not None:
            found.setdefault(one.domain, []).append(one.name)
    if not found:
        return gap("declared", "no [[reward]] says its domain")
    why = f"{', '.join(unnamed)} says no domain" if unnamed else None
    return files.run.claim("declared", found, "recipe.toml", reason=why)


def based_on(files: StageFiles) -> Claim:
    """Whether rewards are rules or models."""
    if not files.stage.reward:
        return gap("derived", NONE, "not_applicable")
    kinds = {one.name: kind_of_reward(one) for one in files.stage.reward}
    own = [name for name, kind in kinds.items() if kind is None]
    if len(own) == len(kinds):
        why = f"{', '.join(own)} is code of one's own: whether it is a rule or asks a model is not known"
        return gap("derived", why, "inconclusive")
    groups = {
        word: [name for name, kind in kinds.items() if kind in meant]
        for word, meant in {"rule": ("verifiable",), "model": ("judged", "learned"), "unknown": (None,)}.items()
    }
    return files.set_by({word: names for word, names in groups.items() if names} | {"kinds": kinds})


def normalisation(files: StageFiles) -> Claim:
    """What becomes of the rewards of a group before the gradient."""
    fields = ("baseline", "scale", "ddof", "eps", "zero_std", "rewards")
    o = files.objective
    found = {name: {"value": getattr(o, name), "says": meaning(o, name)} for name in fields}
    return files.set_by(found)


def tested(files: StageFiles) -> Claim:
    """What every reward paid before the first step: gold answers, and texts that know nothing of the question."""
    gate = files.gate
    if gate.get("verdict") == "off":
        return gap("measured", 'run.gate = "off": the rewards were not put to the test')
    if "rewards" not in gate:
        return gap("measured", "the gate found nothing: there are no rewards, or it was not asked")
    return files.run.claim("measured", dict(gate), "gate.json")


def brittle(files: StageFiles) -> Claim:
    """Where the rewards are known to be brittle: what a person declared, and what the gate noted."""
    declared = files.stage.record.brittle or files.run.declared.brittle
    noted = [*files.gate.get("problems", []), *files.gate.get("notes", [])]
    if declared is None and not noted:
        return gap("declared", "[record] brittle is not given, and the gate noted nothing")
    found = {"declared": list(declared or ()), "noted_by_the_gate": noted}
    why = None if declared else "[record] brittle is not given: this is what the gate noted"
    return files.run.claim("declared" if declared else "measured", found, "recipe.toml", "gate.json", reason=why)
