"""What a run writes into its chain while it trains: an entry for all that is on disk, as docs/record.md has it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort.evaluate.choice import Choice
from cohort.record.chain import Chain
from cohort.record.files import write_bytes
from cohort.record.merkle import EMPTY, Tree
from cohort.record.rollouts import Shard, write_groups
from cohort.types import Group


@dataclass
class Recorder:
    """Appends to the chain what one stage does. Rollouts of a step wait for its numbers, so that one entry has both;
    where an evaluation comes in between, they are entered before it: at most one shard waits.
    """

    chain: Chain
    directory: Path  # of the stage
    waiting: list[Shard] = field(default_factory=list)
    same: Mapping[str, Any] = field(default_factory=dict)  # what every entry says of the recipe and the verifiers
    _entered: int = 0  # the last step whose rollouts have an entry already

    def evaluation(self, groups: Sequence[Group], step: int, name: str) -> None:
        """Write the completions of an evaluation."""
        path = self.directory / "log" / f"eval-{step:06d}-{name}.parquet"
        shard = write_groups(path, groups, step)
        self.chain.append("evaluation", metrics={"step": step, "name": name}, **self._of([shard]))

    def file(self, path: Path, content: bytes, step: int, kind: str = "evaluation") -> None:
        """Write another file: what an evaluation leaves, or what detectors have found."""
        if not path.exists():
            write_bytes(path, content)
        files = {self.chain.relative(path): hashlib.sha256(content).hexdigest()}
        self.chain.append(kind, metrics={"step": step, "name": path.stem}, **self._of([], files))
        write_bytes(path, content)

    def enter(self, step: int, **metrics: Any) -> None:
        """Enter the rollouts of a step that wait, with what it has come to in metrics.jsonl."""
        kind = "step" if step > self._entered else "evaluation"
        self.chain.append(kind, metrics={"step": step, **metrics}, **self._of(self.waiting))
        self.waiting, self._entered = [], step

    def model(
        self, kind: str, step: int, path: Path, files: Mapping[str, str], chosen: Choice | None, **beside: Any
    ) -> None:
        """Enter a "checkpoint", or the final model ("close": the stage is done), which is about to take its place.
        `chosen` is the best step so far, where one is chosen.
        """
        policy: dict[str, Any] = {"step": step, "path": self.chain.relative(path), "files": files}
        policy |= {} if chosen is None else {"chosen": chosen.as_dict()}
        self.chain.append(kind, policy=policy | beside, **self.same)

    def _of(self, shards: Sequence[Shard], files: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What an entry says of these shards, or of other files, and what every entry says."""
        tree = Tree(leaf for shard in shards for leaf in shard.leaves)
        versions = [version for shard in shards for version in shard.versions]
        same = self.same if files is None else {**self.same, "recipe": {**self.same["recipe"], "files": files}}
        return {
            "merkle_root": tree.root() if shards else EMPTY,
            "n": tree.size,
            "shards": [
                {"path": self.chain.relative(shard.path), "sha256": shard.sha256, "rows": len(shard.leaves)}
                for shard in shards
            ],
            "policy": {"versions": [min(versions), max(versions)]} if versions else {},
            **same,
        }


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
