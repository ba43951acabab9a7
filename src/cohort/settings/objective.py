"""The objective as a recipe writes it: a preset, and what differs from it. The maths is in `cohort.algorithms`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, create_model

from cohort.algorithms.fields import FIELDS, Choice, Number, Terms
from cohort.algorithms.presets import PRESETS
from cohort.settings.table import Later, Table, key

T = TypeVar("T", bound=Table)
_BYPASS = ", ".join(name for name, preset in PRESETS.items() if preset.bypass)


def with_fields(table: type[T]) -> type[T]:
    """The table with the names of the presets, and a key for every field of `algorithms.fields`, filled in."""
    columns: dict[str, Any] = {name: (_values(field) | None, key(None, field.about)) for name, field in FIELDS.items()}
    columns["preset"] = (Literal[tuple(PRESETS)], table.model_fields["preset"])
    return create_model(table.__name__, __base__=table, __module__=table.__module__, __doc__=table.__doc__, **columns)


def _values(field: Choice | Number | Terms) -> Any:
    if isinstance(field, Choice):
        return Literal[tuple(field.meanings)]
    if isinstance(field, Terms):
        part: Any = str | float
        part = Annotated[tuple[part, ...], Field(strict=False)] if field.nested else part
        return Annotated[tuple[part, ...], Field(strict=False)]
    number = Annotated[float, Field(ge=field.at_least, gt=field.above, le=field.at_most_in_recipes)]
    return number | Literal["off"] if field.optional else number


@with_fields
class Objective(Table):
    """What is optimised. A field that is not set has the preset's value; "off" switches a bound off."""

    preset: str = key("grpo", "Published method to start from.")
    pass_at_k: int | None = key(
        None,
        "Train on pass@k instead of pass@1: the advantages of Pass@k Training; rewards must be 0 or 1.",
        ge=1,
        le=65_536,
    )
    malformed_penalty: Later[float] = key(
        0.0, "Taken from the advantage of each token of a malformed call, or of a tag without its pair.", ge=0
    )
    bypass: bool | None = key(
        None, f"Take the ratio against the sampler's own log-probs; when not given, only {_BYPASS} does."
    )

    def fields(self) -> dict[str, Any]:
        """The fields that are set, as keyword arguments for `objectives.preset(self.preset, ...)`.

        A bound that is "off" in the recipe is None here; `correction` keeps its word.
        """
        given = {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}
        off = [name for name, value in given.items() if value == "off" and isinstance(FIELDS[name], Number)]
        return given | dict.fromkeys(off)

    def value(self, field: str) -> Any:
        """What a field comes to: what is set here, or else what the preset has."""
        return self.fields().get(field, PRESETS[self.preset].value(field))

    @property
    def corrects(self) -> bool:
        """Whether it says what is done about rollouts of other weights than those that learn."""
        acts = any(
            self.value(key) != off for key, off in (("correction", "off"), ("filters", ()), ("old", "recompute"))
        )
        return acts or self.bypasses

    @property
    def bypasses(self) -> bool:
        """Whether the ratio is taken against the sampler's own log-probs, as ScaleRL's is."""
        own = PRESETS[self.preset].bypass or self.value("old") == "sampler"
        return own if self.bypass is None else self.bypass
