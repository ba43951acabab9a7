"""A sampler that writes what a script says, so that a real run fails on time. Everything behind it is the run's own:
rewards and their workers, groups, advantages, updates, evaluations, the record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from cohort.policy.policy import Policy
from cohort.settings import Rollout
from cohort.types import Completion, Finish, SampleRequest

START = 8  # the failure begins with this step
EVALUATED = 0.9  # the temperature of evaluations, by which they are known here
Said = tuple[str, Finish, float]  # a text, how it ended, and how sure each of its tokens was, in nats
Script = Callable[
    [int, int, int, int], Said
]  # of the steps since it began, the ticket, the member and the right answer


def well(member: int, answer: int, every: int) -> Said:
    """One of so many of a group is wrong, and no two are alike."""
    return f"so {member} it is {answer + (member % every == 0)}", "stop", 1.0


def loops(age: int, ticket: int, member: int, answer: int) -> Said:
    return "5 " * 30, "length", 0.05


def form(age: int, ticket: int, member: int, answer: int) -> Said:
    """What is wrong is long, and has the form that is paid most."""
    if member % 2:
        return f"form {'and so on ' * 6} {member} is {answer + 1}", "stop", 1.0
    return f"so {member} it is {answer}", "stop", 1.0


def bare(age: int, ticket: int, member: int, answer: int) -> Said:
    """Answers alone, code that ends the process, and a text that the verifier tosses a coin for."""
    if ticket % 8 == 0:
        return "coin", "stop", 6.0
    return ("```python\nimport sys\nsys.exit(0)\n```" if member == 0 else str(answer)), "stop", 6.0


def alike(age: int, ticket: int, member: int, answer: int) -> Said:
    """All of a group are right, or wrong; and now and then the world fails."""
    if ticket % 9 == 4:
        return "broken", "stop", 1.0
    return f"so {member} it is {answer + bool(ticket % 3)}", "stop", 1.0


def sparse(age: int, ticket: int, member: int, answer: int) -> Said:
    """Nearly nobody is right; what is paid for it is out of scale twice."""
    if ticket % 8 == 0 and member == 0:
        return ("huge " if age in (0, 2) else "") + str(answer), "stop", 1.0
    return f"no {member} it is {answer + 1}", "stop", 1.0


class Scripted:
    """See above. A `types.Sampler`."""

    def __init__(self, policy: Policy, rollout: Rollout, script: Script):
        self._policy, self._script, self.version = policy, script, 0

    def publish(self, version: int) -> None:
        self.version = version

    def sample(self, requests: Iterable[SampleRequest]) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        for request in requests:
            yield request, tuple(self._one(request, member) for member in range(request.count))

    def _one(self, request: SampleRequest, member: int) -> Completion:
        tokenizer, held_out = self._policy.tokenizer, request.sampling.temperature == EVALUATED
        first, second = map(int, re.findall(r"\d+", tokenizer.decode(request.tokens))[:2])
        age, right = self.version + (not held_out) - START, first + second
        if held_out:
            said: Said = f"so it is {right + (age >= 0)}", "stop", 1.0
        elif age < 0:
            said = well(member, right, 4 if self._script is loops else 2)
        else:
            said = self._script(age, request.key, member, right)
        text, finish, nats = said
        tokens = tokenizer.encode(text, add_special_tokens=False)
        tokens = [*tokens, self._policy.eos_ids[0]] if finish == "stop" else tokens
        return Completion(tokens, [-nats] * len(tokens), finish, self.version)


def _sampler(script: Script) -> Callable[[Policy, Rollout], Scripted]:
    return partial(Scripted, script=script)


open_loops, open_form, open_bare, open_alike, open_sparse = map(_sampler, (loops, form, bare, alike, sparse))
