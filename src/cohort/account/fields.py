"""The table of fields of record.json. The record, its schema, its completeness, the crosswalks and
docs/record_fields.md are made from it: a new field is a function and its line here.

`maps` names what a field answers elsewhere. `XI.1.2(b)` is the EU AI Act, Annex XI, section 1, point 2(b); `MDF` a
section of the model documentation form of the code of practice for general-purpose models; `RMF` a subcategory of NIST
AI RMF 1.0; `600-1` a section of NIST AI 600-1. They say where a reader would look, and promise nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cohort.account import behaviour, compute, data, gains, governance, learning, policies, rewards
from cohort.record.claims import Basis, Claim
from cohort.settings import GROUPS, SAMPLED, SCORERS

# Kinds of stages; a kind of one's own has the fields that they share.
GRPO = GROUPS
MODEL = (*SAMPLED, "sft", *SCORERS, "dpo", "evaluate")


@dataclass(frozen=True, slots=True)
class Field:
    """One fact: its place in record.json, what it is called, what finds it, and which fact elsewhere it answers.
    `kinds` are the stages that have it.
    """

    path: str
    title: str
    read: Callable[[Any], Claim]
    basis: Basis  # that it usually has
    maps: tuple[str, ...] = ()
    kinds: tuple[str, ...] = MODEL


_G, _B, _I, _S = governance.declared, behaviour, behaviour.imported, behaviour.of_suites
RUN = (
    Field("identity.run", "The run", governance.identity, "measured", ("MDF General information", "RMF MAP 2.1")),
    Field("identity.recipe", "The recipe", governance.recipe, "measured", ("XI.1.2(b)", "MDF Training process")),
    Field("identity.outcome", "How far it came", governance.outcome, "measured", ("XI.1.2(d)",)),
    Field("identity.gained", "What each stage gained", gains.gained, "measured", ("XI.2.1", "RMF MEASURE 2.3")),
    Field("identity.software", "Software and machine", governance.software, "measured",
        ("XI.1.2(d)", "RMF MEASURE 2.1")),
    Field("identity.parent", "The run that it was forked from", governance.parent, "measured", ("600-1 2.12",)),
    Field("use.intended", "Intended use", _G("intended_use"), "declared", ("XI.1.1(a)", "MDF Use", "RMF MAP 1.1")),
    Field("use.out_of_scope", "Uses that it is not made for", _G("out_of_scope"), "declared",
        ("XI.1.1(b)", "MDF Use", "RMF MAP 2.2")),
    Field("use.license", "Licence", _G("license"), "declared",
        ("XI.1.1(f)", "MDF Methods of distribution and licenses")),
    Field("traces.handling", "How reasoning traces are handled", governance.traces, "declared",
        ("RMF MEASURE 2.8", "600-1 2.7")),
    Field("compute.flops", "Training compute", compute.total_flops, "derived",
        ("XI.1.2(d)", "MDF Computational resources")),
    Field("compute.share_of_base", "Share of the base model's training compute", compute.share_of_base, "derived",
        ("XI.1.2(d)", "MDF Computational resources")),
    Field("connections.inventory", "AI system inventory", _G("inventory_id"), "declared", ("RMF GOVERN 1.6",)),
    Field("connections.owner", "Who answers for it", _G("owner"), "declared", ("RMF GOVERN 2.1",)),
    Field("connections.card", "Model or system card", governance.card, "derived", ("RMF MEASURE 2.9", "600-1 2.12")),
    Field("connections.audit_trail", "Audit trail", governance.audit_trail, "measured", ("RMF MEASURE 2.8",)),
    Field("connections.data_provenance", "Data provenance record", governance.data_provenance, "declared",
        ("XI.1.2(c)", "RMF MAP 2.3", "600-1 2.12")),
    Field("connections.evaluation_file", "Evaluation file", governance.evaluation_file, "measured",
        ("XI.2.1", "RMF MEASURE 2.3")),
    Field("connections.change_management", "Change-management process", _G("change_ticket"), "declared",
        ("RMF MANAGE 4.2",)),
    Field("connections.monitoring_plan", "Post-market monitoring plan", _G("monitoring_plan"), "declared",
        ("RMF MANAGE 4.1",)),
    Field("connections.after_the_run", "Incidents and changes since", governance.after_the_run, "declared",
        ("RMF MANAGE 4.3",)),
)  # fmt: skip
STAGE = (
    Field("policies.base", "Base model", policies.base, "measured", ("XI.1.1(d)", "RMF MAP 4.1", "600-1 2.12")),
    Field("policies.trained", "What is trained", policies.trained, "measured", ("XI.1.1(d)", "MDF Model properties")),
    Field("policies.tokenizer", "Tokenizer and template", policies.tokenizer, "measured", ("XI.1.1(e)",)),
    Field("policies.reference", "Reference policy", policies.reference, "derived", ("XI.1.2(b)",), GRPO),
    Field("policies.teachers", "Teachers", policies.teachers, "derived", ("XI.1.2(b)",), ("distill", "self_distill")),
    Field("policies.old", "Old-policy snapshot", policies.old_policy, "measured", ("XI.1.2(b)",), GRPO),
    Field("policies.result", "Trained model", policies.result, "measured", ("MDF General information",)),
    Field("rewards.sources", "Reward source", rewards.sources, "derived", ("XI.1.2(b)", "RMF MAP 2.3"), SAMPLED),
    Field("rewards.verifier", "Verifier code or specification", rewards.verifier, "measured",
        ("XI.1.2(b)", "RMF MEASURE 2.13"), SAMPLED),
    Field("rewards.domains", "Domains that supplied rewards", rewards.domains, "declared", ("RMF MAP 2.1",), SAMPLED),
    Field("rewards.based_on", "Rule-based or model-based", rewards.based_on, "derived", ("XI.1.2(b)",), SAMPLED),
    Field("rewards.normalisation", "Reward normalisation", rewards.normalisation, "derived", ("XI.1.2(b)",), GRPO),
    Field("rewards.tested", "What rewards paid before training", rewards.tested, "measured",
        ("RMF MEASURE 2.13",), SAMPLED),
    Field("rewards.brittle", "Where the reward design is brittle", rewards.brittle, "declared",
        ("RMF MAP 2.2", "RMF MEASURE 2.5"), SAMPLED),
    Field("data.prompts", "Prompt distribution", data.prompts, "measured",
        ("XI.1.2(c)", "MDF Information on the data used for training, testing, and validation")),
    Field("data.selection", "How prompts were selected", data.selection, "derived", ("XI.1.2(c)", "RMF MAP 2.3")),
    Field("data.contamination", "Data decontamination checks", data.contamination, "measured",
        ("XI.1.2(c)", "RMF MEASURE 2.13"), SAMPLED),
    Field("data.rejected", "Rejected samples", data.rejected, "measured", ("XI.1.2(c)",), SAMPLED),
    Field("sampling.distribution", "Sampling temperature", learning.sampling, "derived", ("XI.1.2(b)",), SAMPLED),
    Field("sampling.group_size", "Group size", learning.group_size, "derived", ("XI.1.2(b)",), SAMPLED),
    Field("objective.loss", "Loss variant", learning.loss, "derived", ("XI.1.2(b)", "MDF Training process"), GRPO),
    Field("objective.clipping", "Clipping settings", learning.clipping, "derived", ("XI.1.2(b)",), GRPO),
    Field("objective.kl", "KL settings", learning.kl, "derived", ("XI.1.2(b)",), GRPO),
    Field("objective.optimizer", "Optimizer", learning.optimizer, "derived", ("XI.1.2(b)",)),
    Field("compute.budget", "Training budget", learning.budget, "measured",
        ("XI.1.2(d)", "MDF Computational resources")),
    Field("compute.operations", "Operations of sampling, scoring, learning", compute.flops, "derived",
        ("XI.1.2(d)", "MDF Computational resources")),
    Field("compute.spent", "What seconds and tokens were spent on", compute.spent, "derived", ("600-1 2.5",), GRPO),
    Field("compute.energy", "Energy", compute.energy, "measured",
        ("XI.1.2(e)", "MDF Energy consumption", "RMF MEASURE 2.12", "600-1 2.5")),
    Field("behaviour.performance", "Performance, before and after", _B.performance, "measured",
        ("XI.2.1", "RMF MEASURE 2.3")),
    Field("behaviour.hallucination", "Hallucination, before and after", _S("hallucination"), "imported",
        ("XI.2.1", "RMF MEASURE 2.5", "600-1 2.2"), GRPO),
    Field("behaviour.refusal_calibration", "Refusal calibration, before and after", _S("refusal_calibration"),
        "imported", ("XI.2.1", "RMF MEASURE 2.6", "600-1 2.3"), GRPO),
    Field("behaviour.jailbreak_robustness", "Jailbreak robustness, before and after", _S("jailbreak_robustness"),
        "imported", ("XI.2.2", "RMF MEASURE 2.7", "600-1 2.9"), GRPO),
    Field("behaviour.harmful_capability", "Harmful capability, before and after", _S("harmful_capability"), "imported",
        ("XI.2.2", "RMF MEASURE 2.6", "600-1 2.1"), GRPO),
    Field("behaviour.benchmark_contamination", "Benchmark contamination, before and after",
        _I("benchmark_contamination"), "imported", ("XI.2.1", "RMF MEASURE 2.13"), GRPO),
    Field("behaviour.multilingual", "Multilingual behaviour, before and after", _S("multilingual"), "imported",
        ("XI.2.1", "RMF MEASURE 2.11", "600-1 2.6"), GRPO),
    Field("behaviour.tool_use", "Tool use, before and after", _B.tool_use, "measured",
        ("XI.2.1", "RMF MEASURE 2.3"), GRPO),
    Field("behaviour.safety_regressions", "Safety regressions, before and after", _S("safety_regressions"), "imported",
        ("XI.2.2", "RMF MEASURE 2.6"), GRPO),
    Field("behaviour.safety_evaluations", "Safety evaluations after the training", _B.safety_evaluations, "imported",
        ("XI.2.2", "RMF MEASURE 2.6"), GRPO),
)  # fmt: skip
TITLES = {field.path: field.title for field in (*STAGE, *RUN)}


def fields_of(kind: str) -> tuple[Field, ...]:
    """The fields of a stage of this kind. A kind of one's own has those that all kinds share."""
    return tuple(field for field in STAGE if kind in field.kinds or (kind not in MODEL and field.kinds == MODEL))


def title_of(path: str) -> str:
    """What the field at a path of `claims` is called: its last two parts name it."""
    return TITLES.get(".".join(path.split(".")[-2:]), path)
