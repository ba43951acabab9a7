"""Code that came with models and was run (`trust_remote_code`): here, and in the reward workers of this process."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

in_workers: dict[str, str] = {}  # what `remote_code` found in reward workers that this process has started


def asks_for_trust(error: Exception) -> str:
    """Advice to put behind the error of transformers where a model needs its own code to be trusted; "" elsewhere."""
    custom = "contains custom code" in str(error)
    return ". Read that code, and set trust_remote_code = true if it may run" if custom else ""


def remote_code() -> dict[str, str]:
    """`{sha256: module}` of the files of code that came with models and that this process has run: transformers loads
    all of them, of directories and of the hub, as modules below `transformers_modules`.
    """
    modules = {name: one for name, one in sys.modules.items() if name.startswith("transformers_modules.")}
    files = {name: getattr(one, "__file__", None) for name, one in sorted(modules.items())}
    found = {name: Path(file).read_bytes() for name, file in files.items() if file and Path(file).is_file()}
    return {hashlib.sha256(content).hexdigest(): name for name, content in found.items() if content}
