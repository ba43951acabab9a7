"""Keys that need the compiled path, refused before anything loads where the model's configuration tells that it takes
another one. What only its modules tell is refused where they are at hand, by the engine and the learner.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cohort.policy.fused import unfit_here, unfit_kind
from cohort.policy.load import locate
from cohort.settings import SCORERS, Policy, Stage
from cohort.types import UserError


def refuse_plain(stage: Stage, begins: Policy) -> None:
    """Raise `UserError` where the model of a stage cannot take the path that a key needs. `begins` is the table that
    names the model which the stage, or a stage before it, starts from.
    """
    if stage.kind in SCORERS:  # which read neither key
        return
    asks = {
        'rollout.precision = "int8"': stage.rollout.precision == "int8" and stage.samples,
        'policy.checkpointing = "on"': stage.policy.checkpointing == "on" and stage.learners == 1,
    }
    key = next((key for key, asked in asks.items() if asked), None)
    if key is not None and (why := _why_plain(stage.policy, begins)) is not None:
        raise UserError(
            f"stage '{stage.name}': {key} needs the compiled path, and this policy takes the plain path ({why}): "
            "leave it out"
        )


def _why_plain(table: Policy, begins: Policy) -> str | None:
    if table.device == "cuda":
        return "the model is not on the CPU"
    if table.dtype != "float32":
        return "the weights are not float32"
    if table.lora is not None and table.lora.dora:
        return "its adapter is no plain LoRA"
    config = _config_of(begins)
    return (None if config is None else unfit_kind(*config)) or (unfit_here() if table.device == "cpu" else None)


def _config_of(table: Policy) -> tuple[str, Any] | None:
    """The class of a model and its configuration; None where they are not in a config.json that can be read: whoever
    loads it says what is wrong.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    try:
        where = locate(table.model or "")
        if not Path(where, "config.json").is_file():
            return None
        config = AutoConfig.from_pretrained(where)
        return NAMES[config.model_type], config.get_text_config()
    except Exception:  # damaged or hostile files make the library raise anything
        return None
