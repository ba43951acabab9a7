"""Numbers as people write them: 1.28, 3e-4, 1e-6."""

from __future__ import annotations

__all__ = ["number"]


def number(value: float | None) -> str:
    """`value` to ten digits without noise (1 + 0.28 is 1.28) and without padding (1e-6, not 1e-06); None is "off"."""
    if value is None:
        return "off"
    text = f"{value:.10g}" if value == 0 or 1e-3 <= abs(value) < 1e9 else f"{value:.9e}"
    if "e" not in text:
        return text
    digits, exponent = text.split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
