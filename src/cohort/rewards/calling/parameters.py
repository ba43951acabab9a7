"""The parameters of a reward function, which are filled by name, and where their values come from."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cohort.types import UserError
from cohort.wording import did_you_mean

NATIVE_NAMES = ("completion", "prompt", "answer", "row", "finish", "tokens", "transcript", "seed", "begun")
TRL_ONLY = ("completion_ids", "trainer_state", "log_metric", "log_extra", "scoring_item")  # in TRL's style alone
TRL_NAMES = ("prompts", "completions", "answer", *TRL_ONLY)
# What differs between the completions of a prompt (TRL's names too: who forgets its style is told so by `check`).
COMPLETION_NAMES = ("completion", "tokens", "finish", "transcript", "seed", "completions", "completion_ids",
                    "scoring_item")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function: those without a default, those with one, and whether it takes `**anything`."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    anything: bool

    @staticmethod
    def of(function: Callable[..., Any], name: str) -> Parameters:
        """Read them from the signature; refuse what cannot be called by name."""
        try:
            every = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise UserError(
                f"reward '{name}' does not say which parameters it takes; wrap it in a plain function such as "
                f"def {name}(completion, answer): ..."
            ) from None
        needed = [
            one for one in every if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        ]
        if by_position := [one.name for one in needed if one.kind is one.POSITIONAL_ONLY]:
            raise UserError(
                f"reward '{name}' takes '{by_position[0]}' by position only, but rewards are called by name; "
                f"wrap it in a plain function such as def {name}_reward(completion, answer): ..."
            )
        optional = [one for one in every if one.default is not one.empty and one.kind is not one.POSITIONAL_ONLY]
        anything = any(one.kind is one.VAR_KEYWORD for one in every)
        return Parameters(tuple(one.name for one in needed), tuple(one.name for one in optional), anything)

    def takes(self, name: str) -> bool:
        """Whether a value called `name` would reach the function. `scoring_item` is no name of TRL's."""
        return name in self.required or name in self.optional or (self.anything and name != "scoring_item")

    def chosen(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `values` that would reach the function."""
        return {name: value for name, value in values.items() if self.takes(name)}

    def check(self, available: Collection[str], name: str) -> None:
        """Refuse when a parameter without a default has no value."""
        for parameter in self.required:
            if parameter not in available:
                raise UserError(
                    f"reward '{name}' asks for a parameter '{parameter}'{did_you_mean(parameter, available)}, which is "
                    f"neither a column of the task nor among the reward's args; available: {', '.join(available)}"
                    f"{_style_hint(parameter, available)}"
                )

    def check_args(self, args: Mapping[str, Any], given: Collection[str], name: str) -> None:
        """Refuse `args` that the function does not take, or that are filled from the completion anyway."""
        for argument in args:
            if argument in given:
                raise UserError(f"reward '{name}': args cannot set '{argument}', it is filled for every completion")
            if not self.takes(argument):
                known = [known for known in (*self.required, *self.optional) if known not in given]
                raise UserError(
                    f"reward '{name}' takes no argument '{argument}'{did_you_mean(argument, known)}; "
                    f"its arguments are: {', '.join(known) or 'none'}"
                )


def _style_hint(parameter: str, available: Collection[str]) -> str:
    if parameter == "steps":
        return '. A function that scores steps needs split = "blank_lines", "lines" or a regular expression'
    if "completions" in available:  # it has that style
        return ". Nobody knows the tokens of these completions" if parameter == "completion_ids" else ""
    if parameter in ("prompts", "completions", *TRL_ONLY):
        return '. A function that scores whole lists, as TRL\'s do, needs style = "trl"'
    return ""


def returns_nothing(function: Callable[..., Any]) -> bool:
    """Whether the code of a function returns, and nothing but None. Not of a lambda, which cannot lack its return."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__code__") and not inspect.ismethod(function):
        function = getattr(type(function), "__call__", function)  # noqa: B004
    code = getattr(function, "__code__", None)
    generates = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
    if code is None or code.co_name == "<lambda>" or code.co_flags & generates:
        return False
    found = []
    for before, op in pairwise(dis.get_instructions(code)):
        if op.opname == "RETURN_CONST":  # Python 3.12 and 3.13
            found.append(op.argval is None)
        elif op.opname == "RETURN_VALUE":  # what jumps to it brings a value of its own
            found.append(before.opname == "LOAD_CONST" and before.argval is None and not op.is_jump_target)
    return bool(found) and all(found)


def with_fields_of(**tables: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a function take the fields of dataclasses as arguments of its own, so that a recipe's args can name them.

    `with_fields_of(endpoint=Endpoint)` fills the parameter `endpoint` with an Endpoint of the arguments that are its
    fields. The signature has the fields instead, those without a default first.
    """

    def change(function: Callable[..., Any]) -> Callable[..., Any]:
        own = [known for known in inspect.signature(function).parameters.values() if known.name not in tables]
        fields = {name: list(inspect.signature(table).parameters.values()) for name, table in tables.items()}
        every = [*own, *(known for part in fields.values() for known in part)]
        taken = sorted(every, key=lambda known: known.default is not known.empty)
        signature = inspect.Signature([known.replace(kind=known.POSITIONAL_OR_KEYWORD) for known in taken])

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            values = signature.bind(*args, **kwargs).arguments
            made = {
                name: table(**{known.name: values.pop(known.name) for known in fields[name] if known.name in values})
                for name, table in tables.items()
            }
            return function(**values, **made)

        called.__signature__ = signature  # type: ignore[attr-defined]
        return called

    return change
