"""Find out which tasks of reasoning-gym can be trained on: `python tools/reasoning_gym_gate.py [TASK ...]`.

Every task's problems are made again in two processes, and its gold answers, junk, padded answers and hostile ones are
scored with the reward `reasoning_gym`. What survives is written to admitted.json (in
src/cohort/integrations/reasoning_gym/) with the way it is scored, and to the table in docs/tasks/reasoning_gym.md; what
does not, with the reason. About a quarter of an hour.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cohort.integrations.reasoning_gym.reward import reasoning_gym, same
from cohort.integrations.reasoning_gym.source import FILE, Admitted, GymProblems
from cohort.types import Prompt

PAGE = Path(__file__).parent.parent / "docs" / "tasks" / "reasoning_gym.md"
MARKS = re.compile(r"(<!-- tasks -->\n).*(<!-- end of tasks -->)", re.DOTALL)
PROBLEMS, PER_LEVEL = 40, 6  # looked at with the task's own settings, and at each level
SLOWEST_S, LEVEL_S, TASK_S = 2.0, 30, 900  # for making one problem, and those of one level; for all of a task
TOO_GOOD = 0.75  # a constant answer that earns more makes a task worthless

# How tasks are scored that have more than one right answer, or that do not say in which case to write it. `form` is
# what an answer must look like in full before reasoning-gym's own scorer sees it, which would ignore the rest.
STEP = "(?:up|down|left|right)"
MOVE = '"(?:fill [A-Z]|empty [A-Z]|pour [A-Z]->[A-Z])"'
SCORING: dict[str, dict[str, str]] = {
    "advanced_geometry": {"scoring": "verifier", "form": r"\(?[-+0-9., ]+\)?°?"},
    "complex_arithmetic": {"scoring": "verifier", "form": r"[-+0-9.ij() ]+"},
    "cryptarithm": {"scoring": "verifier", "form": r"[A-Z]=[0-9](?:, ?[A-Z]=[0-9]){0,25}"},
    "fraction_simplification": {
        "scoring": "verifier",
        "form": r"\$?\\d?frac ?\{[0-9]+\} ?\{[0-9]+\}\$?|\$?[0-9]+ ?/ ?[0-9]+\$?",
    },
    "graph_color": {"scoring": "verifier", "form": r"(?s:\{.*\})"},
    "group_anagrams": {"scoring": "verifier", "form": r"(?s:\[.*\])"},
    "jugs": {"scoring": "verifier", "form": rf"\[\s*{MOVE}(?:\s*,\s*{MOVE})*\s*\]"},
    "kakurasu": {"scoring": "verifier", "form": r"[01 \n]+"},
    "knight_swap": {"scoring": "verifier", "form": r"No|(?s:\[.*\])"},
    "palindrome_generation": {"scoring": "verifier", "form": r"[a-z]+"},
    "palindrome_partitioning": {"scoring": "verifier", "form": r"(?s:\[.*\])"},
    "power_function": {"scoring": "verifier", "form": r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,3})?"},
    "prime_factorization": {"scoring": "verifier", "form": r"[0-9]+(?: ?\u00d7 ?[0-9]+)*"},
    "quantum_lock": {"scoring": "verifier", "form": r"[ABC](?: ?→ ?[ABC])*"},
    "rubiks_cube": {"scoring": "verifier", "form": r"[A-Z]'?(?: [A-Z]'?)*"},
    "shortest_path": {"scoring": "verifier", "form": rf"infeasible|{STEP}(?: {STEP})*"},
    "tower_of_hanoi": {"scoring": "verifier", "form": r"(?:Move disk [0-9]+ from Peg [0-9]+ to Peg [0-9]+\s*)+"},
    "word_ladder": {"scoring": "verifier", "form": r"[A-Z]+(?:,[A-Z]+)+"},
    "countdown": {"scoring": "expression"},
    "puzzle24": {"scoring": "expression"},
    "n_queens": {"scoring": "one_of"},
} | {
    name: {"scoring": "words"}
    for name in (
        *("color_cube_rotation", "family_relationships", "figlet_font", "knights_knaves", "needle_haystack"),
        *("syllogism", "zebra_puzzles"),
    )
}
REFUSED = {
    "codeio": "making a problem executes code from a data file",
    "coin_flip": "the question does not say how to write a probability, and its scorer takes 0 for a small one",
    "composite": "it is a mixture of tasks; write [task.mixture]",
    "intermediate_integration": "its scorer executes the answer (sympy.parse_expr)",
    "polynomial_multiplication": "its scorer executes the answer (sympy.parse_expr)",
    "propositional_logic": "its scorer pays for a premise that is repeated",
    "sokoban": "moves that do nothing are free, so random walks of 1,000 moves solve one board in twelve",
    "simple_integration": "its scorer executes the answer (sympy.parse_expr)",
}

JUNK = (
    *("", " ", "qzv wkrm plorf", "?", "#", "[]", "{}", "[[]]", '{"a": 1}', "null", "None", "nan", "inf", "-1", "0 0 0"),
    *("9" * 9000, "(" * 4000, "[" * 4000, "{" * 4000, "1e999999", "1" + "0" * 300 + "/7", "\x00", "\u0661", "A=1" * 99),
)
HOSTILE = (
    "__import__('os').system('touch CANARY')",
    "[__import__('os').system('touch CANARY')]",
    "open('CANARY', 'w').close()",
    "[[x for x in [__import__('pathlib').Path('CANARY').touch()]]]",
    "exec(\"open('CANARY', 'w')\") or 24",
    '{"__reduce__": ["os.system", "touch CANARY"]}',
)
CONSTANTS = ("0", "1", "2", "True", "False", "Yes", "No", "yes", "no", "A", "B", "infeasible", "[]", "undetermined")


class Unfit(BaseException):  # not an Exception, so that nothing that makes or scores problems handles it
    """Why a task cannot be used."""


def score(prompt: Prompt, completion: str) -> float:
    """What the reward pays."""
    began = time.monotonic()
    scored = reasoning_gym(completion, prompt.answer, prompt.question, dict(prompt.tags))
    if time.monotonic() - began > 10:
        raise Unfit(f"scoring {completion[:30]!r} takes longer than 10 s")
    return scored.value


def tagged(answer: str) -> str:
    return f"<think> So it is. </think>\n<answer>{answer}</answer>"


def worthless(prompt: Prompt, other: str, canary: str) -> Iterator[str]:
    """Completions that must not pay, whatever the problem."""
    gold = prompt.answer
    yield from JUNK
    junk = (text for text in JUNK if not same(text, gold))
    for text in (*junk, *(hostile.replace("CANARY", canary) for hostile in HOSTILE), prompt.question):
        yield tagged(text)
    yield prompt.question
    yield gold  # nowhere marked as the answer
    yield from (tagged(f"{gold} or so"), tagged(f"The answer is {gold}"), tagged(f"{gold}\n\n{gold}"))
    yield from (tagged(f"{gold} {other}"), tagged(f"{other} {gold}"), tagged(f"{gold}#"), tagged(f"{other}\n{gold}"))
    yield f"{tagged(gold)}{tagged(gold)}"
    yield f"{tagged(other)}\n{gold}"
    yield f"{gold}\n<answer></answer>"
    if len(gold) > 1 and not re.fullmatch(r"-?[0-9]+\.[0-9]+", gold):  # a decimal may do with fewer digits
        yield tagged(gold[: len(gold) // 2])


def examine(prompts: list[Prompt]) -> None:
    """Gold must pay, junk must not, nothing may run."""
    with tempfile.TemporaryDirectory() as directory:
        canary = Path(directory) / "canary"
        for index, prompt in enumerate(prompts):
            if not prompt.answer.strip() or prompt.answer == "None":
                raise Unfit("it gives no gold answer to check the scorer with")
            if score(prompt, tagged(prompt.answer)) != 1.0:
                raise Unfit(f"the gold answer {prompt.answer[:40]!r} does not pay")
            others = (p.answer for p in (*prompts[index + 1 :], *prompts[:index]) if p.answer != prompt.answer)
            other = next((answer for answer in others if score(prompt, tagged(answer)) == 0.0), "7")
            for completion in worthless(prompt, other, str(canary)):
                if score(prompt, completion) != 0.0:
                    raise Unfit(f"the answer {completion[-60:]!r} pays where {prompt.answer[:60]!r} is right")
                if canary.exists():
                    raise Unfit(f"scoring {completion[:40]!r} runs it")


def best_constant(prompts: list[Prompt]) -> float:
    """The best mean score of one answer that is given to every problem."""
    several = prompts[0].tags["gym"]["scoring"] in ("verifier", "one_of")  # an answer may then be right elsewhere, too
    common = [answer for answer, _ in Counter(p.answer for p in prompts).most_common(len(prompts) if several else 5)]
    return max(sum(score(p, tagged(c)) for p in prompts) / len(prompts) for c in dict.fromkeys((*CONSTANTS, *common)))


def make_all(problems: GymProblems, level: int | None, count: int) -> list[Prompt]:
    """Problems of a level; each must take its time and come out the same when random generators have moved."""
    prompts = []
    signal.signal(signal.SIGPROF, too_slow)
    signal.setitimer(signal.ITIMER_PROF, LEVEL_S)  # processor time, so that a busy machine changes nothing
    for index in range(count):
        began = time.process_time()
        prompts.append(problems.at(level, index))
        if time.process_time() - began > SLOWEST_S:
            raise Unfit(f"making one problem takes longer than {SLOWEST_S:g} s")
        random.seed(index)
        if index < 3 and problems.at(level, index) != prompts[-1]:
            raise Unfit("the same seed makes another problem")
    signal.setitimer(signal.ITIMER_PROF, 0)
    return prompts


def too_slow(*_: Any) -> None:
    raise Unfit(f"making a few problems takes longer than {LEVEL_S} s")


def can_reuse(task: str, admitted: Admitted, prompts: list[Prompt]) -> bool:
    """Whether a dataset that is set to another seed makes the same problems as a new one."""
    problems = GymProblems(task, admitted=replace(admitted, reuse=True))
    try:
        return all(problems[index] == prompt for index, prompt in enumerate(prompts))
    except Exception:
        return False


def one(task: str, thorough: bool) -> dict[str, Any]:
    """Everything about one task; not `thorough`: its problems alone."""
    from reasoning_gym.factory import create_curriculum, has_curriculum

    attributes = create_curriculum(task).attributes if has_curriculum(task) else {}
    scoring = {"scoring": "text"} | SCORING.get(task, {})
    top = max((len(attribute.levels) for attribute in attributes.values()), default=0)
    admitted = Admitted(levels=top, constant=0.0, reuse=False, **scoring)
    prompts = make_all(GymProblems(task, admitted=admitted), None, PROBLEMS)
    admitted = replace(admitted, reuse=can_reuse(task, admitted, prompts))
    digest, usable = [prompts], 0
    if thorough:
        examine(prompts)
    for level in range(1, top + 1):
        try:
            found = make_all(GymProblems(task, (level,), admitted=admitted), level, PER_LEVEL)
            if thorough:
                examine(found)
        except (Exception, Unfit) as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            print(f"{task}, level {level}: {type(error).__name__}: {error}", file=sys.stderr)
            break
        usable = level
        digest.append(found)
    facts = {"digest": [hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest() for found in digest]}
    if thorough:
        held_out = GymProblems(task, split="held_out", admitted=admitted)
        examine([held_out[index] for index in range(3)])
        constant = best_constant(prompts)
        if constant > TOO_GOOD:
            raise Unfit(f"one answer, always the same, is right {constant:.0%} of the time")
        reuse = {} if admitted.reuse else {"reuse": False}
        facts["admitted"] = {**scoring, "levels": usable, "constant": round(constant, 2), **reuse}
    return facts


def in_process(task: str, hash_seed: int, thorough: bool) -> dict[str, Any]:
    """`one` in a process of its own, so that a task that hangs, or that depends on hash seeds, is found out."""
    command = [sys.executable, __file__, "--one", task, *(["--thorough"] if thorough else [])]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TASK_S,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        )
    except subprocess.TimeoutExpired:
        return {"unfit": f"making and scoring its problems takes longer than {TASK_S} s"}
    if done.returncode != 0:
        return {"unfit": done.stderr.strip().splitlines()[-1].removeprefix("Unfit: ")[:200]}
    if thorough:
        print(done.stderr[-500:], end="", flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def judge(task: str) -> dict[str, Any]:
    """What is written of a task: the facts of an admitted one, or the reason."""
    if task in REFUSED:
        return {"refused": REFUSED[task]}
    facts, again = in_process(task, 1, True), in_process(task, 2, False)
    for found in (facts, again):
        if "unfit" in found:
            return {"refused": found["unfit"]}
    same = [a == b for a, b in zip(facts["digest"], again["digest"])]
    if not same[0]:
        return {"refused": "the same seed makes another problem in another process"}
    usable = next((level for level, alike in enumerate(same[1:]) if not alike), len(same) - 1)
    return {"admitted": facts["admitted"] | {"levels": min(usable, facts["admitted"]["levels"])}}


def table() -> str:
    """The page's table."""
    found = json.loads(FILE.read_text("utf-8"))
    lines = ["| task | scored as | levels | best constant answer |", "|---|---|---|---|"]
    for name, facts in found["admitted"].items():
        levels = f"1 to {facts['levels']}" if facts["levels"] else ""
        lines.append(f"| `{name}` | {facts['scoring']} | {levels} | {facts['constant']:.0%} |")
    lines += ["", f"Refused ({len(found['refused'])}):", "", "| task | because |", "|---|---|"]
    lines += [f"| `{name}` | {reason.replace('|', '/')} |" for name, reason in found["refused"].items()]
    return "\n".join([f"Admitted ({len(found['admitted'])}):", "", *lines])


def page(text: str) -> str:
    """The page with its table written anew."""
    return MARKS.sub(lambda m: f"{m[1]}\n{table()}\n\n{m[2]}", text)


def main(chosen: list[str]) -> None:
    """Judge the tasks and write what was found."""
    from reasoning_gym.factory import DATASETS

    found = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {"admitted": {}, "refused": {}}
    found["reasoning_gym"] = version("reasoning-gym")
    for task in chosen or sorted(DATASETS):
        FILE.write_text(json.dumps(found), "utf-8")  # problems are made by the very code that asks for it
        began = time.monotonic()
        judged = judge(task)
        for kind in ("admitted", "refused"):
            found[kind].pop(task, None)
            found[kind] |= {task: judged[kind]} if kind in judged else {}
            found[kind] = dict(sorted(found[kind].items()))
        print(f"{task}: {judged} ({time.monotonic() - began:.0f} s)", flush=True)
    FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--one"]:
        print(json.dumps(one(arguments[1], "--thorough" in arguments)))
    else:
        main(arguments)
