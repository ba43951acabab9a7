"""From a recipe's words to a reward: names, modules, parameters, and one clear sentence for every mistake."""

import dataclasses
import functools
import inspect
import math
import sys
from dataclasses import MISSING

import pytest

from cohort.rewards import Gate, Reward, RewardPool, RewardTable, resolve, resolve_all, trl
from cohort.rewards.calling.parameters import returns_nothing
from cohort.settings import Run
from cohort.types import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refused(use, columns=None, **fields):
    with pytest.raises(UserError) as caught:
        resolve(RewardTable(use=use, **fields), columns)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_built_in():
    reward = resolve(RewardTable(use="exact_number", weight=2))
    assert (reward.name, reward.weight, reward.style) == ("exact_number", 2.0, "cohort")
    assert isinstance(reward, Reward)


def test_a_misspelt_built_in_gets_the_nearest_name():
    message = refused("exact_numbr")
    assert "did you mean 'exact_number'?" in message
    assert "think_format" in message
    assert "did you mean" not in refused("zzzzzz")


def test_a_module_in_the_current_directory(here):
    (here / "my_own_rewards.py").write_text(
        "def score(completion):\n    return 1.0\nclass Box:\n    one = score\nlimit = 3\n"
    )
    reward = resolve(RewardTable(use="my_own_rewards:score"))
    assert reward.name == "score"
    assert reward.function("x") == 1.0
    assert resolve(RewardTable(use="my_own_rewards:Box.one", name="boxed")).name == "boxed"
    assert "did you mean 'score'?" in refused("my_own_rewards:scor")
    assert "my_own_rewards.py" in refused("my_own_rewards:nothing_like_it")
    assert "int, not a function" in refused("my_own_rewards:limit")
    assert "did you mean 'my_own_rewards'?" in refused("my_own_reward:score")
    assert 'try "my_own_rewards:score"' in refused("my_own_rewards.py:score")
    assert 'try "sub.my_own_rewards:score"' in refused("sub/my_own_rewards.py:score")


def test_modules_that_cannot_be_imported(here):
    (here / "needs_more.py").write_text("import not_installed_at_all\n")
    (here / "broken_syntax.py").write_text("def score(:\n")
    (here / "raises_early.py").write_text("\n\nlimit = 1 / 0\n")
    (here / "exits_early.py").write_text("raise SystemExit('no key set')\n")
    assert "'not_installed_at_all', which is not installed" in refused("needs_more:score")
    assert "broken_syntax.py, line 1" in refused("broken_syntax:score")
    message = refused("raises_early:score")
    assert "ZeroDivisionError" in message
    assert "raises_early.py:3" in message
    assert "no key set" in refused("exits_early:score")
    (here / "speaks_long.py").write_text("raise ValueError('one\\n  two')\n")
    assert "ValueError: one two at" in refused("speaks_long:score")
    assert "no module 'absent_module'" in refused("absent_module:score")
    assert "no module 'absent_package.part'" in refused("absent_package.part:score")


def test_names():
    class Judge:
        def __call__(self, completion):
            return 1

    def mine(completion):
        return 1

    assert resolve(RewardTable(use=mine)).name == "mine"
    assert resolve(RewardTable(use=mine, name="other")).name == "other"
    assert resolve(RewardTable(use=lambda completion: 1)).name == "lambda"
    assert resolve(RewardTable(use=Judge())).name == "Judge"
    assert resolve(RewardTable(use=functools.partial(mine))).name == "mine"
    assert resolve(RewardTable(use=trl(lambda prompts, completions: [1]))).style == "trl"
    assert "cannot be called 'a/b'" in refused(mine, name="a/b")
    assert "name must be text that is not empty" in refused(mine, name="")


def test_two_rewards_of_one_name():
    with pytest.raises(UserError, match="two rewards are called 'exact_number'"):
        resolve_all([RewardTable(use="exact_number"), RewardTable(use="exact_number", args={"last_number": True})])
    both = resolve_all([RewardTable(use="exact_number"), RewardTable(use="exact_number", name="lenient")])
    assert [reward.name for reward in both] == ["exact_number", "lenient"]
    with pytest.raises(UserError, match="no reward"):
        resolve_all([])


def test_parameters_are_checked_against_the_columns():
    def mine(completion, difficulty, hint=None):
        return 1

    assert resolve(RewardTable(use=mine), columns=["difficulty"]).name == "mine"
    assert resolve(RewardTable(use=mine, args={"difficulty": 3}), columns=[]).args == {"difficulty": 3}
    assert resolve(RewardTable(use=mine)).name == "mine"  # nobody knows the columns yet
    message = refused(mine, columns=["dificulty", "level"])
    assert "reward 'mine' asks for a parameter 'difficulty' (did you mean 'dificulty'?)" in message
    assert "completion, prompt, answer" in message
    assert message.endswith("dificulty, level")


def test_a_trl_function_without_its_style_is_told_so():
    def theirs(prompts, completions, **kwargs):
        return [1.0]

    assert 'style = "trl"' in refused(theirs, columns=[])
    assert resolve(RewardTable(use=theirs, style="trl"), columns=[]).style == "trl"


def test_a_function_that_cannot_tell_completions_apart():
    def alike(prompt, answer, row, level=1):
        return 1

    message = "reward 'alike' would pay every completion of a prompt alike, because it takes no "
    assert refused(alike).startswith(message + "completion, tokens, finish or seed; give it such a parameter")
    assert refused(trl(alike), columns=["prompt", "row"]).startswith(message + "completions; ")
    assert "'lambda' would pay" in refused(lambda: 1)
    assert resolve(RewardTable(use=alike, weight=0)).weight == 0
    for known in ("completion", "tokens", "finish", "seed"):
        assert resolve(RewardTable(use=eval(f"lambda {known}: 1")))
    assert resolve(RewardTable(use=lambda *args, **kwargs: 1))
    assert resolve(RewardTable(use=trl(lambda prompts, **kwargs: [1])))
    assert "did you mean 'completion'?" in refused(lambda complettion: 1, columns=[])
    assert 'style = "trl"' in refused(lambda prompts, completions: [1.0], columns=[])


def test_a_reward_that_needs_an_answer_where_there_is_none():
    def mine(completion, answer):
        return 1

    for use, name in (("exact_number", "exact_number"), (mine, "mine")):
        with pytest.raises(UserError) as caught:
            resolve_all([RewardTable(use=use)], [], has_answer=False)
        assert str(caught.value) == (
            f"reward '{name}' needs the gold answer, but the task has none: name its column with task.answer"
        )
        assert resolve_all([RewardTable(use=use)], [])
    assert resolve(RewardTable(use=lambda completion, answer=None: 1), has_answer=False)
    assert resolve(RewardTable(use="think_format"), has_answer=False)


def test_functions_that_cannot_be_called_by_name():
    def positional(completion, /):
        return 1

    assert "'completion' by position only" in refused(positional)
    assert "not 3" in refused(3)


def test_args():
    def mine(completion, strength=1, **rest):
        return strength

    def narrow(completion, strength=1):
        return strength

    assert resolve(RewardTable(use=mine, args={"anything": 3})).args == {"anything": 3}
    assert "no argument 'strenght' (did you mean 'strength'?)" in refused(narrow, args={"strenght": 3})
    assert "cannot set 'completion'" in refused(narrow, args={"completion": "x"})
    assert "no argument 'last'" in refused("exact_number", args={"last": True})
    assert "needs max_tokens and buffer" in refused("soft_overlong")
    assert "needs buffer" in refused("soft_overlong", args={"max_tokens": 5})


def test_the_options_of_a_built_in_are_not_filled_from_columns():
    from cohort.rewards import ScoringItem

    item = ScoringItem("p", ("it is 72",), answer=72, row={"last_number": True})
    assert resolve(RewardTable(use="exact_number")).score(item) == (0.0,)
    assert resolve(RewardTable(use="exact_number", args={"last_number": True})).score(item) == (1.0,)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"weight": math.nan}, "weight"),
        ({"weight": "1"}, "weight"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": math.inf}, "timeout_s"),
        ({"style": "verl"}, "style"),
    ],
)
def test_values_out_of_range(fields, named):
    assert named in refused(lambda completion: 1, **fields)


def test_a_built_in_has_no_trl_style():
    assert "leave style out" in refused("exact_number", style="trl")


def test_what_python_takes_by_default_is_what_a_recipe_takes():
    workers = inspect.signature(RewardPool).parameters["workers"].default
    assert workers == Run.model_fields["workers"].default
    table, gate = RewardTable.model_fields, Gate("x")
    assert (gate.at, gate.otherwise) == (table["gate_at"].default, table["gate_else"].default)
    made = {field.name: field.default for field in dataclasses.fields(Reward) if field.default is not MISSING}
    assert {name: table[name].default for name in made if name in table} == {
        name: value for name, value in made.items() if name in table
    }


def test_who_has_trls_style_is_not_advised_to_take_it():
    def ids(prompts, completions, completion_ids):
        return [1.0 for _ in completions]

    assert resolve(RewardTable(use=ids, style="trl"), ["level"]).reads_tokens
    said = refused(lambda completions, levle: [], columns=["level"], style="trl")
    assert 'needs style = "trl"' not in said
    assert 'needs style = "trl"' in refused(ids, columns=["level"])


def forgot(completion, answer):
    score = float(completion == answer)
    print(score)


class Forgot:
    def __call__(self, completion):
        self.last = len(completion)

    def method(self, completion):
        if completion:
            return
        self.last = 0


async def forgot_later(completion):
    await other(completion)


async def other(completion):
    return 1.0


def nothing_yet(completion):
    return None


def sometimes(completion):
    return 1.0 if completion else None


def fallback(completion):
    return completion.count("a") or None


def generated(completion):
    yield 1.0


def todo(completion):
    raise NotImplementedError


def lists(prompts, completions):
    [float(len(text)) for text in completions]


@pytest.mark.parametrize(
    "use",
    [forgot, Forgot(), Forgot().method, forgot_later, nothing_yet, functools.partial(forgot, answer="4"), trl(lists)],
)
def test_a_reward_that_forgot_its_return_is_seen(use):
    assert returns_nothing(resolve(RewardTable(use=use, name="mine")).function)


@pytest.mark.parametrize("use", [sometimes, fallback, generated, todo, other, lambda completion: print(completion)])
def test_a_reward_that_may_return_something_is_not(use):
    assert not returns_nothing(resolve(RewardTable(use=use, name="mine")).function)
