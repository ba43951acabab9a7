"""Soft overlong punishment (DAPO, arXiv 2503.14476, equation 13)."""

from __future__ import annotations

__all__ = ["soft_overlong", "soft_overlong_tokens"]


def soft_overlong(length: int, max_tokens: int, buffer: int) -> float:
    """0 up to `max_tokens - buffer`, then falling linearly to -1 at `max_tokens`, and -1 beyond. Add it to the reward.

    `max_tokens` is DAPO's L_max and `buffer` its L_cache. A buffer of 0 is a step: 0 up to the limit, -1 above.
    """
    if buffer < 0 or buffer > max_tokens:
        raise ValueError(f"buffer is between 0 and max_tokens ({max_tokens}), not {buffer}")
    free = max_tokens - buffer
    if length <= free:
        return 0.0
    if length > max_tokens:
        return -1.0
    return (free - length) / buffer


def soft_overlong_tokens(tokens: int, max_tokens: int, buffer: int) -> float:
    """`soft_overlong` of a completion's token count: the built-in reward."""
    return soft_overlong(tokens, max_tokens, buffer)
