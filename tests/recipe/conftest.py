from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.recipe import Recipe
from cohort.types import UserError


def base(**tables: str) -> str:
    """A right recipe with a line added to each table: base(rollout="group_size = 4")."""
    lines = {"policy": 'model = "some/model"', "task": 'source = "train.jsonl"'}
    for table, line in tables.items():
        lines[table] = f"{lines.get(table, '')}\n{line}"
    return 'reward = "exact_number"\n' + "".join(f"[{table}]\n{line}\n" for table, line in lines.items())


@pytest.fixture(name="base")
def _base() -> Callable[..., str]:
    return base


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Recipe]:
    """Loads recipe text, with overrides."""

    def loader(text: str | None = None, *overrides: str) -> Recipe:
        (tmp_path / "recipe.toml").write_text(base() if text is None else text, encoding="utf-8")
        return Recipe.load(tmp_path / "recipe.toml", list(overrides))

    return loader


@pytest.fixture
def complaint(load: Callable[..., Recipe]) -> Callable[..., str]:
    """What a recipe that is wrong is told."""

    def message(text: str | None = None, *overrides: str) -> str:
        with pytest.raises(UserError) as raised:
            load(text, *overrides)
        said = str(raised.value)
        assert "pydantic" not in said
        assert "http" not in said
        assert "validation error" not in said
        return said

    return message
