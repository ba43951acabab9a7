"""A reward in a module of its own, as a user has it: a worker that imports it needs nothing else."""


def share_of_vowels(completion):
    """A random policy can learn from this one: it always varies."""
    return sum(c in "aeiou" for c in completion) / (1 + len(completion))


def begins_with_vowel(steps):
    """Of every step whether its first letter is one."""
    return [float(step[:1] in "aeiou") for step in steps]
