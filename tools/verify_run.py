"""Check a run of Cohort against its record, without Cohort: `python tools/verify_run.py RUN [--key PUBLIC_KEY]...`.

This file needs pyarrow and cryptography, and may be read whole. It checks levels 0 and 1 of docs/record.md: the form of
log/chain.jsonl; that every entry holds the digest of the one before; the signatures in log/heads.jsonl; the root of
every step's rollouts; and by digest every file that the record names. Exit code 0: the run is as it was recorded; 1:
something is not, and is named; 2: there is no record, or a newer version has written it.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import struct
import sys
from collections.abc import Iterator
from datetime import datetime
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FIELDS = {"seq", "kind", "prev", "merkle_root", "n", "shards", "policy", "verifiers", "recipe", "metrics", "time"}
KINDS = {"genesis", "step", "checkpoint", "evaluation", "incident", "resume", "amend", "close"}
SENSITIVE = ["answer", "prompt", "prompt_json", "prompt_tokens", "text", "tokens", "turns"]
FREE = {".lock", "rewards.log", "record.json", "card.md", "card.html", ".eval_results"}  # or made from the record
TYPE, FORMAT, ZERO = "application/vnd.cohort.record-entry+json", 1, "0" * 64
DIGEST, PART = r"[0-9a-f]{64}", r"(?!\.{1,2}(?:/|$))[^/\\\0]+"
PATH = f"{PART}(?:/{PART})*"
BAD = (pa.ArrowException, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, struct.error)
failures: list[str] = []
notes: list[str] = []


torn: set[Path] = set()


def lines(file: Path) -> Iterator[bytes]:
    """The whole lines of a file; one that a crash has torn is none, and is said."""
    if file.is_file():
        with file.open("rb") as handle:
            while (line := handle.readline(1 << 26)).endswith(b"\n"):
                yield line[:-1]
            if line:
                torn.add(file)


def parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("utf-8"), parse_constant=lambda word: {}[word])
    except (RecursionError, KeyError) as error:
        raise ValueError("it is no JSON") from error
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def canonical(value: Any) -> bytes:
    """RFC 8785 for texts, integers, null, and lists and objects of these."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode("utf-8")


def digest(file: Path) -> str | None:
    try:
        if file.is_file():
            with file.open("rb") as handle:
                return file_digest(handle, "sha256").hexdigest()
    except (OSError, ValueError):
        pass
    return None


def digests(folder: Path) -> dict[str, str | None]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: digest(path) for name, path in found.items() if name.split("/")[0] not in FREE}


def well_formed(entry: dict[str, Any]) -> bool:
    """Whether an entry has its fields, each with what it must hold."""
    try:
        policy, recipe, metrics, shards = entry["policy"], entry["recipe"], entry["metrics"], entry["shards"]
        tables, place, key = (recipe, policy, entry["verifiers"]), recipe.get("place", ""), recipe.get("key")
        files = [item for table in tables for name in ("files", "inputs") for item in table.get(name, {}).items()]
        inside = [path for table in tables[:2] for path in table.get("files", {})]
        inside += [*(shard["path"] for shard in shards), *policy.get("kept", []), policy.get("path", "-"), place or "-"]
        sums = [entry["prev"], entry["merkle_root"], metrics.get("sha256", ZERO), *metrics.get("abandoned", [])]
        sums += [value for _, value in files] + [shard["sha256"] for shard in shards]
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


def root(leaves: Iterator[bytes]) -> tuple[str, int]:
    """The Merkle tree hash of RFC 6962, and how many leaves there are."""
    whole, size = list[bytes](), 0
    for leaf in leaves:
        whole.append(leaf)
        size, at = size + 1, size + 1
        while at % 2 == 0:
            right = whole.pop()
            whole.append(sha256(b"\1" + whole.pop() + right).digest())
            at //= 2
    top = whole.pop() if whole else sha256().digest()
    while whole:
        top = sha256(b"\1" + whole.pop() + top).digest()
    return top.hex(), size


def leaves_of(table: pa.Table) -> Iterator[bytes]:
    """The leaf of every row: its fields as JSON, sensitive ones as SHA-256(salt || name || 0 || value)."""
    kinds = {field.name: field.type for field in table.schema}
    for row in table.to_pylist():
        salt, erased, _ = row.pop("salt"), row.pop("commitments"), row.pop("leaf")
        for name, value in row.items():
            if name in SENSITIVE and salt is None:
                at = 32 * SENSITIVE.index(name)
                row[name] = (erased or b"")[at : at + 32].hex()
            elif name in SENSITIVE:
                row[name] = sha256(salt + name.encode() + b"\0" + canonical(value)).hexdigest()
            elif value is not None and pa.types.is_floating(kinds[name]):
                row[name] = struct.pack("<d", value).hex()
            elif value is not None and pa.types.is_list(kinds[name]):
                code = {pa.bool_(): "?", pa.float32(): "f"}.get(kinds[name].value_type, "d")
                row[name] = struct.pack(f"<{len(value)}{code}", *value).hex()
        yield sha256(b"\0" + canonical(row)).digest()


def opened(line: bytes) -> tuple[bytes, int, str, bytes]:
    """The payload of a DSSE envelope, the entry that it is, the name of the key and the signature."""
    found = parsed(line)
    payload, signed = base64.b64decode(found["payload"], validate=True), found["signatures"][0]
    name, signature = signed["keyid"], base64.b64decode(signed["sig"], validate=True)
    again = {"payload": base64.b64encode(payload).decode(), "payloadType": TYPE}
    again |= {"signatures": [{"keyid": name, "sig": base64.b64encode(signature).decode()}]}
    if canonical(again) != line or type(seq := parsed(payload)["seq"]) is not int:
        raise ValueError("it is not written as an envelope is")
    return payload, seq, name, signature


def is_signed(raw: bytes, payload: bytes, signature: bytes) -> bool:
    encoded = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(payload), payload)
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, encoded)
    except (InvalidSignature, ValueError):
        return False
    return True


class Record:
    """The entries of a run, and the run beside them."""

    def __init__(self, run: Path):
        self.run, self.heads, self.entries, self.seen = run, list[Any](), list[Any](), set[str]()
        for number, line in enumerate(lines(run / "log/heads.jsonl"), start=1):
            try:
                self.heads.append((f"log/heads.jsonl: line {number}", *opened(line)))
            except BAD as error:
                failures.append(f"log/heads.jsonl: line {number} cannot be read: {error}")
        sums = {seq: sha256(payload).hexdigest() for _, payload, seq, _, _ in self.heads}
        self.size, self.head, readable, newer, broken = 0, ZERO, False, "", False
        for seq, line in enumerate(lines(run / "log/chain.jsonl")):
            found, where, entry = sha256(line).hexdigest(), f"log/chain.jsonl: entry {seq}", dict[str, Any]()
            try:
                entry, readable = parsed(line), True
            except ValueError:
                failures.append(f"{where} cannot be read")
            if not (follows := entry.get("prev") == self.head and entry.get("seq") == seq):
                failures.append(f"{where} does not follow the one before it")
            recipe, kind = entry.get("recipe"), entry.get("kind")
            version = recipe.get("format") if isinstance(recipe, dict) else None
            later = isinstance(kind, str) and (kind not in KINDS or (type(version) is int and version > FORMAT))
            if later and follows and sums.get(seq, found) == found:
                newer = newer or f"{where} is of a newer version"
            elif later or not well_formed(entry) or (seq == 0 and kind != "genesis"):
                failures.append(f"{where} has not the form of an entry, or of the first one")
            if not later and well_formed(entry):
                self.entries.append(entry | {"seq": seq, "digest": found})
            self.size, self.head, broken = seq + 1, found, broken or not follows
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
            (failures if known else notes).append(f"signed by {name}, who is not known: --key takes a public key")

    def check(self) -> None:
        """Everything that the entries name; of every file the last that names it counts."""
        self.named, self.shards, inputs = dict[str, Any](), dict[str, Any](), dict[str, str]()
        for entry in self.entries:
            files = dict(entry["recipe"].get("files", {}))
            for shard in entry["shards"] if entry["kind"] in ("amend", "incident") else []:
                (files if shard["rows"] is None else self.shards)[shard["path"]] = shard["sha256"]
            for shard in entry["shards"] if entry["kind"] == "resume" else []:
                self.shards.pop(shard["path"], None)
            for path, wanted in files.items():
                self.named[path] = (wanted, self.named.get(path, [None])[0], entry["seq"])
            for table in ("policy", "verifiers", "recipe"):
                inputs |= entry[table].get("inputs", {})
        for name in {entry["recipe"].get("stage", ""): 0 for entry in self.entries if entry["kind"] == "genesis"}:
            self.check_stage(name, [entry for entry in self.entries if entry["recipe"].get("stage", "") == name])
        for path, (wanted, before, seq) in self.named.items():
            found = digest(self.run / path)
            stopped = seq == self.size - 1 and before is not None and found == before
            if found != wanted and not stopped and (path != "failed.txt" or (self.run / path).exists()):
                failures.append(f"{path} is {'not as it was written' if found else 'missing'} (entry {seq})")
        try:
            base = Path(parsed((self.run / "environment.json").read_bytes())["directory"])
        except BAD:
            base = Path()
        changed = [path for path, wanted in inputs.items() if digest(base / path) not in (None, wanted)]
        failures.extend(f"{path} is not what the run began with" for path in changed)

    def check_stage(self, name: str, own: list[dict[str, Any]]) -> None:
        place = next(entry["recipe"].get("place", "") for entry in own if entry["kind"] == "genesis")
        base, metrics = f"{place}/" if place else "", lines(self.run / place / "metrics.jsonl")
        resumes = [entry for entry in own if entry["kind"] == "resume" and "after" in entry["policy"]]
        given_up = resumes[-1] if resumes else {"seq": -1, "shards": [], "metrics": {}}
        closed = any(entry["kind"] == "close" and entry["seq"] > given_up["seq"] for entry in own)
        folders, saved = (
            dict[str, Any](),
            [e for e in own if e["kind"] in ("checkpoint", "close") and "path" in e["policy"]],
        )

        def lives(entry: dict[str, Any], step: int) -> bool:
            return not any(r["seq"] > entry["seq"] and step > r["policy"]["after"] for r in resumes)

        for entry in own:
            step = entry["metrics"].get("step", 0)
            if entry["kind"] in ("step", "evaluation") and lives(entry, step):
                counted = self.count(entry, f"(step {step})")
                line = next(metrics, b"") if "sha256" in entry["metrics"] else None
                if line is not None and sha256(line).hexdigest() != entry["metrics"]["sha256"]:
                    failures.append(f"{base}metrics.jsonl: step {step} is missing or not as it was recorded")
                elif line is not None and any(parsed(line).get(key, n) != n for key, n in counted.items()):
                    failures.append(f"{base}metrics.jsonl: step {step} does not say {counted}")
        more = [sha256(line).hexdigest() for line in metrics]
        if (closed and (more or self.run / place / "metrics.jsonl" in torn)) or (
            len(more) > 1 and not {*given_up["metrics"].get("abandoned", [])}.issuperset(more)
        ):
            failures.append(f"{base}metrics.jsonl has {len(more)} lines that were not recorded")
        left = {shard["path"]: shard["sha256"] for shard in given_up["shards"]}
        logs = [f"{base}log/{file.name}" for file in (self.run / place / "log").glob("*.parquet")]
        unnamed = [path for path in logs if path not in self.seen and left.get(path, "") != digest(self.run / path)]
        failures.extend(f"{path} has no entry in log/chain.jsonl" for path in unnamed if closed or len(unnamed) > 1)
        for entry in saved:
            path, final = entry["policy"]["path"], entry["kind"] == "close"
            kept = [
                {*later["policy"].get("kept", []), later["policy"]["path"]}
                for later in saved[saved.index(entry) :]
                if later["kind"] != "close"
            ]
            if final or lives(entry, entry["policy"].get("step", 0)):
                folders[path] = (entry, closed if final else all(path in names for names in kept))
        there = {f"{base}checkpoints/{path.name}" for path in (self.run / place / "checkpoints").glob("step-*")}
        there |= {f"{base}final"} if (self.run / place / "final").exists() else set()
        failures.extend(f"{path} has no entry in log/chain.jsonl" for path in there - folders.keys())
        for path, (entry, required) in folders.items():
            wanted, found = entry["policy"].get("files", {}), digests(self.run / path)
            waiting = digests((self.run / path).with_name(f".{Path(path).name}.tmp"))
            if found != wanted and (required or path in there) and (entry["seq"] < self.size - 1 or waiting != wanted):
                differ = sorted(inner for inner in found.keys() | wanted if found.get(inner) != wanted.get(inner))
                failures.extend(f"{path}/{inner} is missing, added, or not as it was written" for inner in differ)
        notes.extend([f"the stage {name} is unfinished"] * (not closed))

    def count(self, entry: dict[str, Any], where: str) -> dict[str, int]:
        """Compare the shards of an entry; where all is well, what metrics.jsonl must count of a step."""
        tickets, tokens, paths = set[int](), [0], [shard["path"] for shard in entry["shards"]]
        wrong = [f"{path} {where} is named twice" for path in paths if path in self.seen]
        self.seen.update(paths)
        last = self.entries[-1]["seq"] == self.size - 1 and self.entries[-1]["kind"] == "amend"
        for shard in entry["shards"]:
            path, found = shard["path"], digest(self.run / shard["path"])
            if found != self.shards.get(path, shard["sha256"]) and not (last and found == shard["sha256"]):
                wrong.append(f"{path} {where} is {'not as it was written' if found else 'missing'}")

        def rows() -> Iterator[bytes]:
            for path in paths:
                with pq.ParquetFile(self.run / path) as file:
                    for batch in file.iter_batches(4096):
                        table = pa.Table.from_batches([batch])
                        yield from leaves_of(table)
                        tickets.update(table["ticket"].to_pylist())
                        tokens[0] += sum(sum(mask or []) for mask in table["mask"].to_pylist())

        try:
            if not wrong and root(rows()) != (entry["merkle_root"], entry["n"]):
                wrong.append(f"entry {entry['seq']} {where}: the root of its rollouts is another")
        except BAD as error:
            wrong.append(f"{', '.join(paths)} {where} cannot be read: {error}")
        failures.extend(wrong)
        counts = paths and not wrong and entry["kind"] == "step"
        return {"groups/sampled": len(tickets), "tokens/sampled": tokens[0]} if counts else {}


def verify(run: Path, keys: list[Path]) -> int:
    """Check a run, with the public keys that are trusted. Returns the exit code; `failures` says what is wrong."""
    known = dict[str, bytes]()
    for file in keys:
        public: Any = pem.load_pem_public_key(file.read_bytes())
        raw = public.public_bytes(pem.Encoding.Raw, pem.PublicFormat.Raw)
        known[sha256(raw).hexdigest()] = raw
    record = Record(run)
    if record.refusal:
        failures.append(record.refusal)
        return 2
    record.check_signatures(known)
    record.check()
    notes.append(f"{record.size} entries, head {record.head}: {'does NOT hold' if failures else 'holds'}")
    return 1 if failures else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--key", type=Path, action="append", default=[], help="a public key that you trust (PEM)")
    given = parser.parse_args()
    code = verify(given.run, given.key)
    for kind, texts in (("note  ", notes), ("FAILED", failures)):
        for text in dict.fromkeys(texts):
            print(f"{kind}  {text}".encode("ascii", "backslashreplace").decode())
    sys.exit(code)
