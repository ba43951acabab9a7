"""Rewards of steps that import nothing, so that their workers start at once."""


def share_of_digits(steps):
    return [sum(c.isdigit() for c in step) / (1 + len(step)) for step in steps]


def first_right(steps):
    return [1.0, 0.0] + [0.5] * (len(steps) - 2) if len(steps) > 1 else [0.5]
