"""A recorded rollout as people read it, and the names that a condition (`record.where`) may use of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

NAMED = ("step", "ticket", "member", "reward", "accuracy", "advantage", "finish", "version", "disposition", "error")
# What a row has under its own names; a reward that is called like one of these is NAME_score.
PLAIN = (*NAMED, "prompt", "answer", "text", "tokens", "length", "prompt_tokens", "turns")


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is printed: JSON columns read, tokens counted rather than listed."""
    named: dict[str, Any] = {key: row[key] for key in NAMED}
    return named | {
        "prompt": row["prompt"],
        "messages": json.loads(row["prompt_json"])["messages"] if row["prompt_json"] else None,
        "answer": row["answer"],
        "text": row["text"],
        "tokens": sum(row["mask"] or ()),
        "prompt_tokens": len(row["prompt_tokens"] or ()),
        "turns": json.loads(row["turns"]) if row["turns"] else [],
        "scores": json.loads(row["scores"]) if row["scores"] else {},
        "labels": json.loads(row["labels"]) if row.get("labels") else {},
    }


def names_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a condition may name of a `readable` row: the columns, `length` for the tokens that the policy wrote, every
    reward's score, and every label as NAME_label. A name has letters, digits and _ only.
    """
    plain = {key: value for key, value in row.items() if key not in ("scores", "labels", "messages", "turns")}
    plain |= {"turns": len(row["turns"]), "length": row["tokens"]}
    return plain | by_reward(row["scores"], row["labels"])


def by_reward(scores: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, Any]:
    """Scores and labels under the names that a condition calls them."""
    found = {f"{name}_label": label for name, label in labels.items()} | {
        called: scores[name] for name, called in score_names(scores).items()
    }
    return {re.sub(r"\W", "_", name): value for name, value in found.items() if name not in PLAIN}


def score_names(rewards: Iterable[str]) -> dict[str, str]:
    """How a condition calls the score of each reward."""
    return {name: re.sub(r"\W", "_", f"{name}_score" if name in PLAIN else name) for name in rewards}
