"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` in one step: after a crash it holds the old content or the new, never a part. The directory that
    it is in is made, not those above: where a whole run has gone, nothing of it is made again.
    """
    path.parent.mkdir(exist_ok=True)
    temporary = _free(path, "tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


@contextlib.contextmanager
def new_directory(path: Path, announce: Callable[[Path], None] = lambda _: None) -> Iterator[Path]:
    """A directory to fill; it takes its place at `path` only when the block ends well, all files synced to disk, and
    `announce` has heard of it where it lies until then.
    """
    path.parent.mkdir(exist_ok=True)
    temporary = _free(path, "tmp")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("r+b" if os.name == "nt" else "rb") as handle:
                    os.fsync(handle.fileno())
        _sync_directory(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    announce(temporary)
    put(temporary, path)


def put(temporary: Path, path: Path) -> None:
    """Give a whole directory its place, in which another one may be."""
    if path.exists():
        discard(path)
    temporary.rename(path)
    _sync_directory(path.parent)


def discard(directory: Path) -> None:
    """Delete a directory. It leaves its name first: a crash meanwhile leaves nothing half at a name that is read."""
    old = _free(directory, "old")
    directory.rename(old)
    remove(old)


def sweep(directory: Path) -> None:
    """Delete what a crash left of files and directories that were being written or deleted here."""
    for pattern in (".*.tmp", ".*.old"):
        for path in directory.glob(pattern):
            remove(path)


def remove(path: Path) -> None:
    """Delete whatever is at `path`, if anything is; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def beside(path: Path, ending: str) -> Path:
    """The hidden name beside `path` for what is on its way there (tmp) or from there (old)."""
    return path.with_name(f".{path.name}.{ending}")


def _free(path: Path, ending: str) -> Path:
    found = beside(path, ending)
    remove(found)
    return found


def _sync_directory(path: Path) -> None:
    if os.name == "nt":  # which syncs no directories
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
