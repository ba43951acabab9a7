"""The directory of a run: one process at a time, never overwritten, and continued only with what it was begun with."""

from __future__ import annotations

import contextlib
import errno
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError

from cohort.backends.base import PolicyFacts
from cohort.machine import describe_machine, lock_file, threads_of
from cohort.policy.load import locate
from cohort.preflight.determinism import determinism
from cohort.recipe import Recipe, digest, to_toml
from cohort.recipe.loader import of_run
from cohort.record.chain import CHAIN, Chain
from cohort.record.files import write_bytes
from cohort.record.inputs import fingerprints
from cohort.record.manifest import refuse_damaged
from cohort.remote_code import in_workers, remote_code
from cohort.settings import Stage
from cohort.settings.table import effect_of
from cohort.train.inputs import (
    FAILED,
    Facts,
    changed_code,
    code_of_stages,
    inputs_of_stages,
    models_of_stages,
    refuse_changed_inputs,
    restore,
)
from cohort.train.recorder import replace_files
from cohort.train.stage import tables_of
from cohort.train.unread import as_read
from cohort.types import UserError
from cohort.views.console import Console
from cohort.wording import another, giving, one_line, resuming

ENVIRONMENT = "environment.json"
SIZE = ("name", "parameters", "trained", "context", "vocabulary", "compute", "device", "path")  # kept of a policy
ROWS = "data.jsonl"  # of a run: the rows that were given as Python objects


def run_directory(recipe: Recipe) -> Path:
    """Where a recipe's run lives."""
    return recipe.place or Path(recipe.stages[-1].run.directory).expanduser() / recipe.name


def as_it_lies(recipe: Recipe) -> Recipe:
    """The recipe that a run keeps, as that of the directory in which it lies now: the run may have been copied, moved
    or renamed. Any other recipe as it is. Raises `UserError` where an override names another directory.
    """
    if recipe.file is None or not is_of_run(recipe.file):
        return recipe
    here, named = Path(os.path.abspath(recipe.file.parent)), run_directory(recipe)
    if not _same(named, here):
        if named != run_directory(Recipe.load(recipe.file)):
            raise UserError(
                f"{here} is a run that would be continued, but name or run.directory says {named}. Leave these out; or "
                "leave the resuming out, to begin another run with this recipe"
            )
        recipe = recipe.placed(here)
    rows = here / ROWS
    if not rows.exists():
        return recipe

    def with_own_rows(stage: Stage) -> Stage:
        source = Path(stage.task.source)
        if source.name != ROWS or _same(source, rows):
            return stage
        return stage.with_(task={"source": str(rows)})

    return recipe.model_copy(update={"stages": tuple(map(with_own_rows, recipe.stages))})


def recipe_in(run: Path) -> Recipe:
    """The recipe that a run keeps, as that of the directory it lies in. Raises `UnreadableError` for what is no run."""
    recipe = as_it_lies(Recipe.load(of_run(run)))
    return recipe.placed(run) if recipe.place is None else recipe


def _same(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)


def is_of_run(file: Path) -> bool:
    """Whether a recipe is the one that a run keeps."""
    return file.name == "recipe.toml" and any((file.parent / name).exists() for name in (ENVIRONMENT, "metrics.jsonl"))


def stage_directory(recipe: Recipe, index: int) -> Path:
    """Where a stage lives: the last one in the run's own directory, those before it in `stages/NAME`."""
    directory = run_directory(recipe)
    return directory if index == len(recipe.stages) - 1 else directory / "stages" / recipe.stages[index].name


def as_kept(recipe: Recipe) -> str:
    """The resolved recipe as a run keeps it: of every stage the tables that its kind reads, and defaults where it does
    not read a key.
    """
    return to_toml(as_read(recipe), reads=tables_of)


def refuse_unrecorded(chain: Chain) -> None:
    """A run without a chain, which an older Cohort began, is not continued: nobody could say what was done before."""
    places = (chain.run, *chain.run.glob("stages/*"))
    if not chain.size and any(
        (place / name).exists() for place in places for name in ("metrics.jsonl", "checkpoints", "final")
    ):
        raise UserError(
            f"{chain.run / CHAIN} is missing: an older Cohort began this run, or its record was lost, so it cannot "
            f"be continued. {restore('it from a copy')}"
        )


def has_begun(directory: Path) -> bool:
    """Whether a run got as far as its first evaluation or step. A start that failed before leaves nothing to keep."""
    return any((directory / name).exists() for name in ("metrics.jsonl", "checkpoints", "final", "stages"))


def is_free(directory: Path) -> bool:
    """Whether a run may begin there: nothing has begun, and no process is about to."""
    if not directory.exists() or has_begun(directory):
        return not directory.exists()
    try:
        with locked(directory):
            return True
    except UserError:
        return False


def refuse_existing(directory: Path, recipe: Recipe, resume: bool) -> None:
    """A run that has begun is never overwritten, and never continued with another recipe."""
    saved = directory / "recipe.toml"
    if not resume:
        raise UserError(
            f"{directory} already holds a run. Continue it with {resuming()}, start another with {another()}, "
            "or delete the directory."
        )
    for file in (saved, directory / ENVIRONMENT):
        if not file.exists():
            raise UserError(f"{file} is missing: nobody can say whether this run would go on as it began. {restore()}")
    if "learnt_again" in read_environment(directory / ENVIRONMENT):
        raise UserError(
            f"{directory} was learnt again from stored rollouts, and is not continued: call cohort replay again, or "
            "begin another run from one of its checkpoints, with --from"
        )
    if listed := changes(saved, recipe):
        raise UserError(
            f"{directory} was begun with another recipe, so it cannot be continued with this one: "
            f"{'; '.join(listed[:5])}. Restore the recipe, go on with the one that the run keeps ({saved}), or start "
            f"another run with {another()}."
        )


def changes(saved: Path, recipe: Recipe) -> list[str]:
    """What is otherwise in a recipe than in the one that was kept in `saved`, and makes it another run, in words."""
    try:
        before, now = (flat_recipe(text) for text in (saved.read_text("utf-8"), as_kept(recipe)))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{saved} is damaged ({error}). {restore()}") from None
    with contextlib.suppress(UserError):  # a key that is new since the run began has its default there
        before = flat_recipe(as_kept(Recipe.load(saved))) | before
    changed = [key for key, was, value in different(before, now) if not _may_change(key, was, value, recipe)]
    return [in_words(key, before.get(key), now.get(key)) for key in changed]


def _may_change(key: str, before: Any, now: Any, recipe: Recipe) -> bool:
    """Whether a run may go on with another value of this key: what was done so far would have been the same."""
    if key == "name":  # that of the directory, which the run is in by now
        return True
    if key.endswith("task.source") and Path(now or "") == run_directory(recipe) / ROWS:
        return Path(before or "").name == ROWS  # the run's own rows, whose fingerprint is compared
    *path, name = [part for part in key.split(".") if part != "stage" and not part.isdigit()]
    last = recipe.stages[-1]
    if path == ["run"] and name == "steps":  # more of them, where the learning rate does not depend on how many
        of_last = key == "run.steps" or key == f"stage.{len(recipe.stages) - 1}.run.steps"
        whole = isinstance(before, int) and isinstance(now, int)  # elsewhere a stage has come, or has gone
        return of_last and last.optimizer.schedule == "constant" and whole and now > before
    return effect_of(Stage, (*path, name)) is not None


def flat_recipe(text: str) -> dict[str, Any]:
    """A recipe as a run keeps it, as its values by dotted path. Raises `tomllib.TOMLDecodeError`."""
    return _flat(tomllib.loads(text))


def different(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What differs between two flat recipes: (path, before, now); None where one has no such value."""
    keys = sorted({*before, *now})
    return [(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


def in_words(key: str, before: Any, now: Any) -> str:
    """One difference."""
    was, now_is = ("not given" if value is None else repr(value) for value in (before, now))
    return f"{key} was {was} and is {now_is}"


def _flat(tables: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tables, dict):
        return {k: v for key, value in tables.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
    if isinstance(tables, list) and tables and isinstance(tables[0], dict):
        return {k: v for i, value in enumerate(tables) for k, v in _flat(value, f"{prefix}{i}.").items()}
    return {prefix.rstrip("."): tables}


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[Callable[[], None]]:
    """One process a run. The lock goes with the process, however it ends. Gives what raises `UserError` when the
    directory at this path is no longer the one that is locked.
    """
    path = directory / ".lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        raise UserError(
            f"cannot write to {directory}: {error.strerror}; choose another with {giving('run.directory', 'DIR')}"
        ) from None

    def still_here() -> None:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return
        raise UserError(
            f"{directory} was deleted, renamed or replaced while this run used it, so it writes nothing more. Move it "
            f"back and continue with {resuming()}, or start anew."
        )

    try:
        try:
            free = lock_file(lock)
        except OSError as error:  # some network file systems
            raise UserError(
                f"{directory} cannot be locked ({error.strerror}), so a second process could train there unseen; "
                f"choose a directory on another file system with {giving('run.directory', 'DIR')}"
            ) from None
        if not free:
            raise UserError(f"another process is training in {directory}; wait for it or choose {another()}")
        still_here()
        yield still_here
    finally:
        os.close(lock)


@contextlib.contextmanager
def disk_errors(directory: Path, still_here: Callable[[], None]) -> Iterator[None]:
    """A full or failing disk, and rights that are missing, are something a person can mend."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        still_here()
        disk = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
        full = isinstance(error, SafetensorError) or error.errno in disk
        file = getattr(error, "filename", None)
        if full or (isinstance(file, str) and Path(file).absolute().is_relative_to(directory.absolute())):
            mend = "free some space" if full else "mend that"
            raise UserError(f"cannot write to {directory} ({error}); {mend} and continue with {resuming()}") from None
        raise


@contextlib.contextmanager
def noting_failure(chain: Chain, stage: str, still_here: Callable[[], None]) -> Iterator[None]:
    """When a stage fails for a reason that the person can mend, in their code perhaps, the run remembers that."""
    (chain.run / FAILED).unlink(missing_ok=True)
    try:
        yield
    except UserError as error:
        with contextlib.suppress(OSError, UserError):  # what failed is said all the same
            still_here()
            content = f"{error}\n".encode("utf-8", "replace")
            if chain.size:  # the text is in the file alone: it may quote what has to be erased one day
                chain.append("incident", recipe={"stage": stage, "files": {FAILED: sha256(content).hexdigest()}})
            write_bytes(chain.run / FAILED, content)
        raise


def write_recipe(
    chain: Chain,
    recipe: Recipe,
    console: Console,
    sandbox: Facts,
    parent: Facts | None = None,
) -> tuple[int, str]:
    """Write the resolved recipe and, once, the environment, with what `isolation_of` says, and from which `parent`'s
    checkpoint the run begins, where it does. Returns the number of
    threads and the moment in which the run began. A continued run keeps its own: sums over other numbers of threads
    have other last bits, and a chat template may write the date.
    """
    directory, files = chain.run, {"recipe.toml": as_kept(recipe).encode()}
    file = directory / ENVIRONMENT
    for model in filter(None, models_of_stages(recipe)):
        if Path(model).expanduser().is_dir():
            refuse_damaged(Path(locate(model)))
    now, read, code = describe_machine(), fingerprints(inputs_of_stages(recipe)), code_of_stages(recipe)
    if file.exists() and has_begun(directory):
        before = read_environment(file)
        refuse_changed_inputs(before.get("inputs", {}), read, directory)
        changed = changed_code(directory, before, now, code, console)
        if changed:
            known = before.get("code", {})
            mended = sorted({*before.get("mended", ()), *(what for what in code if code[what] != known.get(what))})
            content = {**before, "code": code, "mended": mended}  # what its steps before this were scored with is gone
            files[ENVIRONMENT] = orjson.dumps(content, option=orjson.OPT_INDENT_2)
        _say_what_changed(before, now, sandbox, console)
        threads, began = int(before["threads"]), str(before["began"])
    else:
        threads = threads_of(recipe.stages[-1].run.threads)
        began = datetime.now().isoformat()
        own = {"began": began, "threads": threads, "recipe_digest": digest(recipe), "inputs": read}
        own |= {"directory": os.getcwd(), "code": code, "sandbox": sandbox}
        own |= {"parent": dict(parent)} if parent is not None else {}
        files[ENVIRONMENT] = orjson.dumps({**now, **own}, option=orjson.OPT_INDENT_2)
    replace_files(chain, files)
    return threads, began


def keep_template(recipe: Recipe, stage: str, template: str, probe: str, facts: PolicyFacts) -> bytes | None:
    """environment.json with what the template of a stage came to, the fingerprint of a prompt that it wrote, how large
    its policy is, and the digests of code that came with models and was run; None where it has them. Raises
    `UserError` where template, prompt or code were others when the run began.
    """
    file = run_directory(recipe) / "environment.json"
    kept = read_environment(file)
    templates: dict[str, str] = kept.get("templates", {})
    if templates.get(stage, template) != template:
        raise UserError(
            f"task.template of stage '{stage}' came to {templates[stage]!r} when this run began, and comes to "
            f"{template!r} now: the tokenizer has changed. {restore()}"
        )
    probes: dict[str, str] = kept.get("probes", {})
    if probes.get(stage, probe) != probe:
        raise UserError(
            f"prompts of stage '{stage}' are written otherwise than when this run began: the chat template, the "
            f"tokenizer or the libraries behind them have changed. {restore('them')}"
        )
    new = stage not in templates or stage not in probes
    for name, run in (("remote_code", {**remote_code(), **facts.code}), ("remote_code_of_rewards", {**in_workers})):
        known = kept.get(name, {}).get(stage)
        if known is not None and (others := [run[one] for one in run if one not in known]):
            raise UserError(
                f"code that came with a model of stage '{stage}' has changed since this run began: {others[0]}. "
                f"{restore()}"
            )
        kept |= {name: {**kept.get(name, {}), stage: run}} if new and run else {}
    if new:
        kept |= {"templates": {**templates, stage: template}, "probes": {**probes, stage: probe}}
        size = {name: getattr(facts, name) for name in SIZE}
        of = next(one for one in recipe.stages if one.name == stage)
        size["determinism"] = determinism(of, facts.device).level
        kept["policies"] = {**kept.get("policies", {}), stage: size}
        return orjson.dumps(kept, option=orjson.OPT_INDENT_2)
    return None


def read_environment(file: Path) -> dict[str, Any]:
    """environment.json of a run that has begun. Raises `UserError` for one that is damaged."""
    tables: list[str] = []
    try:
        found: dict[str, Any] = orjson.loads(file.read_bytes())
        threads, packages = found["threads"], found["packages"]
        if isinstance(threads, int) and 0 < threads <= 1024 and isinstance(packages, dict):
            datetime.fromisoformat(found["began"])
            tables = [name for name in ("inputs", "code", "parent") if not isinstance(found.get(name, {}), dict)]
            if not tables:
                return found
        problem = f"{tables[0]} is no table" if tables else f"threads = {threads!r}"
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {one_line(error)}"
    raise UserError(f"{file} is damaged ({problem}). {restore()}")


def _say_what_changed(before: Facts, now: Facts, sandbox: Facts, console: Console) -> None:
    changed = [k for k, v in now["packages"].items() if before["packages"].get(k) != v]
    if changed:
        console.warn(f"other versions than when the run began ({', '.join(changed)}): the last bits may differ")
    if before.get("kernels") != now["kernels"]:
        console.warn(f"kernels were '{before.get('kernels')}', are '{now['kernels']}': the last bits may differ")
    for name, isolation in sandbox.items():
        level = before.get("sandbox", {}).get(name, {}).get("level")
        if level != isolation["level"]:
            console.warn(f"the sandbox of {name} was '{level}' when the run began, and is '{isolation['level']}'")
