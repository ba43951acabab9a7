"""What the columns of data seem to be, for whoever has not said it: `cohort init`, and `cohort.train` in Python.

Names decide what a column is, and the answers themselves which verifier reads them. What is taken is said, and so is
what could not be decided: nothing here is more than a first recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cohort.tasks.sources.columns import with_inner
from cohort.tasks.sources.opening import NAMES_OF_COLUMNS
from cohort.tasks.sources.rows import open_rows
from cohort.tasks.task import open_task
from cohort.types import UserError

LOOKED_AT = 20_000  # rows, as many as are checked when a task is opened
MADE = 200  # prompts of a source that makes them
HELD_OUT_SPLITS = ("test", "validation")
ENOUGH = 100  # rows from which a tenth of them is held out

PROMPTS = ("messages", "prompt", "question", "problem", "query", "instruction", "input")
ANSWERS = ("answer", "solution", "gold", "ground_truth", "final_answer", "reference_answer", "target", "label")
VERL_ANSWER = "reward_model.ground_truth"  # where the rows of verl have it
COMPLETIONS = ("completion", "response", "output", "demonstration")

_NUMBER = re.compile(r"[-+]?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?%?")
_LATEX = re.compile(r"\\[a-zA-Z]+|\$.+\$|\^", re.DOTALL)
_LETTER = re.compile(r"\(?([A-J])\)?[.)]?")


@dataclass(frozen=True, slots=True)
class Guess:
    """The kind of stage that fits, keys of its task table, and a reward table (None: the stage needs none).

    `size` is the number of rows; None where the source makes its prompts. `took` and `unsure` say in phrases what was
    taken, and what a person has to decide; `because` is such a phrase about the reward, which may not fit.
    """

    kind: str
    task: Mapping[str, Any]
    size: int | None
    took: tuple[str, ...]
    unsure: tuple[str, ...] = ()
    reward: Mapping[str, Any] | None = None
    because: str = ""
    fits: bool = True


def guess_source(
    source: str, split: str = "train", config: str | None = None, named: Mapping[str, Any] | None = None, kind: str = ""
) -> Guess:
    """What the columns of a file, a directory, a hub id or a source by its name are. Raises `UserError` for one that
    cannot be read, and where no column is a question.
    """
    if not Path(source).expanduser().exists() and (":" in source or re.fullmatch(r"\w+", source)):
        return _made(source)
    return guess(open_rows(source, split, config), named, kind)


def held_out_of(source: str, split: str, config: str | None, found: Guess) -> Guess:
    """The guess with what can be held out of its rows: another split of a dataset, or a share of many rows."""
    if found.kind == "sft" or found.size is None:
        return found
    for other in HELD_OUT_SPLITS if not Path(source).is_file() and split not in HELD_OUT_SPLITS else ():
        try:
            open_rows(source, other, config, wanted=other)
        except UserError:
            continue
        return _with(found, {"held_out_split": other}, f"the split '{other}', which is held out")
    if found.size >= ENOUGH:
        return _with(found, {"held_out": 0.1}, "a tenth of the rows, which is held out")
    few = f"nothing is held out, as there are fewer than {ENOUGH} rows: name a file with task.held_out"
    return replace(found, unsure=(*found.unsure, few))


def guess(rows: Any, named: Mapping[str, Any] | None = None, kind: str = "") -> Guess:
    """What the columns of rows (see `open_rows`) are. `named` are keys of the task table that are decided already, as
    `kind` may be.
    """
    named = named or {}
    rows = with_inner(rows, [*(named.get(key) for key in NAMES_OF_COLUMNS), VERL_ANSWER])
    columns, looked = rows.columns, range(min(len(rows), LOOKED_AT))
    if kind in ("", "reward_model") and {"chosen", "rejected"} <= {*columns}:
        prompt = _first(columns, PROMPTS[1:])
        task = {} if prompt is None else {"prompt": prompt}
        pairs = f"preference pairs in 'chosen' and 'rejected'{f', prompts in {prompt!r}' if prompt else ''}"
        return Guess("reward_model", _new(task, named), len(rows), (pairs,))
    key = "messages" if named.get("messages") else "prompt"
    question = named.get(key) or _first(columns, PROMPTS)
    if question is None:
        raise UserError(
            f"no column is called {', '.join(PROMPTS[:-1])} or {PROMPTS[-1]}; there is {', '.join(columns) or 'none'}. "
            'Name the column of the questions: task.prompt = "..."'
        )
    task = {"messages" if question == "messages" else key: question}
    took = f"questions in '{question}'"
    completion = named.get("completion") or _first(columns, COMPLETIONS)
    verl = [VERL_ANSWER] if VERL_ANSWER in rows[0] else []
    answer = named.get("answer") or _first(columns, [*ANSWERS, *verl])
    chat = question == "messages" and all(_is_answered(rows[index].get(question)) for index in looked[:MADE])
    if (answer is None or kind == "sft") and (completion is not None or chat):
        learnt = "the last turn of each conversation" if chat else f"'{completion}'"
        task |= {} if chat else {"completion": str(completion)}
        return Guess("sft", _new(task, named), len(rows), (took, f"demonstrations in {learnt}"))
    if answer is None:
        why = "one_answer, which looks at the form alone, as there is no answer to compare with: write your own"
        return Guess("grpo", _new(task, named), len(rows), (took,), (), {"use": "one_answer"}, why, False)
    form, reward, what = _verifier([rows[index].get(answer) for index in looked])
    unused = () if completion is None else (f"'{completion}' is not used; kind = \"sft\" would learn it",)
    task |= {"answer": answer, **form}
    both = (took, f"answers in '{answer}', {what}")
    return _scored(Guess("grpo", _new(task, named), len(rows), both, unused), reward, what)


def _made(source: str) -> Guess:
    """A source that makes its prompts. What the libraries bring along knows itself what is right."""
    library = source.partition(":")[0]
    prompts = open_task(source).train
    if library in ("reasoning_gym", "verifiers"):
        return Guess("grpo", {}, prompts.size, (), (), {"use": library}, f"{library}, which scores its own problems")
    some = [prompts[index] for index in range(min(MADE, prompts.size or MADE))]
    _, reward, what = _verifier([prompt.answer for prompt in some])
    return _scored(Guess("grpo", {}, prompts.size, (f"prompts with answers, {what}",)), reward, what)


def _scored(found: Guess, reward: Mapping[str, Any] | None, what: str) -> Guess:
    if reward is None:
        why = f"exact_text, though nothing reads answers {what}: choose another"
        return replace(found, reward={"use": "exact_text"}, because=why, fits=False)
    return replace(found, reward=reward, because=f"{reward['use']}, as the answers are {what}")


def _verifier(answers: Sequence[Any]) -> tuple[dict[str, str], dict[str, Any] | None, str]:
    """Further keys of the task table, the reward that reads these answers (None: none does), and what they are."""
    texts = [answer.strip() if isinstance(answer, str) else answer for answer in answers]
    if texts and all(isinstance(text, str) and "####" in text for text in texts):
        _, reward, what = _verifier([text.rpartition("####")[2].replace(",", "") for text in texts])
        return {"answer_format": "gsm8k"}, reward, f"{what} after ####"
    if all(map(_is_number, texts)):
        return {}, {"use": "exact_number"}, "numbers"
    if all(isinstance(text, dict) or _asserts(text) for text in texts):
        return {}, {"use": "code"}, "tests"
    if not all(isinstance(text, str) for text in texts):
        lists = all(isinstance(text, (str, list)) for text in texts)
        return {}, {"use": "exact_text"} if lists else None, "lists of texts" if lists else "of several types"
    letters = [match[1] for text in texts if (match := _LETTER.fullmatch(text))]
    if len(letters) == len(texts):
        last = max(*letters, "D")
        args = {} if last == "D" else {"args": {"letters": "ABCDEFGHIJ"[: ord(last) - ord("A") + 1]}}
        return {}, {"use": "choice", **args}, "letters"
    formulas = sum(bool(_LATEX.search(text)) for text in texts)
    if formulas and formulas + sum(map(_is_number, texts)) > 0.5 * len(texts):
        return {}, {"use": "math"}, "formulas"
    return {}, {"use": "exact_text"}, "texts"


def _is_number(answer: Any) -> bool:
    if isinstance(answer, str):
        return _NUMBER.fullmatch(answer.strip()) is not None
    return isinstance(answer, int | float) and not isinstance(answer, bool) and math.isfinite(answer)


def _asserts(answer: Any) -> bool:
    lines = answer if isinstance(answer, list) else [answer]
    return bool(lines) and all(isinstance(line, str) and line.lstrip().startswith("assert ") for line in lines)


def _is_answered(chat: Any) -> bool:
    last = chat[-1] if isinstance(chat, Sequence) and chat else None
    return isinstance(last, Mapping) and last.get("role") == "assistant"


def _first(columns: Collection[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in columns), None)


def _new(task: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in task.items() if key not in named}


def _with(found: Guess, task: Mapping[str, Any], took: str) -> Guess:
    return replace(found, task={**found.task, **task}, took=(*found.took, took))
