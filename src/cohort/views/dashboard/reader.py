"""Token ids as text, by the tokenizer that lies in the run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any


class Reader:
    """Reads ids with the first tokenizer.json that is found; without one, ids stay numbers and `exact` is false."""

    def __init__(self, tokenizer: Any = None):
        self._tokenizer = tokenizer
        self.exact = tokenizer is not None

    def text(self, ids: Sequence[int]) -> str | None:
        """All of them as one text, special tokens too; None without a tokenizer."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False)) if self.exact else None

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each. A character that several tokens make stands at the last of these."""
        if not self.exact:
            return [f"⟨{number}⟩" for number in ids]
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        return [stream.step(self._tokenizer, number) or "" for number in ids]


@lru_cache(maxsize=8)
def _load(file: Path, stamp: int) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))


def reader(places: Sequence[Path]) -> Reader:
    """With the first of these directories that holds a tokenizer that can be read."""
    for place in places:
        file = place / "tokenizer.json"
        try:
            return Reader(_load(file, file.stat().st_mtime_ns))
        except Exception:  # not there, or not a tokenizer: the library raises plain Exception
            continue
    return Reader()
