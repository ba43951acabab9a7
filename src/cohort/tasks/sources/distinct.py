"""The first N different prompts of a source without an end."""

from __future__ import annotations

from cohort.tasks.prompts import Prompts, check_index
from cohort.types import Prompt, UserError, content_id

__all__ = ["Distinct"]

IN_A_ROW = 1000  # repeats after which a source has nothing new to offer


class Distinct:
    """Finds them as they are asked for; the order is that of the source without its repeats."""

    def __init__(self, whole: Prompts, size: int, name: str) -> None:
        self.whole, self.size, self.name = whole, size, name
        self.kept: list[int] = []  # the numbers in the source
        self.seen: set[str] = set()
        self.looked_at = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Prompt:
        check_index(index, self.size)
        repeats = 0
        while len(self.kept) <= index:
            question = content_id(self.whole[self.looked_at].question)
            repeats = repeats + 1 if question in self.seen else 0
            if repeats > IN_A_ROW:
                raise UserError(
                    f"{self.name} has about {len(self.kept):,} different prompts at these settings, fewer than limit = "
                    f"{self.size:,}. Lower limit, or use other levels or args."
                )
            if not repeats:
                self.kept.append(self.looked_at)
                self.seen.add(question)
            self.looked_at += 1
        return self.whole[self.kept[index]]
