"""log/chain.jsonl: the entries of a run, each with the digest of the one before; only ever appended to.

An entry is written ahead of what it names where that takes the place of something: first the new file or directory lies
whole under a name that is not read, then the signature (log/heads.jsonl), then the entry, then the rename. So a crash
at any instant leaves what `Chain.open` can finish: a signature without its entry holds that entry, and an entry whose
directory is still beside its place says what it must be.
"""

from __future__ import annotations

import base64
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cohort.record.entries import FIRST, FORMAT, UNSIGNED, digest_of, is_inside, parsed, version_of, written
from cohort.record.files import beside, put
from cohort.record.keys import Key, opened
from cohort.record.manifest import digests_in
from cohort.record.merkle import EMPTY
from cohort.types import UserError
from cohort.wording import another

CHAIN, HEADS = "log/chain.jsonl", "log/heads.jsonl"
LONGEST = 1 << 26  # bytes of a line; a longer one is no entry


@dataclass
class Chain:
    """The chain of a run, to be appended to. `stages` has of every stage the digest of its last genesis or close."""

    run: Path
    key: Key | None
    size: int = 0
    head: str = FIRST
    stages: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, run: Path, key: Key | str | None, warn: Callable[[str], None], anew: bool = False) -> Chain:
        """The chain of a run, or a new one; what a crash left half done is finished. It is signed with a key; for a
        text, which says why there is none, that is said. With `anew` the chain of a start that left nothing else goes.
        Raises `UserError` for a chain that lacks what was signed, or that a newer version has written.
        """
        if isinstance(key, str):
            warn(
                f"the record of this run is not signed: there is no key, and none can be made ({key}); $COHORT_KEY "
                "names a file for it"
            )
        for name in (CHAIN, HEADS) if anew else ():
            (run / name).unlink(missing_ok=True)
        chain = cls(run, None if isinstance(key, str) else key)
        for name in (CHAIN, HEADS):
            if (cut := _cut_torn(run / name)) > 0:
                warn(f"{run / name} ended in {cut} bytes of a line that was never whole; they are removed")
        last, line = {}, b""
        for line in read_lines(run / CHAIN):
            if b'"kind":"genesis"' in line or b'"kind":"close"' in line:
                chain._note(entry := parsed(line), digest_of(line))
                if version_of(entry) > FORMAT:
                    raise UserError(
                        f"{run} was begun or continued by a newer Cohort (its record has format {version_of(entry)}, "
                        f"and this version writes {FORMAT}): continue it with that version, or start another run "
                        f"with {another()}."
                    )
            chain.size += 1
        if line:
            chain.head, last = digest_of(line), _readable(line, run)
        if (head := _last_line(run / HEADS)) is not None:
            line = _readable_head(head, run)
            signed = _readable(line, run)
            if signed.get("seq") == chain.size and signed.get("prev") == chain.head:
                chain._write(line, signed)
                last = signed
            elif not isinstance(signed.get("seq"), int) or signed["seq"] >= chain.size:
                raise UserError(
                    f"{run / CHAIN} lacks entries that {run / HEADS} has signed, so the record of this run cannot go "
                    f"on. Restore it from a copy, or start another run with {another()}."
                )
        _finish(run, last)
        return chain

    def append(
        self,
        kind: str,
        *,
        merkle_root: str = EMPTY,
        n: int = 0,
        shards: Iterable[Mapping[str, Any]] = (),
        policy: Mapping[str, Any] | None = None,
        verifiers: Mapping[str, Any] | None = None,
        recipe: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> str:
        """Append an entry, and return its digest. One of a kind that is signed is on disk when this returns, and all
        before it with it; a step's is when the next of those is: a crash of the machine may lose it, a kill does not.
        """
        entry = {
            "seq": self.size,
            "kind": kind,
            "prev": self.head,
            "merkle_root": merkle_root,
            "n": n,
            "shards": list(shards),
            "policy": policy or {},
            "verifiers": verifiers or {},
            "recipe": dict(recipe or {}) if kind in UNSIGNED else {**(recipe or {}), "key": self._shown},
            "metrics": metrics or {},
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        line = written(entry)
        if self.key is not None and kind not in UNSIGNED:
            _append(self.run / HEADS, self.key.sign(line), sync=True)
        self._write(line, entry)
        return self.head

    def relative(self, path: Path) -> str:
        """A path inside of the run as the chain names it."""
        return path.relative_to(self.run).as_posix()

    @property
    def _shown(self) -> str | None:
        """The public key, as every entry that is signed shows it."""
        return None if self.key is None else base64.b64encode(self.key.public).decode()

    def _write(self, line: bytes, entry: Mapping[str, Any]) -> None:
        _append(self.run / CHAIN, line, sync=entry["kind"] not in UNSIGNED)
        self.size, self.head = self.size + 1, digest_of(line)
        self._note(entry, self.head)

    def _note(self, entry: Mapping[str, Any], digest: str) -> None:
        if entry["kind"] in ("genesis", "close") and "stage" in entry["recipe"]:
            self.stages[entry["recipe"]["stage"]] = digest


def head_of(run: Path) -> str:
    """The digest of the last entry: whoever keeps it elsewhere can tell later that nothing before it was changed."""
    last = _last_line(run / CHAIN)
    return FIRST if last is None else digest_of(last)


def read_lines(file: Path) -> Iterator[bytes]:
    """The whole lines of a file, without their ends; what a crash left of a last one is not among them. A file that is
    not there has none.
    """
    if not file.is_file():
        return
    with file.open("rb") as handle:
        while line := handle.readline(LONGEST):
            if line.endswith(b"\n"):
                yield line[:-1]
            elif len(line) == LONGEST:
                raise UserError(f"{file} has a line of more than {LONGEST >> 20} MiB, so it is none that Cohort wrote")


def _last_line(file: Path) -> bytes | None:
    return next(iter(deque(read_lines(file), maxlen=1)), None)


def _append(file: Path, line: bytes, sync: bool) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("ab") as out:
        out.write(line + b"\n")
        out.flush()
        if sync:
            os.fsync(out.fileno())


def _cut_torn(file: Path) -> int:
    """Remove what follows the last whole line, and return how many bytes that were."""
    if not file.is_file():
        return 0
    size, whole = file.stat().st_size, 0
    with file.open("r+b") as handle:
        for begin in range(size, 0, -4096):  # from the end
            handle.seek(max(begin - 4096, 0))
            block = handle.read(min(4096, begin))
            if (at := block.rfind(b"\n")) >= 0:
                whole = max(begin - 4096, 0) + at + 1
                break
        if whole < size:
            handle.truncate(whole)
            os.fsync(handle.fileno())
    return size - whole


def _readable(line: bytes, run: Path) -> dict[str, Any]:
    try:
        return parsed(line)
    except ValueError:
        raise UserError(f"the last entry of {run / CHAIN} is damaged; restore it from a copy") from None


def _readable_head(line: bytes, run: Path) -> bytes:
    try:
        return opened(line)[0]
    except ValueError as error:
        raise UserError(f"the last line of {run / HEADS} is damaged ({error}); restore it from a copy") from None


def _finish(run: Path, last: Mapping[str, Any]) -> None:
    """Put the directory that the last entry names in its place, if it is still beside it, whole."""
    policy = last.get("policy", {})
    if last.get("kind") in ("checkpoint", "close") and is_inside(policy.get("path")):
        path = run / policy["path"]
        waiting = beside(path, "tmp")
        if waiting.is_dir() and digests_in(waiting) == policy["files"]:
            put(waiting, path)
