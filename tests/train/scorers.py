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


def right_if_even(completion, prompt):
    return float(len(completion) % 2)


def flaky_where_even(completion, prompt):
    """Of half of the prompts a coin says what is right, and not one that a seed decides."""
    from random import SystemRandom

    sure = sum(c in "aeiou" for c in completion) / (1 + len(completion))
    return float(SystemRandom().random() < 0.5) if int(prompt.split()[2]) % 2 == 0 else sure


def last_number(completion, answer):
    """Right where the last word is the answer; a coin for "coin", out of scale for "huge", no score for "broken"."""
    from random import SystemRandom

    if completion == "broken":
        from cohort.types import InfrastructureError

        raise InfrastructureError("the judge is away")
    if completion == "coin":
        return float(SystemRandom().random() < 0.5)
    right = float((completion.split() or [""])[-1] == answer)
    return 1000 * right if completion.startswith("huge") else right


def formal(completion):
    return float(completion.startswith("form"))
