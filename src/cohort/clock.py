"""What chat templates that ask for the date are told: inside a run the day it began, however often it is resumed."""

from __future__ import annotations

import contextlib
import os
import string
from collections.abc import Iterator
from datetime import datetime
from typing import Any

_NAME = "COHORT_TEMPLATE_DATE"  # in the environment, so that processes that a run starts are told the same


@contextlib.contextmanager
def stopped_at(day: str) -> Iterator[None]:
    """For as long as the context lasts, templates are told this day, or moment, in ISO format."""
    before = os.environ.get(_NAME)
    os.environ[_NAME] = day
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NAME]
        else:
            os.environ[_NAME] = before


def moment() -> str | None:
    """What templates are told now; None: the real time."""
    return os.environ.get(_NAME)


def told(tokenizer: Any, tools: Any = None) -> dict[str, Any]:
    """What `apply_chat_template` is given beside the conversation: the template with a clock of its own, if it asks for
    one and a run has stopped it.

    A template takes plain data only, no function, so what `strftime_now` does is written in front of it as a macro.
    """
    if (day := moment()) is None or "strftime_now" not in str(getattr(tokenizer, "chat_template", "")):
        return {}
    now, wanted = datetime.fromisoformat(day), [f"%{way}{c}" for way in ("-", "") for c in string.ascii_letters]
    values = {"%%": "\0", **{code: now.strftime(code) for code in wanted}, "\0": "%"}
    body = "".join(f"|replace({code!r}, {value!r})" for code, value in values.items())
    clock = f"{{% macro strftime_now(format) %}}{{{{ format{body} }}}}{{% endmacro +%}}"
    return {"chat_template": clock + tokenizer.get_chat_template(tools=tools)}
