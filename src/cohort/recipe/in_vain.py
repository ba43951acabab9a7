"""Keys that act only with certain values of another key: to set one beside any other value is a mistake."""

from __future__ import annotations

from collections.abc import Iterator

from cohort.settings import KEEPS, SAMPLED, Stage
from cohort.settings.words import shown

_OVER_WORDS = ("reverse", "forward", "jsd")
# The kinds that read them, a table, keys of it, the key of it that they hang on, and the values of that with which they
# act; no values: whatever says something.
_ACT_WITH: tuple[tuple[tuple[str, ...], str, tuple[str, ...], str, tuple[object, ...]], ...] = (
    (SAMPLED, "rollout", ("length_penalty",), "groups", ("beam", "diverse_beam")),
    (SAMPLED, "rollout", ("beam_groups", "diversity_penalty"), "groups", ("diverse_beam",)),
    (KEEPS, "reject", ("shares",), "balance", ()),
    ((), "preferences", ("replay",), "history", ()),
    ((), "preferences", ("history",), "replay", ()),
    *(
        found
        for kind, table in (("distill", "distillation"), ("self_distill", "self_distillation"))
        for found in (
            ((kind,), table, ("beta",), "divergence", ("jsd",)),
            ((kind,), table, ("top_k",), "divergence", _OVER_WORDS),
            ((kind,), table, ("rest",), "top_k", ()),
        )
    ),
    (("self_distill",), "self_distillation", ("column",), "context", ("column",)),
    (("self_distill",), "self_distillation", ("threshold", "feedback", "thoughts"), "context", ("sibling",)),
    (("self_distill",), "self_distillation", ("show_feedback",), "feedback", ()),
)


def in_vain(stage: Stage) -> Iterator[tuple[str, ...]]:
    """What stands in a stage and does nothing there; see `recipe.check`."""
    for kinds, name, keys, other, values in _ACT_WITH:
        table = getattr(stage, name)
        says = getattr(table, other)
        if (kinds and stage.kind not in kinds) or (says in values if values else says):
            continue
        for key in (one for one in keys if getattr(table, one) != type(table).model_fields[one].default):
            beside = f"with {name}.{other} = {shown(says)}" if says or says == 0 else f"without {name}.{other}"
            yield f"{name}.{key} has no effect {beside}: remove it", f"{name}.{key}", f"{name}.{other}"
