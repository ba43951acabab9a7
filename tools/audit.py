"""Ask pip-audit whether what is locked has known vulnerabilities: `make audit`. It needs the network.

Exit code 0: none is known; 1: there are some, named; 2: the service could not be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCKS = sorted(Path(__file__).parent.parent.glob("requirements/*.txt"))


def audit(lock: Path) -> tuple[list[str], str]:
    """What is known of the packages of one lock, a line each; and why nobody could be asked, "" where somebody was."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--disable-pip",
        "--no-deps",
        "--format",
        "json",
        "--progress-spinner",
    ]
    asked = subprocess.run(
        [*command, "off", "--requirement", str(lock)], capture_output=True, encoding="utf-8", check=False
    )
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        said = [line for line in asked.stderr.splitlines() if line.strip()] or [f"exit code {asked.returncode}"]
        return [], said[-1].strip()
    skipped = [one for one in packages if "skip_reason" in one]
    return [
        f"{one['name']} {one['version']} ({lock.name}): {found['id']}, mended in {found['fix_versions']}"
        for one in packages
        for found in one.get("vulns", ())
    ], f"{len(skipped)} of {len(packages)} packages: {skipped[0]['skip_reason']}" if skipped else ""


def main() -> int:
    found = {lock.name: audit(lock) for lock in LOCKS}
    known = [line for lines, _ in found.values() for line in lines]
    unasked = [f"{lock} ({problem})" for lock, (_, problem) in found.items() if problem]
    print(*known, sep="\n", end="\n" * bool(known))
    if unasked:
        print(f"The service of known vulnerabilities could not be asked about {'; '.join(unasked)}")
    elif not known:
        print(f"No vulnerability is known of what the {len(LOCKS)} locks hold.")
    return 1 if known else 2 if unasked else 0


if __name__ == "__main__":
    sys.exit(main())
