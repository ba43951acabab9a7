"""The record and its cards as they are."""

from __future__ import annotations

from typing import Any

from cohort.views.cards.card import card
from cohort.views.cards.page import page
from cohort.views.exports import Bundle


def record(bundle: Bundle) -> Any:
    """record.json."""
    return bundle.record


def markdown(bundle: Bundle) -> str:
    """card.md."""
    return card(bundle.record)


def html(bundle: Bundle) -> str:
    """card.html."""
    return page(bundle.record)
