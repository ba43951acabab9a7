"""The built-in rewards by the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cohort.rewards.chance import coin
from cohort.rewards.choice import choice
from cohort.rewards.code import code
from cohort.rewards.constraints import constraints
from cohort.rewards.format import one_answer, regex_format
from cohort.rewards.gym import reasoning_gym
from cohort.rewards.judge import judge
from cohort.rewards.language import language
from cohort.rewards.length import cosine_length, length_budget, target_length
from cohort.rewards.math_answer import math_answer
from cohort.rewards.model import reward_model
from cohort.rewards.number import exact_number
from cohort.rewards.overlong import soft_overlong_tokens
from cohort.rewards.process_model import process_model
from cohort.rewards.repetition import repetition
from cohort.rewards.structured import json_schema
from cohort.rewards.text import exact_text, f1_text, fuzzy_text
from cohort.rewards.think import think_format
from cohort.rewards.trl_style import trl
from cohort.rewards.verifiers import verifiers

__all__ = ["BUILT_IN", "FUNCTIONS"]

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "exact_number": exact_number,
    "math": math_answer,
    "code": code,
    "reasoning_gym": reasoning_gym,
    "verifiers": verifiers,
    "choice": choice,
    "exact_text": exact_text,
    "fuzzy_text": fuzzy_text,
    "f1_text": f1_text,
    "json_schema": json_schema,
    "constraints": constraints,
    "think_format": think_format,
    "one_answer": one_answer,
    "regex_format": regex_format,
    "language": language,
    "repetition": repetition,
    "random": coin,
    "soft_overlong": soft_overlong_tokens,
    "target_length": target_length,
    "length_budget": length_budget,
    "cosine_length": cosine_length,
    "judge": trl(judge),
    "reward_model": trl(reward_model),
    "process_model": trl(process_model),
}

BUILT_IN: Mapping[str, str] = {
    "exact_number": "1 if the final answer equals the gold number exactly (<answer>, \\boxed{} or ####), else 0",
    "math": "1 if the final answer is mathematically equal to the gold answer (math-verify), else 0",
    "code": "1 if the fenced Python passes the tests in the answer column, run in a sandbox, else 0",
    "reasoning_gym": "1 if the answer to a reasoning-gym problem is right in full, else 0",
    "verifiers": "what a task of a verifiers environment says itself: the weighted sum of its rewards; args part",
    "choice": "1 if the answer is the letter of the right option and of no other, else 0",
    "exact_text": "1 if the answer is the gold text but for case, punctuation and spaces, else 0",
    "fuzzy_text": "how similar the answer and the gold text are, 0 to 1; 0 below threshold",
    "f1_text": "F1 of the words of the answer and of the gold text, as SQuAD counts them",
    "json_schema": "1 if the answer is JSON that fits a JSON Schema, else 0; args schema or column",
    "constraints": "1 if the text keeps all rules (words, bullets, starts_with, case ...); args rules or column",
    "think_format": "1 if the whole text is <think> ... </think><answer> ... </answer>, else 0",
    "one_answer": "1 if the text marks exactly one answer (<answer>, \\boxed{} or ####), else 0",
    "regex_format": "1 if a regular expression matches the whole text, else 0; args pattern",
    "language": "R1's share of words in the target language; args language or column",
    "repetition": "a penalty from 0 to -1: the share of n-grams that occurred before",
    "random": "a fair coin, 0 or 1, that ignores the text: the control that must not improve anything",
    "soft_overlong": "DAPO's length penalty from 0 to -1; args max_tokens and buffer",
    "target_length": "L1-Exact's penalty for tokens too many or too few; args target or column",
    "length_budget": "L1-Max's factor from 0 to 1 for staying within a budget; args target or column",
    "cosine_length": "the cosine reward: short right answers pay most, short wrong ones cost most; args max_tokens",
    "judge": "what a language model behind an OpenAI-compatible API thinks, 0 to 1; args url and model",
    "reward_model": "what a Hugging Face sequence classifier says of the prompt with its completion; args model",
    "process_model": "what a Hugging Face token classifier says of each step of the completion; args model",
}
