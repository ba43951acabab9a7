"""What a chain says, read once from its first entry to its last: what must lie in the run, and what was given up."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort.record.chain import CHAIN, HEADS, read_lines
from cohort.record.entries import FIRST, FORMAT, KINDS, UNSIGNED, digest_of, parsed, problem, version_of
from cohort.record.keys import is_signed, key_id, known_keys, opened, public_key
from cohort.record.report import Status
from cohort.types import UnreadableError

Say = Callable[[int, str, Status, str], None]  # level, name of the check, status, detail


@dataclass
class Files:
    """A directory that an entry names: a checkpoint, or a final model."""

    digests: Mapping[str, str]
    step: int
    seq: int
    required: bool = True


@dataclass
class StageTrail:
    """What the chain says of one stage."""

    place: str
    closed: bool = False
    cuts: list[tuple[int, int]] = field(default_factory=list)  # (entry, the last step that it keeps)
    directories: dict[str, Files] = field(default_factory=dict)
    leftover: dict[str, str] = field(default_factory=dict)  # shards that the last resume abandoned: they may lie there
    lines: set[str] = field(default_factory=set)  # of metrics.jsonl, likewise

    def lives(self, seq: int, step: int) -> bool:
        """Whether what an entry says of a step still counts: no later one went back behind it."""
        return not any(cut > seq and step > after for cut, after in self.cuts)


@dataclass
class Trail:
    """All that the chain says."""

    size: int = 0
    head: str = FIRST
    last: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, StageTrail] = field(default_factory=dict)
    named: dict[str, tuple[str, str | None, int]] = field(default_factory=dict)  # path: digest, the one before, entry
    shards: dict[str, tuple[str, str | None, int]] = field(
        default_factory=dict
    )  # likewise, of those that were rewritten
    inputs: dict[str, str] = field(default_factory=dict)
    signed: dict[int, tuple[str, str | None]] = field(default_factory=dict)  # entry: its digest, the key that it shows
    anchored: bool = False

    def note(self, entry: Mapping[str, Any], seq: int) -> None:
        """Take in one entry whose form is right."""
        kind, recipe, policy = entry["kind"], entry["recipe"], entry["policy"]
        for path, digest in recipe.get("files", {}).items():
            self._name(path, digest, seq)
        for table in ("policy", "verifiers", "recipe"):
            self.inputs |= entry[table].get("inputs", {})
        if kind == "amend" or kind == "incident":
            for shard in entry["shards"]:
                if shard["rows"] is None:
                    self._name(shard["path"], shard["sha256"], seq)
                else:
                    before = self.shards[shard["path"]][0] if shard["path"] in self.shards else None
                    self.shards[shard["path"]] = (shard["sha256"], before, seq)
        stage = self.stages.get(recipe.get("stage", ""))
        if kind == "genesis" and stage is None:
            self.stages[recipe.get("stage", "")] = StageTrail(recipe.get("place", ""))
        elif kind == "resume" and stage is not None and "after" in policy:
            self._resume(stage, entry, seq)
        elif kind in ("checkpoint", "close") and stage is not None and "path" in policy:
            if kind == "close":
                stage.closed = True
            else:
                kept = {*policy.get("kept", ()), policy["path"]}
                for path, files in stage.directories.items():
                    files.required = files.required and (path in kept or path.endswith("final"))
            stage.directories[policy["path"]] = Files(policy.get("files", {}), policy.get("step", 0), seq)

    def _resume(self, stage: StageTrail, entry: Mapping[str, Any], seq: int) -> None:
        after = entry["policy"]["after"]
        stage.cuts.append((seq, after))
        stage.closed = False
        stage.leftover = {shard["path"]: shard["sha256"] for shard in entry["shards"]}
        stage.lines = set(entry["metrics"].get("abandoned", ()))
        for path, files in list(stage.directories.items()):
            if path.endswith("final"):
                files.required = False
            elif files.step > after:
                del stage.directories[path]
        for path in stage.leftover:
            self.shards.pop(path, None)

    def _name(self, path: str, digest: str, seq: int) -> None:
        before = self.named[path][0] if path in self.named else None
        self.named[path] = (digest, before, seq)


def read_trail(run: Path, say: Say, anchor: str = "") -> Trail:
    """Read the chain of a run and say what is wrong with it. Raises `UnreadableError` where there is none, or where a
    newer version has written it.
    """
    trail, wrong, readable = Trail(), 0, 0
    heads, newer = _heads(run), ""
    for seq, line in enumerate(read_lines(run / CHAIN)):
        found = digest_of(line)
        trail.size += 1
        try:
            entry = parsed(line)
            readable += 1
        except ValueError:
            say(1, "chain", "failed", f"{CHAIN}: entry {seq} cannot be read")
            entry = {}
        follows = entry.get("prev") == trail.head and entry.get("seq") == seq
        if entry and not follows:
            say(
                *(1, "chain", "failed"),
                f"{CHAIN}: entry {seq} does not follow the one before it: one of them was changed, or one was removed, "
                "inserted, repeated or moved here",
            )
        wrong += not follows
        intact = follows and heads.get(seq, found) == found
        unknown = entry.get("kind") not in KINDS or version_of(entry) > FORMAT
        if entry and unknown and isinstance(entry.get("kind"), str):
            what = f"{CHAIN}: entry {seq} is of the kind {entry['kind']!r}, format {version_of(entry)}"
            newer = newer or (what if intact else "")
            if not intact:
                say(0, "schema", "failed", f"{what}, which there is not")
        elif entry and (mistake := problem(entry)):
            say(0, "schema", "failed", f"{CHAIN}: entry {seq}: {mistake}")
        elif entry:
            if seq == 0 and entry["kind"] != "genesis":
                say(1, "chain", "failed", f"{CHAIN}: the first entry is no genesis: what came before it was removed")
            trail.note(entry, seq)
            if entry["kind"] not in UNSIGNED:
                trail.signed[seq] = (found, entry["recipe"].get("key"))
            trail.last = entry
        trail.head, trail.anchored = found, trail.anchored or found == anchor
    if not readable:
        raise UnreadableError(
            f"{run / CHAIN} {'holds no entry' if (run / CHAIN).exists() else 'is not there'}: {run} is no run with a "
            "record. Runs of an older Cohort have none"
        )
    if newer and not wrong:
        raise UnreadableError(f"{newer}: a newer Cohort has written it; verify it with that one")
    return trail


def check_signatures(run: Path, trail: Trail, say: Say, key: Path | None) -> None:
    """The heads: each signs the entry that is there, by the key that the entry shows; and whether that key is known."""
    known, shown, used = known_keys(key), {}, set()
    for text in {text for _, text in trail.signed.values() if text is not None}:
        raw = base64.b64decode(text)
        shown[key_id(raw)] = public_key(raw)
    missing: dict[int, str] = {seq: text for seq, (_, text) in trail.signed.items() if text is not None}
    before = -1
    for number, line in enumerate(read_lines(run / HEADS), start=1):
        where = f"{HEADS}: line {number}"
        try:
            payload, name, signature = opened(line)
            entry = parsed(payload)
            seq = entry["seq"]
            if type(seq) is not int:
                raise ValueError("it signs no entry")
        except (ValueError, KeyError) as error:
            say(1, "signatures", "failed", f"{where} cannot be read: {error}")
            continue
        public = known.get(name) or shown.get(name)
        if seq <= before:
            say(1, "signatures", "failed", f"{where} was inserted, repeated or moved: it signs entry {seq}")
        elif public is not None and not is_signed(public, payload, signature):
            say(1, "signatures", "failed", f"{where}: the signature of entry {seq} is wrong")
        elif seq == trail.size and entry.get("prev") == trail.head:
            say(1, "signatures", "skipped", f"entry {seq} is signed and not in {CHAIN}: the run was stopped in between")
        elif seq >= trail.size:
            say(1, "signatures", "failed", f"{CHAIN} is cut off: {where} signs entry {seq}, and it has {trail.size}")
        elif trail.signed.get(seq, ("", None))[0] != digest_of(payload):
            say(1, "signatures", "failed", f"{where} signs another entry {seq} than {CHAIN} has")
        else:
            if key_id(base64.b64decode(missing.pop(seq, ""))) != name:
                say(1, "signatures", "failed", f"{where} is by another key than entry {seq} shows")
            used.add(name)
        before = max(before, seq)
    for seq in missing:
        say(1, "signatures", "failed", f"{HEADS} lacks the signature of entry {seq}")
    _say_trust(used, known, say, key)


def _say_trust(used: set[str], known: Mapping[str, Any], say: Say, key: Path | None) -> None:
    unknown = sorted(used - known.keys())
    if unknown:
        detail = f"signed by {', '.join(unknown)}, which is not known here, so anybody may have written this record"
        hint = "; --key FILE takes the public key of whom you trust"
        say(1, "key", "failed" if known else "skipped", detail + hint)
    elif used:
        say(1, "key", "holds", f"signed by {', '.join(sorted(used))}, which is known here")
    elif key is not None:
        say(1, "key", "failed", f"the run is not signed, and {key} was asked for")
    else:
        say(1, "key", "skipped", "the run is not signed")


def _heads(run: Path) -> dict[int, str]:
    """The digests of the entries that are signed, as far as they can be read."""
    found = {}
    for line in read_lines(run / HEADS):
        try:
            payload = opened(line)[0]
            found[parsed(payload)["seq"]] = digest_of(payload)
        except (ValueError, KeyError, TypeError):
            continue
    return found
