"""A language model as the judge: a score for each completion, or win rates from comparisons in both orders."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from cohort.rewards.calling.parameters import with_fields_of
from cohort.rewards.judge.client import Endpoint, JudgeClient
from cohort.rewards.judge.prompt import RUBRIC, Messages, comparison, read_score, read_winner, scoring
from cohort.rewards.marks import costly, trl
from cohort.rewards.models.text import text_of
from cohort.types import UserError

_MODES = ("score", "pairwise", "reference")
Ask = Callable[[Sequence[Messages], Callable[[str], float]], list[float]]  # the verdicts on requests, in order


@trl
@costly
@with_fields_of(endpoint=Endpoint)
def judge(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    endpoint: Endpoint,
    mode: str = "score",
    rubric: str = RUBRIC,
    answer: Sequence[Any] | None = None,
    opponents: int = 0,
    lowest: float = 1.0,
    highest: float = 10.0,
    concurrency: int = 8,
) -> list[float | None]:
    """One score from 0 to 1 a completion of a group. `Endpoint` has the arguments that say who is asked, and how.

    score      a score of each completion alone, between `lowest` and `highest`, moved to 0..1
    pairwise   the win rate against the others of the group (with `opponents`, against at least so many of them), each
               pair asked in both orders, so that a preference for a place is a tie; None for a group of one
    reference  the win rate against the gold answer, asked in both orders

    A blank completion is worst, and loses, without being asked about. Raises InfrastructureError where there is no
    verdict to be had, UserError where a person must mend something.
    """
    if mode not in _MODES:
        raise UserError(f"the judge's mode is one of {', '.join(_MODES)}, not {mode!r}")
    if not lowest < highest:
        raise UserError(f"the judge's scale runs from lowest to highest, not from {lowest:g} to {highest:g}")
    if concurrency < 1 or opponents < 0:
        raise UserError("the judge's concurrency is 1 or more, and its opponents 0 (all) or more")
    client = _client(json.dumps(asdict(endpoint), sort_keys=True))
    question = _question(prompts[0]) if prompts else ""
    texts = [text_of(completion) for completion in completions]
    with ThreadPoolExecutor(concurrency) as pool:
        ask = functools.partial(_ask_all, pool, client)
        if mode == "score":
            return list(_scores(ask, rubric, question, texts, lowest, highest))
        if mode == "pairwise":
            return _win_rates(ask, rubric, question, texts, opponents)
        reference = _reference(answer)
        return list(_wins(ask, rubric, question, [(text, reference) for text in texts]))


@functools.lru_cache(maxsize=8)
def _client(endpoint: str) -> JudgeClient:
    """One client for each endpoint (as JSON) and process: its connections stay open from group to group."""
    return JudgeClient(Endpoint(**json.loads(endpoint)))


def _ask_all(
    pool: ThreadPoolExecutor, client: JudgeClient, requests: Sequence[Messages], read: Callable[[str], float]
) -> list[float]:
    """The verdicts in order. After the first failure what has not begun is not asked any more."""
    futures = [pool.submit(client.ask, request, read) for request in requests]
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _scores(ask: Ask, rubric: str, question: str, texts: Sequence[str], lowest: float, highest: float) -> list[float]:
    asked = [i for i, text in enumerate(texts) if text.strip()]
    requests = [scoring(rubric, question, texts[i], lowest, highest) for i in asked]
    verdicts = dict(zip(asked, ask(requests, functools.partial(read_score, lowest=lowest, highest=highest))))
    return [verdicts.get(i, 0.0) for i in range(len(texts))]


def _win_rates(ask: Ask, rubric: str, question: str, texts: Sequence[str], opponents: int) -> list[float | None]:
    count = len(texts)
    if count < 2:
        return [None] * count
    pairs = _pairs(count, opponents)
    won = _wins(ask, rubric, question, [(texts[i], texts[j]) for i, j in pairs])
    results: list[list[float]] = [[] for _ in texts]
    for (i, j), share in zip(pairs, won):
        results[i].append(share)
        results[j].append(1 - share)
    return [sum(shares) / len(shares) for shares in results]


def _pairs(count: int, opponents: int) -> list[tuple[int, int]]:
    """Who meets whom: everybody, or each the next ones in a ring, so that all meet about equally many."""
    if not opponents or opponents >= count - 1:
        return list(itertools.combinations(range(count), 2))
    steps = range(1, (opponents + 1) // 2 + 1)
    return sorted({(min(i, j), max(i, j)) for i in range(count) for step in steps for j in [(i + step) % count]})


def _wins(ask: Ask, rubric: str, question: str, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """What the first of each pair wins, 0 to 1: the mean of its verdicts in both orders."""
    asked = [number for number, (one, other) in enumerate(pairs) if one.strip() and other.strip() and one != other]
    orders = [order for number in asked for order in (pairs[number], pairs[number][::-1])]
    verdicts = ask([comparison(rubric, question, *order) for order in orders], read_winner)
    known = {n: (first + 1 - second) / 2 for n, first, second in zip(asked, verdicts[::2], verdicts[1::2])}
    # The same text is a tie, and nothing loses against something.
    unasked = [0.5 + (bool(one.strip()) - bool(other.strip())) / 2 for one, other in pairs]
    return [known.get(n, share) for n, share in enumerate(unasked)]


def _reference(answer: Sequence[Any] | None) -> str:
    if not answer or answer[0] is None or not str(answer[0]).strip():
        raise UserError(
            'the judge compares with the gold answer (mode = "reference"), but a row has none: name its column with '
            "task.answer"
        )
    return str(answer[0])


def _question(prompt: Any) -> str:
    """A prompt as the judge sees it: its text, or its conversation turn by turn."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0].get("content", ""))
    return "\n\n".join(f"{message.get('role')}: {message.get('content')}" for message in prompt)
