"""What a run writes into its chain while it trains: an entry for all that is on disk, as docs/record.md has it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort.monitor.detectors.finding import Finding
from cohort.monitor.watcher import INCIDENTS, lines_of, read_incidents
from cohort.record.chain import Chain
from cohort.record.entries import digest_of, written
from cohort.record.files import write_bytes
from cohort.record.manifest import sha256_of
from cohort.record.merkle import EMPTY, Tree
from cohort.record.metrics import lines_after
from cohort.record.rollouts import Shard, shards_after, write_groups
from cohort.types import Group

OF_RUN = ("recipe.toml", "environment.json", "gate.json")  # files of the run that the genesis of a stage names


@dataclass
class Recorder:
    """Appends to the chain what one stage does. Rollouts of a step wait for its numbers, so that one entry has both;
    where an evaluation comes in between, they are entered before it: never is more than one shard without its entry.
    """

    chain: Chain
    directory: Path  # of the stage
    stage: str
    _waiting: list[Shard] = field(default_factory=list)
    _entered: int = 0  # the last step whose rollouts have an entry already
    _same: dict[str, Any] = field(default_factory=dict)  # what every entry says of the recipe and the verifiers

    def begin(self, facts: Mapping[str, Any], recorded: int, environment: bytes | None) -> None:
        """The genesis of the stage; where it has begun already, what it goes on with and what it abandons: all after
        the step `recorded`. `facts` are the tables of the entry, and `environment` the new environment.json, if it is
        another, which is written here.
        """
        run, chain = self.chain.run, self.chain
        kept = {name: run / name for name in OF_RUN} | {path.name: path for path in run.glob("data*.jsonl")}
        files = {name: sha256_of(path) for name, path in kept.items() if path.is_file()}
        if environment is not None:
            files["environment.json"] = hashlib.sha256(environment).hexdigest()
        place = self.directory.relative_to(run).as_posix() if self.directory != run else ""
        recipe = {"stage": self.stage, "place": place, "files": files} | facts["recipe"]
        verifiers = facts["verifiers"]
        self._same = {
            "recipe": {"stage": self.stage, "sha256": files["recipe.toml"]},
            "verifiers": {"sha256": digest_of(written(verifiers))},
        }
        if environment is not None and not chain.size:  # nothing says yet what it was before
            write_bytes(run / "environment.json", environment)
        if self.stage not in chain.stages:
            chain.append("genesis", policy=facts["policy"], verifiers=verifiers, recipe=recipe)
        else:
            shards = [
                {"path": chain.relative(path), "sha256": sha256_of(path), "rows": None}
                for path in shards_after(self.directory / "log", recorded)
            ]
            lines = lines_after(self.directory / "metrics.jsonl", recorded)
            abandoned = {"abandoned": [digest_of(line) for line in lines]}
            policy = {"after": recorded}
            incidents = self.directory / "log" / INCIDENTS
            if incidents.exists():  # what is found again is written again
                remain = lines_of(read_incidents(self.directory, recorded))
                files[chain.relative(incidents)] = hashlib.sha256(remain).hexdigest()
            chain.append("resume", shards=shards, policy=policy, verifiers=verifiers, recipe=recipe, metrics=abandoned)
            if incidents.exists():
                write_bytes(incidents, remain)
        if environment is not None:
            write_bytes(run / "environment.json", environment)

    def rollouts(self, groups: Sequence[Group], step: int) -> None:
        """Write the rollouts of a step."""
        self._waiting.append(write_groups(self.directory / "log" / f"step-{step:06d}.parquet", groups, step))

    def evaluation(self, groups: Sequence[Group], step: int, name: str) -> None:
        """Write the completions of an evaluation."""
        path = self.directory / "log" / f"eval-{step:06d}-{name}.parquet"
        self._enter("evaluation", [write_groups(path, groups, step)], {"step": step, "name": name})

    def file(self, path: Path, content: bytes, step: int) -> None:
        """Write another file that an evaluation leaves."""
        if not path.exists():
            write_bytes(path, content)
        files = {self.chain.relative(path): hashlib.sha256(content).hexdigest()}
        self._enter("evaluation", [], {"step": step, "name": path.stem}, files)
        write_bytes(path, content)

    def before_evaluation(self, step: int) -> None:
        """Enter the rollouts of a step that is evaluated next."""
        if self._waiting:
            self._enter("step", self._waiting, {"step": step})
            self._waiting, self._entered = [], step

    def line(self, step: int, line: bytes, measured: Mapping[str, float]) -> None:
        """Enter the line of metrics.jsonl that a step has come to."""
        metrics = {"step": step, "sha256": digest_of(line)} | ({"measured": dict(measured)} if measured else {})
        self._enter("step" if step > self._entered else "evaluation", self._waiting, metrics)
        self._waiting, self._entered = [], step

    def incidents(self, found: Sequence[Finding], step: int) -> None:
        """Enter all that the detectors have found up to a step, and write it."""
        path, content = self.directory / "log" / INCIDENTS, lines_of(found)
        if not path.exists():
            write_bytes(path, b"")
        files = {self.chain.relative(path): hashlib.sha256(content).hexdigest()}
        detectors = [one.detector for one in found if one.step == step]
        recipe = {**self._same["recipe"], "files": files}
        self.chain.append("incident", recipe=recipe, metrics={"step": step, "detectors": detectors})
        write_bytes(path, content)

    def checkpoint(self, step: int, path: Path, files: Mapping[str, str], kept: Sequence[Path]) -> None:
        """Enter a checkpoint that is about to take its place; `kept` are those that stay beside it."""
        policy = {"step": step, "path": self.chain.relative(path), "files": files}
        self.chain.append(
            "checkpoint", policy=policy | {"kept": [self.chain.relative(one) for one in kept]}, **self._same
        )

    def close(self, step: int, path: Path, files: Mapping[str, str]) -> None:
        """Enter the final model, which is about to take its place: the stage is done."""
        self.chain.append(
            "close", policy={"step": step, "path": self.chain.relative(path), "files": files}, **self._same
        )

    def _enter(
        self, kind: str, shards: Sequence[Shard], metrics: Mapping[str, Any], files: Mapping[str, str] | None = None
    ) -> None:
        tree = Tree(leaf for shard in shards for leaf in shard.leaves)
        versions = [version for shard in shards for version in shard.versions]
        same = self._same if files is None else {**self._same, "recipe": {**self._same["recipe"], "files": files}}
        self.chain.append(
            kind,
            merkle_root=tree.root() if shards else EMPTY,
            n=tree.size,
            shards=[
                {"path": self.chain.relative(shard.path), "sha256": shard.sha256, "rows": len(shard.leaves)}
                for shard in shards
            ],
            policy={"versions": [min(versions), max(versions)]} if versions else {},
            metrics=metrics,
            **same,
        )


def replace_files(chain: Chain, files: Mapping[str, bytes]) -> None:
    """Write files of the run anew, and say so first where the chain knows what they were."""
    changed = {
        name: content
        for name, content in files.items()
        if not (path := chain.run / name).is_file() or path.read_bytes() != content
    }
    if changed and chain.size:
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in changed.items()}
        chain.append("resume", recipe={"files": digests})
    for name, content in changed.items():
        write_bytes(chain.run / name, content)
