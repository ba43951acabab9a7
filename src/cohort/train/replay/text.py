"""Level 2: the stored text, read again from the stored tokens; and the tokens of prompts, written again."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from cohort import environments
from cohort.chat import ChatTemplate, has_template
from cohort.environments.episodes import Episodes, OneTurn
from cohort.policy.load import Start, load_tokenizer, locate
from cohort.record.report import Check
from cohort.settings import Policy as PolicyTable
from cohort.tasks import Renderer
from cohort.train.replay.opened import Recorded
from cohort.train.replay.stored import StoredStep
from cohort.train.replay.tally import Tally
from cohort.types import Completion, Finish, Group, Rollout, UserError, content_id


class Texts:
    """What tokens read as, and prompts are written as, by the tokenizer that the run has left. A context manager."""

    def __init__(self, recorded: Recorded):
        self._recorded, self._stack = recorded, ExitStack()
        self._text = Tally(2, f"{recorded.title}text", "texts and masks, read from the tokens")
        self._prompts = Tally(2, f"{recorded.title}prompts", "prompts, written as tokens")
        try:
            self._open(recorded)
        except (UserError, OSError, ValueError) as error:
            self._text.skipped = self._prompts.skipped = str(error)

    def __enter__(self) -> Texts:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def look(self, step: StoredStep, only: int | None = None) -> None:
        """Compare the groups of a step, or one of them, by its ticket."""
        if self._text.skipped:
            return
        for group in step.groups:
            if only in (None, group.ticket):
                self._prompt(step, group)
                for member, rollout in enumerate(group.rollouts):
                    self._rollout(step.place(group.ticket, member), rollout)

    def checks(self, shown: int) -> list[Check]:
        """The checks of texts and of prompts, each with what it found."""
        return [self._prompts.check(shown), self._text.check(shown)]

    def _open(self, recorded: Recorded) -> None:
        stage, where = recorded.stage, locate(str(recorded.directory))
        table = PolicyTable(model=where, trust_remote_code=stage.policy.trust_remote_code)
        self._tokenizer: Any = load_tokenizer(table, Start())
        world = environments.open(stage)
        self._stack.callback(world.close)
        self._renderer = Renderer.of(stage.task, self._tokenizer, world.schemas)
        play = world.player(self._tokenizer, _ends(self._tokenizer, where), _Nobody())
        self._play = play if isinstance(play, OneTurn | Episodes) else None
        if self._play is None:
            self._text.skipped = "another library, or an agent, played these conversations"

    def _prompt(self, step: StoredStep, group: Group) -> None:
        prompt, row, place = group.prompt, step.rows[group.ticket][0], step.place(group.ticket)
        tally = self._prompts
        if content_id(prompt.text, prompt.messages, prompt.answer) != prompt.id:
            tally.differ(f"{place}: prompt_id is not that of the question and its answer")
        answer = None if prompt.answer is None else str(prompt.answer)
        for field, said in (("prompt", prompt.question), ("answer", answer)):
            if row[field] != said:
                tally.differ(f"{place}: {field} is not what prompt_json holds")
        try:
            written = self._renderer.render(prompt)
        except UserError as error:
            tally.differ(f"{place}: {error}")
            return
        now = list(written.tokens)
        if self._recorded.stage.task.too_long == "truncate_left":
            now = now[-len(prompt.tokens) :]
        tally.compare(f"{place}: prompt_tokens", list(prompt.tokens), now)

    def _rollout(self, place: str, rollout: Rollout) -> None:
        try:
            for field, stored, now in self._read(rollout):
                self._text.compare(f"{place}: {field}", stored, now)
        except (OverflowError, IndexError, TypeError, ValueError):  # of a tokenizer that is shown no token of its own
            self._text.differ(f"{place}: tokens are none of this tokenizer")

    def _read(self, rollout: Rollout) -> list[tuple[str, Any, Any]]:
        play = self._play
        assert play is not None
        if isinstance(play, OneTurn):
            completion = Completion(rollout.tokens, rollout.logprobs, rollout.finish, rollout.version)
            own = [True] * len(rollout.tokens)
            return [("text", rollout.text, play.read(completion)), ("mask", list(rollout.mask), own)]
        found: list[tuple[str, Any, Any]] = []
        own = [False] * len(rollout.tokens)
        for number, turn in enumerate(rollout.turns):
            last = number == len(rollout.turns) - 1
            finishes: tuple[Finish, ...] = (
                ("length", "stop") if last and rollout.finish == "length" else ("stop",)
            )  # one had no room left
            tokens = rollout.tokens[turn.start : turn.end]
            texts = [play.read(Completion(tokens, (), finish, rollout.version)) for finish in finishes]
            found.append((f"turns[{number}].text", turn.text, turn.text if turn.text in texts else texts[0]))
            own[turn.start : turn.end] = [True] * len(tokens)
            if not last:
                said = play.dialogue.following(tokens[-1], turn.observation.messages)
                told = rollout.tokens[turn.end : rollout.turns[number + 1].start]
                found.append((f"tokens of what answered turn {number}", list(told), list(said)))
        found.append(("mask", list(rollout.mask), own))
        return [*found, ("text", rollout.text, play.dialogue.final(rollout.turns))]


class _Nobody:
    """A sampler that nobody asks."""

    version = 0

    def sample(self, requests: Any) -> Any:
        raise NotImplementedError

    def publish(self, version: int) -> None:
        raise NotImplementedError


def _ends(tokenizer: Any, where: str) -> tuple[int, ...]:
    """Every token that ends a completion, as the policy knows them: the tokenizer's, the template's, the model's."""
    ends = {tokenizer.eos_token_id}
    if has_template(tokenizer):
        ends.add(ChatTemplate(tokenizer).turn_end[1])
    if Path(where, "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(where).eos_token_id
        ends.update(configured if isinstance(configured, list) else [configured])
    return tuple(sorted(end for end in ends if end is not None))
