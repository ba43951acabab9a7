"""What a worker gets of the trainer's surroundings: the environment without its secrets, and a log that stays small."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Collection, Iterable, Mapping
from typing import IO

from cohort.rewards.calling.reward import Reward

LARGEST_LOG = 64 << 20  # bytes; of a log that has become larger the last half of that is kept
_LOOK_S = 1.0
_SECRET = re.compile(
    r"(?i)SECRET|TOKEN(?!IZER)|PASSW|PASSPHRASE|CREDENTIAL|COOKIE|AUTH(?!OR(?:_|$))|API_?KEY"
    r"|(?:^|_)(?:KEYS?|PAT|PWD|DSN)(?:_|$)"
)
_NO_SECRETS = ("PWD", "OLDPWD")
_URL_WITH_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]+@")
_OF_THE_HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # with which a reward model may be downloaded


def kept_back(environment: Mapping[str, str], rewards: Iterable[Reward], passed: Collection[str]) -> tuple[str, ...]:
    """The names of variables that workers do not see: those that are called or written like a key, a token or a
    password. What the recipe passes is not among them, nor what a reward's args name (such as a judge's api_key_env).
    """
    known = {*passed, *_NO_SECRETS}
    for reward in rewards:
        known.update(value for value in reward.args.values() if isinstance(value, str))
        if str(getattr(reward.function, "__module__", "")).startswith("cohort.rewards.models."):
            known.update(_OF_THE_HUB)
    secret = (name for name, value in environment.items() if _SECRET.search(name) or _URL_WITH_PASSWORD.search(value))
    return tuple(sorted(name for name in secret if name not in known))


def advice(text: str, withheld: Iterable[str]) -> str:
    """What to add to the message of a failure that names a variable which was kept back; "" where it names none."""
    found = next((name for name in withheld if re.search(rf"\b{re.escape(name)}\b", text)), None)
    if found is None:
        return ""
    return f' (workers do not see {found}, which looks like a secret; run.pass_environment = ["{found}"] passes it on)'


class BoundedLog:
    """Looks at a log file from time to time while workers write to its end, and keeps it from growing for ever."""

    def __init__(self, file: IO[bytes], largest: int = LARGEST_LOG) -> None:
        self._file, self._largest = file, largest
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cohort-reward-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look once more, and stop."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        more = True
        while more:
            more = not self._done.wait(_LOOK_S)
            with contextlib.suppress(OSError):  # the file was moved or removed: then nothing grows that a person sees
                self.trim()

    def trim(self) -> None:
        """Drop the beginning of a log that is too large. Writers append, so they go on at its new end."""
        size = os.fstat(self._file.fileno()).st_size
        if size <= self._largest:
            return
        with open(self._file.name, "r+b") as log:
            log.seek(-(self._largest // 2), os.SEEK_END)
            rest = log.read(self._largest // 2)
            log.truncate(0)
        dropped = size - len(rest)
        self._file.write(b"... the first %d bytes of this log were dropped, as it became too large\n" % dropped + rest)
