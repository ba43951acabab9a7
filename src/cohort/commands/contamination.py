"""What `cohort check` finds of benchmarks: in the training prompts, and in what the base model goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cohort.backends.base import open_sampler
from cohort.commands.door import argument
from cohort.policy.policy import Policy
from cohort.policy.text import reader
from cohort.preflight.contamination.completion import Complete, completed
from cohort.preflight.contamination.sides import HELD_OUT, benchmark_of, look_in
from cohort.preflight.contamination.texts import Question
from cohort.settings import Stage
from cohort.train.contamination import found_before, sides_of
from cohort.train.stage import PreparedStage
from cohort.types import SampleRequest, Sampling, UserError
from cohort.views.console import Console
from cohort.views.contamination import show_completed, show_contamination


@dataclass(frozen=True, slots=True)
class Benchmarks:
    """What training prompts are compared with, beside what the recipe holds out: questions by what the command line
    calls them; and how many of each the base model has to finish.
    """

    given: dict[str, list[Question]]
    finish: int

    @staticmethod
    def of(against: Sequence[str], finish: int) -> Benchmarks:
        """The benchmarks of the command line, read. One that cannot be is a wrong argument."""
        with argument():
            if finish and not against:
                raise UserError(
                    "--probe has the base model finish questions of a benchmark: name it with --against FILE"
                )
            return Benchmarks({given: benchmark_of(given) for given in against}, finish)

    def look(self, one: PreparedStage, policy: Policy, console: Console) -> tuple[dict[str, Any], bool]:
        """What was found of each benchmark, as JSON takes it; and whether none of them is trained on. Shows it. What
        the recipe itself holds out is looked for as before a run, and does not decide.
        """
        found: dict[str, Any] = {}
        own = found_before(one)
        found[HELD_OUT] = {"not_looked": {HELD_OUT: own}} if isinstance(own, str) else own.to_dict()
        if not isinstance(own, str) and own.flagged:
            show_contamination(console, own)
        clean, (sides, _) = True, sides_of(one.stage, one.prepared)
        for name, questions in self.given.items():
            if not sides:
                why = f"the prompts of stage '{one.stage.name}' are made without end, so none can be looked through"
                console.warn(f"{name}: {why}")
                found[name] = {"not_looked": {"prompts": why}}
            else:
                report = look_in(name, questions, sides)
                show_contamination(console, report)
                found[name], clean = report.to_dict(), clean and not report.flagged
            if self.finish:
                finished = completed(questions, self.finish, _greedy(policy, one.stage), one.seed)
                show_completed(console, name, finished)
                found[name]["finished"] = None if finished is None else asdict(finished)
        return found, clean


def _greedy(policy: Policy, stage: Stage) -> Complete:
    """Texts gone on with by the likeliest tokens, each as long as another text is."""
    tokenizer, read = policy.tokenizer, reader(policy.tokenizer, policy.eos_ids)

    def complete(asked: Sequence[tuple[str, str]]) -> Sequence[str]:
        requests = []
        for key, (text, rest) in enumerate(asked):
            wanted = len(tokenizer.encode(rest, add_special_tokens=False))
            tokens = tokenizer.encode(text)[-max((policy.max_context or 2**31) - wanted, 1) :]
            requests.append(SampleRequest(key, tokens, 1, 0, Sampling(wanted, temperature=0.0)))
        sampled = open_sampler(policy, stage.rollout).sample(requests)
        said = {request.key: read(group[0].tokens) for request, group in sampled}
        return [said[key] for key in range(len(asked))]

    return complete
