"""Check a run of Cohort against its record, without Cohort: `python tools/verify_run.py RUN [PUBLIC_KEY ...]`.

This file needs pyarrow and cryptography, and may be read whole. It checks levels 0 and 1 of docs/record.md: the form of
log/chain.jsonl, the order of its entries, the signatures in log/heads.jsonl, the roots over rollouts, and by digest
every file that is named. Exit code 0: the run is as it was recorded; 1: something is not; 2: there is no record.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import file_digest, sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FIELDS = {"seq", "kind", "prev", "merkle_root", "n", "shards", "policy", "verifiers", "recipe", "metrics", "time"}
KINDS = {"genesis", "step", "checkpoint", "evaluation", "incident", "resume", "amend", "close"}
SENSITIVE = ["answer", "prompt", "prompt_json", "prompt_tokens", "text", "tokens", "turns"]
FREE = {".lock", "rewards.log", "trackers.json", "record.json", "card.md", "card.html", "README.md", ".eval_results"}
TYPE, FORMAT, ZERO = b"application/vnd.cohort.record-entry+json", 1, "0" * 64
DIGEST, PART = r"[0-9a-f]{64}", r"(?!\.{1,2}(?:/|$))[^/\\\0]+"
PATH = f"{PART}(?:/{PART})*"
BAD = (pa.ArrowException, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, struct.error)
canonical = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode  # RFC 8785, but numbers
SIGNED = rb'"payloadType":"%s","signatures":\[\{"keyid":"(\w+)","sig":"([^"]+)"\}\]' % re.escape(TYPE)
ELSEWHERE, failures, notes = "that the run read", list[str](), list[str]()


def lines(file: Path) -> Iterator[bytes]:
    """The whole lines of a file; a last one that a crash has torn is none."""
    if file.is_file():
        with file.open("rb") as handle:
            while (line := handle.readline(1 << 26)).endswith(b"\n"):
                yield line[:-1]


def parsed(line: bytes) -> dict:
    try:
        return {} | json.loads(line.decode("utf-8"), parse_constant=lambda word: {}[word])
    except (RecursionError, KeyError, TypeError) as error:
        raise ValueError("it is no JSON object") from error


def digest(file: Path) -> str | None:
    with suppress(OSError, ValueError):
        return file_digest(file.open("rb"), "sha256").hexdigest() if file.is_file() else None
    return None


def digests(folder: Path) -> dict[str, str | None]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("[!.]*") if path.is_file()}
    return {name: digest(path) for name, path in found.items() if name.split("/")[0] not in FREE}


def well_formed(entry: dict) -> bool:
    """Whether an entry has its fields, each with what it must hold."""
    try:
        policy, recipe, metrics, shards = entry["policy"], entry["recipe"], entry["metrics"], entry["shards"]
        tables, place, key = (recipe, policy, entry["verifiers"]), recipe.get("place", ""), recipe.get("key")
        files = [item for table in tables for name in ("files", "inputs") for item in table.get(name, {}).items()]
        inside = [path for table in tables[:2] for path in table.get("files", {})]
        inside += [*(shard["path"] for shard in shards), *policy.get("kept", []), policy.get("path", "-"), place or "-"]
        sums = [entry["prev"], entry["merkle_root"], metrics.get("sha256", ZERO), *metrics.get("abandoned", [])]
        sums += [*(value for _, value in files), *(shard["sha256"] for shard in shards)]
        numbers = [entry["seq"], entry["n"], *(shard["rows"] for shard in shards if shard["rows"] is not None)]
        steps = [policy.get("step", 0), policy.get("after", 0), metrics.get("step", 0), recipe.get("format", 1)]
        datetime.fromisoformat(entry["time"])
        return (
            entry.keys() == FIELDS
            and all(shard.keys() == {"path", "sha256", "rows"} for shard in shards)
            and all(isinstance(value, dict) for value in (*tables, metrics))
            and all(isinstance(value, str) for value in (entry["kind"], recipe.get("stage", ""), place))
            and all(type(number) is int for number in numbers + steps)
            and min(numbers) >= 0
            and all(re.fullmatch(DIGEST, value) for value in sums)
            and all(re.fullmatch(PATH, path, re.DOTALL) for path in inside)
            and (key is None or len(base64.b64decode(key, validate=True)) == 32)
        )
    except BAD:
        return False


def root(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash, as RFC 6962 defines it."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    left = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\1" + root(leaves[:left]) + root(leaves[left:])).digest()


def rows_of(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """The leaf of every row, in which sensitive fields are salted hashes; its ticket; how many tokens were sampled."""
    with pq.ParquetFile(path) as file:
        kinds = {field.name: field.type for field in file.schema_arrow}
        for row in (row for batch in file.iter_batches(4096) for row in batch.to_pylist()):
            ticket, sampled, _ = row["ticket"], sum(row["mask"] or []), row.pop("leaf")
            salt, erased = row.pop("salt"), row.pop("commitments")
            for name, value in row.items():
                if name in SENSITIVE and salt is None:
                    row[name] = (erased or b"")[32 * SENSITIVE.index(name) :][:32].hex()
                elif name in SENSITIVE:
                    row[name] = sha256(salt + f"{name}\0{canonical(value)}".encode()).hexdigest()
                elif value is not None and pa.types.is_floating(kinds[name]):
                    row[name] = struct.pack("<d", value).hex()
                elif value is not None and pa.types.is_list(kinds[name]):
                    code = {pa.bool_(): "?", pa.float32(): "f"}.get(kinds[name].value_type, "d")
                    row[name] = struct.pack(f"<{len(value)}{code}", *value).hex()
            yield sha256(b"\0" + canonical(row).encode()).digest(), ticket, sampled


def opened(line: bytes) -> list[tuple[bytes, int, str, bytes]]:
    """The payload of a DSSE envelope, the entry that it is, the name of the key and the signature; or nothing."""
    with suppress(*BAD):
        found = re.fullmatch(rb'\{"payload":"([^"]+)",%s\}' % SIGNED, line)
        payload, signature = (base64.b64decode(found[group], validate=True) for group in (1, 3))
        same = [base64.b64encode(payload), base64.b64encode(signature)] == [found[1], found[3]]
        if same and type(seq := parsed(payload)["seq"]) is int:
            return [(payload, seq, found[2].decode(), signature)]
    return []


def is_signed(raw: bytes, payload: bytes, signature: bytes) -> bool:
    with suppress(InvalidSignature, ValueError):
        encoded = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE, len(payload), payload)
        return Ed25519PublicKey.from_public_bytes(raw).verify(signature, encoded) is None
    return False


class Record:
    """The entries of a run, and the run beside them."""

    def __init__(self, run: Path):
        self.run, self.heads, self.entries, self.named = run, [], [], {}
        for number, line in enumerate(lines(run / "log/heads.jsonl"), start=1):
            self.heads += [(f"log/heads.jsonl: line {number}", *head) for head in opened(line)]
            failures.extend([f"log/heads.jsonl: line {number} cannot be read"] * (not opened(line)))
        sums = {seq: sha256(payload).hexdigest() for _, payload, seq, _, _ in self.heads}
        self.size, self.head, readable, newer, broken = 0, ZERO, False, "", False
        for seq, line in enumerate(lines(run / "log/chain.jsonl")):
            found, where, entry = sha256(line).hexdigest(), f"log/chain.jsonl: entry {seq}", {}
            with suppress(ValueError):
                entry, readable = parsed(line), True
            if not (follows := entry.get("prev") == self.head and entry.get("seq") == seq):
                failures.append(f"{where} cannot be read, or does not follow the one before it")
            kind, recipe = entry.get("kind"), entry.get("recipe")
            version = recipe.get("format", 0) if isinstance(recipe, dict) else 0
            later = isinstance(kind, str) and (kind not in KINDS or (type(version) is int and version > FORMAT))
            if later and follows and sums.get(seq, found) == found:
                newer = newer or f"{where} is of a newer version"
            elif later or not well_formed(entry) or (seq == 0 and kind != "genesis"):
                failures.append(f"{where} has not the form of an entry, or of the first one")
            if not later and well_formed(entry):
                self.entries.append(entry | {"seq": seq, "digest": found})
            self.size, self.head, broken = seq + 1, found, broken or not follows
        self.resumes = [e for e in self.entries if e["kind"] == "resume" and "after" in e["policy"]]
        self.refusal = f"{run} has no record that can be read" if not readable else "" if broken else newer

    def check_signatures(self, known: dict[str, bytes]) -> None:
        signed = {entry["seq"]: entry for entry in self.entries if entry["kind"] not in ("step", "evaluation")}
        missing = {seq: base64.b64decode(key) for seq, e in signed.items() if (key := e["recipe"].get("key"))}
        keys, before, used = {sha256(raw).hexdigest(): raw for raw in missing.values()} | known, -1, set()
        for where, payload, seq, name, signature in self.heads:
            if seq <= before:
                failures.append(f"{where} was inserted, repeated or moved")
            elif name in keys and not is_signed(keys[name], payload, signature):
                failures.append(f"{where}: the signature of entry {seq} is wrong")
            elif seq == self.size and parsed(payload).get("prev") == self.head:
                notes.append(f"entry {seq} is signed and not in the chain: stopped in between")
            elif seq >= self.size:
                failures.append(f"log/chain.jsonl is cut off: {where} signs entry {seq} of {self.size}")
            elif signed.get(seq, {}).get("digest") != sha256(payload).hexdigest():
                failures.append(f"{where} signs another entry {seq} than log/chain.jsonl has")
            elif sha256(missing.pop(seq, b"")).hexdigest() != name:
                failures.append(f"{where} is by another key than entry {seq} shows")
            else:
                used.add(name)
            before = max(before, seq)
        failures.extend(f"log/heads.jsonl lacks the signature of entry {seq}" for seq in missing)
        for name in sorted(used - known.keys()) or ([] if used else ["nobody"]):
            (failures if known else notes).append(f"signed by {name}, who is none of those that you trust")

    def lives(self, entry: dict, step: int) -> bool:
        """Whether what an entry says of a step still counts: no later one of its stage went back behind it."""
        stage, later = entry["recipe"].get("stage"), (e for e in self.resumes if e["seq"] > entry["seq"])
        return all(e["policy"]["after"] >= step for e in later if e["recipe"].get("stage") == stage)

    def check(self) -> None:
        """Everything that the entries name: `named` has of a path its digest, the one before, the entry, its step."""
        base = Path.cwd()
        with suppress(*BAD):
            base = Path(parsed((self.run / "environment.json").read_bytes())["directory"])
        for entry in self.entries:
            step, kind, files = entry["metrics"].get("step", 0), entry["kind"], entry["recipe"].get("files", {})
            for table in (entry["policy"], entry["verifiers"], entry["recipe"]):
                for path, wanted in table.get("inputs", {}).items():
                    self.named[str(base / path)] = (wanted, None, entry["seq"], ELSEWHERE)
            sums = {path: (digest, "") for path, digest in files.items()}
            if kind in ("amend", "incident") or (kind in ("step", "evaluation") and self.lives(entry, step)):
                sums |= {shard["path"]: (shard["sha256"], f"(step {step})") for shard in entry["shards"]}
            for shard in entry["shards"] if kind == "resume" else []:
                self.named.pop(shard["path"], None)
            for path, (wanted, where) in sums.items():
                before, *_, told = self.named.get(path, (None, ELSEWHERE if path == "failed.txt" else where))
                self.named[path] = (wanted, before, entry["seq"], told)
        wrong = {path for path in self.named if not self.same(path)}
        for name in {entry["recipe"].get("stage", ""): 0 for entry in self.entries if entry["kind"] == "genesis"}:
            self.check_stage([entry for entry in self.entries if entry["recipe"].get("stage", "") == name], wrong)

    def same(self, path: str) -> bool:
        wanted, before, seq, where = self.named[path]
        found = digest(self.run / path)
        stopped = seq == self.size - 1 and before is not None and found == before
        if not (holds := found == wanted or stopped or (found is None and where == ELSEWHERE)):
            failures.append(f"{path} {where} is {'not as it was written' if found else 'missing'} (entry {seq})")
        return holds

    def check_stage(self, own: list[dict], wrong: set[str]) -> None:
        place = next(entry["recipe"].get("place", "") for entry in own if entry["kind"] == "genesis")
        base, file = f"{place}/" if place else "", self.run / place / "metrics.jsonl"
        given_up = next((e for e in own[::-1] if e["kind"] == "resume" and "after" in e["policy"]), own[0])
        closed = any(entry["kind"] == "close" and entry["seq"] > given_up["seq"] for entry in own)
        metrics, saved = lines(file), [e for e in own if e["kind"] in ("checkpoint", "close") and "path" in e["policy"]]
        for entry in own:
            step = entry["metrics"].get("step", 0)
            if entry["kind"] in ("step", "evaluation") and self.lives(entry, step):
                counted = self.count(entry, f"(step {step})", wrong)
                if (wanted := entry["metrics"].get("sha256")) and (
                    wanted != sha256(line := next(metrics, b"")).hexdigest()
                    or any(parsed(line).get(key, n) != n for key, n in counted.items())
                ):
                    failures.append(f"{base}metrics.jsonl: step {step} is missing or not as it was recorded")
        more, left_out = [sha256(line).hexdigest() for line in metrics], given_up["metrics"].get("abandoned", [])
        if (closed and (more or (file.is_file() and file.read_bytes()[-1:] not in (b"", b"\n")))) or (
            len(more) > 1 and not set(left_out).issuperset(more)
        ):
            failures.append(f"{base}metrics.jsonl goes on after its last recorded line")
        left = {shard["path"]: shard["sha256"] for shard in given_up["shards"]}
        logs = [f"{base}log/{path.name}" for path in (self.run / place / "log").glob("*.parquet")]
        unnamed = [path for path in logs if path not in self.named and left.get(path, "") != digest(self.run / path)]
        failures.extend(f"{path} has no entry in log/chain.jsonl" for path in unnamed if closed or len(unnamed) > 1)
        folders = {}
        for at, entry in enumerate(saved):
            kept = [{*e["policy"].get("kept", []), e["policy"]["path"]} for e in saved[at:] if e["kind"] != "close"]
            path, final = entry["policy"]["path"], entry["kind"] == "close"
            if final or self.lives(entry, entry["policy"].get("step", 0)):
                folders[path] = (entry, closed if final else all(path in names for names in kept))
        present = [path for name in ("checkpoints/step-*", "final") for path in (self.run / place).glob(name)]
        there = {path.relative_to(self.run).as_posix() for path in present}
        failures.extend(f"{path} has no entry in log/chain.jsonl" for path in there - folders.keys())
        for path, (entry, required) in folders.items():
            wanted, found = entry["policy"].get("files", {}), digests(self.run / path)
            waiting = digests((self.run / path).with_name(f".{Path(path).name}.tmp"))
            if found != wanted and (required or path in there) and (entry["seq"] < self.size - 1 or waiting != wanted):
                differ = sorted(inner for inner in found.keys() | wanted if found.get(inner) != wanted.get(inner))
                failures.extend(f"{path}/{inner} is missing, added, or not as it was written" for inner in differ)
        notes.extend([f"the stage in {self.run / place} is unfinished"] * (not closed))

    def count(self, entry: dict, where: str, wrong: set[str]) -> dict[str, int]:
        """Compare the root over the shards of an entry. Returns what metrics.jsonl must count of a step."""
        paths, rows = [shard["path"] for shard in entry["shards"]], list[tuple[bytes, int, int]]()
        if wrong.isdisjoint(paths):
            try:
                rows = [row for path in paths for row in rows_of(self.run / path)]
            except BAD as error:
                failures.append(f"{', '.join(paths)} {where} cannot be read: {error}")
            if (root([row[0] for row in rows]).hex(), len(rows)) != (entry["merkle_root"], entry["n"]):
                failures.append(f"entry {entry['seq']} {where}: the root of its rollouts is another")
        counts = {"groups/sampled": len({row[1] for row in rows}), "tokens/sampled": sum(row[2] for row in rows)}
        return counts if rows and entry["kind"] == "step" else {}


def verify(run: Path, keys: list[Path]) -> int:
    """Check a run, with the public keys (PEM) that are trusted. Returns the exit code."""
    public = (pem.load_pem_public_key(file.read_bytes()) for file in keys)
    raws = [key.public_bytes(pem.Encoding.Raw, pem.PublicFormat.Raw) for key in public]
    if (record := Record(run)).refusal:
        failures.append(record.refusal)
        return 2
    record.check_signatures({sha256(raw).hexdigest(): raw for raw in raws})
    record.check()
    notes.append(f"{record.size} entries, head {record.head}: {'does NOT hold' if failures else 'holds'}")
    return 1 if failures else 0


if __name__ == "__main__":
    code = verify(Path(sys.argv[1]), [*map(Path, sys.argv[2:])])
    for said in dict.fromkeys([*(f"FAILED  {text}" for text in failures), *(f"note    {text}" for text in notes)]):
        print(said.encode("ascii", "backslashreplace").decode())
    sys.exit(code)
