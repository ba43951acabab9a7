"""What the judges of all worker processes share, in one SQLite file: verdicts, and when the next request may go out.

A judge does not give the same verdict twice, not even at temperature 0. Because verdicts are kept, a resumed run and a
replay get the very ones that the run got, and nothing is paid for twice.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cohort.types import InfrastructureError, UserError

_TABLES = """
CREATE TABLE IF NOT EXISTS verdict (request TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pace (endpoint TEXT PRIMARY KEY, next REAL NOT NULL);
"""
_PATIENCE_S = 60.0  # another process may hold the file for as long


def default_path() -> Path:
    """Where verdicts are kept when the recipe names no file."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "cohort" / "judge.sqlite"


class JudgeStore:
    """Replies by request. Threads and processes may share one file; `path` None keeps everything in this process."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            where = ":memory:" if path is None else str(path)
            # Autocommit: a transaction is opened only where reading and writing belong together.
            self._db = sqlite3.connect(where, _PATIENCE_S, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.OperationalError) as error:
            raise UserError(
                f'the judge\'s cache {path} cannot be opened ({error}); name another file with cache, or set it "off"'
            ) from None
        with self._trouble():
            self._db.executescript(_TABLES)

    def get(self, request: str) -> str | None:
        """The reply to a request that was asked before."""
        with self._lock, self._trouble():
            row = self._db.execute("SELECT reply FROM verdict WHERE request = ?", (request,)).fetchone()
        return row[0] if row else None

    def put(self, request: str, reply: str) -> None:
        """Keep a reply. The first one stays: another process may have asked the same at the same time."""
        with self._lock, self._trouble():
            self._db.execute("INSERT OR IGNORE INTO verdict VALUES (?, ?)", (request, reply))

    def reserve(self, endpoint: str, interval_s: float) -> float:
        """Take the next free moment to ask `endpoint`, `interval_s` apart from the others. Returns seconds to wait."""
        with self._lock, self._trouble():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                row = self._db.execute("SELECT next FROM pace WHERE endpoint = ?", (endpoint,)).fetchone()
                now = time.time()
                # A moment very far ahead was left by a clock that has been set back since.
                ahead = row is not None and row[0] - now < max(3600.0, 1000 * interval_s)
                moment = max(now, row[0]) if ahead else now
                self._db.execute("INSERT OR REPLACE INTO pace VALUES (?, ?)", (endpoint, moment + interval_s))
            finally:
                self._db.execute("COMMIT")
        return moment - now

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # held by another process, a full disk
            raise InfrastructureError(f"the judge's cache {self.path} cannot be used now ({error})") from None
        except sqlite3.DatabaseError as error:
            raise UserError(f"the judge's cache {self.path} is damaged ({error}); delete it") from None
