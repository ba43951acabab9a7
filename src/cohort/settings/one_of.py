"""Keys that name a part of Cohort, or one that the person brings along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

__all__ = ["OneOf"]


@dataclass(frozen=True)
class OneOf:
    """The type of a key that names a part: one of the names in a table of parts, or "module:name" of one's own."""

    parts: Mapping[str, str]  # name -> "module:name"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Callable[..., Any]) -> dict[str, Any]:
        own = {"type": "string", "pattern": ":", "description": "A part of one's own, as module:name."}
        return {"anyOf": [{"enum": list(self.parts), "type": "string"}, own]}

    def _known(self, value: str) -> str:
        if value not in self.parts and ":" not in value:
            raise ValueError
        return value
