"""Finding and reading recipe files: what can go wrong before there is a recipe, said with file and line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cohort.types import UnreadableError
from cohort.wording import did_you_mean, nearest

_PACKAGE = Path(__file__).parent.parent

_DEEPEST = 30  # tables in tables; dotted keys can nest far deeper than Python can recurse


def shipped(name: str) -> Path | None:
    """The file of the recipe that Cohort ships under this name, for example "quickstart"; None if there is none."""
    return _all_shipped().get(name)


def _all_shipped() -> dict[str, Path]:
    """By name. A wheel has them inside the package, a checkout of the sources beside `src`."""
    for directory in (_PACKAGE / "recipes", _PACKAGE.parent.parent / "recipes"):
        if directory.is_dir():
            return {file.stem: file for file in sorted(directory.glob("*.toml"))}
    return {}


def found(path: Path, say: Callable[[str], object]) -> Path:
    """The file of the recipe that a path or a shipped recipe's name means; of a run, the recipe that it keeps. `say` is
    told which one it is where that is not plain.
    """
    ours = shipped(str(path))
    if ours is not None and path.exists():
        say(f"recipe {path}: the path here, not the recipe of that name that Cohort ships")
    elif ours is not None:
        say(f"recipe {path}: the one that Cohort ships, {ours}")
        path = ours
    return path / "recipe.toml" if (path / "recipe.toml").is_file() else path


def of_run(run: Path) -> Path:
    """The file of the recipe that a run keeps. Raises `UnreadableError` for a directory that is no run."""
    if not (file := run / "recipe.toml").is_file():
        raise UnreadableError(f"{str(run)!r} is no run: there is no recipe.toml in it")
    return file


def read_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UnreadableError(f"there is no recipe {str(path)!r}{_instead(path)}") from None
    except IsADirectoryError:
        raise UnreadableError(f"{str(path)!r} is a directory, not a recipe{_instead(path / 'recipe.toml')}") from None
    except OSError as error:
        raise UnreadableError(f"cannot read the recipe {str(path)!r}: {error.strerror or error}") from None
    try:
        text = content.decode("utf-8-sig")  # with or without a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableError(
            f"{path}:{line}: a recipe is UTF-8 text, but this line is not; save it as UTF-8"
        ) from None
    tables: dict[str, Any] | None = None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnreadableError(_syntax(path, text, str(error))) from None
    except RecursionError:
        pass
    except ValueError:
        raise UnreadableError(f"{path}: a number has thousands of digits: write a shorter one") from None
    if tables is None or too_deep(tables):
        raise UnreadableError(f"{path}: lists or tables are nested too deeply to be a recipe")
    return tables


def too_deep(value: Any) -> bool:
    """Whether lists and tables are nested deeper than any recipe's."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [item for items in inner for item in items]
    return bool(level)


def _syntax(path: Path, text: str, message: str) -> str:
    """TOML's complaint with its line in front, as editors and people know it."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", message, re.DOTALL)
    what = found[1] if found else message.removesuffix(" (at end of document)")
    line = int(found[2]) if found else len(text.rstrip().splitlines()) or 1
    lines = text.splitlines()
    shown = f": {lines[line - 1].strip()[:80]}" if 0 < line <= len(lines) else ""
    hint = ""
    if re.search(r"=\s*[A-Za-z./~]", shown) and what == "Invalid value":
        hint = "; text needs quotes"
    return f"{path}:{line}: this is not TOML ({what[0].lower()}{what[1:]}{hint}){shown}"


def _instead(path: Path) -> str:
    """The nearest recipe in the directory where one was looked for; for a bare name, also those that Cohort ships."""
    if str(path) == path.stem and (names := _all_shipped()):
        return f"{did_you_mean(path.stem, names)}; Cohort ships {', '.join(names)}; a file needs its full name (.toml)"
    if not path.parent.is_dir():
        return f"; there is no directory {str(path.parent)!r} either"
    recipes = sorted(file.name for file in path.parent.glob("*.toml") if file.is_file())
    if not recipes:
        return f"; there is no .toml file in {str(path.parent)!r}"
    if close := nearest(path.name, recipes, cutoff=0.5):
        return f"; did you mean {str(path.parent / close)!r}?"
    return f"; {str(path.parent)!r} has {', '.join(recipes[:8])}{', ...' if len(recipes) > 8 else ''}"


def directory_name(text: str) -> str:
    """The text as a directory can be called."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:100] or "run"


def name_of_model(model: str) -> str:
    """The last part of a model's name that says something: of `runs/base/final` it is `base`."""
    path = Path(model.removesuffix(".gguf"))
    told = path.parent if path.name == "final" or re.fullmatch(r"step-\d+", path.name) else path
    return directory_name((told.parent if told.name == "checkpoints" else told).name)
