"""What needs the compiled path is refused before a model loads, as far as its configuration tells."""

from __future__ import annotations

import pytest

from cohort.preflight.compiled import refuse_plain
from cohort.settings import Policy, Rollout, Stage, Task
from cohort.types import UserError
from tiny import make_tiny

IN_BYTES, AGAIN = {"rollout": Rollout(precision="int8")}, {"policy": Policy(model="m", checkpointing="on")}


@pytest.mark.parametrize(
    ("tables", "kind", "says"),
    [
        (IN_BYTES, "gemma3", r'rollout.precision = "int8" needs the compiled path, .* \(Gemma3ForCausalLM is none of'),
        (AGAIN, "gemma3", r'policy.checkpointing = "on" needs the compiled path, .* \(Gemma3ForCausalLM is none of'),
        ({"policy": Policy(model="m", dtype="bfloat16"), **IN_BYTES}, "qwen3", "the weights are not float32"),
        (IN_BYTES, "qwen3", ""),
        (IN_BYTES, "nothing there", ""),
        ({}, "gemma3", ""),
    ],
)
def test_keys_that_need_the_compiled_path(tokenizer, tmp_path, tables, kind, says):
    if kind in ("qwen3", "gemma3"):
        make_tiny(kind, tokenizer).config.save_pretrained(tmp_path)
    stage = Stage(task=Task(source="?"), **tables)
    if not says:
        refuse_plain(stage, Policy(model=str(tmp_path)))
        return
    with pytest.raises(UserError, match=says):
        refuse_plain(stage, Policy(model=str(tmp_path)))
