"""The built-in rewards by the names that recipes use. A new one is its file in `verifiers/` and its line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class BuiltIn(NamedTuple):
    """Where a reward's function is, as "module:function", which is imported when asked for; and what it says."""

    function: str
    line: str


_V = "cohort.rewards.verifiers"

BUILT_IN: Mapping[str, BuiltIn] = {
    "exact_number": BuiltIn(f"{_V}.number:exact_number",
        "1 if the final answer equals the gold number exactly (<answer>, \\boxed{} or ####), else 0"),
    "math": BuiltIn(f"{_V}.math.answer:math_answer",
        "1 if the final answer is mathematically equal to the gold answer, else 0"),
    "code": BuiltIn(f"{_V}.code.code:code",
        "1 if the fenced Python passes the tests in the answer column, run in a sandbox, else 0"),
    "reasoning_gym": BuiltIn("cohort.integrations.reasoning_gym.reward:reasoning_gym",
        "1 if the answer to a reasoning-gym problem is right in full, else 0"),
    "verifiers": BuiltIn("cohort.integrations.verifiers.environment:verifiers",
        "what a task of a verifiers environment says itself: the weighted sum of its rewards; args part"),
    "choice": BuiltIn(f"{_V}.choice:choice",
        "1 if the answer is the letter of the right option and of no other, else 0"),
    "exact_text": BuiltIn(f"{_V}.text:exact_text",
        "1 if the answer is the gold text but for case, punctuation and spaces, else 0"),
    "fuzzy_text": BuiltIn(f"{_V}.text:fuzzy_text",
        "how similar the answer and the gold text are, 0 to 1; 0 below threshold"),
    "f1_text": BuiltIn(f"{_V}.text:f1_text",
        "F1 of the words of the answer and of the gold text, as SQuAD counts them"),
    "json_schema": BuiltIn(f"{_V}.structured.structured:json_schema",
        "1 if the answer is JSON that fits a JSON Schema, else 0; args schema or column"),
    "constraints": BuiltIn(f"{_V}.constraints:constraints",
        "1 if the text keeps all rules (words, bullets, starts_with, case ...); args rules or column"),
    "think_format": BuiltIn(f"{_V}.format:think_format",
        "1 if the whole text is <think> ... </think><answer> ... </answer>, else 0"),
    "one_answer": BuiltIn(f"{_V}.format:one_answer",
        "1 if the text marks exactly one answer (<answer>, \\boxed{} or ####), else 0"),
    "regex_format": BuiltIn(f"{_V}.format:regex_format",
        "1 if a regular expression matches the whole text, else 0; args pattern"),
    "language": BuiltIn(f"{_V}.language:language",
        "R1's share of words in the target language; args language or column"),
    "repetition": BuiltIn(f"{_V}.repetition:repetition",
        "a penalty from 0 to -1: the share of n-grams that occurred before"),
    "random": BuiltIn(f"{_V}.chance:coin",
        "a fair coin, 0 or 1, that ignores the text: the control that must not improve anything"),
    "constant": BuiltIn(f"{_V}.chance:constant",
        "1 for every completion: no group carries signal, and nothing is learnt"),
    "noisy_number": BuiltIn(f"{_V}.chance:noisy_number",
        "exact_number with a share of wrong labels: how much noise does training stand? args noise"),
    "soft_overlong": BuiltIn(f"{_V}.length:soft_overlong_tokens",
        "DAPO's length penalty from 0 to -1; args max_tokens and buffer"),
    "target_length": BuiltIn(f"{_V}.length:target_length",
        "L1-Exact's penalty for tokens too many or too few; args target or column"),
    "length_budget": BuiltIn(f"{_V}.length:length_budget",
        "L1-Max's factor from 0 to 1 for staying within a budget; args target or column"),
    "cosine_length": BuiltIn(f"{_V}.length:cosine_length",
        "the cosine reward: short right answers pay most, short wrong ones cost most; args max_tokens"),
    "relative_length": BuiltIn(f"{_V}.length:relative_length",
        "a penalty from 0 to -1: the length among those of the group, times its share of right answers"),
    "stops_properly": BuiltIn(f"{_V}.length:stops_properly",
        "1 if the completion ended by itself, else 0; a gate for what is cut off; args cut_off"),
    "judge": BuiltIn("cohort.rewards.judge.judge:judge",
        "what a language model behind an OpenAI-compatible API thinks, 0 to 1; args url and model"),
    "reward_model": BuiltIn("cohort.rewards.models.reward_model:reward_model",
        "what a Hugging Face sequence classifier says of the prompt with its completion; args model"),
    "process_model": BuiltIn("cohort.rewards.models.reward_model:process_model",
        "what a Hugging Face token classifier says of each step of the completion; args model"),
}  # fmt: skip
