"""Rewards for tests. Workers import this module, so it imports nothing."""


def exact(completion, answer):
    return float(completion.strip() == answer)


def blind(completion, answer):
    return 0.25


def right(completion):
    return 1.0


def longer(completion):
    return float(len(completion) > 12)


def never(completion):
    return 0.0
