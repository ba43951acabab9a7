"""What a person is told about a recipe that is wrong: whole messages, read by eye."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.recipe import Recipe, load
from cohort.settings import Lora, Objective, Reward, Rollout
from cohort.types import UserError


@pytest.mark.parametrize(
    ("table", "line", "says"),
    [
        (
            "optimizer",
            "learning_rat = 1",
            "unknown key 'optimizer.learning_rat'; did you mean 'optimizer.learning_rate'?",
        ),
        (
            "optimizer",
            "Learning-Rate = 1",
            "unknown key 'optimizer.Learning-Rate'; did you mean 'optimizer.learning_rate'?",
        ),
        ("run", "group_size = 4", "unknown key 'run.group_size'; 'group_size' belongs in [rollout]"),
        ("run", "temperature = 1", "unknown key 'run.temperature'; 'temperature' belongs in [rollout] or [evaluate]"),
        ("run", "rank = 4", "unknown key 'run.rank'; 'rank' belongs in [policy.lora]"),
        ("run", "seed = 1", "'seed' belongs at the top of the recipe, before any table"),
        ("run", "grop_size = 4", "unknown key 'run.grop_size'; did you mean 'rollout.group_size'?"),
        ("rollout", "num_generations = 4", "unknown key 'rollout.num_generations'; did you mean 'rollout.group_size'?"),
        ("objective", "beta = 0.1", "unknown key 'objective.beta'; did you mean 'objective.kl_coef'?"),
        ("reference", "qqqq = 1", "unknown key 'reference.qqqq'; [reference] has update_every, ema"),
        ("policy.lora", "rnk = 1", "unknown key 'policy.lora.rnk'; did you mean 'policy.lora.rank'?"),
        ("optimiser", "eps = 1", "unknown key 'optimiser'; did you mean 'optimizer'?"),
        ("rollout", "group_size = 'eight'", "rollout.group_size must be a whole number of at least 1, not 'eight'"),
        ("rollout", "group_size = '8'", "rollout.group_size must be a whole number of at least 1, not '8'"),
        ("rollout", "group_size = 8.0", "rollout.group_size must be a whole number of at least 1, not 8.0"),
        ("rollout", "group_size = true", "rollout.group_size must be a whole number of at least 1, not true"),
        ("rollout", "group_size = 0", "rollout.group_size must be a whole number of at least 1, not 0"),
        ("rollout", "prompts_per_step = 0", "rollout.prompts_per_step must be a whole number of at least 1, not 0"),
        ("rollout", "group_size.x = 0", "rollout.group_size must be a whole number of at least 1, not { x = 0 }"),
        (
            "rollout",
            "group_size = 2024-01-01",
            "rollout.group_size must be a whole number of at least 1, not the date 2024-01-01",
        ),
        ("rollout", "temperature = 0", "rollout.temperature must be a number greater than 0, not 0"),
        ("rollout", "temperature = nan", "rollout.temperature must be a number greater than 0, not nan"),
        ("rollout", "temperature = inf", "rollout.temperature must be a number greater than 0, not inf"),
        ("monitor", "gradient = 1.0", "monitor.gradient must be a number greater than 1, not 1.0"),
        ("monitor", "entropy_rise = 0.5", "monitor.entropy_rise must be a number greater than 1, not 0.5"),
        ("monitor", "truncated = 0.0", "monitor.truncated must be a number greater than 0 and at most 1, not 0.0"),
        ("monitor", "longer_wrong = nan", "monitor.longer_wrong must be a number greater than 1, not nan"),
        ("rollout", "stop = 'x'", "rollout.stop must be a list of texts, not 'x'"),
        ("rollout", "stop = [1]", "rollout.stop must be a list of texts, not [1]"),
        (
            "rollout",
            "sampler = 'vlm'",
            "rollout.sampler must be 'local', 'vllm' or module:name of your own, not 'vlm'; did you mean 'vllm'?",
        ),
        (
            "rollout",
            "group_size = 99999999999999999999",
            "rollout.group_size must be a whole number of at least 1 and at most 65_536, not 99999999999999999999",
        ),
        (
            "rollout",
            "prompts_per_step = 1_000_001",
            "rollout.prompts_per_step must be a whole number of at least 1 and at most 1_000_000, not 1000001",
        ),
        (
            "run",
            "threads = 1025",
            "run.threads must be a whole number of at least 1 and at most 1_024 or 'auto', not 1025",
        ),
        (
            "objective",
            "clip_low = 1.5",
            "objective.clip_low must be a number of at least 0 and at most 1 or 'off', not 1.5",
        ),
        ("run", "steps = -1", "run.steps must be a whole number of at least 0, not -1"),
        ("run", "threads = 'all'", "run.threads must be a whole number of at least 1 or 'auto', not 'all'"),
        (
            "optimizer",
            "betas = [0.9]",
            "optimizer.betas must be a list of 2 numbers of at least 0 and less than 1, not [0.9]",
        ),
        (
            "task",
            "held_out = 1.5",
            "task.held_out must be a number between 0 and 1 or text that is not empty, not 1.5",
        ),
        (
            "task",
            "held_out = 0",
            "task.held_out must be a number between 0 and 1 or text that is not empty, not 0",
        ),
        ("task", "prompt = ''", "task.prompt must be text that is not empty, not ''"),
        (
            "task",
            "careful = {'2' = 3}",
            "task.careful must be a number of at least 0 and at most 1 or a table of numbers of at least 0 and at most"
            " 1, not { 2 = 3 }",
        ),
        ("task", "levels = [0]", "task.levels must be a list of whole numbers of at least 1, not [0]"),
        (
            "task",
            "too_long = 'dorp'",
            "task.too_long must be one of 'error', 'drop' or 'truncate_left', not 'dorp'; did you mean 'drop'?",
        ),
        ("policy.lora", "rank = 0", "policy.lora.rank must be a whole number of at least 1, not 0"),
        ("objective", "ddof = 2", "objective.ddof must be 0 or 1, not 2"),
        ("objective", "clip_high = 'none'", "objective.clip_high must be a number of at least 0 or 'off', not 'none'"),
        (
            "objective",
            "kl_estimator = 'k4'",
            "objective.kl_estimator must be one of 'k1', 'k2' or 'k3', not 'k4'",
        ),
    ],
)
def test_a_bad_key_or_value_gets_one_sentence_with_the_file(base, complaint, table, line, says):
    said = complaint(base(**{table: line}))
    assert said == f"{says} (recipe.toml)"


def test_a_swapped_preset_name_is_recognised(base, complaint):
    assert complaint(base(objective="preset = 'gpro'")).endswith("not 'gpro'; did you mean 'grpo'? (recipe.toml)")


def test_a_long_value_is_cut(base, complaint):
    said = complaint(base(rollout=f"group_size = '{'x' * 5000}'"))
    assert len(said) < 200
    assert "xxx..." in said


def test_every_problem_is_reported_at_once(complaint):
    text = """
    sed = 0
    [policy]
    lora = { rank = 32, alph = 1 }
    [task]
    sorce = "x"
    [rollout]
    group_size = "eight"
    top_p = 0.9
    [[reward]]
    weight = 1.0
    [optimizer]
    updates_per_batch = 17
    """
    assert complaint(text, "run.stepz=3", "nonsense").splitlines() == [
        "the recipe has 10 problems:",
        "  - an override is written key=value, such as run.steps=10, not 'nonsense' (command line)",
        "  - unknown key 'sed'; did you mean 'seed'? (recipe.toml)",
        "  - unknown key 'policy.lora.alph'; did you mean 'policy.lora.alpha'? (recipe.toml)",
        "  - unknown key 'task.sorce'; did you mean 'task.source'? (recipe.toml)",
        "  - rollout.group_size must be a whole number of at least 1, not 'eight' (recipe.toml)",
        "  - reward.use is missing: give a built-in name, module:function, or a Python function (recipe.toml)",
        "  - unknown key 'run.stepz'; did you mean 'run.steps'? (command line)",
        '  - policy.model is missing: give a hub id or a directory, or "live" to pass a model from Python',
        "  - rollout.top_p must stay 1 in a grpo stage: a truncated distribution is not the policy that is trained;"
        " use evaluate.top_p for evaluation",
        "  - optimizer.updates_per_batch (17) is more than rollout.prompts_per_step (16): each update needs at"
        " least one prompt",
    ]


def test_what_follows_from_a_bad_value_is_not_a_second_problem(base, complaint):
    said = complaint(base(rollout="prompts_per_step = 'few'", optimizer="updates_per_batch = 17"))
    assert said == "rollout.prompts_per_step must be a whole number of at least 1, not 'few' (recipe.toml)"
    assert "is more than" in complaint(base(optimizer="updates_per_batch = 17"))


def test_a_bad_reward_does_not_hide_another(complaint):
    said = complaint("reward = [{weight = 1}, {use = 'a', weight = 'x'}, 7]\npolicy.model='m'\ntask.source='t'")
    assert said.splitlines()[1:] == [
        "  - reward.use is missing: give a built-in name, module:function, or a Python function (recipe.toml)",
        "  - reward.weight must be a number, not 'x' (recipe.toml)",
        "  - reward must be a name, a function, a table or a list of these, not 7 (recipe.toml)",
    ]


def test_a_misspelt_reward_does_not_hide_one_without_a_use(complaint):
    said = complaint("reward = [{us = 'a'}, {weight = 1}]\npolicy.model='m'\ntask.source='t'")
    assert said.splitlines()[1:] == [
        "  - unknown key 'reward.us'; did you mean 'reward.use'? (recipe.toml)",
        "  - reward.use is missing: give a built-in name, module:function, or a Python function (recipe.toml)",
    ]


def test_a_bad_key_in_a_stage_is_named_with_its_stage(base, complaint):
    text = base() + "[[stage]]\nname='a'\n[stage.rollout]\ngrup_size=1\n[[stage]]\nname='b'\n[stage.run]\nsteps='x'\n"
    assert complaint(text).splitlines()[1:] == [
        "  - unknown key 'a.rollout.grup_size'; did you mean 'a.rollout.group_size'? (recipe.toml)",
        "  - b.run.steps must be a whole number of at least 0, not 'x' (recipe.toml)",
    ]


def test_a_table_written_as_text_says_which_key_was_meant(base, complaint):
    said = complaint("objective = 'dapo'\n" + base())
    assert said == "objective must be a table (write objective.preset = 'dapo'), not 'dapo' (recipe.toml)"


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Rollout(group_size="8"), "rollout.group_size must be a whole number of at least 1, not '8' (python)"),  # type: ignore[arg-type]
        (
            lambda: Rollout(group_size=10**5000),
            "rollout.group_size must be a whole number of at least 1 and at most 65_536, not a number with thousands of"
            " digits (python)",
        ),
        (lambda: Lora(rnk=1), "unknown key 'policy.lora.rnk'; did you mean 'policy.lora.rank'? (python)"),  # type: ignore[call-arg]
        (
            lambda: Reward(),  # type: ignore[call-arg]
            "reward.use is missing: give a built-in name, module:function, or a Python function (python)",
        ),
        (
            lambda: Objective(clip_hihg=0.3),  # type: ignore[call-arg]
            "unknown key 'objective.clip_hihg'; did you mean 'objective.clip_high'? (python)",
        ),
        (lambda: Recipe(), None),
        (lambda: Recipe(policy={"model": 3}, task={"source": "x"}, reward=len), None),
    ],
)
def test_python_gets_the_same_sentences(build, says):
    with pytest.raises(UserError) as raised:
        build()
    if says:
        assert str(raised.value) == says
    else:
        assert "pydantic" not in str(raised.value)


# --- files


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a = ", "recipe.toml:1: this is not TOML (invalid value): a ="),
        ("[run]\nname = abc", "recipe.toml:2: this is not TOML (invalid value; text needs quotes): name = abc"),
        ("[run\n", "recipe.toml:1: this is not TOML (expected ']' at the end of a table declaration): [run"),
        ("seed=1\nseed=2", "recipe.toml:2: this is not TOML (cannot overwrite a value): seed=2"),
        ("[run]\n[run]\n", "recipe.toml:2: this is not TOML (cannot declare ('run',) twice): [run]"),
        ("a = '''\n\n", "recipe.toml:1: this is not TOML"),
        ("seed = " + "9" * 5000, "recipe.toml: a number has thousands of digits: write a shorter one"),
        ("a = " + "[" * 3000, "recipe.toml: lists or tables are nested too deeply to be a recipe"),
        ("rollout.group_size." + "a." * 5000 + "b = 1", "recipe.toml: lists or tables are nested too deeply"),
        ("reward = {use = 'a', args." + "a." * 5000 + "b = 1}", "recipe.toml: lists or tables are nested too deeply"),
        (b"seed = 1\n# caf\xe9\n", "recipe.toml:2: a recipe is UTF-8 text, but this line is not; save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_reported_with_its_line(tmp_path: Path, content: str | bytes, says: str):
    file = tmp_path / "recipe.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as raised:
        load(file)
    assert str(raised.value).removeprefix(f"{tmp_path}/").startswith(says)
    assert "\n" not in str(raised.value)


def test_a_byte_order_mark_is_no_problem(base, tmp_path: Path):
    (tmp_path / "recipe.toml").write_text(base(), encoding="utf-8-sig")
    assert load(tmp_path / "recipe.toml").stages[0].task.source == "train.jsonl"


def test_a_missing_file_names_the_nearest(base, tmp_path: Path):
    for name in ("quickstart.toml", "other.toml"):
        (tmp_path / name).write_text(base())

    def said(path: Path) -> str:
        with pytest.raises(UserError) as raised:
            load(path)
        return str(raised.value).replace(str(tmp_path), "DIR")

    assert (
        said(tmp_path / "quikstart.toml")
        == "there is no recipe 'DIR/quikstart.toml'; did you mean 'DIR/quickstart.toml'?"
    )
    assert said(tmp_path / "zzz") == "there is no recipe 'DIR/zzz'; 'DIR' has other.toml, quickstart.toml"
    assert (
        said(tmp_path / "no/zzz.toml") == "there is no recipe 'DIR/no/zzz.toml'; there is no directory 'DIR/no' either"
    )
    assert said(tmp_path).startswith("'DIR' is a directory, not a recipe; ")
    (tmp_path / "empty").mkdir()
    assert (
        said(tmp_path / "empty/a.toml")
        == "there is no recipe 'DIR/empty/a.toml'; there is no .toml file in 'DIR/empty'"
    )
