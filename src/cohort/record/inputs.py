"""Fingerprints of what a run reads, so that a continued run notices when it has changed; of the hub, commits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

WHOLE = 1 << 28  # files up to 256 MiB are hashed whole; of larger ones the ends, the size and the time


def fingerprints(sources: Iterable[str | None]) -> dict[str, str]:
    """`{path: fingerprint}` for every source that is a file or a directory here; hub ids and names are left out."""
    found = {}
    for source in sources:
        path = Path(source).expanduser() if source else None
        if path is not None and path.exists():
            found[str(source)] = _fingerprint(path)
    return found


def hub_commit(name: str, revision: str | None, kind: str = "model") -> str | None:
    """The commit of a model or data set of the hub that this machine's cache holds; None where it does not tell."""
    folder = hub_folder(name, kind)
    if revision and (folder / "snapshots" / revision).is_dir():
        return revision
    file = folder / "refs" / (revision or "main")
    return file.read_text("utf-8").strip() if file.is_file() else None


def hub_folder(name: str, kind: str = "model") -> Path:
    """Where the hub's cache of this machine keeps a model or data set."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type=kind))


def _fingerprint(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)}:{size}:".encode())
        with file.open("rb") as handle:
            if size <= WHOLE:
                digest.update(handle.read())
            else:
                digest.update(handle.read(1 << 20))
                handle.seek(-(1 << 20), 2)
                digest.update(handle.read() + str(file.stat().st_mtime_ns).encode())
    return digest.hexdigest()
