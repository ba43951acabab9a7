"""The gate: are gold answers paid, and answers that know nothing not? The rewards are asked before a policy is trained.

    report = examine(rewards, ["math"], [Asked(prompt, gold_text(prompt.answer)) for prompt in prompts])
    report.problems                     # why no run should start; empty when all is well

It takes two rounds. The first scores gold answers in several forms, to find out which reward decides about which
prompt, and which form it reads. The second scores, in that form, the gold answer once more, the gold answers of other
prompts, constants and several answers at once, and also texts that state no answer at all. A part of it is scored
twice, to see whether that gives the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from cohort.preflight.gate.findings import GOLD, GateReport, Seen, mean, summarise
from cohort.preflight.gate.probes import FORMS, LISTED, OPENER, WHOLE, Probe, constants, ignorant, other_gold, several
from cohort.rewards.calling.reward import Reward
from cohort.rewards.failure import GroupLost
from cohort.rewards.items import ScoredGroup, ScoringItem
from cohort.rewards.workers.pool import RewardPool
from cohort.seeds import derive_seed
from cohort.types import Finish, Prompt
from cohort.wording import counted

AS_IT_IS = next(iter(FORMS))
REPEATED = 2  # prompts that are scored twice
TASTED = (GOLD, "junk", "the prompt itself", OPENER)  # kinds of texts that costly rewards see before a run
AT_LEAST = 2  # prompts that are waited for, whatever time they take


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and its gold answer as text (None: it has none). With `whole` the text is a completion, or the code of
    one, and is not put into the forms of an answer. `seed` is for rewards that draw random numbers. `write` gives a
    text as the policy would write it, through its tokenizer.
    """

    prompt: Prompt
    gold: str | None
    whole: bool = False
    seed: int = 0
    write: Callable[[str], str] = str

    @property
    def forms(self) -> Mapping[str, Callable[[str], str]]:
        """The forms in which the gold answer may be written."""
        return WHOLE if self.whole else FORMS


def examine(
    rewards: Sequence[Reward],
    verifiers: Sequence[str],
    asked: Sequence[Asked],
    untested: Collection[str] = (),
    workers: int = 1,
    limit_s: float = math.inf,
    pass_environment: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> GateReport:
    """Score gold and ignorant answers with `rewards`. `verifiers` are the names of the rewards that say what is right:
    for each prompt the first of them that applies. `untested` names the verifiers that do not look at the gold answer.
    After `limit_s` seconds, the report is made of the prompts that have been scored by then.

    Raises RewardFailure, as training would, when a reward breaks on one of the texts.
    """
    began = time.monotonic()
    with RewardPool(rewards, workers, retries=1, pass_environment=pass_environment, say=say) as pool:
        scorer = _Scorer(pool, began + limit_s)
        first = scorer.score([_gold_in_all_forms(one) for one in asked])
        deciding = [_decides(group, verifiers) for group in first]
        forms = _forms(asked, first, deciding)
        golds = [one.gold for one in asked]
        always = constants(golds)
        probes = [
            _probes(one, forms.get(verifier, AS_IT_IS), several(golds, index), other_gold(golds, index), always)
            for index, (one, verifier) in enumerate(zip(asked, deciding, strict=True))
        ]
        items = [_item(one, texts, "second") for one, texts in zip(asked, probes, strict=True)]
        second = scorer.score(items)
        again = scorer.score(items[:REPEATED])
    seen = [
        Seen(one.prompt, one.gold, verifier, texts, before, after)
        for one, verifier, texts, before, after in zip(asked, deciding, probes, first, second, strict=True)
        if after is not None
    ]
    pairs = [(a, b) for a, b in zip(second, again) if a is not None and b is not None]
    return summarise(rewards, verifiers, untested, seen, pairs, scorer.lost, len(asked), time.monotonic() - began)


def taste(
    rewards: Sequence[Reward],
    one: Asked,
    pass_environment: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> tuple[str, tuple[str, ...]]:
    """What costly rewards pay for one text of each of a few kinds, in words; and what is wrong where one cannot be
    asked, or pays all of them alike: the gold answer too, or so much that no text could get much more.
    """
    texts = {probe.kind: probe for probe in _probes(one, AS_IT_IS, None, None, ()) if probe.kind in TASTED}
    with RewardPool(rewards, 1, retries=1, pass_environment=pass_environment, say=say) as pool:
        scorer = _Scorer(pool, math.inf)
        scored = scorer.score([_item(one, [*texts.values()], "taste")])[0]
    if scored is None:
        lost = scorer.lost[0]
        return "", (f"{lost.reward or rewards[0].name} could not be asked: {lost}.",)
    said, problems = [], []
    for name, scores in scored.scores.items():
        paid = ", ".join(f"{score:.2f} for {kind}" for kind, score in zip(texts, scores, strict=True))
        said.append(f"{name}, asked about {counted(len(texts), 'text')}, pays {paid}")
        if len(set(scores)) == 1 and scores[0] > 0 and (GOLD in texts or scores[0] > 0.5):
            problems.append(f"{said[-1]}, so it says nothing.")
    return "; ".join(said) + "; cohort check asks more", tuple(problems)


class _Scorer:
    """Scores items in order. An item that is None, was lost, or came too late has no result. After two losses in a row
    the scorer gives up: a reward that hangs or is down costs its time limit twice, not once a prompt.
    """

    def __init__(self, pool: RewardPool, deadline: float) -> None:
        self._pool = pool
        self._deadline = deadline
        self._in_a_row = 0
        self.lost: list[GroupLost] = []

    def score(self, items: Sequence[ScoringItem | None]) -> list[ScoredGroup | None]:
        futures = [None if item is None else self._pool.submit(item) for item in items]
        return [self._result(future, wait=index < AT_LEAST) for index, future in enumerate(futures)]

    def _result(self, future: Future[ScoredGroup] | None, wait: bool) -> ScoredGroup | None:
        if future is None:
            return None
        left = self._deadline - time.monotonic()
        try:
            if self._in_a_row < 2:
                scored = future.result(None if wait or left == math.inf else max(left, 0.0))
                self._in_a_row = 0
                return scored
        except GroupLost as lost:
            self.lost.append(lost)
            self._in_a_row += 1
        except TimeoutError:
            pass
        future.cancel()
        return None


def _gold_in_all_forms(asked: Asked) -> ScoringItem | None:
    if not asked.gold:
        return None
    probes = [Probe(GOLD, form, asked.write(write(asked.gold))) for form, write in asked.forms.items()]
    return _item(asked, probes, "first")


def _probes(asked: Asked, form: str, listed: str | None, other: str | None, always: Sequence[str]) -> tuple[Probe, ...]:
    """What the second round scores: the gold answer in the form that its verifier reads, and ignorant ones."""
    write = asked.forms[form]
    gold = [] if asked.gold is None else [Probe(GOLD, form, write(asked.gold))]
    if listed is not None and not asked.whole:
        gold.append(Probe(LISTED, "", write(listed)))
    probes = (*gold, *ignorant(asked.prompt.question, other, always, write))
    return tuple(replace(probe, text=asked.write(probe.text)) for probe in probes)


def _decides(group: ScoredGroup | None, verifiers: Sequence[str]) -> str | None:
    """The first verifier that gives one of the gold answers a score. None: no verifier applies, or there is no gold."""
    for name in verifiers:
        if group is not None and not all(map(math.isnan, group.scores[name])):
            return name
    return None


def _forms(
    asked: Sequence[Asked], first: Sequence[ScoredGroup | None], deciding: Sequence[str | None]
) -> dict[str | None, str]:
    """For each verifier the form of the gold answer that it pays best, the first of equals."""
    found: dict[str | None, dict[str, list[float]]] = {}
    for one, group, verifier in zip(asked, first, deciding, strict=True):
        if group is not None and verifier is not None:
            for form, score in zip(one.forms, group.scores[verifier], strict=True):
                found.setdefault(verifier, {}).setdefault(form, []).append(score)
    return {verifier: max(scores, key=lambda form: mean(scores[form], -math.inf)) for verifier, scores in found.items()}


def _item(asked: Asked, probes: Sequence[Probe], round_: str) -> ScoringItem:
    """All texts for one prompt as a group. Nobody sampled them, so words stand for tokens, with numbers as ids."""
    texts = tuple(probe.text for probe in probes)
    return ScoringItem(
        prompt=asked.prompt.question,
        completions=texts,
        answer=asked.prompt.answer,
        row=dict(asked.prompt.tags),
        messages=asked.prompt.messages,
        finishes=tuple[Finish, ...]("stop" for _ in texts),
        tokens=tuple(len(text.split()) for text in texts),
        seed=derive_seed(asked.seed, round_),
        begun=asked.prompt.begun,
        completion_ids=tuple(range(len(text.split())) for text in texts),
    )
