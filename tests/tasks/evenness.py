"""A reward in a module of its own, as a user has it: about half of what a random policy writes is right."""


def even(completion):
    return float(len(completion) % 2 == 0)
